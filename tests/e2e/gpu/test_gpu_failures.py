"""True under failure: each fault of the driver as the simulator plays it, and how the agent comes out of it."""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from chaos.simulator.world import World

pytestmark = pytest.mark.e2e

VALUES = "gpuvigil_gpu_power_watts"


def gpus_with_values(page):
    return {dict(key)["gpu"] for key in page.all(VALUES)}


@pytest.mark.parametrize(
    "how", [{}, {"partial": 1}, {"handle_code": 999}], ids=["fully", "partly", "fallen off the bus"]
)
def test_a_lost_gpu_is_down_and_the_others_stay(make_node, how):
    node = make_node()
    node.until_whole()
    fault = node.world.set("gpu_lost", gpu=3, **how)
    page = node.until(lambda page: page.up().get("3") == 0)
    assert gpus_with_values(page) == {"0", "1", "2", "4", "5", "6", "7"}
    assert sum(page.up().values()) == 7
    assert (page.one("gpuvigil_gpu_known"), page.one("gpuvigil_gpu_expected")) == (8, 8)
    assert page.one("gpuvigil_gpu_driver_up") == 1
    for _ in range(10):  # while it is lost no reading of it comes back
        assert "3" not in gpus_with_values(node.page())
        time.sleep(0.1)
    node.world.clear(fault)
    node.until_whole()


def test_a_flapping_gpu_is_followed(make_node):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    node.world.set("gpu_lost", gpu=1, period=6)
    node.until(lambda page: page.up() == {"0": 1, "1": 0})
    node.until(lambda page: page.up() == {"0": 1, "1": 1})
    node.until(lambda page: page.up() == {"0": 1, "1": 0})


def test_a_gpu_lost_before_the_agent_started_is_known(make_node):
    node = make_node()
    node.until_whole()
    node.stop()
    node.world.set("gpu_lost", gpu=6)
    node.start()
    page = node.until(lambda page: page.up().get("6") == 0 and sum(page.up().values()) == 7)
    assert page.one("gpuvigil_gpu_expected") == 8


def test_a_hung_call_is_named_and_the_rest_goes_on(make_node):
    node = make_node()
    whole = node.until_whole()
    uuid = next(dict(key)["uuid"] for key in whole.all("gpuvigil_gpu_up", gpu="5"))
    fault = node.world.set("hang", gpu=5, call="temperature", forever=1)
    page = node.until(lambda page: page.one("gpuvigil_gpu_driver_stuck_seconds", gpu="5"))
    (labels,) = (dict(key) for key in page.all("gpuvigil_gpu_driver_stuck_seconds", gpu="5"))
    assert labels["uuid"] == uuid
    assert labels["call"] == "nvmlDeviceGetTemperature"
    page = node.until(lambda page: len(page.up()) == 7)
    assert "5" not in page.up()  # hung is absent, not 0
    assert gpus_with_values(page) <= {"0", "1", "2", "3", "4", "6", "7"}
    page = node.until(lambda page: len(gpus_with_values(page)) == 7)
    before = page.one("gpuvigil_gpu_driver_stuck_seconds", gpu="5")
    time.sleep(0.3)
    assert node.page().one("gpuvigil_gpu_driver_stuck_seconds", gpu="5") > before
    assert page.one("gpuvigil_gpu_driver_up") == 1
    node.world.clear(fault)
    page = node.until_whole()
    assert page.one("gpuvigil_gpu_driver_stuck_seconds", gpu="5") == 0


HANGS_AT_INIT = """
#include <unistd.h>
const char gpuvigil_sim[] = "simulated";
int nvmlInitWithFlags(unsigned int flags) { (void)flags; for (;;) pause(); }
"""


def test_a_driver_that_hangs_while_it_is_initialised(make_node, tmp_path):
    """The agent starts on a wedged driver: it says which call, and knows its GPUs from before.

    The simulator hangs by GPU, so a library that does nothing but hang plays this one.
    """
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    node.stop()
    source, library = tmp_path / "hang.c", tmp_path / "libhang.so"
    source.write_text(HANGS_AT_INIT)
    compiler = shutil.which("cc") or shutil.which("gcc") or "clang"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    node.settings |= {"library": str(library), "open_deadline": "1s"}
    node.start()
    page = node.until(lambda page: page.failed == "driver_hung")
    (labels,) = (dict(key) for key, value in page.all("gpuvigil_gpu_driver_stuck_seconds").items() if value > 0)
    assert labels == {"call": "nvmlInit", "synthetic": "true"}
    assert page.one("gpuvigil_gpu_known") == page.one("gpuvigil_gpu_expected") == 2
    assert page.up() == {}
    node.stop()
    del node.settings["library"]
    node.start()
    page = node.until_whole(2)
    assert set(page.all("gpuvigil_gpu_driver_stuck_seconds").values()) == {0}


