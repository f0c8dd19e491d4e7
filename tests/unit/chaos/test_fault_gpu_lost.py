"""The GPU-lost fault on the simulator, read back through NVML: in force, taken back, or over by itself."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.base.errors import Exit, UndoFailed
from agent.cli import main as gpuvigil
from chaos.engine import drill as drills
from chaos.engine.fault import NotInjected, Plan, Refused, Touched, find
from chaos.engine.journal import Journal
from chaos.engine.target import Target
from chaos.faults import nvml_readback
from chaos.simulator.build import build
from chaos.simulator.world import World

pytestmark = pytest.mark.skipif(
    not (os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")), reason="no C compiler for the simulator"
)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as victim:
        (tmp_path / "engine.pid").write_text(str(victim.pid))
        yield victim
        victim.kill()


@pytest.fixture
def target(tmp_path: Path, process: subprocess.Popen[bytes]) -> Target:
    with World.create(tmp_path / "world", gpus=4) as world:
        world.set_process(2, process.pid, 1 << 30)
    return Target.model_validate(
        {
            "kind": "simulator",
            "node": "n",
            "sim_state": tmp_path / "world",
            "sim_library": build(),
            "kmsg": tmp_path / "kmsg",
            "agent": "http://127.0.0.1:1",
            "prometheus": "http://127.0.0.1:1",
            "sink": "http://127.0.0.1:1",
            "run_dir": tmp_path,
            "state_dir": tmp_path / "state",
            "engines": [{"name": "llm", "pid_file": tmp_path / "engine.pid"}],
        }
    )


def make_plan(target: Target, gpu: int = 2, duration: float = 60.0) -> Plan:
    fault = find("gpu_lost")
    return fault.plan(fault.parameters(gpu=gpu), target, duration)  # type: ignore[call-arg]


def lost(target: Target) -> list[int]:
    return [gpu.index for gpu in nvml_readback.read(target.sim_library, target.sim_state) if gpu.error]


def test_lost_with_its_process_and_back(target: Target, process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    fault, plan = find("gpu_lost"), make_plan(target)
    with World.open(target.sim_state) as world:
        uuid = world.gpus[2].uuid
    assert plan.touches == (Touched("gpu", uuid), Touched("engine", "llm"))
    assert lost(target) == [], "a plan touches nothing"
    with pytest.raises(NotInjected, match="still answers"):
        fault.verify_injected(plan)

    fault.inject(plan)
    assert process.wait(10) == -9
    assert "the other 3 GPUs answer" in fault.verify_injected(plan)
    assert lost(target) == [2]
    assert "NVRM: Xid" in (tmp_path / "kmsg").read_text()
    with pytest.raises(UndoFailed, match=uuid):
        fault.verify_undone(plan.undo)
    with pytest.raises(Refused, match="GPU 2 of n"):
        make_plan(target)

    record = json.loads(json.dumps(plan.undo))  # as another process reads it from the journal
    for _ in range(2):
        fault.undo(record)
        assert "answers NVML again" in fault.verify_undone(record)
    assert lost(target) == []


def test_the_fault_ends_by_itself(target: Target) -> None:
    fault, plan = find("gpu_lost"), make_plan(target, gpu=1, duration=1.5)
    fault.inject(plan)
    assert lost(target) == [1]
    deadline = time.monotonic() + 30
    while lost(target) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert lost(target) == []


def test_a_pid_that_is_another_process_by_now_is_spared(target: Target, process: subprocess.Popen[bytes]) -> None:
    fault, plan = find("gpu_lost"), make_plan(target)
    plan.undo["victims"] = {str(process.pid): psutil.Process(process.pid).create_time() - 100}
    fault.inject(plan)
    assert process.poll() is None
    fault.undo(plan.undo)


def test_no_such_gpu_is_refused(target: Target) -> None:
    with pytest.raises(Refused, match="there are 4 GPUs"):
        make_plan(target, gpu=9)


def target_file(target: Target, tmp_path: Path) -> str:
    path = tmp_path / "target.yaml"
    path.write_text(target.model_dump_json())  # JSON is YAML
    return str(path)


def test_cli_plans_and_recovers_what_a_killed_drill_left(
    target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = target_file(target, tmp_path)
    drill = tmp_path / "mine.yaml"
    drill.write_text((drills.SHIPPED / "gpu-lost.yaml").read_text().replace("gpu: 3", "gpu: 2"))
    assert gpuvigil(["chaos", "plan", str(drill), "--target", where, "-o", "json"]) == Exit.GOOD
    planned = json.loads(capsys.readouterr().out)
    assert planned["touches"][1] == {"scope": "engine", "target": "llm"}

    plan, journal = make_plan(target), Journal(target.state_dir)
    journal.write("killed", "armed", "gpu_lost", plan.undo)
    find("gpu_lost").inject(plan)
    assert gpuvigil(["chaos", "run", str(drill), "--target", where, "--report", str(tmp_path)]) == Exit.BAD
    assert "killed is unfinished: gpuvigil chaos recover" in capsys.readouterr().out
    assert lost(target) == [2]
    assert gpuvigil(["chaos", "recover", "--target", where]) == Exit.GOOD
    assert lost(target) == []
    assert not journal.unfinished()
    assert gpuvigil(["chaos", "recover", "--target", where]) == Exit.GOOD
    assert "nothing to recover" in capsys.readouterr().err
    assert gpuvigil(["chaos", "abort", "--target", where]) == Exit.BAD


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gpu: 3", "gpus: 3", r"mine.yaml:7: parameters.gpus: unknown key; allowed: gpu, kill_processes, xid"),
        ("gpu: 3", "gpu: -1", r"mine.yaml:7: parameters.gpu: .*greater than or equal to 0"),
        ("page: drill", "page: loud", r"mine.yaml:10: page: .*'drill' or 'real', got 'loud'"),
        ("max_duration: 2m", "max_duration: 120", r"mine.yaml:11: max_duration: must be a duration with a unit"),
        ("max_duration: 2m", "max_duration: 1m", r"max_duration: must exceed expect.detected_within plus hold"),
        ("fault: gpu_lost", "fault: gpu_gone", r"no fault 'gpu_gone'; there are: .*gpu_lost"),
    ],
)
def test_a_wrong_drill_file_is_named_with_its_line(
    old: str, new: str, said: str, tmp_path: Path, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    drill = tmp_path / "mine.yaml"
    drill.write_text((drills.SHIPPED / "gpu-lost.yaml").read_text().replace(old, new))
    assert gpuvigil(["chaos", "plan", str(drill), "--target", target_file(target, tmp_path)]) == Exit.USAGE
    assert re.search(said, capsys.readouterr().err)


def test_cli_lists_and_names_what_there_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpuvigil(["chaos", "list", "-o", "json"]) == Exit.GOOD
    listed = json.loads(capsys.readouterr().out)
    assert listed["drills"][0]["drill"] == "gpu-lost"
    assert "gpu_lost" in listed["faults"]
    assert gpuvigil(["chaos", "list"]) == Exit.GOOD
    assert gpuvigil(["chaos", "plan", "no-such"]) == Exit.USAGE
    assert "there are: gpu-lost" in capsys.readouterr().err
    assert gpuvigil(["chaos", "plan", "gpu-lost", "--target", str(tmp_path / "none.yaml")]) == Exit.USAGE
