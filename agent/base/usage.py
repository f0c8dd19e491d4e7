"""What a process of ours costs: CPU time and resident memory, child processes included."""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOOK_EVERY_S = 60.0


def children(proc: str = "/proc") -> list[int]:
    """Pids of this process' live children, whichever thread started them."""
    found: list[int] = []
    for task in Path(proc, "self/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def _stat(proc: str, pid: str, parent: int | None = None) -> tuple[float, int]:
    """CPU seconds and resident bytes of one process, proc(5).

    Raises:
        OSError: it is no more, or is not a child of `parent`: another process has its number now.
    """
    with open(f"{proc}/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    if parent is not None and int(fields[1]) != parent:
        raise ProcessLookupError(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE


class Usage:
    """This process and its children, asked again and again.

    Looking for children takes a file for each thread, so they are looked for once a minute, and when one has gone.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._children: list[int] = []
        self._looked = -_LOOK_EVERY_S

    def read(self) -> tuple[float, int]:
        """CPU seconds since the start (ended children count on) and resident bytes now."""
        if time.monotonic() - self._looked >= _LOOK_EVERY_S:
            self._look()
        reaped = os.times()
        cpu, rss = _stat(self._proc, "self")
        cpu += reaped.children_user + reaped.children_system
        for pid in self._children:
            try:
                more_cpu, more_rss = _stat(self._proc, str(pid), os.getpid())
            except OSError:
                self._looked = -_LOOK_EVERY_S
                continue
            cpu, rss = cpu + more_cpu, rss + more_rss
        return cpu, rss

    def _look(self) -> None:
        self._looked, self._children = time.monotonic(), children(self._proc)


def usage(proc: str = "/proc") -> tuple[float, int]:
    """The same, once."""
    return Usage(proc).read()
