"""What end-to-end tests of several processes have in common."""

import contextlib
import signal
import socket
import subprocess
import time
import urllib.request
from types import SimpleNamespace

import pytest


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def running(command, log):
    """A process as long as this lasts; what it says goes to `log`."""
    with open(log, "ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def get(url, timeout=10.0):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read().decode()


def eventually(what, limit=120.0):
    """Poll until `what` returns something true; an address that nobody serves yet is not."""
    end = time.monotonic() + limit
    while True:
        with contextlib.suppress(OSError):
            if found := what():
                return found
        if time.monotonic() > end:
            pytest.fail(f"did not come true within {limit:g} s")
        time.sleep(0.25)


@pytest.fixture(scope="session")
def tools():
    return SimpleNamespace(free_port=free_port, running=running, get=get, eventually=eventually)
