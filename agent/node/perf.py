"""Counters of the kernel's perf subsystem, read directly.

Structure and flags: include/uapi/linux/perf_event.h of the kernel; events and formats of a PMU as described in
Documentation/ABI/testing/sysfs-bus-event_source-devices-format and -events.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
from pathlib import Path

from agent.node import sysfs

_SYSCALL = {"x86_64": 298, "aarch64": 241}
_ATTR = struct.Struct("<IIQQQQQIIQ")
"""struct perf_event_attr in its first published size, 64 bytes."""
_TIMES = 1 | 2
"""PERF_FORMAT_TOTAL_TIME_ENABLED and _RUNNING."""
_CLOEXEC = 8
_READ = struct.Struct("<QQQ")
_FORMAT = re.compile(r"config:(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)")


class Counter:
    """One counter of one CPU (for an uncore unit: of its whole socket), counting from now on.

    Raises:
        OSError: not permitted (CAP_PERFMON, or kernel.perf_event_paranoid <= 0), or no such event.
    """

    def __init__(self, kind: int, config: int, cpu: int) -> None:
        number = _SYSCALL.get(platform.machine())
        if number is None:
            raise OSError("no known perf system call on this machine")
        attributes = ctypes.create_string_buffer(
            _ATTR.pack(kind, _ATTR.size, config, 0, 0, _TIMES, 0, 0, 0, 0), _ATTR.size
        )
        libc = ctypes.CDLL(None, use_errno=True)
        handle = libc.syscall(number, attributes, -1, cpu, -1, _CLOEXEC)
        if handle < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._handle = handle

    def read(self) -> float:
        """Events since it was opened, scaled up for time in which it was not on the hardware."""
        value, enabled, running = _READ.unpack(os.read(self._handle, _READ.size))
        if not running:
            return 0.0
        return float(value * enabled / running) if running < enabled else float(value)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def config(pmu: Path, event: str) -> int:
    """The number of an event such as `event=0x04,umask=0x03` in the formats of the PMU's folder.

    Raises:
        ValueError: a term that the PMU does not have, or one that lies in another word than `config`.
    """
    found = 0
    for term in event.split(","):
        name, _, value = term.partition("=")
        places = _FORMAT.fullmatch(sysfs.text(pmu / "format" / name) or "")
        if not places:
            raise ValueError(f"{pmu.name} has no {name}")
        number = int(value or "1", 0)
        for place in places[1].split(","):  # a wide term lies in several places, its lowest bits in the first
            low, _, high = place.partition("-")
            width = int(high or low) - int(low) + 1
            found |= (number & (1 << width) - 1) << int(low)
            number >>= width
        if number:
            raise ValueError(f"{name}={value} does not fit {pmu.name}")
    return found


def cpus(pmu: Path) -> list[int]:
    """The CPUs on which an uncore unit is to be counted: one a socket."""
    found: list[int] = []
    for part in (sysfs.text(pmu / "cpumask") or "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found += range(int(first), int(last or first) + 1)
    return found
