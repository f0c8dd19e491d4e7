"""DCGM's profiling fields from a local dcgm-exporter, for GPUs whose driver has no GPM (before Hopper).

Only what NVML cannot tell of a GPU is taken; DCGM holds the profiling lock, the agent never does.
Field names and units: DCGM's field list; PROF_PCIE fields are rates, whatever the page's TYPE says.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic import Field

from agent.base.catalogue import Sample
from agent.base.catalogue import gpu as m
from agent.base.catalogue.metric import Metric
from agent.base.collector import Context, PartialFailure, Settings, register
from agent.base.config import Duration
from agent.gpu.node import SHARED, GpuNode
from agent.gpu.series import FEATURES
from agent.inference.page import Labels, Page, read_page

AUTO: Final = "auto"
USUAL_URL: Final = "http://127.0.0.1:9400/metrics"
PAGE_LIMIT: Final = 8 << 20
CHUNK: Final = 1 << 16
BUSY: Final = 0.5
"""NVML utilisation at which a zero of DCGM's cannot be true (it reports zeros after some Xids)."""

FIELDS: Final[dict[str, tuple[str, Metric, tuple[str, ...]]]] = {
    # field: (reading it stands for, metric, further labels)
    "DCGM_FI_PROF_SM_ACTIVE": ("sm_activity", m.SM_ACTIVITY, ()),
    "DCGM_FI_PROF_SM_OCCUPANCY": ("sm_occupancy", m.SM_OCCUPANCY, ()),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": ("tensor_activity", m.TENSOR_ACTIVITY, ()),
    "DCGM_FI_PROF_DRAM_ACTIVE": ("dram_ratio", m.DRAM_BANDWIDTH_RATIO, ()),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": ("pipe.graphics", m.PIPE_ACTIVITY, ("graphics",)),
    "DCGM_FI_PROF_PIPE_FP64_ACTIVE": ("pipe.fp64", m.PIPE_ACTIVITY, ("fp64",)),
    "DCGM_FI_PROF_PIPE_FP32_ACTIVE": ("pipe.fp32", m.PIPE_ACTIVITY, ("fp32",)),
    "DCGM_FI_PROF_PIPE_FP16_ACTIVE": ("pipe.fp16", m.PIPE_ACTIVITY, ("fp16",)),
    "DCGM_FI_PROF_PIPE_INT_ACTIVE": ("pipe.integer", m.PIPE_ACTIVITY, ("integer",)),
    "DCGM_FI_PROF_PIPE_TENSOR_HMMA_ACTIVE": ("pipe.hmma", m.PIPE_ACTIVITY, ("hmma",)),
    "DCGM_FI_PROF_PIPE_TENSOR_IMMA_ACTIVE": ("pipe.imma", m.PIPE_ACTIVITY, ("imma",)),
    "DCGM_FI_PROF_PIPE_TENSOR_DFMA_ACTIVE": ("pipe.dfma", m.PIPE_ACTIVITY, ("dfma",)),
    "DCGM_FI_PROF_PCIE_TX_BYTES": ("pcie_tx", m.PCIE_TX, ()),
    "DCGM_FI_PROF_PCIE_RX_BYTES": ("pcie_rx", m.PCIE_RX, ()),
}
_WANTED: Final = frozenset(name.encode() for name in FIELDS)


class DcgmSettings(Settings):
    """Settings of the dcgm collector."""

    period: Duration = Field(default=15.0, gt=0, description="Time between two runs; DCGM itself samples seldom.")
    url: str | None = Field(
        default=AUTO,
        pattern=r"^(auto$|https?://)",
        description="Page of a local dcgm-exporter; auto asks its usual port where a GPU lacks GPM, null asks nobody.",
    )
    timeout: Duration = Field(default=3.0, gt=0, description="Longest wait for the page.")


@register("dcgm", DcgmSettings)
class Dcgm:
    """Profiling fields of a local dcgm-exporter, where NVML has none."""

    def __init__(self, settings: DcgmSettings, context: Context) -> None:
        self._settings, self._context = settings, context

    def close(self) -> None:
        node = self._node()
        if node is not None:
            node.lent_features = frozenset()

    def _node(self) -> GpuNode | None:
        node = self._context.shared.get(SHARED)
        return node if isinstance(node, GpuNode) else None

    def collect(self) -> Iterable[Sample]:
        node, url = self._node(), self._settings.url
        if url is None or node is None or node.inventory is None:
            return
        gpus = list(node.client.view().readings())
        auto = url == AUTO
        if auto:
            if all("dram_ratio" in gpu["keys"] for gpu, _ in gpus):
                return
            url = USUAL_URL
        try:
            page = self._read(url)
        except (urllib.error.URLError, OSError) as error:
            node.lent_features = frozenset()
            if auto and _nobody_there(error):
                return
            raise PartialFailure("dcgm", f"{url}: {error}") from None
        lent: set[tuple[str, str]] = set()
        for gpu, readings in gpus:
            for key, sample in self._of_gpu(page, node, gpu, readings):
                lent.add((str(gpu["uuid"]), key))
                yield sample
        features = {key: feature for feature, key in FEATURES.items()}
        node.lent_features = frozenset((uuid, features[key]) for uuid, key in lent if key in features)
        if page.errors or page.cut:
            raise PartialFailure("dcgm_page", f"{url}: {page.errors} bad lines, cut: {page.cut}")

    def _read(self, url: str) -> Page:
        with urllib.request.urlopen(url, timeout=self._settings.timeout) as answer:
            return read_page(iter(lambda: answer.read(CHUNK), b""), _WANTED, PAGE_LIMIT)

    def _of_gpu(
        self, page: Page, node: GpuNode, gpu: dict[str, Any], readings: dict[str, float]
    ) -> Iterator[tuple[str, Sample]]:
        uuid = str(gpu["uuid"])
        assert node.inventory is not None
        labels = (node.inventory.label(uuid), uuid, node.label)
        told = {name: value for name, rows in page.samples.items() if (value := _value(rows, uuid)) is not None}
        if not any(told.values()) and readings.get("utilization", 0.0) >= BUSY:
            return
        for name, value in told.items():
            key, metric, more = FIELDS[name]
            if key in gpu["keys"] or not 0 <= value <= (1e12 if metric.unit == "bytes_per_second" else 1.05):
                continue
            yield key, Sample(metric, (*labels, *more), value)
            if key == "dram_ratio" and "dram_peak" in readings:
                yield "dram_bytes", Sample(m.DRAM_BANDWIDTH, labels, value * readings["dram_peak"])


def _nobody_there(error: OSError) -> bool:
    """Nothing listens at the usual port, or something else does."""
    return isinstance(getattr(error, "reason", None), ConnectionRefusedError) or getattr(error, "code", 0) == 404


def _value(rows: list[tuple[Labels, float]], uuid: str) -> float | None:
    """The row of a whole GPU; rows of MIG instances carry GPU_I_ID."""
    return next((value for labels, value in rows if labels.get("UUID") == uuid and not labels.get("GPU_I_ID")), None)
