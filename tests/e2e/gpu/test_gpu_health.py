"""Verdicts on the simulated node, and the commands that show, settle and sign off, on a running agent."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

from agent.cli import main
from agent.collectors.storage import Storage, StorageSettings
from bench.harness.processes import free_port

pytestmark = pytest.mark.e2e


def verdicts(node):
    return node.context.shared["health"]()


def state(page, component, gpu=None):
    labels = {"component": component} | ({"gpu": gpu} if gpu else {})
    return page.one("gpuvigil_health_state", **labels)


def test_a_healthy_node_is_healthy(make_node):
    node = make_node(world={"gpus": 2}, expected=2)
    node.until_whole(2)
    page = node.until(lambda page: state(page, "pcie", "1") == 0)
    assert set(page.all("gpuvigil_health_state").values()) == {0}
    assert not page.all("gpuvigil_health_verdict_info")
    document = verdicts(node)
    assert (document["state"], document["simulated"]) == ("healthy", True)
    assert {gpu["state"] for gpu in document["gpus"]} == {"healthy"}


def test_a_lost_gpu_with_its_evidence(make_node):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    node.world.set("thermal_throttle", gpu=1)
    node.until(lambda page: page.one("gpuvigil_gpu_throttle", gpu="1", reason="hw_thermal"))
    with node.kmsg.open("a") as log:
        log.write(f"3,1,{int(time.monotonic() * 1e6)},-;pcieport 0000:15:01.0: AER: Uncorrectable error received\n")
    node.until(lambda page: page.one("gpuvigil_kernel_events_total", kind="pcie_aer") == 1)
    node.world.set("xid", gpu=1, code=79, kmsg=node.kmsg)
    node.world.set("gpu_lost", gpu=1)
    page = node.until(lambda page: state(page, "presence", "1") == 2 and state(page, "xid", "1") == 2)
    assert state(page, "presence", "0") == state(page, "xid", "0") == 0
    assert page.one("gpuvigil_health_verdict_info", component="xid", gpu="1", action="RESTART_BM") == 1
    document = verdicts(node)
    lost = next(each for each in document["verdicts"] if each["component"] == "presence" and each["gpu"] == "1")
    assert lost["action"] == "RESTART_BM"
    assert lost["evidence"]["minute"]["throttled"]["hw_thermal"] > 0
    assert lost["evidence"]["minute"]["readings"]["temperature.core"]["max"] > 30
    xid = next(each for each in document["verdicts"] if each["component"] == "xid" and each["gpu"] == "1")
    assert "fallen off the bus" in xid["evidence"]["kernel"][0]["text"]
    assert "AER" in lost["evidence"]["trouble"][0]["text"]
    assert document["state"] == "unhealthy"
    node.restart()  # nothing of it is forgotten
    page = node.until(lambda page: state(page, "presence", "1") == 2 and state(page, "xid", "1") == 2)
    again = next(each for each in verdicts(node)["verdicts"] if each["component"] == "presence" and each["gpu"] == "1")
    assert (again["since"], again["evidence"]) == (lost["since"], lost["evidence"])


def test_the_machine_around_the_gpus_is_judged_too(make_node):
    node = make_node(world={"gpus": 1})
    array = node.folder / "sys" / "block" / "md0" / "md"
    array.mkdir(parents=True)
    for name, text in {"array_state": "clean", "level": "raid1", "raid_disks": "2", "degraded": "1"}.items():
        (array / name).write_text(f"{text}\n")
    storage = Storage(StorageSettings(sys=node.folder / "sys", dev=node.folder), node.context)
    node.until_whole(1)
    list(storage.collect())
    page = node.until(lambda page: state(page, "raid") == 1)
    assert page.one("gpuvigil_health_verdict_info", component="raid", action="HARDWARE_INSPECTION") == 1
    document = verdicts(node)
    assert (document["state"], document["gpus"][0]["state"]) == ("degraded", "healthy")
    assert (
        next(each for each in document["verdicts"] if each["component"] == "raid")["reason"]
        == "md0 lacks 1 of its disks"
    )
    (array / "degraded").write_text("0\n")
    list(storage.collect())
    node.until(lambda page: state(page, "raid") == 0)


def test_the_drivers_own_verdict(make_node):
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    node.world.set("recovery_action", gpu=0, action=4)
    page = node.until(lambda page: state(page, "recovery") == 2)
    assert page.one("gpuvigil_health_verdict_info", component="recovery", action="RESET_GPU") == 1


@pytest.mark.parametrize(
    ("fault", "parameters", "component", "bad"),
    [
        ("remap_pending", {}, "memory", 1),
        ("remap_failure", {}, "memory", 2),
        ("ecc_uncorrected", {"count": 2}, "memory", 1),
        ("nvlink_down", {"link": 3}, "nvlink", 2),
        ("pcie_degraded", {"generation": 0, "width": 8}, "pcie", 1),
        ("fabric", {"state": 2}, "fabric", 1),
        ("power_brake", {}, "power", 1),
        ("thermal_throttle", {}, "thermal", 1),
        ("hang", {"call": "temperature"}, "presence", 2),
    ],
)
def test_each_fault_finds_its_component(make_node, fault, parameters, component, bad):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    node.until(lambda page: state(page, component, "1") == 0)
    node.world.set(fault, gpu=1, **parameters)
    node.until(lambda page: state(page, component, "1") == bad and state(page, component, "0") in (0, None))


def test_no_driver_is_not_healthy(make_node):
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    node.world.set("driver_unloaded")
    page = node.until(lambda page: page.failed == "driver_not_loaded")
    page = node.until(lambda page: state(page, "driver") == 2)
    assert state(page, "presence", "0") == 3
    assert verdicts(node)["state"] == "unhealthy"


def test_a_gpu_that_was_never_there(make_node):
    node = make_node(world={"gpus": 2}, expected=3)
    page = node.until(lambda page: state(page, "inventory") == 2)
    assert page.one("gpuvigil_health_verdict_info", component="inventory", action="CHECK_MECHANICALS") == 1


@pytest.fixture
def agent(make_node, tmp_path, capsys):
    """A running `gpuvigil agent run` on a simulated node of two GPUs, and how to ask it."""
    node = make_node(world={"gpus": 2})
    node.stop()
    port = free_port()
    fast = {"period": "300ms"}
    config = tmp_path / "agent.yaml"
    config.write_text(
        json.dumps(
            {
                "node": "n1",
                "listen": f"127.0.0.1:{port}",
                "state_dir": str(tmp_path / "state"),
                "run_dir": str(tmp_path),
                "tick": "300ms",
                "collectors": {
                    "gpu": {**fast, "interval": "200ms", "retry_lost": "500ms", "call_deadline": "1s"},
                    "xid": {**fast, "kmsg": str(node.kmsg)},
                    "health": fast,
                },
            }
        )
    )
    process = subprocess.Popen([sys.executable, "-m", "agent.cli", "agent", "run", "--config", str(config)])

    def ask(*words):
        code = main(["agent", *words, "--config", str(config)])
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)

    def document():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/health", timeout=5) as answer:
            return json.load(answer)

    def until(seen):
        deadline = time.monotonic() + 40
        while True:
            try:
                found = document()
                if seen(found):
                    return found
            except (urllib.error.URLError, OSError):
                found = None
            assert time.monotonic() < deadline, json.dumps(found)
            time.sleep(0.2)

    yield node.world, node.kmsg, ask, until, process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
    node.start()


def test_the_commands(agent, tmp_path):
    world, kmsg, ask, until, process = agent
    until(lambda found: found["state"] == "healthy" and len(found["gpus"]) == 2)
    assert ask("health").returncode == 0

    nothing = ask("baseline", "diff")
    assert (nothing.returncode, "nothing was signed off" in nothing.stderr) == (3, True)
    signed = ask("baseline", "write")
    assert signed.returncode == 0
    assert "2 GPUs" in signed.stdout
    assert "SIMULATED" in signed.stdout
    assert ask("baseline", "diff").returncode == 0

    world.set("xid", gpu=1, code=48, kmsg=kmsg)
    until(lambda found: found["state"] == "unhealthy")
    shown = ask("health")
    assert shown.returncode == 1
    assert "Xid 48" in shown.stdout
    assert "RESET_GPU" in shown.stdout
    assert json.loads(ask("health", "-o", "json").stdout)["state"] == "unhealthy"
    assert ask("health", "set-healthy", "--gpu", "7", "--why", "x").returncode == 2
    assert ask("health", "set-healthy", "--gpu", "1", "--why", "board tested").returncode == 0
    found = until(lambda found: found["state"] == "healthy")
    assert found["settled"][0]["why"] == "board tested"

    world.set("gpu_lost", gpu=0)
    until(lambda found: found["baseline_differences"])
    drift = ask("baseline", "diff", "-o", "json")
    assert drift.returncode == 1
    assert [each["now"] for each in json.loads(drift.stdout)] == [None]

    assert ask("baseline", "write").returncode == 0  # the board is out for good: it is not missed any more
    until(lambda found: found["state"] == "healthy" and len(found["gpus"]) == 1)
    assert ask("baseline", "diff").returncode == 0

    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    assert ask("health").returncode == 0  # its last word, while it is fresh
    kept = tmp_path / "state" / "health-simulator.json"
    old = json.loads(kept.read_text())
    old["document"]["taken"] -= 3600
    kept.write_text(json.dumps(old))
    stale = ask("health")
    assert (stale.returncode, "min old" in stale.stderr) == (3, True)


def test_no_agent_ever_ran(tmp_path):  # as a process of its own: its exit code is what scripts go by
    config = tmp_path / "agent.yaml"
    config.write_text(json.dumps({"listen": f"127.0.0.1:{free_port()}", "state_dir": str(tmp_path)}))
    command = [sys.executable, "-m", "agent.cli", "agent", "health", "--config", str(config)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    assert "is it running?" in result.stderr
