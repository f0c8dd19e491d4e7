"""Real processes on loopback, for benches and tests: a port, a process, its page, and waiting for what comes true."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[object], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process as long as this lasts; what it says goes to `log`."""
    with open(log, "ab") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, env=env)
    try:
        yield process
    finally:
        end([process])


def end(processes: Sequence[subprocess.Popen[bytes]], patience: float = 20.0) -> None:
    """Ask all to end, those that are stopped too, and kill who does not."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
    for process in processes:
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def get(url: str, timeout: float = 10.0) -> str:
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return str(answer.read().decode())


def eventually(what: Callable[[], T], limit: float = 120.0, every: float = 0.2) -> T:
    """The first true answer of `what`; an address that nobody serves yet gives none.

    Raises:
        AssertionError: not within `limit` seconds.
    """
    last = time.monotonic() + limit
    while True:
        with contextlib.suppress(OSError):
            if found := what():
                return found
        assert time.monotonic() < last, f"did not come true within {limit:g} s"
        time.sleep(every)
