"""What central takes from its machine, and how much it may take."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import psutil

from agent.base.catalogue import Sample
from agent.base.catalogue import central as metrics
from agent.base.usage import usage


def samples(proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> list[Sample]:
    """CPU, memory and files, each with its limit; what this system does not tell is absent."""
    cpu, resident = usage(proc)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [
        metrics.CPU_SECONDS.sample(cpu),
        metrics.CPUS.sample(len(os.sched_getaffinity(0))),
        metrics.RSS.sample(resident),
        metrics.MEMORY_LIMIT.sample(memory_limit(proc, cgroups)),
        metrics.OPEN_FILES.sample(len(os.listdir(f"{proc}/self/fd"))),
        metrics.OPEN_FILES_LIMIT.sample(files),
    ]


def memory_limit(proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> int:
    """Bytes of the tightest limit of this process' control groups (version 2); without one, all memory there is."""
    limits = [psutil.virtual_memory().total]
    for line in Path(proc, "self/cgroup").read_text(encoding="ascii", errors="replace").splitlines():
        if not line.startswith("0::"):
            continue
        here = Path(cgroups, line[3:].strip("/"))
        for folder in (here, *here.parents):
            try:
                limits.append(int((folder / "memory.max").read_text()))
            except (OSError, ValueError):  # no such limit, or "max"
                continue
    return min(limits)
