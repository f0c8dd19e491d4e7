"""The driver let go on request: nothing holds it, nothing is reported as broken, and another one is taken up."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.cli import main
from agent.gpu.release import ANSWER, RELEASE, holders, state
from chaos.simulator.world import World

pytestmark = pytest.mark.e2e


def mapped(node):
    """Processes of ours that have the library mapped."""
    found = []
    for pid in node.context.shared["gpu"].client.pids():
        if "libnvidia-ml" in Path(f"/proc/{pid}/maps").read_text():
            found.append(pid)
    return found


def test_let_go_and_taken_up_with_another_driver(make_node, tmp_path):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    (pid,) = mapped(node)
    RELEASE.switch_on(node.context.state_dir, 600, "driver 595", time.time())
    page = node.until(lambda page: page.one("gpuvigil_gpu_driver_released") == 1)
    assert not Path(f"/proc/{pid}").exists()
    assert mapped(node) == []
    assert page.failed == ""
    assert page.up() == {}
    assert page.one("gpuvigil_gpu_driver_up") is None
    assert page.one("gpuvigil_gpu_known") == page.one("gpuvigil_gpu_expected") == 2
    assert not page.all("gpuvigil_gpu_power_watts")
    page = node.until(lambda page: page.one("gpuvigil_health_state", component="driver") == 3)
    verdict = next(each for each in node.context.shared["health"]()["verdicts"] if not each["uuid"])
    assert "driver 595" in verdict["reason"]
    for _ in range(10):  # the new driver comes, and nobody looks at it yet
        node.page()
        assert mapped(node) == []
        time.sleep(0.1)
    World.create(tmp_path / "sim.state", gpus=2, driver="595.45.04", replace=True).close()
    RELEASE.switch_off(node.context.state_dir)
    page = node.until_whole(2)
    assert page.one("gpuvigil_gpu_driver_released") == 0
    assert page.all("gpuvigil_gpu_driver_info", driver="595.45.04")


def test_a_release_ends_by_itself(make_node):
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    RELEASE.switch_on(node.context.state_dir, 3, "forgotten", time.time())
    node.until(lambda page: page.one("gpuvigil_gpu_driver_released") == 1)
    node.until_whole(1)


def test_an_agent_started_meanwhile_leaves_the_driver_alone(make_node):
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    node.stop()
    RELEASE.switch_on(node.context.state_dir, 600, "new kernel", time.time())
    node.start()
    assert node.context.shared["gpu"].client._starts == 0  # not even for a moment
    page = node.until(lambda page: page.one("gpuvigil_gpu_driver_released") == 1)
    assert page.failed == ""
    page = node.until(lambda page: page.one("gpuvigil_health_state", component="driver") == 3)
    assert node.context.shared["gpu"].client._starts == 0
    RELEASE.switch_off(node.context.state_dir)
    node.until_whole(1)


def test_a_garbled_file_is_told_and_releases_nothing(make_node):
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    Path(node.context.state_dir, RELEASE.name).write_text("{")
    page = node.until(lambda page: page.failed)
    assert page.failed == "release"
    assert page.up() == {"0": 1}


def test_the_commands(make_node, tmp_path, capsys):
    """`release` waits for the word of an agent that runs; one that does not run holds nothing."""
    config = tmp_path / "agent.yaml"
    config.write_text(f"state_dir: {tmp_path}/state\n")

    def run(*words):
        code = main(["agent", "gpu", *words, "--config", str(config), "-o", "json"])
        said = capsys.readouterr().out
        return code, json.loads(said) if said else None

    code, done = run("release", "--why", "no agent runs")
    assert (code, done["released"]) == (0, True)
    assert run("release", "--for", "2d", "--why", "too long")[0] == 2
    assert run("release", "--why", " ")[0] == 2
    assert run("take") == (0, {"released": False, "was_released": True})
    assert run("take") == (0, {"released": False, "was_released": False})

    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    assert state(tmp_path / "state") is False
    waiting = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "agent", "gpu", "release", "--why", "x", "--config", str(config)],
        stdout=subprocess.PIPE,
        text=True,
    )
    node.until(lambda page: page.one("gpuvigil_gpu_driver_released") == 1)
    said, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, "holds the driver no more" in said) == (0, True)
    assert json.loads((tmp_path / "state" / ANSWER).read_text()) == {"released": True, "pid": os.getpid()}


def test_who_holds_the_driver(tmp_path):
    """Only who has one of its devices open counts; a process that cannot be looked into is passed over."""
    for pid, name, target in (
        (7, "python3", "/dev/nvidia0"),
        (11, "bash", "/dev/null"),
        (40, "nv-hostengine", "/dev/nvidiactl"),
    ):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "comm").write_text(name + "\n")
        (tmp_path / str(pid) / "fd" / "3").symlink_to(target)
    (tmp_path / "7" / "fd" / "4").touch()  # no link any more: it closed while we looked
    (tmp_path / "50").mkdir()
    assert holders(tmp_path) == [(7, "python3"), (40, "nv-hostengine")]
