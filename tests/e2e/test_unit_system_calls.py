"""The agent, traced: every system call it makes is one that its systemd unit allows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not here (apt: strace)"),
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here (apt: systemd)"),
]
UNIT = Path(__file__).parents[2] / "deploy/systemd/gpuvigil-agent.service"


def expand(name: str) -> set[str]:
    """The system calls of a filter group, groups within it included."""
    listing = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    words = [line.strip() for line in listing.stdout.splitlines()[1:]]
    calls = {word for word in words if word and not word.startswith(("#", "@"))}
    return calls.union(*(expand(word) for word in words if word.startswith("@")))


def allowed() -> set[str]:
    """What the unit's SystemCallFilter= lines leave, read in their order."""
    left = expand("@default")
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(encoding="utf-8"), re.M):
        calls: set[str] = set().union(
            *(expand(word) if word.startswith("@") else {word} for word in line.lstrip("~").split())
        )
        left = left - calls if line.startswith("~") else left | calls
    return left


def test_the_agent_makes_no_call_that_its_unit_refuses(tmp_path: Path) -> None:
    trace, config = tmp_path / "trace", tmp_path / "agent.yaml"
    config.write_text(
        f"node: n1\ncluster: c1\nlisten: 127.0.0.1:0\nstate_dir: {tmp_path}/state\nrun_dir: {tmp_path}/run\n"
    )
    command = ["strace", "-f", "-qq", "-o", str(trace), sys.executable, "-m", "agent.cli"]
    with subprocess.Popen(
        [*command, "agent", "run", "--config", str(config)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := re.search(r"msg=listening address=(\S+)", line):
                    break
            else:
                pytest.fail("the agent never listened")
            address = found[1]
            end = time.monotonic() + 60
            page = ""
            while "gpuvigil_collector_success" not in page and time.monotonic() < end:
                page = urllib.request.urlopen(f"http://{address}/metrics", timeout=30).read().decode()
                time.sleep(0.5)
            assert "gpuvigil_collector_success" in page
        finally:
            # strace itself keeps signals blocked; it ends with what it traces
            for child in psutil.Process(process.pid).children():
                child.terminate()
            process.stderr.read()
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    used = {found[1] for line in lines if (found := re.match(r"\d+\s+([a-z_0-9]+)\(", line))}
    assert {"epoll_wait", "openat"} <= used, "the trace does not show an agent at work"
    assert used - allowed() == set()
