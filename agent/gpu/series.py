"""Which metric a reading of the child becomes, and which readings make a feature."""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.base.catalogue import Metric, mig
from agent.base.catalogue import gpu as m
from agent.gpu.readings import (
    CHIP_LINK_ERRORS,
    CLOCKS,
    LIMITS,
    LINK_ERRORS,
    MAX_LINKS,
    P2P,
    PCIE_ERRORS,
    PIPES,
    REMAP_BANKS,
    STATS,
    THROTTLE_BITS,
)

MAX_GPU_INSTANCES: Final = 16
"""Instance ids beyond this are a driver's nonsense."""


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
        "pcie_degraded": m.PCIE_DEGRADED,
        "bar1.total": m.BAR1_TOTAL,
        "bar1.used": m.BAR1_USED,
        "mig_mode": mig.MODE,
        "power_instant": m.POWER_INSTANT,
        "sram_threshold": m.ECC_SRAM_THRESHOLD,
        "fabric_state": m.FABRIC_STATE,
        "fabric_status": m.FABRIC_STATUS,
        "fabric_degraded": m.FABRIC_DEGRADED,
        "inforom_valid": m.INFOROM_VALID,
        "c2c_links": m.C2C_LINKS,
        "c2c_active": m.C2C_ACTIVE,
        "c2c_speed": m.C2C_SPEED,
        "c2c_tx": m.C2C_TX,
        "c2c_rx": m.C2C_RX,
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
    table["pcie_generation_card"] = Series(m.PCIE_GENERATION_LIMIT, ("card",))
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
        ("nvlink_errors", m.NVLINK_ERRORS, tuple(LINK_ERRORS.values())),
        ("p2p", m.P2P_PEERS, tuple(P2P)),
        ("c2c_errors", m.C2C_ERRORS, tuple(CHIP_LINK_ERRORS.values())),
        ("pipe", m.PIPE_ACTIVITY, tuple(PIPES.values())),
        ("pcie_errors", m.PCIE_ERRORS, ("l0_to_recovery", *PCIE_ERRORS)),
        ("power_range", m.POWER_RANGE, ("min", "max", "default")),
        ("limit_margin", m.TEMPERATURE_LIMIT_MARGIN, LIMITS),
        ("remap_banks", m.ROW_REMAP_BANKS, REMAP_BANKS),
    ):
        table.update({f"{prefix}.{word}": Series(metric, (word,)) for word in words})
    for severity in ("corrected", "uncorrected"):
        for lifetime in ("volatile", "aggregate"):
            table[f"ecc.{severity}.{lifetime}"] = Series(m.ECC_ERRORS, (severity, lifetime))
        for location in ("l1", "l2", "dram", "register", "texture", "cbu"):
            table[f"ecc_at.{severity}.{location}"] = Series(m.ECC_LOCATION, (severity, location))
            table[f"ecc_ever.{severity}.{location}"] = Series(m.ECC_LIFETIME, (severity, location))
    for link in range(MAX_LINKS):
        table[f"link_active.{link}"] = Series(m.NVLINK_LINK_ACTIVE, (str(link),))
        for way in ("tx", "rx"):
            table[f"link_bytes.{link}.{way}"] = Series(m.NVLINK_LINK_BYTES, (str(link), way))
        for kind in LINK_ERRORS.values():
            table[f"link_errors.{link}.{kind}"] = Series(m.NVLINK_LINK_ERRORS, (str(link), kind))
    for instance in range(MAX_GPU_INSTANCES):
        for what, metric in (
            ("memory_total", mig.MEMORY_TOTAL),
            ("memory_used", mig.MEMORY_USED),
            ("sm_activity", mig.SM_ACTIVITY),
            ("tensor_activity", mig.TENSOR_ACTIVITY),
            ("dram_ratio", mig.DRAM_RATIO),
            ("sm_occupancy", mig.SM_OCCUPANCY),
            ("pipe.graphics", mig.GRAPHICS),
            ("pcie_tx", mig.PCIE_TX),
            ("pcie_rx", mig.PCIE_RX),
        ):
            table[f"mig.{instance}.{what}"] = Series(metric, (str(instance),))
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
    "c2c": "c2c_active",
    "memory_temperature": "temperature.memory",
    "temperature_margin": "temperature_margin",
    "energy": "energy",
    "throttle_seconds": "throttled.sw_power_cap",
    "recovery_action": "recovery_action",
    "fan": "fan",
}
"""A feature is there when the GPU gives the reading that stands for it."""
