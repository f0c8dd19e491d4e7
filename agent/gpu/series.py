"""Which metric a reading of the child becomes, and which readings make a feature."""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.base.catalogue import Metric
from agent.base.catalogue import gpu as m
from agent.gpu.readings import CLOCKS, LIMITS, STATS, THROTTLE_BITS


class Series(NamedTuple):
    """A metric and its label values after gpu, uuid and synthetic."""

    metric: Metric
    labels: tuple[str, ...] = ()

    @property
    def accumulates(self) -> bool:
        """Counters restart with the driver, so the agent adds up their non-negative steps itself."""
        return self.metric.kind == "counter"


def _table() -> dict[str, Series]:
    plain = {
        "recovery_action": m.RECOVERY_ACTION,
        "persistence": m.PERSISTENCE,
        "pstate": m.PSTATE,
        "processes": m.PROCESSES,
        "utilization": m.UTILIZATION,
        "sm_activity": m.SM_ACTIVITY,
        "sm_occupancy": m.SM_OCCUPANCY,
        "tensor_activity": m.TENSOR_ACTIVITY,
        "encoder": m.ENCODER,
        "decoder": m.DECODER,
        "memory.total": m.MEMORY_TOTAL,
        "memory.used": m.MEMORY_USED,
        "memory.free": m.MEMORY_FREE,
        "memory.reserved": m.MEMORY_RESERVED,
        "memory_activity": m.MEMORY_ACTIVITY,
        "dram_ratio": m.DRAM_BANDWIDTH_RATIO,
        "dram_bytes": m.DRAM_BANDWIDTH,
        "dram_peak": m.DRAM_PEAK,
        "pcie_tx": m.PCIE_TX,
        "pcie_rx": m.PCIE_RX,
        "pcie_generation": m.PCIE_GENERATION,
        "pcie_generation_max": m.PCIE_GENERATION_MAX,
        "pcie_width": m.PCIE_WIDTH,
        "pcie_width_max": m.PCIE_WIDTH_MAX,
        "pcie_replays": m.PCIE_REPLAYS,
        "power": m.POWER,
        "power_limit": m.POWER_LIMIT,
        "energy": m.ENERGY,
        "temperature_margin": m.TEMPERATURE_MARGIN,
        "fan": m.FAN,
        "remap_pending": m.ROW_REMAP_PENDING,
        "remap_failure": m.ROW_REMAP_FAILURE,
        "retired_pending": m.RETIRED_PAGES_PENDING,
        "nvlink_links": m.NVLINK_LINKS,
        "nvlink_active": m.NVLINK_ACTIVE,
        "nvlink_tx": m.NVLINK_TX,
        "nvlink_rx": m.NVLINK_RX,
    }
    table = {key: Series(metric) for key, metric in plain.items()}
    for source, window in (
        ("utilization", m.UTILIZATION_WINDOW),
        ("power", m.POWER_WINDOW),
        ("temperature.core", m.TEMPERATURE_WINDOW),
    ):
        table.update({f"{source}.{stat}": Series(window, (stat,)) for stat in STATS})
    for prefix, metric, words in (
        ("temperature", m.TEMPERATURE, ("core", "memory")),
        ("limit", m.TEMPERATURE_LIMIT, LIMITS),
        ("clock", m.CLOCK, CLOCKS),
        ("clock_max", m.CLOCK_MAX, CLOCKS),
        ("throttle", m.THROTTLE, tuple(THROTTLE_BITS.values())),
        ("throttled", m.THROTTLE_SECONDS, THROTTLED),
        ("remapped", m.REMAPPED_ROWS, ("correctable", "uncorrectable")),
        ("retired", m.RETIRED_PAGES, ("single_bit", "double_bit")),
        ("nvlink_errors", m.NVLINK_ERRORS, ("replay", "recovery", "crc")),
    ):
        table.update({f"{prefix}.{word}": Series(metric, (word,)) for word in words})
    for severity in ("corrected", "uncorrected"):
        for lifetime in ("volatile", "aggregate"):
            table[f"ecc.{severity}.{lifetime}"] = Series(m.ECC_ERRORS, (severity, lifetime))
    return table


THROTTLED: Final = (
    *("sw_power_cap", "thermal", "sync_boost", "board_limit", "low_utilization", "reliability"),
    *("sw_thermal", "hw_thermal", "hw_power_brake"),
)
SERIES: Final = _table()

FEATURES: Final = {
    "dram_bandwidth": "dram_ratio",
    "sm_activity": "sm_activity",
    "pcie_throughput": "pcie_tx",
    "ecc": "ecc.uncorrected.volatile",
    "row_remap": "remap_pending",
    "retired_pages": "retired_pending",
    "nvlink": "nvlink_active",
    "memory_temperature": "temperature.memory",
    "temperature_margin": "temperature_margin",
    "energy": "energy",
    "throttle_seconds": "throttled.sw_power_cap",
    "recovery_action": "recovery_action",
    "fan": "fan",
}
"""A feature is there when the GPU gives the reading that stands for it."""
