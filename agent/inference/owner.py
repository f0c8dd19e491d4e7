"""Who runs a process: its systemd unit, Kubernetes pod, container and Slurm job, read from its control group."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_UNIT = re.compile(r"[^/]+\.service")
# Both forms of the kubelet's drivers: kubepods-burstable-pod0a1b_..._ff.slice and /kubepods/burstable/pod0a1b-...-ff
_POD = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")
_CONTAINER = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_SLURM = re.compile(r"/job_(\d+)(?:/|$)")


class Owner(NamedTuple):
    """Empty strings for what does not apply; a container's id is shortened to 12 digits."""

    unit: str = ""
    pod_uid: str = ""
    container: str = ""
    slurm_job: str = ""


def owner(pid: int, proc: Path) -> Owner:
    """The owner of process `pid`; all empty when its control group cannot be read."""
    try:
        return parse((proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Owner()


def parse(text: str) -> Owner:
    """The owner named by the lines of /proc/PID/cgroup, of either version of control groups."""
    paths = [line.split(":", 2)[2] for line in text.splitlines() if line.count(":") >= 2]
    pod = container = job = unit = ""
    for path in paths:
        pod = pod or _first(_POD, path).replace("_", "-")
        container = container or _first(_CONTAINER, path)[:12]
        job = job or (_first(_SLURM, path) if "slurm" in path else "")
        names = [part for part in path.split("/") if _UNIT.fullmatch(part)]
        unit = unit or (names[-1] if names else "")
    # Inside a container's group the service is the runtime's, not the engine's.
    return Owner("" if container else unit, pod, container, job)


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
