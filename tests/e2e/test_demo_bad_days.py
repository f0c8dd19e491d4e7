"""The demo on a bad day: what is missing is named with the fix, and what is interrupted is taken back."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import VigilError
from chaos.demo import world
from chaos.demo.layout import Layout
from chaos.demo.stack import Stack
from chaos.engine.journal import Journal
from chaos.simulator.build import build
from chaos.simulator.world import World

pytestmark = pytest.mark.e2e


def once(folder: Path, *more: str, path: str | None = None) -> tuple[int, dict[str, Any], str]:
    """Exit code, the object on stdout (nothing else may be there), and what was said."""
    command = [
        sys.executable,
        "-m",
        "chaos.demo",
        "--once",
        "--ports",
        "auto",
        "--build",
        str(folder),
        "-o",
        "json",
        *more,
    ]
    env = {**os.environ, "PATH": path if path is not None else os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_without_prometheus_and_alertmanager(tmp_path: Path) -> None:
    build()  # the compiler goes with the PATH
    code, result, said = once(tmp_path, path=str(tmp_path))
    assert code == 1
    assert result["not_up"] == {
        "prometheus": "program prometheus is missing: apt install prometheus",
        "alertmanager": "program prometheus-alertmanager is missing: apt install prometheus-alertmanager",
    }
    assert result["drill"] is None
    assert result["problem"].startswith("no drill: it needs prometheus (program prometheus is missing")
    assert result["chain"] == {
        "GPUs read through NVML": True,
        "time to first token measured by the probe": True,
        "training loss read from the log": True,
    }
    assert {"agent", "engine", "sink", "central"} <= result["urls"].keys()
    assert "NOT UP: prometheus" in said


def test_real_driver_leaves_the_drill_out_and_says_so(tmp_path: Path) -> None:
    code, result, said = once(tmp_path, "--real")
    assert (result["drill"], result["simulated"]) == (None, False)
    if Path("/dev/nvidiactl").exists():
        assert (code, result["not_up"]) == (0, {})
    else:  # everything but the GPUs runs, and that they are not there is said
        assert (code, result["not_up"].keys()) == (1, {"gpus"})
        assert "NOT UP: gpus: no NVIDIA driver answers" in said
    assert result["problem"].startswith("no drill: --real takes the node's own driver")
    assert "REAL" in said
    assert "SIMULATED" not in said


def test_without_a_compiler_the_rest_comes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler() -> Path:
        raise VigilError("no compiler is here: apt install gcc libc6-dev")

    monkeypatch.setattr(world, "build", no_compiler)
    monkeypatch.setenv("PATH", str(tmp_path))
    for folder in ("log", "run", "state"):
        (tmp_path / folder).mkdir()
    said: list[str] = []
    ports = dict.fromkeys(("agent", "central", "sink", "engine", "prometheus", "alertmanager"), 0)
    stack = Stack(Layout(tmp_path), ports, real=False, say=said.append, stopped=lambda: "enough")
    try:
        stack.up()
        assert stack.lost["simulator"] == "no compiler is here: apt install gcc libc6-dev"
        assert {"sink", "agent", "training"} <= stack.pids().keys()
        assert "NOT UP: simulator: no compiler is here: apt install gcc libc6-dev" in said
        assert not any("SIMULATED" in line for line in said)
    finally:
        stack.down()
    assert stack.pids() == {}


def test_interrupted_in_the_drill_takes_it_back_first(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chaos.demo", "--once", "--ports", "auto", "--build", str(tmp_path), "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        said = ""
        while "injected:" not in said and (line := demo.stderr.readline()):
            said += line
        demo.send_signal(signal.SIGINT)
        out, rest = demo.communicate(timeout=120)
    assert demo.returncode == 130, said + rest
    drill = json.loads(out)["drill"]
    assert (drill["verdict"], drill["reasons"]) == ("aborted", ["stopped by SIGINT"])
    assert "undone" in drill["timeline"]
    journal = Journal(tmp_path / "demo" / "state" / "chaos")
    assert journal.entries()
    assert journal.unfinished() == []
    with World.open(tmp_path / "demo" / "gpus.state") as world_:
        assert world_.faults() == []
    assert "all parts have stopped" in rest
