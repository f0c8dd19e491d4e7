"""Records the structure layouts of nvidia-ml-py versions in nvml_layouts.json.

    python tests/unit/simulator/record_layouts.py PYNVML.PY [PYNVML.PY ...]

One argument a version: the module pynvml.py of an unpacked wheel (`pip download --no-deps nvidia-ml-py==VERSION`).
Its version is read from the folder nvidia_ml_py-VERSION.dist-info beside it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

GOLDEN = Path(__file__).with_name("nvml_layouts.json")

# our record: the class of nvidia-ml-py that describes it
CLASSES = {
    "nvmlPciInfo_t": "nvmlPciInfo_t",
    "nvmlPciInfoExt_t": "nvmlPciInfoExt_v1_t",
    "nvmlMemory_t": "c_nvmlMemory_t",
    "nvmlMemory_v2_t": "c_nvmlMemory_v2_t",
    "nvmlBAR1Memory_t": "c_nvmlBAR1Memory_t",
    "nvmlUtilization_t": "c_nvmlUtilization_t",
    "nvmlProcessInfo_t": "c_nvmlProcessInfo_t",
    "nvmlProcessDetail_t": "c_nvmlProcessDetail_v1_t",
    "nvmlProcessDetailList_t": "c_nvmlProcessDetailList_v1_t",
    "nvmlProcessUtilizationSample_t": "c_nvmlProcessUtilizationSample_t",
    "nvmlProcessUtilizationInfo_t": "c_nvmlProcessUtilizationInfo_v1_t",
    "nvmlProcessesUtilizationInfo_t": "c_nvmlProcessesUtilizationInfo_v1_t",
    "nvmlValue_t": "c_nvmlValue_t",
    "nvmlSample_t": "c_nvmlSample_t",
    "nvmlFieldValue_t": "c_nvmlFieldValue_t",
    "nvmlViolationTime_t": "c_nvmlViolationTime_t",
    "nvmlEccErrorCounts_t": "c_nvmlEccErrorCounts_t",
    "nvmlEccSramErrorStatus_t": "c_nvmlEccSramErrorStatus_v1_t",
    "nvmlRowRemapperHistogramValues_t": "c_nvmlRowRemapperHistogramValues",
    "nvmlRemappedRowsInfo_v2_t": "c_nvmlRemappedRowsInfo_v2_t",
    "nvmlTemperature_t": "c_nvmlTemperature_v1_t",
    "nvmlMarginTemperature_t": "c_nvmlMarginTemperature_v1_t",
    "nvmlFanSpeedInfo_t": "c_nvmlFanSpeedInfo_t",
    "nvmlEventData_t": "c_nvmlEventData_t",
    "nvmlGpuFabricInfo_t": "c_nvmlGpuFabricInfo_t",
    "nvmlGpuFabricInfo_v3_t": "c_nvmlGpuFabricInfo_v3_t",
    "nvmlGpmMetric_t": "c_nvmlGpmMetric_t",
    "nvmlGpmMetricsGet_t": "c_nvmlGpmMetricsGet_t",
    "nvmlGpmSupport_t": "c_nvmlGpmSupport_t",
    "nvmlDeviceAttributes_t": "c_nvmlDeviceAttributes",
}


def layouts_of(module: ModuleType) -> dict[str, Any]:
    """Our record's name to {"size": bytes, "fields": {name: offset}}, for those that the version has."""
    found = {}
    for record, name in CLASSES.items():
        kind = getattr(module, name, None)
        if kind is None:
            continue
        fields = {field[0]: getattr(kind, field[0]).offset for field in kind._fields_}
        found[record] = {"size": ctypes.sizeof(kind), "fields": fields}
    return found


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"pynvml_of_{abs(hash(path))}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its error classes look themselves up there
    spec.loader.exec_module(module)
    return module


def main() -> int:
    recorded = {}
    for argument in sys.argv[1:]:
        path = Path(argument)
        (info,) = path.parent.glob("nvidia_ml_py-*.dist-info")
        recorded[info.name.split("-")[1].removesuffix(".dist")] = layouts_of(load(path))
    GOLDEN.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
