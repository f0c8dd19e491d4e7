"""What is read from a GPU: tables of driver calls, field ids and GPM ids, each with the reading it fills.

A reading is a key such as `power` or `clock.sm`; agent/gpu/series.py says which metric it becomes.
Values are in base units after `scale`. A reading above its `top` is the driver's nonsense and dropped.
Several sources may fill one reading: the first that the GPU supports does, in the order FIELDS,
GETTERS. Ids and units are NVML's (nvml.h of CUDA 12.9 and 13.4).
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint, c_ulonglong
from typing import Final, NamedTuple

from agent.gpu.structs import Bar1, Fabric, Margin, Memory, Memory2, RowRemapper, SramErrors, Utilization, version

FAST: Final = 1
"""Every sweep: what is windowed, explains a fault, or says that the GPU is lost."""
CALM: Final = 5
"""Every fifth sweep, as often as the page takes readings over; GPUs take turns."""
LAZY: Final = 15
"""Every fifteenth sweep: limits and modes; they change by hand or not at all."""

EVERY: Final = (FAST, CALM, LAZY)

RATIO_TOP: Final = 1.05
PCIE_TOP: Final = 1e12
COUNT_TOP: Final = 2.0**53
MAX_LINKS: Final = 36
MAX_CHIP_LINKS: Final = 14
MAX_GPUS: Final = 64
MAX_PROCESSES: Final = 256
NS: Final = 1e-9
MIB: Final = 1048576.0


class Part(NamedTuple):
    """One reading out of a call: `attr` of output number `out`, times `scale`, from `low` to `top`."""

    key: str
    scale: float = 1.0
    top: float = COUNT_TOP
    attr: str = "value"
    out: int = 0
    low: float = 0.0


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
    low: float = 0.0


ALL_LINKS: Final = 0xFFFFFFFF
PCIE_ERRORS: Final = (
    *("correctable", "naks_received", "receiver", "bad_tlp", "naks_sent", "bad_dllp"),
    *("non_fatal", "fatal", "unsupported_request", "lcrc", "lane"),
)
"""Field ids 173 to 183, in their order."""

FIELDS: Final = (
    Field(3, "ecc.corrected.volatile"),
    Field(4, "ecc.uncorrected.volatile"),
    Field(5, "ecc.corrected.aggregate"),
    Field(6, "ecc.uncorrected.aggregate"),
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
    Field(144, "remap_pending", top=1),
    Field(145, "remap_failure", top=1),
    Field(185, "power", 1e-3, top=1e4),
    Field(186, "power_instant", 1e-3, top=1e4),
    Field(190, "power_limit", 1e-3, top=1e4),
    Field(230, "recovery_action", top=255),
)
"""Asked every sweep in one driver call."""

LAZY_FIELDS: Final = (
    *(
        Field(number, f"ecc_at.{severity}.{location}")
        for number, (severity, location) in enumerate(
            (
                (severity, location)
                for location in ("l1", "l2", "dram", "register", "texture")
                for severity in ("corrected", "uncorrected")
            ),
            start=7,
        )
    ),
    Field(17, "ecc_at.uncorrected.cbu"),
    Field(29, "retired.single_bit", top=1e6),
    Field(30, "retired.double_bit", top=1e6),
    Field(31, "retired_pending", top=1),
    Field(142, "remapped.correctable", top=1e6),
    Field(143, "remapped.uncorrectable", top=1e6),
    Field(169, "pcie_errors.l0_to_recovery"),
    *(Field(173 + number, f"pcie_errors.{kind}") for number, kind in enumerate(PCIE_ERRORS)),
    Field(187, "power_range.min", 1e-3, top=1e4),
    Field(188, "power_range.max", 1e-3, top=1e4),
    Field(189, "power_range.default", 1e-3, top=1e4),
    Field(193, "limit_margin.shutdown", top=200, low=-200),
    Field(194, "limit_margin.slowdown", top=200, low=-200),
    Field(195, "limit_margin.memory_max", top=200, low=-200),
    Field(196, "limit_margin.gpu_max", top=200, low=-200),
)
"""Asked every fifteenth sweep in another one."""

LIFETIME_ECC: Final = (
    *(
        Field(number, f"ecc_ever.{severity}.{location}")
        for number, (severity, location) in enumerate(
            (
                (severity, location)
                for location in ("l1", "l2", "dram", "register", "texture")
                for severity in ("corrected", "uncorrected")
            ),
            start=18,
        )
    ),
    Field(28, "ecc_ever.uncorrected.cbu"),
)
"""ECC errors of the board's whole life by location; on request."""


