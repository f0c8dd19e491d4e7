"""An exporter that runs, what it uses, and how it is started and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.lib.scraper import Client

PATIENCE = 60.0


@dataclass
class Subject:
    """One exporter that runs: what is measured of it, by name."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    rows: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, value: float, unit: str) -> None:
        """Print `name value unit`; a peer's rows carry its name in front."""
        self.rows[name] = value
        prefix = "" if self.name == "agent" else f"{self.name}_"
        print(f"{prefix}{name} {value:.4g} {unit}", flush=True)

    def pids(self) -> list[int]:
        found = [self.process.pid]
        for pid in found:  # grows while it is walked: children of children too
            for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += map(int, tasks.read_text().split())
        return found

    def cpu(self, pids: list[int] | None = None) -> float:
        """CPU seconds so far, in the kernel's own nanoseconds; threads that ended included."""
        total = 0
        for pid in pids or self.pids():
            with contextlib.suppress(OSError):
                # clock_getcpuclockid(3) of another process, in the kernel's own encoding
                total += time.clock_gettime_ns((~pid << 3) | 2)
        return total / 1e9

    def rss(self) -> float:
        """Resident memory in MB."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextlib.contextmanager
def running(name: str, command: list[str], port: int, env: dict[str, str], log: Path) -> Iterator[Subject]:
    """Start an exporter, wait until it answers, stop it at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
        subject = Subject(name, process, port)
        try:
            wait_for(subject, log)
            yield subject
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(subject: Subject, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and subject.process.poll() is None:
        with contextlib.suppress(OSError):
            Client(subject.port, "/metrics").scrape()
            return
        time.sleep(0.1)
    raise SystemExit(f"{subject.name} does not answer: {log.read_text()[-2000:]}")
