"""What is read from a GPU: tables of driver calls, field ids and GPM ids, each with the reading it fills.

A reading is a key such as `power` or `clock.sm`; agent/gpu/series.py says which metric it becomes.
Values are in base units after `scale`. A reading above its `top` is the driver's nonsense and dropped.
Several sources may fill one reading: the first that the GPU supports does, in the order FIELDS,
GETTERS. Ids and units are NVML's (nvml.h of CUDA 12.9 and 13.4).
"""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_uint, c_ulonglong
from typing import Final, NamedTuple

FAST: Final = 1
"""Every sweep."""
LINKS: Final = 5
"""Every fifth sweep: a call or more for each NVLink."""
LAZY: Final = 15
"""Every fifteenth sweep: limits and modes; they change by hand or not at all."""

RATIO_TOP: Final = 1.05
COUNT_TOP: Final = 2.0**53
MAX_LINKS: Final = 36
MAX_GPUS: Final = 64
MAX_PROCESSES: Final = 256
NS: Final = 1e-9
MIB: Final = 1048576.0


class Part(NamedTuple):
    """One reading out of a call: `attr` of output number `out`, times `scale`, at most `top`."""

    key: str
    scale: float = 1.0
    top: float = COUNT_TOP
    attr: str = "value"
    out: int = 0


class Get(NamedTuple):
    """A call `name(device, *args, &out...)`; `version` goes into the first output's first member."""

    name: str
    parts: tuple[Part, ...]
    outs: tuple[type[ctypes.Structure] | type[ctypes._SimpleCData[int]], ...] = (c_uint,)
    args: tuple[int, ...] = ()
    every: int = FAST
    version: int = 0


class Field(NamedTuple):
    """A field id of nvmlDeviceGetFieldValues."""

    id: int
    key: str
    scale: float = 1.0
    top: float = COUNT_TOP
    scope: int = 0


class Utilization(ctypes.Structure):
    _fields_ = (("gpu", c_uint), ("memory", c_uint))


class Memory(ctypes.Structure):
    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class Memory2(ctypes.Structure):
    _fields_ = (
        ("version", c_uint),
        ("total", c_ulonglong),
        ("reserved", c_ulonglong),
        ("free", c_ulonglong),
        ("used", c_ulonglong),
    )


class Margin(ctypes.Structure):
    _fields_ = (("version", c_uint), ("celsius", c_int))


def version(struct: type[ctypes.Structure], number: int) -> int:
    """NVML's version word: size of the struct, version number in the top byte."""
    return ctypes.sizeof(struct) | number << 24


ALL_LINKS: Final = 0xFFFFFFFF

FIELDS: Final = (
    Field(3, "ecc.corrected.volatile"),
    Field(4, "ecc.uncorrected.volatile"),
    Field(5, "ecc.corrected.aggregate"),
    Field(6, "ecc.uncorrected.aggregate"),
    Field(29, "retired.single_bit", top=1e6),
    Field(30, "retired.double_bit", top=1e6),
    Field(31, "retired_pending", top=1),
    Field(74, "throttled.sw_power_cap", NS),
    Field(75, "throttled.thermal", NS),
    Field(76, "throttled.sync_boost", NS),
    Field(77, "throttled.board_limit", NS),
    Field(78, "throttled.low_utilization", NS),
    Field(79, "throttled.reliability", NS),
    Field(82, "temperature.memory", top=200),
    Field(83, "energy", 1e-3),
    Field(94, "pcie_replays"),
    Field(138, "nvlink_tx", 1024.0, scope=ALL_LINKS),
    Field(139, "nvlink_rx", 1024.0, scope=ALL_LINKS),
    Field(142, "remapped.correctable", top=1e6),
    Field(143, "remapped.uncorrectable", top=1e6),
    Field(144, "remap_pending", top=1),
    Field(145, "remap_failure", top=1),
    Field(185, "power", 1e-3, top=1e4),
    Field(190, "power_limit", 1e-3, top=1e4),
    Field(230, "recovery_action", top=255),
)
"""Asked every sweep in one driver call."""

THROTTLE_IDS_12: Final = (
    Field(251, "throttled.sw_thermal", NS),
    Field(252, "throttled.hw_thermal", NS),
    Field(253, "throttled.hw_power_brake", NS),
)
THROTTLE_IDS_13: Final = tuple(field._replace(id=field.id + 18) for field in THROTTLE_IDS_12)
RENUMBERED_SINCE: Final = 590
"""CUDA 13.4's header moved these three ids and gave the old numbers to power smoothing, as 12.9's gave it
the new ones. A GPU without power smoothing answers one set only; where both answer, the driver's
branch decides. A counter above the node's uptime is no time and not believed."""

_PCT = 0.01
_MHZ = 1e6
CLOCKS: Final = ("graphics", "sm", "memory", "video")
LIMITS: Final = ("shutdown", "slowdown", "memory_max", "gpu_max")

