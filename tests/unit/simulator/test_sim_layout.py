"""Our structures are laid out as nvidia-ml-py 12.x and 13.x lay out theirs, byte for byte."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import pynvml
import pytest

from chaos.simulator import records
from chaos.simulator.build import CONTROL

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("record_layouts", HERE / "record_layouts.py")
assert spec is not None
assert spec.loader is not None
recorder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recorder)
GOLDEN: dict[str, dict[str, Any]] = json.loads((HERE / "nvml_layouts.json").read_text(encoding="ascii"))

# The array of metrics has 98 to 477 places by version, under one version number; we declare none and touch only what
# numMetrics says.
SIZE_VARIES = {"nvmlGpmMetricsGet_t"}
# nvidia-ml-py 12.x gave this structure a text of 80 bytes for 16 of UUID; NVML itself, and 13.x, have 16.
WRONG_IN_12 = {"nvmlGpuFabricInfo_t"}


class Row(ctypes.Structure):
    _fields_ = [("record", ctypes.c_char_p), ("field", ctypes.c_char_p), ("value", ctypes.c_uint32)]


@pytest.fixture(scope="module")
def ours(library: Path) -> dict[str, dict[str, Any]]:
    loaded = ctypes.CDLL(str(library / CONTROL))
    row = ctypes.pointer(Row.in_dll(loaded, "gpuvigil_layout"))
    found: dict[str, dict[str, Any]] = {}
    index = 0
    while row[index].record:
        entry = found.setdefault(row[index].record.decode(), {"size": None, "fields": {}})
        if row[index].field:
            entry["fields"][row[index].field.decode()] = row[index].value
        else:
            entry["size"] = row[index].value
        index += 1
    return found


def compare(ours: dict[str, dict[str, Any]], theirs: dict[str, Any], version: str) -> None:
    for record, layout in theirs.items():
        if record in WRONG_IN_12 and version.startswith("12."):
            continue
        assert record in ours, f"{record} has no row in layout.c"
        if record not in SIZE_VARIES:
            assert ours[record]["size"] == layout["size"], f"size of {record}, {version}"
        if record == "nvmlValue_t":  # a union: all at 0
            continue
        assert ours[record]["fields"] == layout["fields"], f"fields of {record}, {version}"


@pytest.mark.parametrize("version", sorted(GOLDEN))
def test_layouts_agree_with_the_recorded_versions(ours: dict[str, dict[str, Any]], version: str) -> None:
    compare(ours, GOLDEN[version], version)


def test_both_major_versions_are_recorded() -> None:
    assert {version.split(".")[0] for version in GOLDEN} == {"12", "13"}


def test_layouts_agree_with_the_installed_version(ours: dict[str, dict[str, Any]]) -> None:
    theirs = recorder.layouts_of(pynvml)
    compare(ours, theirs, importlib.metadata.version("nvidia-ml-py"))
    assert set(recorder.CLASSES) >= set(theirs)
    assert set(ours) == set(recorder.CLASSES)


def test_recordings_are_what_the_recorder_writes() -> None:
    version = importlib.metadata.version("nvidia-ml-py")
    if version not in GOLDEN:
        pytest.skip(f"nvidia-ml-py {version} is not among the recorded {sorted(GOLDEN)}")
    assert GOLDEN[version] == recorder.layouts_of(pynvml)


def test_version_words_are_size_and_number() -> None:
    """The words nvidia-ml-py sends must be what the library computes from its own sizes."""
    words = {
        "nvmlMemory_v2_t": (pynvml.nvmlMemory_v2, 2),
        "nvmlTemperature_t": (pynvml.nvmlTemperature_v1, 1),
        "nvmlMarginTemperature_t": (pynvml.nvmlMarginTemperature_v1, 1),
        "nvmlEccSramErrorStatus_t": (pynvml.nvmlEccSramErrorStatus_v1, 1),
        "nvmlGpuFabricInfo_v3_t": (pynvml.nvmlGpuFabricInfo_v3, 3),
        "nvmlPciInfoExt_t": (pynvml.nvmlPciInfoExt_v1, 1),
        "nvmlProcessDetailList_t": (pynvml.nvmlProcessDetailList_v1, 1),
        "nvmlProcessesUtilizationInfo_t": (pynvml.ProcessesUtilizationInfo_v1, 1),
        "nvmlFanSpeedInfo_t": (pynvml.nvmlFanSpeedInfo_v1, 1),
    }
    for record, (word, number) in words.items():
        assert word == GOLDEN["13.615.71"][record]["size"] | number << 24


def test_python_and_c_agree_on_the_state_file(library: Path) -> None:
    loaded = ctypes.CDLL(str(library / CONTROL))
    sizes = (ctypes.c_uint32 * len(records.RECORDS)).in_dll(loaded, "gpuvigil_sizes")
    assert list(sizes) == [ctypes.sizeof(record) for record in records.RECORDS]