def throttle_fields(driver: tuple[int, int]) -> tuple[Field, ...]:
    """Seconds of thermal throttling and power brake: ids that were moved twice.

    The headers of 575 to 580.65 (CUDA 12.9 and 13.0) have them at 251, those since 580.82 (13.0 Update 1 to 13.5) at
    269, and each gives power smoothing the other's place. Older ones (570, CUDA 12.8) have power smoothing at 251 and
    no such counters; what 580.66 to 580.81 have no header says. Where it is not known nothing is asked.

    Args:
        driver: its first two numbers, such as (580, 95).
    """
    first = 251 if (575, 0) <= driver < (580, 66) else 269 if driver >= (580, 82) else None
    words = () if first is None else ("sw_thermal", "hw_thermal", "hw_power_brake")
    return tuple(Field(number, "throttled." + word, NS) for number, word in enumerate(words, start=first or 0))


_PCT = 0.01
_MHZ = 1e6
REMAP_BANKS: Final = ("max", "high", "partial", "low", "none")
CLOCKS: Final = ("graphics", "sm", "memory", "video")
LIMITS: Final = ("shutdown", "slowdown", "memory_max", "gpu_max")

GETTERS: Final = (
    Get(
        "nvmlDeviceGetUtilizationRates",
        (Part("utilization", _PCT, RATIO_TOP, "gpu"), Part("memory_activity", _PCT, RATIO_TOP, "memory")),
        (Utilization,),
    ),
    Get("nvmlDeviceGetEncoderUtilization", (Part("encoder", _PCT, RATIO_TOP),), (c_uint, c_uint), every=CALM),
    Get("nvmlDeviceGetDecoderUtilization", (Part("decoder", _PCT, RATIO_TOP),), (c_uint, c_uint), every=CALM),
    Get(
        "nvmlDeviceGetMemoryInfo_v2",
        tuple(Part("memory." + name, attr=name) for name in ("total", "reserved", "free", "used")),
        (Memory2,),
        every=CALM,
        version=version(Memory2, 2),
    ),
    Get(
        "nvmlDeviceGetMemoryInfo",
        tuple(Part("memory." + name, attr=name) for name in ("total", "free", "used")),
        (Memory,),
        every=CALM,
    ),
    Get("nvmlDeviceGetPowerUsage", (Part("power", 1e-3, 1e4),)),
    Get("nvmlDeviceGetEnforcedPowerLimit", (Part("power_limit", 1e-3, 1e4),), every=LAZY),
    Get("nvmlDeviceGetTotalEnergyConsumption", (Part("energy", 1e-3),), (c_ulonglong,)),
    Get("nvmlDeviceGetTemperature", (Part("temperature.core", top=200),), args=(0,)),
    Get(
        "nvmlDeviceGetMarginTemperature",
        (Part("temperature_margin", top=200, attr="celsius", low=-200),),
        (Margin,),
        version=version(Margin, 1),
    ),
    *(
        Get("nvmlDeviceGetTemperatureThreshold", (Part("limit." + name, top=200),), args=(number,), every=LAZY)
        for number, name in enumerate(LIMITS)
    ),
    Get("nvmlDeviceGetFanSpeed", (Part("fan", _PCT, 2.0),), every=LAZY),
    *(
        Get(
            "nvmlDeviceGetClockInfo",
            (Part("clock." + name, _MHZ, 1e10),),
            args=(number,),
            every=FAST if name == "sm" else CALM,
        )
        for number, name in enumerate(CLOCKS)
    ),
    *(
        Get("nvmlDeviceGetMaxClockInfo", (Part("clock_max." + name, _MHZ, 1e10),), args=(number,), every=LAZY)
        for number, name in enumerate(CLOCKS)
    ),
    Get("nvmlDeviceGetPerformanceState", (Part("pstate", top=15),), every=CALM),
    Get("nvmlDeviceGetPersistenceMode", (Part("persistence", top=1),), every=LAZY),
    Get("nvmlDeviceGetCurrPcieLinkGeneration", (Part("pcie_generation", top=10),), every=CALM),
    Get("nvmlDeviceGetCurrPcieLinkWidth", (Part("pcie_width", top=32),), every=CALM),
    Get("nvmlDeviceGetMaxPcieLinkGeneration", (Part("pcie_generation_max", top=10),), every=LAZY),
    Get("nvmlDeviceGetMaxPcieLinkWidth", (Part("pcie_width_max", top=32),), every=LAZY),
    Get("nvmlDeviceGetGpuMaxPcieLinkGeneration", (Part("pcie_generation_card", top=10),), every=LAZY),
    Get("nvmlDeviceGetPcieReplayCounter", (Part("pcie_replays"),), every=CALM),
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
        every=CALM,
    ),
    Get("nvmlDeviceGetRetiredPagesPendingStatus", (Part("retired_pending", top=1),), every=LAZY),
    Get(
        "nvmlDeviceGetRowRemapperHistogram",
        tuple(Part("remap_banks." + name, top=1e6, attr=name) for name in REMAP_BANKS),
        (RowRemapper,),
        every=LAZY,
    ),
    Get(
        "nvmlDeviceGetSramEccErrorStatus",
        (Part("sram_threshold", top=1, attr="threshold_exceeded"),),
        (SramErrors,),
        every=LAZY,
        version=version(SramErrors, 1),
    ),
    Get(
        "nvmlDeviceGetPowerManagementLimitConstraints",
        (Part("power_range.min", 1e-3, 1e4, out=0), Part("power_range.max", 1e-3, 1e4, out=1)),
        (c_uint, c_uint),
        every=LAZY,
    ),
    Get("nvmlDeviceGetPowerManagementDefaultLimit", (Part("power_range.default", 1e-3, 1e4),), every=LAZY),
    Get(
        "nvmlDeviceGetBAR1MemoryInfo",
        (Part("bar1.total", attr="total"), Part("bar1.used", attr="used")),
        (Bar1,),
        every=LAZY,
    ),
    Get("nvmlDeviceGetMigMode", (Part("mig_mode", top=1),), (c_uint, c_uint), every=LAZY),
    Get(
        "nvmlDeviceGetGpuFabricInfoV",
        (
            Part("fabric_state", top=16, attr="known_state"),
            Part("fabric_status", top=1e6, attr="known_status"),
            Part("fabric_degraded", top=1, attr="degraded"),
        ),
        (Fabric,),
        every=CALM,
        version=version(Fabric, 2),
    ),
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