GETTERS: Final = (
    Get(
        "nvmlDeviceGetUtilizationRates",
        (Part("utilization", _PCT, RATIO_TOP, "gpu"), Part("memory_activity", _PCT, RATIO_TOP, "memory")),
        (Utilization,),
    ),
    Get("nvmlDeviceGetEncoderUtilization", (Part("encoder", _PCT, RATIO_TOP),), (c_uint, c_uint)),
    Get("nvmlDeviceGetDecoderUtilization", (Part("decoder", _PCT, RATIO_TOP),), (c_uint, c_uint)),
    Get(
        "nvmlDeviceGetMemoryInfo_v2",
        tuple(Part("memory." + name, attr=name) for name in ("total", "reserved", "free", "used")),
        (Memory2,),
        version=version(Memory2, 2),
    ),
    Get(
        "nvmlDeviceGetMemoryInfo",
        tuple(Part("memory." + name, attr=name) for name in ("total", "free", "used")),
        (Memory,),
    ),
    Get("nvmlDeviceGetPowerUsage", (Part("power", 1e-3, 1e4),)),
    Get("nvmlDeviceGetEnforcedPowerLimit", (Part("power_limit", 1e-3, 1e4),), every=LAZY),
    Get("nvmlDeviceGetTotalEnergyConsumption", (Part("energy", 1e-3),), (c_ulonglong,)),
    Get("nvmlDeviceGetTemperature", (Part("temperature.core", top=200),), args=(0,)),
    Get(
        "nvmlDeviceGetMarginTemperature",
        (Part("temperature_margin", top=200, attr="celsius"),),
        (Margin,),
        version=version(Margin, 1),
    ),
    *(
        Get("nvmlDeviceGetTemperatureThreshold", (Part("limit." + name, top=200),), args=(number,), every=LAZY)
        for number, name in enumerate(LIMITS)
    ),
    Get("nvmlDeviceGetFanSpeed", (Part("fan", _PCT, 2.0),), every=LAZY),
    *(
        Get("nvmlDeviceGetClockInfo", (Part("clock." + name, _MHZ, 1e10),), args=(number,))
        for number, name in enumerate(CLOCKS)
    ),
    *(
        Get("nvmlDeviceGetMaxClockInfo", (Part("clock_max." + name, _MHZ, 1e10),), args=(number,), every=LAZY)
        for number, name in enumerate(CLOCKS)
    ),
    Get("nvmlDeviceGetPerformanceState", (Part("pstate", top=15),)),
    Get("nvmlDeviceGetPersistenceMode", (Part("persistence", top=1),), every=LAZY),
    Get("nvmlDeviceGetCurrPcieLinkGeneration", (Part("pcie_generation", top=10),)),
    Get("nvmlDeviceGetCurrPcieLinkWidth", (Part("pcie_width", top=32),)),
    Get("nvmlDeviceGetMaxPcieLinkGeneration", (Part("pcie_generation_max", top=10),), every=LAZY),
    Get("nvmlDeviceGetMaxPcieLinkWidth", (Part("pcie_width_max", top=32),), every=LAZY),
    Get("nvmlDeviceGetPcieReplayCounter", (Part("pcie_replays"),)),
    *(
        Get("nvmlDeviceGetTotalEccErrors", (Part(f"ecc.{severity}.{lifetime}"),), (c_ulonglong,), (error, counter))
        for error, severity in enumerate(("corrected", "uncorrected"))
        for counter, lifetime in enumerate(("volatile", "aggregate"))
    ),
    Get(
        "nvmlDeviceGetRemappedRows",
        (
            Part("remapped.correctable", top=1e6, out=0),
            Part("remapped.uncorrectable", top=1e6, out=1),
            Part("remap_pending", top=1, out=2),
            Part("remap_failure", top=1, out=3),
        ),
        (c_uint, c_uint, c_uint, c_uint),
    ),
    Get("nvmlDeviceGetRetiredPagesPendingStatus", (Part("retired_pending", top=1),), every=LAZY),
)

THROTTLE_BITS: Final = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
    0x100: "display_clock",
}
"""nvmlClocksEventReasons; each supported bit fills `throttle.<name>`."""

GPM: Final = (
    Field(2, "sm_activity", _PCT, RATIO_TOP),
    Field(3, "sm_occupancy", _PCT, RATIO_TOP),
    Field(5, "tensor_activity", _PCT, RATIO_TOP),
    Field(10, "dram_ratio", _PCT, RATIO_TOP),
    Field(20, "pcie_tx", MIB, 1e12),
    Field(21, "pcie_rx", MIB, 1e12),
)
"""Metric ids of nvmlGpmMetricsGet (Hopper and newer)."""

LINK_ERRORS: Final = {161: "nvlink_errors.replay", 162: "nvlink_errors.recovery", 163: "nvlink_errors.crc"}
"""Per link, before Blackwell; summed over links."""

WINDOWED: Final = ("utilization", "power", "temperature.core")
STATS: Final = ("min", "max", "p95")

OPENING: Final = ("nvmlInit", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2")
"""Calls that may initialise a GPU, which takes seconds without persistence mode."""

EVENT_WAIT_S: Final = 1.0
"""How long the driver is asked to wait for an event, which is no hang."""

CALLS: Final = (
    "",
    *OPENING,
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetPciInfo",
    "nvmlDeviceGetName",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetVbiosVersion",
    "nvmlDeviceGetFieldValues",
    *(
        f"nvmlDeviceGet{which}{era}Reasons"
        for era in ("ClocksEvent", "ClocksThrottle")
        for which in ("Current", "Supported")
    ),
    "nvmlDeviceGetMemoryBusWidth",
    "nvmlDeviceGetNvLinkState",
    "nvmlGpmQueryDeviceSupport",
    "nvmlGpmSampleAlloc",
    "nvmlGpmSampleGet",
    "nvmlGpmMetricsGet",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetPcieThroughput",
    "nvmlEventSetCreate",
    "nvmlDeviceRegisterEvents",
    "nvmlEventSetWait_v2",
    *dict.fromkeys(get.name for get in GETTERS),
)
"""Every driver call by number, for the heartbeat: both ends count alike."""
NUMBER: Final = {name: number for number, name in enumerate(CALLS)}
