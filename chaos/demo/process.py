"""One part of the demo as a process of its own: started, waited for, watched and stopped whole.

Every part leads a process group, so that its children go with it, and is told to end by the kernel
should the demo itself be killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.base.errors import CannotTell, VigilError
from chaos.measure import fetch

TAIL = 15
"""Lines of a log that are shown when its part fails."""


class PartFailed(VigilError):
    """A part did not come up; the text has its last words."""


@dataclass(slots=True)
class Part:
    """A process of the demo.

    Args:
        ready_url: answers 2xx once the part is ready; empty: being alive is enough.
        url: what a person opens, for the table.
        ends: an exit with 0 is its normal end.
    """

    name: str
    argv: Sequence[str]
    log: Path
    ready_url: str = ""
    url: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    ends: bool = False
    process: subprocess.Popen[bytes] | None = None
    told: bool = False
    """Its death has been reported."""

    def start(self) -> None:
        """Start it, its output going to the log.

        Raises:
            PartFailed: the program cannot be started.
        """
        leash = shutil.which("setpriv")
        argv = [leash, "--pdeathsig", "TERM", "--", *self.argv] if leash else list(self.argv)
        with self.log.open("ab") as log:
            try:
                self.process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self.env},
                    start_new_session=True,
                )
            except OSError as error:
                raise PartFailed(f"{self.name}: cannot be started: {error}") from None
        self.told = False

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_ready(self, timeout: float, stopped: Callable[[], str | None]) -> None:
        """Wait until it is ready.

        Raises:
            PartFailed: it died or was not ready in time; the text ends with the tail of its log.
        """
        deadline = time.monotonic() + timeout
        problem = "not ready"
        while not stopped():
            if not self.alive:
                self.told = True
                raise PartFailed(f"{self.name} {self.death()}\n{self.tail()}")
            if not self.ready_url:
                return
            try:
                fetch(self.ready_url, timeout=2.0)
                return
            except CannotTell as error:
                problem = str(error)
            if time.monotonic() >= deadline:
                raise PartFailed(f"{self.name} is not ready after {timeout:g} s ({problem})\n{self.tail()}")
            time.sleep(0.1)

    def death(self) -> str:
        """How it ended, in words."""
        code = self.process.poll() if self.process else None
        if code is None:
            return "is not running"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"

    def tail(self) -> str:
        """The last lines of its log, indented, with the log's path."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 20_000))
                lines = file.read().decode("utf-8", "replace").splitlines()[-TAIL:]
        except OSError as error:
            lines = [f"(no log: {error})"]
        return "\n".join([f"  last lines of {self.log}:", *(f"  | {line}" for line in lines)])

    def signal(self, number: int) -> None:
        """Send a signal to its whole group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


def stop(parts: Sequence[Part], patience: float = 15.0) -> list[str]:
    """End all parts, the last started first; returns the names of those that had to be killed."""
    for part in reversed(parts):
        if part.alive:
            part.signal(signal.SIGTERM)
    deadline = time.monotonic() + patience
    killed = []
    for part in reversed(parts):
        if part.process is None:
            continue
        try:
            part.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            killed.append(part.name)
        part.signal(signal.SIGKILL)  # whatever is left of the group
        part.process.wait()
    return killed
