"""An NVMe drive's own health log, read by an admin command where the agent may open the controller.

Format: NVM Express base specification, Get Log Page 02h (SMART / Health Information); command number and
structure as in the kernel's include/uapi/linux/nvme_ioctl.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

ADMIN_COMMAND = 0xC0484E41
"""_IOWR('N', 0x41, struct nvme_passthru_cmd), which has 72 bytes."""
GET_LOG_PAGE = 0x02
HEALTH_LOG = 0x02
HEALTH_BYTES = 512
WARNINGS = ("spare", "temperature", "reliability", "read_only", "backup", "memory_region")
"""Bits 0 to 5 of the critical warning."""
TIMEOUT_MS = 2000
_COMMAND = struct.Struct("<BBHIIIQQIIIIIIIIII")


@dataclass(frozen=True, slots=True)
class Health:
    """The log in base units: ratios, degrees Celsius, seconds, counts."""

    warnings: frozenset[str]
    temperature: float
    spare: float
    used: float
    media_errors: int
    power_on: float
    unsafe_shutdowns: int


def parse(log: bytes) -> Health:
    """The health log.

    Raises:
        ValueError: not the 512 bytes of a log, or a drive that answers with nothing.
    """
    if len(log) != HEALTH_BYTES or not any(log):
        raise ValueError("not a health log")
    (kelvin,) = struct.unpack_from("<H", log, 1)

    def wide(offset: int) -> int:
        return int.from_bytes(log[offset : offset + 16], "little")

    return Health(
        warnings=frozenset(name for bit, name in enumerate(WARNINGS) if log[0] >> bit & 1),
        temperature=kelvin - 273.15,
        spare=log[3] / 100,
        used=log[5] / 100,
        media_errors=wide(160),
        power_on=wide(128) * 3600.0,
        unsafe_shutdowns=wide(144),
    )


def read(device: Path) -> Health:
    """The health of the drive at a controller node such as /dev/nvme0.

    Raises:
        OSError: no permission (it takes CAP_SYS_ADMIN), or the drive refuses.
        ValueError: the drive answers with nothing.
    """
    log = ctypes.create_string_buffer(HEALTH_BYTES)
    dwords = HEALTH_BYTES // 4 - 1
    # opcode, flags, reserved, namespace (all), cdw2-3, metadata, data, their lengths, cdw10-15, time-out, result
    fields = (GET_LOG_PAGE, 0, 0, 0xFFFFFFFF, 0, 0, 0, ctypes.addressof(log), 0, HEALTH_BYTES)
    command = bytearray(_COMMAND.pack(*fields, dwords << 16 | HEALTH_LOG, 0, 0, 0, 0, 0, TIMEOUT_MS, 0))
    handle = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = fcntl.ioctl(handle, ADMIN_COMMAND, command)
    finally:
        os.close(handle)
    if status:
        raise OSError(status, "the drive refused to give its health log")
    return parse(log.raw)
