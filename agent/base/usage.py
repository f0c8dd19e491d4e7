"""What a process of ours costs: CPU time and resident memory, child processes included."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def children(proc: str = "/proc") -> list[int]:
    """Pids of this process' live children, whichever thread started them."""
    found: list[int] = []
    for task in Path(proc, "self/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def _stat(proc: str, pid: str) -> tuple[float, int]:
    """CPU seconds and resident bytes of one process, proc(5)."""
    fields = Path(proc, pid, "stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE


def usage(proc: str = "/proc") -> tuple[float, int]:
    """CPU seconds since the start (ended children count on) and resident bytes now."""
    reaped = os.times()
    cpu, rss = _stat(proc, "self")
    cpu += reaped.children_user + reaped.children_system
    for pid in children(proc):
        try:
            more_cpu, more_rss = _stat(proc, str(pid))
        except OSError:
            continue
        cpu, rss = cpu + more_cpu, rss + more_rss
    return cpu, rss