def test_collecting_never_waits_for_the_driver(make_node):
    node = make_node(world={"gpus": 2}, call_deadline="60s")
    node.until_whole(2)
    node.world.set("hang", gpu=0)
    took = []
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        began = time.monotonic()
        node.page()
        took.append(time.monotonic() - began)
        time.sleep(0.05)
    assert max(took) < 15, "it would wait for a minute"


def test_no_frozen_value_while_hung(make_node):
    node = make_node(world={"gpus": 1}, call_deadline="30s")
    node.until_whole(1)
    node.world.set("hang", gpu=0)
    page = node.until(lambda page: not page.all(VALUES))
    assert page.up() == {}


def test_an_unkillable_child_gets_one_replacement(make_node, monkeypatch):
    """SIGKILL without effect, as in an uninterruptible sleep: the kernel's part is played by not killing.

    The end of its input would end the child, too, so that is kept open.
    """
    node = make_node(world={"gpus": 3})
    node.until_whole(3)
    client = node.context.shared["gpu"].client
    killed: list[int] = []
    held: list[int] = []

    def fail_to_kill(popen):
        killed.append(popen.pid)
        held.append(os.dup(popen.stdin.fileno()))

    (first,) = client.pids()
    monkeypatch.setattr(client, "_kill", fail_to_kill)
    node.world.set("hang", gpu=1)
    node.until(lambda page: page.up() == {"0": 1, "2": 1})
    assert killed == [first]
    (second,) = client.pids()
    assert second != first
    time.sleep(2)  # several times retry_lost: no probe beside an unkillable child
    assert client.pids() == [second]
    node.world.set("hang", gpu=2)
    node.until(lambda page: page.failed == "driver_hung" and killed == [first, second])
    for _ in range(20):  # two that cannot be killed: no third
        time.sleep(0.2)
        assert client.pids() == []
    assert Path(f"/proc/{first}").exists()
    assert Path(f"/proc/{second}").exists()
    monkeypatch.setattr(client, "_kill", subprocess.Popen.kill)
    node.world.clear()  # the calls return after all, and both children find that nobody listens
    node.until_whole(3)
    assert not Path(f"/proc/{first}").exists()
    assert not Path(f"/proc/{second}").exists()
    for fd in held:
        os.close(fd)


def test_a_driver_unloaded_and_loaded_in_another_version(make_node, tmp_path):
    node = make_node(world={"gpus": 2})
    page = node.until_whole(2)
    assert page.all("gpuvigil_gpu_driver_info", driver="580.95.05")
    node.world.set("driver_unloaded")
    page = node.until(lambda page: page.failed == "driver_not_loaded")
    assert page.one("gpuvigil_gpu_driver_up") == 0
    assert page.up() == {}
    assert not page.all(VALUES)
    World.create(tmp_path / "sim.state", gpus=2, driver="590.10.01", replace=True).close()
    page = node.until_whole(2)
    assert page.all("gpuvigil_gpu_driver_info", driver="590.10.01")
    assert not page.all("gpuvigil_gpu_driver_info", driver="580.95.05")


def test_a_library_that_does_not_fit_the_driver(make_node):
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    fault = node.world.set("version_mismatch")
    (pid,) = node.context.shared["gpu"].client.pids()
    os.kill(pid, signal.SIGKILL)
    page = node.until(lambda page: page.failed == "lib_rm_version_mismatch")
    assert page.one("gpuvigil_gpu_driver_up") == 0
    node.world.clear(fault)
    node.until_whole(1)


def test_agent_started_before_the_driver(make_node):
    node = make_node(world={"gpus": 2}, setup=lambda world: world.set("driver_unloaded"))
    page = node.until(lambda page: page.one("gpuvigil_gpu_driver_up") == 0)
    assert page.up() == {}
    node.world.clear()
    node.until_whole(2)


def test_no_library_at_all(make_node):
    node = make_node(world={"gpus": 1}, library="/nonexistent/libnvidia-ml.so.1", expected=1)
    page = node.until(lambda page: page.failed == "library_not_found")
    assert page.one("gpuvigil_gpu_driver_up") == 0
    assert page.up() == {}


