"""Kernel-log records as /dev/kmsg would give them, appended to a file of the user's choice.

Never to /dev/kmsg itself: a real remediator on the node would act on it, and it cannot be taken back.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from agent.base.errors import ConfigError

_TEXT: Final[dict[int, str]] = {
    13: "Graphics SM Warp Exception on (GPC 0, TPC 0, SM 0): Illegal Instruction Parameter",
    31: "Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f00_00000000",
    43: "Ch 00000008",
    45: "Ch 00000008",
    48: "DBE (double bit error) at 0x0",
    63: "Row Remapper: New row marked for remapping, reset gpu to activate.",
    64: "Row Remapper: Failed to remap row",
    74: "NVLink: fatal error detected on link 0(0x10000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)",
    79: "GPU has fallen off the bus.",
    94: "Contained: SM (0x1). RST: No, D-RST: No",
    95: "Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No",
    109: "Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x58005",
    119: "Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 76 (GSP_RM_CONTROL) (0x0 0x0).",
    154: "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
}
_KERNEL_ERROR: Final = 3  # facility kernel, level err


def xid_record(file: Path, bus_id: str, code: int) -> None:
    """Append one Xid record for the GPU at `bus_id` ("0000:1B:00.0") to `file`.

    Raises:
        ConfigError: `file` exists and is not a regular file.
    """
    if file.exists() and not file.is_file():
        raise ConfigError(f"kmsg={file}: only a regular file is written; real remediators act on /dev/kmsg")
    place = bus_id.lower().rpartition(".")[0]
    text = f"NVRM: Xid (PCI:{place}): {code}, pid='<unknown>', name=<unknown>, {_TEXT.get(code, 'simulated')}"
    sequence = len(file.read_bytes().splitlines()) if file.exists() else 0
    microseconds = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    line = f"{_KERNEL_ERROR},{sequence},{microseconds},-;{text}\n".encode()
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)