PIPES: Final = {1: "graphics", 4: "integer", 6: "dfma", 7: "hmma", 9: "imma", 11: "fp64", 12: "fp32", 13: "fp16"}
GPM: Final = (
    Field(2, "sm_activity", _PCT, RATIO_TOP),
    Field(3, "sm_occupancy", _PCT, RATIO_TOP),
    Field(5, "tensor_activity", _PCT, RATIO_TOP),
    Field(10, "dram_ratio", _PCT, RATIO_TOP),
    Field(20, "pcie_tx", MIB, PCIE_TOP),
    Field(21, "pcie_rx", MIB, PCIE_TOP),
    Field(102, "c2c_tx", MIB, 1e13),
    Field(103, "c2c_rx", MIB, 1e13),
    *(Field(number, "pipe." + pipe, _PCT, RATIO_TOP) for number, pipe in PIPES.items()),
)
"""Metric ids of nvmlGpmMetricsGet (Hopper and newer)."""
MIG_ACTIVITY: Final = (
    *("sm_activity", "sm_occupancy", "tensor_activity", "pipe.graphics", "dram_ratio", "pcie_tx", "pcie_rx"),
)
MIG_GPM: Final = tuple(entry for entry in GPM if entry.key in MIG_ACTIVITY)

LINK_BYTES: Final = {138: ("tx", 1024.0), 139: ("rx", 1024.0), 202: ("tx", 1.0), 204: ("rx", 1.0)}
"""Payload counters of one link: before Blackwell in KiB, since then in bytes."""
LINK_ERRORS: Final = {
    161: "replay",
    162: "recovery",
    163: "crc",
    206: "malformed_packet",
    207: "buffer_overrun",
    208: "receive",
    209: "receive_remote",
    210: "receive_general",
    211: "local_integrity",
    212: "transmit_discard",
    213: "recovery_successful",
    214: "recovery_failed",
    219: "effective",
    221: "symbol",
}
"""Error counters of one link: 161 to 163 before Blackwell, the others since."""

P2P: Final = {"read": 0, "nvlink": 2}
"""What one GPU can do with another's memory, by the number of nvmlGpuP2PCapsIndex_t."""
CHIP_LINK_ERRORS: Final = {231: "crc", 232: "replay", 233: "replay_back_to_back"}
"""Error counters of one NVLink-C2C to the processor of the same module (Grace)."""

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
    "nvmlDeviceGetSerial",
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
    "nvmlGpmSampleFree",
    "nvmlGpmSampleGet",
    "nvmlGpmMetricsGet",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlGpmMigSampleGet",
    "nvmlDeviceGetPcieThroughput",
    "nvmlDeviceGetP2PStatus",
    "nvmlDeviceGetInforomImageVersion",
    "nvmlDeviceGetInforomVersion",
    "nvmlDeviceValidateInforom",
    "nvmlEventSetCreate",
    "nvmlDeviceRegisterEvents",
    "nvmlEventSetWait_v2",
    *dict.fromkeys(get.name for get in GETTERS),
)
"""Every driver call by number, for the heartbeat: both ends count alike."""
NUMBER: Final = {name: number for number, name in enumerate(CALLS)}