def test_no_gpu_expected_is_no_failure(make_node):
    node = make_node(world={"gpus": 1}, library="/nonexistent/libnvidia-ml.so.1", expected=0)
    page = node.until(lambda page: page.one("gpuvigil_gpu_driver_up") == 0)
    assert page.failed == ""


def test_order_of_gpus_changed(make_node):
    node = make_node()
    before = node.until_whole()
    node.stop()
    node.world.set("order_shuffled")
    node.start()
    after = node.until_whole()

    def places(page):
        return {(dict(k)["gpu"], dict(k)["uuid"], dict(k)["pci_bus_id"]) for k in page.all("gpuvigil_gpu_info")}

    assert places(after) == places(before)


def test_a_gpu_that_is_not_found_any_more(make_node):
    node = make_node()
    node.until_whole()
    node.stop()
    node.world.set("gpu_missing", gpu=2)
    node.start()
    page = node.until(lambda page: page.up().get("2") == 0)
    assert sum(page.up().values()) == 7
    assert (page.one("gpuvigil_gpu_known"), page.one("gpuvigil_gpu_expected")) == (8, 8)
    node.stop()
    node.world.clear()
    node.start()
    node.until_whole()


def test_nonsense_from_the_driver_is_dropped_and_counted(make_node):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    node.world.set("garbage", gpu=1)
    page = node.until(lambda page: page.all("gpuvigil_gpu_call_errors_total", reason="implausible"))
    for (name, labels), value in page.series.items():
        assert value == value, (name, labels)
        if name.endswith("_ratio"):
            assert 0 <= value <= 1.05, (name, labels, value)
        if name == "gpuvigil_gpu_nvlink_links":
            assert value <= 36
    assert len(page.series) < 1000
    assert page.up()["0"] == 1


def test_counters_do_not_jump_by_nonsense(make_node):
    node = make_node(world={"gpus": 1})
    before = node.until_whole(1).one("gpuvigil_gpu_energy_joules_total")
    node.world.set("garbage", gpu=0, duration=1.5)
    time.sleep(2)
    after = node.until_whole(1).one("gpuvigil_gpu_energy_joules_total")
    assert before <= after < before + 60 * 750


def test_calls_not_permitted_are_left_out(make_node):
    node = make_node(world={"gpus": 2}, setup=lambda world: world.set("no_permission", gpu=1, call="temperature"))
    page = node.until_whole(2)
    core = page.all("gpuvigil_gpu_temperature_celsius", sensor="core")
    assert {dict(key)["gpu"] for key in core} == {"0"}
    assert page.up() == {"0": 1, "1": 1}
    assert page.all("gpuvigil_gpu_call_errors_total", reason="no_permission")


def test_reset_required_is_the_drivers_verdict(make_node):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    node.world.set("reset_required", gpu=1)
    page = node.until(lambda page: page.one("gpuvigil_gpu_recovery_action", gpu="1") == 1)
    assert page.up() == {"0": 1, "1": 1}
    assert page.one("gpuvigil_gpu_recovery_action", gpu="0") == 0


def test_a_killed_child_is_replaced_without_growth(make_node):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    client = node.context.shared["gpu"].client
    monitor = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    for round_ in range(3):
        (pid,) = client.pids()
        os.kill(pid, signal.SIGKILL)
        page = node.until(lambda page, n=round_: page.one("gpuvigil_gpu_child_restarts_total") == n + 1)
        node.until_whole(2)
    assert page.one("gpuvigil_gpu_known") == 2
    threads, files = monitor
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= files  # fewer where what an earlier test left was collected


def test_a_full_disk_does_not_stop_it(make_node, tmp_path):
    (tmp_path / "state").write_text("a file where the state directory should be")
    node = make_node(world={"gpus": 1})
    node.until_whole(1)


def test_what_was_forbidden_for_a_while_is_read_again(make_node):
    """Calls that are refused leave the plan; permissions come back while the library stays loaded."""
    node = make_node(world={"gpus": 1, "profile": "t4"}, interval="100ms")
    stems = [f"gpuvigil_gpu_{stem}" for stem in ("memory_used_bytes", "power_watts", "temperature_celsius")]
    node.until(lambda page: all(page.all(stem) for stem in stems))
    node.world.set("no_permission", 0, call="memory+temperature+power+fields")
    page = node.until(lambda page: not any(page.all(stem) for stem in stems))
    assert page.up() == {"0": 1}
    assert page.all("gpuvigil_gpu_utilization_ratio")
    node.world.clear()
    node.until(lambda page: all(page.all(stem) for stem in stems))
