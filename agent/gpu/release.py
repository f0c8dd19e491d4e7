"""The driver let go on request: until when the agent keeps its hands off it, so that it can be reloaded.

An open handle pins the kernel module: `rmmod nvidia` says "in use" while the agent reads GPUs. Set by
`gpuvigil agent gpu release`, honoured by the gpu collector, ended by `gpuvigil agent gpu take` or by its time.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final, NamedTuple

from agent.base import statefile
from agent.base.window import WindowFile

RELEASE: Final = WindowFile("gpu-released.json", "driver release", 86400.0, "driver 595", "gpuvigil agent gpu take")

ANSWER: Final = "gpu-driver.json"
"""File in which the running agent says whether it holds the driver."""


def answer(state_dir: str | Path, released: bool) -> None:
    """Say whether the driver is let go, for the command that waits for it."""
    statefile.save(Path(state_dir, ANSWER), {"released": released, "pid": os.getpid()}, sync=False)


def state(state_dir: str | Path) -> bool | None:
    """What the running agent said last; None where none runs."""
    found = statefile.load(Path(state_dir, ANSWER))
    return bool(found.get("released")) if _lives(found.get("pid")) else None


def agent_runs(state_dir: str | Path) -> bool:
    """Whether another process than this one reads the GPUs and keeps its state there."""
    pid = statefile.load(Path(state_dir, ANSWER)).get("pid")
    return pid != os.getpid() and _lives(pid)


def _lives(pid: object) -> bool:
    return isinstance(pid, int) and Path("/proc", str(pid)).exists()


class Holder(NamedTuple):
    """A process that has a device of the driver's open."""

    pid: int
    name: str


def holders(proc: str | Path = "/proc") -> list[Holder]:
    """Processes with /dev/nvidia* open, as far as we may look; each of them keeps the driver loaded."""
    found = []
    for folder in sorted(Path(proc).glob("[0-9]*"), key=lambda folder: int(folder.name)):
        try:
            with os.scandir(folder / "fd") as entries:
                opened = [_target(entry.path) for entry in entries]
            name = (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue  # it ended, or is not ours to look into
        if any(path.startswith("/dev/nvidia") for path in opened):
            found.append(Holder(int(folder.name), name))
    return found


def _target(link: str) -> str:
    with contextlib.suppress(OSError):  # closed meanwhile: the process may have others open
        return os.readlink(link)
    return ""
