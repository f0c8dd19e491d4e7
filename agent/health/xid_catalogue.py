"""Every Xid code: its name, the action it calls for and how grave it is.

Actions are the words of agent.base.hardfaults.XID_ACTIONS, after NVIDIA's catalogue (immediate
action). Where NVIDIA names a workflow or nothing, the first step of the workflow stands here, or
CONTACT_SUPPORT. Codes that today's catalogue calls unused keep the name they once had.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Gravity = Literal["info", "app", "warning", "critical", "fatal"]
"""info and app say nothing against the GPU, warning is a trend, critical wants a reset, fatal the node."""


class Xid(NamedTuple):
    code: int
    name: str
    action: str
    gravity: Gravity


UNKNOWN_NAME: Final = "unknown Xid"

_APP, _IGNORE, _RESET, _SUPPORT = "RESTART_APP", "IGNORE", "RESET_GPU", "CONTACT_SUPPORT"
_DEFAULT_GRAVITY: Final[dict[str, Gravity]] = {
    _APP: "app",
    _IGNORE: "info",
    _RESET: "critical",
    _SUPPORT: "warning",
    "UPDATE_SWFW": "warning",
    "WORKFLOW_NVLINK": "warning",
    "CHECK_MECHANICALS": "critical",
    "RESTART_BM": "fatal",
}

# code: (name, action[, gravity where the action does not say it])
_TABLE: Final[dict[int, tuple[str, str] | tuple[str, str, Gravity]]] = {
    1: ("invalid or corrupted push buffer stream (old)", _SUPPORT),
    2: ("invalid or corrupted push buffer stream (old)", _SUPPORT),
    3: ("invalid or corrupted push buffer stream (old)", _SUPPORT),
    4: ("invalid or corrupted push buffer stream (old)", _SUPPORT),
    5: ("unused", _SUPPORT),
    6: ("invalid or corrupted push buffer stream (old)", _SUPPORT),
    7: ("invalid or corrupted push buffer address (old)", _SUPPORT),
    8: ("GPU stopped processing (idle timeout)", _APP),
    9: ("driver error programming GPU (old)", _SUPPORT),
    10: ("unused", _SUPPORT),
    11: ("invalid or corrupted push buffer stream", _APP),
    12: ("driver error handling GPU exception (old)", _SUPPORT),
    13: ("graphics engine exception", _APP),
    14: ("fake error", _IGNORE),
    15: ("unused", _SUPPORT),
    16: ("display engine hung (old)", _SUPPORT),
    17: ("unused", _SUPPORT),
    18: ("bus mastering disabled in PCI config (old)", _SUPPORT),
    19: ("display engine error (old)", _SUPPORT),
    20: ("corrupted MPEG push buffer (old)", _SUPPORT),
    21: ("corrupted motion estimation push buffer (old)", _SUPPORT),
    22: ("corrupted video processor push buffer (old)", _SUPPORT),
    23: ("unused", _SUPPORT),
    24: ("GPU semaphore timeout (old)", _SUPPORT),
    25: ("illegal push buffer stream", _APP),
    26: ("framebuffer timeout (old)", _SUPPORT),
    27: ("video processor exception (old)", _SUPPORT),
    28: ("video processor exception (old)", _SUPPORT),
    29: ("video processor exception (old)", _SUPPORT),
    30: ("semaphore access error (old)", _SUPPORT),
    31: ("MMU page fault", _APP),
    32: ("push buffer DMA error", _APP),
    33: ("internal micro-controller error (old)", _SUPPORT),
    34: ("video processor exception (old)", _SUPPORT),
    35: ("video processor exception (old)", _SUPPORT),
    36: ("video processor exception (old)", _SUPPORT),
    37: ("driver firmware error", _IGNORE),
    38: ("FECS watchdog timeout", _IGNORE, "warning"),
    39: ("copy engine 0 exception", _APP),
    40: ("copy engine 1 exception", _APP),
    41: ("copy engine 2 exception", _APP),
    42: ("video processor exception (old)", _SUPPORT),
    43: ("GPU stopped processing (channel reset)", _IGNORE, "app"),
    44: ("fault during context switch", _IGNORE, "warning"),
    45: ("preemptive cleanup", _IGNORE),
    46: ("GPU timeout", _RESET),
    47: ("NVENC0 exception (old)", _SUPPORT),
    48: ("double-bit ECC error", _RESET),
    49: ("silent running (old)", _SUPPORT),
    50: ("silent running (old)", _SUPPORT),
    51: ("silent running (old)", _SUPPORT),
    52: ("silent running (old)", _SUPPORT),
    53: ("silent running (old)", _SUPPORT),
    54: ("auxiliary power missing", "CHECK_MECHANICALS"),
    55: ("silent running (old)", _SUPPORT),
    56: ("display engine error (old)", _SUPPORT),
    57: ("framebuffer link training error (old)", _SUPPORT),
    58: ("unstable video memory interface (old)", _SUPPORT),
    59: ("PMU error (old)", _SUPPORT),
    60: ("video processor or SEC2 exception", _APP),
    61: ("PMU breakpoint", _SUPPORT, "critical"),
    62: ("PMU halt", _RESET),
    63: ("row remapping or page retirement recorded", _IGNORE, "warning"),
    64: ("row remapping or page retirement failed", _RESET),
    65: ("NVENC1 exception (old)", _SUPPORT),
    66: ("illegal access by driver", _IGNORE, "warning"),
    67: ("illegal access by driver", _IGNORE, "warning"),
    68: ("NVDEC0 exception", _APP),
    69: ("graphics class error", _APP),
    70: ("copy engine 3 exception", _APP),
    71: ("copy engine 4 exception", _APP),
    72: ("copy engine 5 exception", _APP),
    73: ("NVENC2 exception (old)", _SUPPORT),
    74: ("NVLink error", "WORKFLOW_NVLINK", "critical"),
    75: ("copy engine 6 exception", _APP),
    76: ("copy engine 7 exception", _APP),
    77: ("copy engine 8 exception", _APP),
    78: ("vGPU start error", "UPDATE_SWFW"),
    79: ("GPU has fallen off the bus", "RESTART_BM"),
    80: ("corrupted data sent to GPU", _APP),
    81: ("VGA subsystem error (old)", _SUPPORT),
    82: ("NVJPG0 error", _APP),
    83: ("NVDEC1 exception", _APP),
    84: ("NVDEC2 exception", _APP),
    85: ("copy engine 9 exception", _APP),
    86: ("OFA0 exception", _APP),
    87: ("telemetry report (old)", _SUPPORT),
    88: ("NVDEC3 exception", _APP),
    89: ("NVDEC4 exception", _APP),
    90: ("level 2 cache error (old)", _SUPPORT),
    91: ("reserved (old)", _SUPPORT),
    92: ("high single-bit ECC error rate", _IGNORE),
    93: ("InfoROM wear limit", _IGNORE, "warning"),
    94: ("contained ECC error", _APP),
    95: ("uncontained ECC error", _RESET),
    96: ("NVDEC5 exception", _APP),
    97: ("NVDEC6 exception", _APP),
    98: ("NVDEC7 exception", _APP),
    **{code: (f"NVJPG{code - 98} error", _APP) for code in range(99, 106)},
    106: ("SMBPBI test message", _IGNORE),
    107: ("SMBPBI test message", _IGNORE),
    108: ("NVLink remote translation error", _IGNORE, "warning"),
    109: ("context switch timeout", _RESET, "warning"),
    110: ("security fault", _RESET, "fatal"),
    111: ("display bundle error (old)", _SUPPORT),
    112: ("display supervisor error (old)", _SUPPORT),
    113: ("DisplayPort link training error (old)", _SUPPORT),
    114: ("display underflow (old)", _SUPPORT),
    115: ("display core channel error (old)", _SUPPORT),
    116: ("display window channel error (old)", _SUPPORT),
    117: ("display cursor channel error (old)", _SUPPORT),
    118: ("display head error (old)", _SUPPORT),
    119: ("GSP RPC timeout", _RESET),
    120: ("GSP error", _RESET),
    121: ("C2C error", _IGNORE, "warning"),
    122: ("SPI PMU RPC read failure", _SUPPORT),
    123: ("SPI PMU RPC write failure", _SUPPORT),
    124: ("SPI PMU RPC erase failure", _SUPPORT),
    125: ("InfoROM file system error", _SUPPORT),
    **{code: (f"copy engine {code - 116} exception", _APP) for code in range(126, 136)},
    136: ("NVLink training failed", _RESET, "warning"),
    137: ("NVLink privilege error", _IGNORE, "app"),
    138: ("DLA error (old)", _SUPPORT),
    139: ("OFA1 exception", _APP),
    140: ("unrecovered ECC error", _RESET, "fatal"),
    141: ("CUDA fast path error", _IGNORE, "warning"),
    142: ("NVENC3 exception (old)", _SUPPORT),
    143: ("GPU initialisation error", _RESET, "fatal"),
    144: ("NVLink SAW error", "WORKFLOW_NVLINK"),
    145: ("NVLink RLW error", "WORKFLOW_NVLINK"),
    146: ("NVLink TLW error", "WORKFLOW_NVLINK"),
    147: ("NVLink TREX error", "WORKFLOW_NVLINK"),
    148: ("NVLink NVLPW_CTRL error", "WORKFLOW_NVLINK"),
    149: ("NVLink NETIR error", "WORKFLOW_NVLINK"),
    150: ("NVLink MSE error", "WORKFLOW_NVLINK"),
    151: ("key rotation error", "RESTART_BM", "warning"),
    152: ("DLA SMMU error", _IGNORE),
    153: ("DLA timeout", _IGNORE),
    154: ("GPU recovery action changed", _IGNORE),
    155: ("NVLink software-defined error", _RESET, "warning"),
    156: ("resource retirement event", _RESET, "warning"),
    157: ("resource retirement failed", _SUPPORT, "critical"),
    158: ("GPU fatal timeout", _RESET),
    159: ("CHI non-data error", _SUPPORT),
    160: ("channel retirement event", _IGNORE, "warning"),
    161: ("channel retirement failed", _IGNORE, "warning"),
    162: ("power smoothing hardware re-engaged", _IGNORE),
    163: ("power smoothing hardware disengaged", _IGNORE, "warning"),
    164: ("power smoothing lifetime low", _IGNORE),
    165: ("power smoothing lifetime exhausted", _IGNORE, "warning"),
    166: ("confidential computing: traffic before link encryption", _SUPPORT),
    167: ("PCIe fatal timeout", _SUPPORT, "critical"),
    168: ("reduced GPU memory capacity", _SUPPORT),
    169: ("SEC2 halt", _SUPPORT, "critical"),
    170: ("interrupt in confidential computing mode", _SUPPORT),
    171: ("uncorrectable DRAM error", _RESET),
    172: ("uncorrectable SRAM error", _RESET),
    173: ("C2C fatal link failure", _SUPPORT, "critical"),
}

XIDS: Final = {
    code: Xid(code, row[0], row[1], row[2] if len(row) == 3 else _DEFAULT_GRAVITY[row[1]])
    for code, row in _TABLE.items()
}

RECOVERY: Final[dict[int, tuple[str, str]]] = {
    0: ("none", _IGNORE),
    1: ("GPU reset", _RESET),
    2: ("node reboot", "RESTART_BM"),
    3: ("drain P2P", "WORKFLOW_NVLINK"),
    4: ("drain and reset", _RESET),
    5: ("recover IMEX domain", "WORKFLOW_NVLINK"),
    6: ("bus reset", _RESET),
    7: ("system reboot", "RESTART_BM"),
}
"""The driver's recovery action (field 230, Xid 154): its name and the action word it means."""


def look_up(code: int) -> Xid:
    """The code's entry; an unknown code wants support."""
    return XIDS.get(code) or Xid(code, UNKNOWN_NAME, _SUPPORT, "warning")
