"""`gpuvigil chaos sim ...`: data on stdout, talk on stderr, exit codes, and the examples of the help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.base.errors import Exit
from agent.cli import main
from chaos.simulator.build import LIBRARY
from chaos.simulator.kinds import KINDS
from chaos.simulator.sim_cli import duration
from chaos.simulator.world import World


class Sim:
    """Runs one command; keeps what it printed."""

    def __init__(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.state, self.capsys = state, capsys
        self.out = self.err = ""

    def __call__(self, verb: str, *words: str) -> int:
        with_state = [] if verb in ("kinds", "path", "build") else ["--state", str(self.state)]
        try:
            code = main(["chaos", "sim", verb, *words, *with_state])
        except SystemExit as usage:
            code = int(usage.code or 0)
        self.out, self.err = self.capsys.readouterr()
        return code


@pytest.fixture
def sim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Sim:
    return Sim(tmp_path / "state", capsys)


def test_start_says_loudly_that_nothing_is_real(sim: Sim) -> None:
    assert sim("start", "--profile", "l40s", "--gpus", "2", "--workload", "idle", "--seed", "5") == Exit.GOOD
    assert sim.out == f"{sim.state}\n"
    assert "SIMULATED" in sim.err
    assert "No value read from this node is real" in sim.err
    assert f"GPUVIGIL_SIM_STATE={sim.state}" in sim.err
    with World.open(sim.state) as world:
        assert [gpu.name for gpu in world.gpus] == ["NVIDIA L40S"] * 2
    assert sim("start") == Exit.USAGE
    assert "--replace" in sim.err
    assert sim("start", "--replace") == Exit.GOOD


def test_a_fault_is_set_listed_and_cleared(sim: Sim, tmp_path: Path) -> None:
    sim("start", "--gpus", "4")
    assert sim("set", "gpu_lost", "--gpu", "3", "--at", "2s", "--for", "30s", "partial=1") == Exit.GOOD
    number = int(sim.out)
    assert sim("list", "-o", "json") == Exit.GOOD
    (fault,) = json.loads(sim.out)
    with World.open(sim.state) as world:
        uuid = world.gpus[3].uuid
    assert (fault["id"], fault["kind"], fault["gpu"], fault["uuid"]) == (number, "gpu_lost", 3, uuid)
    assert fault["active"] is False
    assert 0 < fault["begins_in"] <= 2.1
    assert 30 < fault["expires_in"] <= 32.1
    assert fault["parameters"] == {"partial": 1, "period": 0, "handle_code": 0}
    assert sim("list") == Exit.GOOD
    assert "gpu_lost" in sim.out
    assert "partial=1" in sim.out
    assert sim("clear", str(number)) == Exit.GOOD
    assert sim("clear", str(number)) == Exit.USAGE
    assert f"no fault {number}" in sim.err
    assert sim("list", "-o", "json") == Exit.GOOD
    assert json.loads(sim.out) == []


def test_words_may_stand_before_and_after_options(sim: Sim, tmp_path: Path) -> None:
    sim("start", "--gpus", "4")
    log = tmp_path / "kmsg"
    assert sim("set", "xid", "--gpu", "3", "code=79", f"kmsg={log}") == Exit.GOOD
    assert sim("set", "xid", "code=31", f"kmsg={log}", "--gpu", "3") == Exit.GOOD
    assert [line.split(": ")[2].split(",")[0] for line in log.read_text().splitlines()] == ["79", "31"]


def test_all_gpus_a_uuid_and_the_node(sim: Sim) -> None:
    sim("start", "--gpus", "3")
    assert sim("set", "ecc_corrected", "--gpu", "all", "rate=5") == Exit.GOOD
    assert len(sim.out.split()) == 3
    with World.open(sim.state) as world:
        uuid = world.gpus[1].uuid
    assert sim("set", "gpu_lost", "--gpu", uuid) == Exit.GOOD
    assert sim("set", "driver_unloaded") == Exit.GOOD
    assert sim("list", "-o", "json") == Exit.GOOD
    assert [fault["gpu"] for fault in json.loads(sim.out)] == [0, 1, 2, 1, None]
    assert sim("clear") == Exit.GOOD
    assert "lifted 5" in sim.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gpu_lost"], "--gpu N"),
        (["gpu_lost", "--gpu", "9"], "no such GPU"),
        (["gpu_lost", "--gpu", "GPU-none"], "no such GPU"),
        (["gpu_lost", "--gpu", "0", "partial"], "KEY=VALUE"),
        (["gpu_lost", "--gpu", "0", "parts=1"], "no parameter 'parts'"),
        (["gpu_gone", "--gpu", "0"], "invalid choice"),
        (["gpu_lost", "--gpu", "0", "--for", "soon"], "not a duration"),
        (["xid", "--gpu", "0", "kmsg=/dev/null"], "regular file"),
    ],
)
def test_wrong_faults_are_usage_errors_and_say_why(sim: Sim, words: list[str], said: str) -> None:
    sim("start", "--gpus", "1")
    assert sim("set", *words) == Exit.USAGE
    assert said in sim.err
    assert sim.out == ""


def test_without_a_world_the_file_is_named(sim: Sim) -> None:
    for verb in ("list", "clear"):
        assert sim(verb) == Exit.USAGE
        assert str(sim.state) in sim.err


def test_kinds_name_their_parameters(sim: Sim) -> None:
    assert sim("kinds", "-o", "json") == Exit.GOOD
    listed = {row["kind"]: row for row in json.loads(sim.out)}
    assert set(listed) == set(KINDS)
    assert {entry["name"] for entry in listed["gpu_lost"]["parameters"]} == {"partial", "period", "handle_code"}
    assert sim("kinds") == Exit.GOOD
    assert all(name in sim.out for name in KINDS)


def test_path_is_where_the_library_is(sim: Sim) -> None:
    for verb in ("path", "build"):
        assert sim(verb) == Exit.GOOD
        assert (Path(sim.out.strip()) / LIBRARY).is_file()


def test_the_overlay_starts_on_a_real_library(
    sim: Sim, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim("start", "--gpus", "2")
    monkeypatch.setenv("GPUVIGIL_SIM_STATE", str(sim.state))
    real = tmp_path / LIBRARY
    real.write_bytes((library / LIBRARY).read_bytes())
    sim.state = tmp_path / "overlay"
    assert sim("overlay", "--real", str(real)) == Exit.GOOD
    assert f"GPUVIGIL_SIM_REAL={real}" in sim.err
    assert sim("set", "gpu_lost", "--gpu", "0") == Exit.USAGE
    assert "--for TIME" in sim.err
    assert sim("set", "gpu_lost", "--gpu", "0", "--for", "1s") == Exit.GOOD
    assert sim("path", "--real", str(real)) == Exit.GOOD
    assert (Path(sim.out.strip()) / LIBRARY).is_file()
    assert sim("path", "--real", "/absent") == Exit.USAGE


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("500ms", 0.5), ("2m", 120), ("1.5h", 5400), ("7", 7), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


def test_the_clock_is_frozen_stepped_and_sped_up(sim: Sim) -> None:
    sim("start", "--gpus", "1")
    assert sim("clock", "--speed", "0") == Exit.GOOD
    frozen = float(sim.out)
    assert sim("clock", "--step", "1h") == Exit.GOOD
    assert float(sim.out) == pytest.approx(frozen + 3600, abs=0.01)
    assert sim("clock", "--speed", "60", "--step", "1d") == Exit.GOOD
    assert float(sim.out) >= frozen + 90_000 - 0.01
    assert sim("clock", "--speed", "-1") == Exit.USAGE
    assert sim("clock") == Exit.GOOD
    assert float(sim.out) > frozen + 90_000
