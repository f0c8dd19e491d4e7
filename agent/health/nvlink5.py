"""Decoding of NVLink5's Xids 144 to 150 by unit and error status (NVIDIA's Xid catalogue, 2025-10)."""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.health.xid_lines import Link

IGNORE, RESET, EVALUATE = "IGNORE", "RESET_GPU", "WORKFLOW_NVLINK"


class Decoded(NamedTuple):
    """What a line of 144-150 asks for. `peer` is True where the other end of the link is the source."""

    action: str
    fatal: bool
    note: str
    peer: bool = False


_SUPPORT, _SIGNAL, _SOFTWARE = "report it if it recurs", "look at link signal and cables", "software or user first"
_ANY: Final = 0x80000000

# (xid, unit): {status: (action, fatal, note)}
_RLW_CTRL = {_ANY: (IGNORE, False, _SUPPORT)}
_TLW = {
    0x1: (IGNORE, False, ""),
    0x2: (IGNORE, False, _SUPPORT),
    0x4: (RESET, True, ""),
    _ANY: (IGNORE, False, _SUPPORT),
}
_TABLE: Final[dict[tuple[int, str], dict[int, tuple[str, bool, str]]]] = {
    (144, "SAW_MVB"): {
        **dict.fromkeys((0x1, 0x8), (IGNORE, False, _SUPPORT)),
        **dict.fromkeys((0x2, 0x10), (RESET, True, _SUPPORT)),
        **dict.fromkeys((0x4, 0x20), (IGNORE, False, "")),
    },
    (145, "RLW_CTRL"): _RLW_CTRL,
    (145, "RLW_REMAP"): {
        **dict.fromkeys((0x1, 0x2), (EVALUATE, False, _SUPPORT)),
        **dict.fromkeys((0x4, 0x8, 0x10, 0x20), (EVALUATE, False, "check the NVLink failure flow")),
        **dict.fromkeys((0x40, 0x80), (RESET, True, "")),
        **dict.fromkeys((0x100, 0x200), (IGNORE, False, "")),
        _ANY: (IGNORE, False, _SUPPORT),
    },
    (145, "RLW_RSPCOL"): {0x1: (IGNORE, False, ""), 0x2: (RESET, True, ""), _ANY: (IGNORE, False, _SUPPORT)},
    (145, "RLW_RXPIPE"): {
        **dict.fromkeys((0x1, 0x2, 0x4), (IGNORE, False, "packets lost; reset the GPU if it recurs")),
        **dict.fromkeys((0x8, _ANY), (IGNORE, False, _SUPPORT)),
    },
    (145, "RLW_SRC_TRACK"): {
        **dict.fromkeys((0x1, 0x10, 0x20), (RESET, True, "")),
        0x2: (IGNORE, False, ""),
        **dict.fromkeys((0x4, 0x8), (EVALUATE, False, "")),
        _ANY: (IGNORE, False, _SUPPORT),
    },
    (145, "RLW_TAGSTATE"): {
        **dict.fromkeys((0x1, 0x10000), (IGNORE, False, "")),
        **dict.fromkeys((0x2, 0x20000, 0x100000), (RESET, True, "")),
        _ANY: (IGNORE, False, _SUPPORT),
    },
    (146, "TLW_CTRL"): _TLW,
    (146, "TLW_RX"): _TLW,
    (146, "TLW_TX"): _TLW,
    (147, "TREX"): dict.fromkeys((0x1, _ANY), (IGNORE, False, _SUPPORT)),
    (148, "NVLPW_CTRL"): {_ANY: (IGNORE, False, _SUPPORT)},
    (149, "NETIR"): {0x0: (RESET, True, "follows another error; report it if alone")},
    (149, "NETIR_BER_EVENT"): dict.fromkeys((0, 1, 2, 3), (IGNORE, False, _SIGNAL)),
    (149, "NETIR_MFDE_EVENT"): {
        **dict.fromkeys((1, 4, 5, 7), (RESET, True, _SUPPORT)),
        3: (IGNORE, False, ""),
    },
    (150, "MSE_WATCHDOG"): {0x0: (RESET, True, _SUPPORT)},
}
_LINK_DOWN: Final[dict[int, tuple[str, bool, str]]] = {
    0: (RESET, True, "follows another error"),
    1: (RESET, True, "report it if more than one a day"),
    **dict.fromkeys((2, 4, 10, 42, 43), (RESET, True, _SIGNAL)),
    **dict.fromkeys((15, 17, 22), (RESET, True, _SOFTWARE)),
    **dict.fromkeys((16, 18), (RESET, True, _SOFTWARE + ", then the link")),
    38: (IGNORE, True, _SOFTWARE),
    40: (IGNORE, True, "host"),
}
_PEER: Final = frozenset({21, *range(32, 38)})


def decode(xid: int, link: Link) -> Decoded:
    """The action for one line; what the table lacks is judged by the line's own "Fatal" or "Nonfatal"."""
    unit = link.unit.partition("/")[0]
    if xid == 149 and unit == "NETIR_LINK_EVT":
        code = link.sub_code
        if code in _PEER:
            return Decoded(RESET, True, "the other end of the link is the source", peer=True)
        return Decoded(*_LINK_DOWN.get(code, (RESET, True, _SUPPORT)))
    row = _TABLE.get((xid, unit), {}).get(link.status)
    if row is not None:
        return Decoded(*row)
    fatal = link.severity == "fatal"
    return Decoded(RESET if fatal else EVALUATE, fatal, "not in the table")


def describe(xid: int, link: Link) -> str:
    """`149.33 (status 0x00000000)`: how such an Xid is shown."""
    return f"{xid}.{link.sub_code} (status 0x{link.status:08x})"
