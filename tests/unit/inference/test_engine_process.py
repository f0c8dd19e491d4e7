"""The process behind an engine: pid file, listener, descent, load time, GPUs."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.base.catalogue import llm as m
from agent.base.errors import ConfigError
from agent.inference import process
from agent.inference.engine import Engine
from agent.inference.process import LoadTimer, Process, State
from agent.inference.settings import EngineSettings

PROC = Path("/proc")


def test_this_process() -> None:
    me = process.identify(os.getpid(), PROC)
    assert me is not None
    assert 0 < me.started <= process.boot_clock()
    assert process.parent(os.getpid(), PROC) == os.getppid()


def test_a_name_with_brackets_and_blanks_is_no_trouble(tmp_path: Path) -> None:
    fields = " ".join(["S", "41", *["0"] * 17, "12300", "0"])
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "stat").write_text(f"42 (a) (b c) {fields}\n")
    ticks = os.sysconf("SC_CLK_TCK")
    assert process.identify(42, tmp_path) == Process(42, 12300 / ticks)
    assert process.parent(42, tmp_path) == 41
    assert process.identify(43, tmp_path) is None


def test_pid_file(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    assert process.from_pid_file(file) is None
    file.write_text(" 4242\n")
    assert process.from_pid_file(file) == 4242
    file.write_text("four\n")
    with pytest.raises(ConfigError, match=r"pid file .*/pid: must hold one process number"):
        process.from_pid_file(file)


def test_the_listener_of_a_port() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert process.listener(f"http://127.0.0.1:{port}") is None
        server.listen()
        assert process.listener(f"http://127.0.0.1:{port}") == os.getpid()
        assert process.listener(f"http://192.0.2.1:{port}") is None, "another machine's port is not ours to name"


def test_load_time_of_a_start_that_was_watched() -> None:
    timer, first = LoadTimer(), Process(7, 100.0)
    timer.look(None, State.STARTING, now=90.0)
    timer.look(first, State.STARTING, now=105.0)
    assert timer.seconds is None
    timer.look(first, State.READY, now=160.0)
    assert timer.seconds == 60.0
    timer.look(first, State.READY, now=500.0)
    assert timer.seconds == 60.0, "of the first readiness, not of a later look"
    timer.look(first, State.STARTING, now=510.0)
    timer.look(first, State.READY, now=520.0)
    assert timer.seconds == 60.0, "overloaded for a while is no start"
    timer.look(Process(8, 530.0), State.READY, now=535.0)
    assert timer.seconds == 5.0, "started and ready between two looks"


def test_a_start_nobody_watched_has_no_load_time() -> None:
    timer = LoadTimer()
    timer.look(Process(7, 100.0), State.READY, now=5000.0)
    assert timer.seconds is None


def test_a_busy_engine_at_our_own_start_is_not_loading() -> None:
    timer = LoadTimer()
    timer.look(Process(7, 100.0), State.UNKNOWN, now=5000.0)
    timer.look(Process(7, 100.0), State.READY, now=5015.0)
    assert timer.seconds is None


def test_gpus_of_the_engine_and_its_workers(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '60']); "
        "print(child.pid, flush=True); sys.stdin.read(); child.kill(); child.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        (tmp_path / "pid").write_text(str(parent.pid))
        engine = Engine(EngineSettings(name="a", url="http://127.0.0.1:9", model="m", pid_file=tmp_path / "pid"))
        lent = [(worker, "3", "GPU-x", "true"), (os.getpid(), "4", "GPU-y", "true")]
        assert list(engine.placement(lent)) == [], "not looked yet: absent"
        engine.kick()
        for aside in engine.asides:
            assert aside.wait(20)
        found = [s for s in engine.placement(lent) if s.metric is m.ENGINE_GPU]
        assert found == [m.ENGINE_GPU.sample(1, "a", "3", "GPU-x", "true", str(worker))]
        (process,) = (s for s in engine.placement(lent) if s.metric is m.ENGINE_PROCESS)
        assert process.labels[:3] == ("a", "m", str(parent.pid))
        engine.close()
    finally:
        parent.communicate()
