"""The process behind an engine: which one listens at its address, when it started, what it owns.

Reads `/proc` of the node; `proc` is an argument so that tests use a recorded tree.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from agent.base.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Process:
    """A process for good: a pid alone may be given to another one later.

    `started` is in seconds since boot, on the clock of `boot_clock`.
    """

    pid: int
    started: float


def boot_clock() -> float:
    """Seconds since boot, suspended time included: the clock of a process's start in /proc."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def identify(pid: int, proc: Path) -> Process | None:
    """The process now known by `pid`, or None if there is none."""
    fields = _stat(pid, proc)
    if fields is None:
        return None
    return Process(pid, int(fields[19]) / os.sysconf("SC_CLK_TCK"))


def parent(pid: int, proc: Path) -> int:
    """Its parent's pid; 0 when unknown."""
    fields = _stat(pid, proc)
    return int(fields[1]) if fields else 0


def _stat(pid: int, proc: Path) -> list[str] | None:
    """The fields of /proc/PID/stat from the third (state) on; a name may hold spaces and brackets."""
    try:
        text = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields if len(fields) > 19 and fields[19].isdigit() else None


def descends(pid: int, ancestor: int, proc: Path) -> bool:
    """True if `pid` is `ancestor` or one of its children's children."""
    for _ in range(64):
        if pid == ancestor:
            return True
        if pid <= 1:
            return False
        pid = parent(pid, proc)
    return False


def from_pid_file(path: Path) -> int | None:
    """The pid that a file names; None while there is no file.

    Raises:
        ConfigError: the file holds something else.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    except UnicodeDecodeError:
        text = ""
    if not text.isdigit():
        raise ConfigError(f"pid file {path}: must hold one process number")
    return int(text)


def address(url: str) -> tuple[str, int]:
    """Host and port of an address."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def listener(url: str) -> int | None:
    """The pid that listens at a loopback or local address of this node; None if it cannot be told.

    Another user's process is seen only with the privilege to read its file descriptors.
    """
    host, port = address(url)
    if not _is_here(host):
        return None
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return None
    pids = {c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr[1] == port and c.pid}
    return min(pids) if pids else None


def _is_here(host: str) -> bool:
    """Whether `host` is this node: only then is the port's owner ours to name."""
    if host in ("localhost", "127.0.0.1", "::1", "0.0.0.0"):  # noqa: S104 - compared, not bound
        return True
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as test:
            test.bind((host, 0))
    except OSError:
        return False
    return True


class State(Enum):
    """What one look at the health URL says of a start."""

    READY = "ready"
    STARTING = "starting"
    """Nobody listens yet, or whoever does says that it is not ready."""
    UNKNOWN = "unknown"
    """No answer in time: a busy engine looks like that too."""


class LoadTimer:
    """Process start to first ready, for starts that happened while we watched.

    An engine that was ready before the first look is not timed: how long it took is not known. The
    result is as fine as the time between two looks.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._timed: Process | None = None
        self._looked: float | None = None
        self._starting = False

    def restore(self, process: Process, seconds: float) -> None:
        """Take up what an agent before this one measured; it holds while the process is still the same."""
        self._timed, self.seconds = process, seconds

    @property
    def measured(self) -> tuple[Process, float] | None:
        """The process that was timed and its time, for another agent to take up."""
        return (self._timed, self.seconds) if self._timed is not None and self.seconds is not None else None

    def look(self, process: Process | None, state: State, now: float | None = None) -> None:
        """Take note of one look at the engine; `now` is on `boot_clock`."""
        now = boot_clock() if now is None else now
        before, self._looked = self._looked, now
        if state is State.STARTING:
            self._starting = True
        if state is not State.READY or process is None or process == self._timed:
            return
        watched = self._starting or (before is not None and process.started >= before)
        self._timed, self._starting = process, False
        self.seconds = max(0.0, now - process.started) if watched else None
