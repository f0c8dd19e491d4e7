"""Which metrics no preset watches, and why: every other one of the catalogue has a monitor or a forecast."""

from __future__ import annotations

from types import ModuleType

from agent.base.catalogue import Metric, central, drill, gpu, hardware, health, kernel, llm, mig, node, train
from agent.base.catalogue import energy as joules
from agent.base.catalogue import self as agent

_DOMAINS: dict[ModuleType, str] = {
    agent: "the agent of itself: rules watch its presence and freshness",
    central: "what detection itself says, or says of itself: rules watch it",
    drill: "what is provoked on purpose: it silences monitors",
}

_NAMED: dict[str, tuple[Metric, ...]] = {
    "pages at once, by a rule or the agent itself": (
        gpu.DRIVER_STUCK,
        gpu.XID_EVENTS,
        gpu.XID_CODES,
    ),
    "a state or a code: it is right or wrong, and has no band": (
        *(gpu.UP, gpu.KNOWN, gpu.DRIVER_UP, gpu.INFOROM_VALID, gpu.DRIVER_RELEASED, gpu.FEATURE_SUPPORTED),
        *(gpu.RECOVERY_ACTION, gpu.PERSISTENCE, gpu.PSTATE, gpu.PCIE_GENERATION, gpu.PCIE_WIDTH, gpu.PCIE_DEGRADED),
        *(gpu.THROTTLE, gpu.ECC_SRAM_THRESHOLD, gpu.ROW_REMAP_BANKS, gpu.ROW_REMAP_PENDING, gpu.ROW_REMAP_FAILURE),
        *(gpu.RETIRED_PAGES_PENDING, gpu.NVLINK_ACTIVE, gpu.NVLINK_LINK_ACTIVE, gpu.P2P_PEERS, gpu.C2C_ACTIVE),
        *(gpu.FABRIC_STATE, gpu.FABRIC_STATUS, gpu.FABRIC_DEGRADED, mig.MODE),
        *(health.STATE, health.BASELINE_DIFFERENCES),
        *(node.FS_READONLY, node.FS_ENCRYPTED, node.FS_STUCK, node.FS_PROBE_OK, node.NET_UP),
        *(hardware.IB_UP, hardware.UNIT_ACTIVE, hardware.UNIT_FAILED, hardware.NVME_LIVE, hardware.NVME_WARNING),
        *(hardware.RAID_MISSING, hardware.RAID_FAULTY, hardware.UPS_SERVER_UP, hardware.UPS_ON_BATTERY),
        *(hardware.UPS_LOW_BATTERY, hardware.UPS_REPLACE, hardware.UPS_COMMUNICATION, hardware.ALARM),
        *(hardware.COOLANT_LEAK, hardware.CHASSIS_READ, hardware.IB_SATURATED),
        *(llm.ENGINE_UP, llm.HEALTH_OK, train.LOG_READABLE, train.RUNNING, train.CHECKPOINTS),
        *(train.CHECKPOINTS_BAD, train.CHECKPOINTS_CORRUPT, train.CHECKPOINT_WRITING),
    ),
    "a size, limit or plan: somebody set it, or the hardware did": (
        *(gpu.EXPECTED, gpu.MEMORY_RESERVED, gpu.BAR1_TOTAL, gpu.DRAM_PEAK, gpu.PCIE_GENERATION_MAX),
        *(gpu.PCIE_WIDTH_MAX, gpu.PCIE_GENERATION_LIMIT, gpu.PCIE_WIDTH_LIMIT, gpu.POWER_RANGE),
        *(gpu.TEMPERATURE_LIMIT, gpu.TEMPERATURE_LIMIT_MARGIN, gpu.CLOCK_MAX, gpu.NVLINK_LINKS, gpu.C2C_LINKS),
        *(gpu.C2C_SPEED, mig.MEMORY_TOTAL, node.CPUS, node.MEMORY_TOTAL, node.NET_SPEED),
        *(hardware.IB_RATE, hardware.RAID_DISKS),
        *(train.STEPS_PLANNED, train.LEARNING_RATE, train.PLANNED_SECONDS, train.CHECKPOINT_INTERVAL),
    ),
    "another view of what a preset watches already": (
        *(gpu.UTILIZATION_WINDOW, gpu.PIPE_ACTIVITY, gpu.MEMORY_FREE, gpu.DRAM_BANDWIDTH, gpu.POWER_WINDOW),
        *(gpu.POWER_INSTANT, gpu.ENERGY, gpu.TEMPERATURE_WINDOW, gpu.TEMPERATURE_MARGIN),
        *(gpu.ECC_LOCATION, gpu.ECC_LIFETIME, gpu.NVLINK_LINK_BYTES, gpu.NVLINK_LINK_ERRORS),
        *(node.CPU_SECONDS, hardware.EDAC_DIMM_ERRORS, joules.FACILITY, joules.CO2E, joules.COST, train.INTERVAL),
    ),
    "its series come and go with processes, too short to learn from": (
        *(gpu.PROCESS_MEMORY, gpu.PROCESS_SM, gpu.PROCESS_ENCODER, gpu.PROCESS_DECODER),
    ),
    "progress or age: it grows until something sets it back; training estimates or rules judge it": (
        *(train.STEP, train.EPOCH, train.CONSUMED_TOKENS, train.CHECKPOINT_STEP, train.CHECKPOINT_STEPS_SINCE),
        *(train.CHECKPOINT_RPO, train.CHECKPOINT_VERIFIED_BYTES, train.BACKUP_STEP),
        *(hardware.NVME_POWER_ON, hardware.RAID_SYNC),
    ),
    "one value a start: no series to learn from": (llm.MODEL_LOAD,),
    "how far the kernel log was read: the agent of itself": (kernel.RECORDS, kernel.LOST),
}


def why_unwatched(metric: Metric) -> str:
    """The reason why no preset watches a metric; "" if there is none, and one should."""
    if metric.kind == "info":
        return "always 1: it carries labels"
    for domain, reason in _DOMAINS.items():
        if metric in vars(domain).values():
            return reason
    if metric.stem.endswith("_timestamp_seconds"):
        return "a moment: rules hold it against now"
    return next((reason for reason, metrics in _NAMED.items() if metric in metrics), "")
