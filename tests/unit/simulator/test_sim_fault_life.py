"""The life of a fault: when it begins and ends, who hangs by it, how it is cleared, and which are refused."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import ConfigError
from chaos.simulator import records
from chaos.simulator.kinds import KINDS
from chaos.simulator.world import World

Make = Callable[..., World]


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    return thread, answers


def test_a_hanging_call_hangs_alone_and_is_released_by_lifting(node: Any) -> None:
    fault = node.world.set("hang", 0, call="temperature")
    thread, answers = in_thread(lambda: node.nv.nvmlDeviceGetTemperature(node.gpu, 0))
    thread.join(0.3)
    assert thread.is_alive()
    assert node.nv.nvmlDeviceGetPowerUsage(node.gpu) > 0, "other calls go on"
    assert node.nv.nvmlDeviceGetTemperature(node.other, 0) > 0, "and other GPUs"
    node.world.clear(fault)
    thread.join(5)
    assert answers
    assert answers[0] > 0


def test_a_hanging_call_is_released_by_expiry(node: Any) -> None:
    started = time.monotonic()
    node.world.set("hang", 0, duration=0.3)
    assert node.nv.nvmlDeviceGetTemperature(node.gpu, 0) > 0
    assert time.monotonic() - started >= 0.29


def test_a_call_that_hangs_for_ever_outlives_the_lifting(make: Make, in_world: Callable[..., Any]) -> None:
    world = make()
    world.set("hang", 0, call="power", forever=1)
    program = "import pynvml as nv; nv.nvmlInit(); g = nv.nvmlDeviceGetHandleByIndex(0); print('in', flush=True); "
    program += "nv.nvmlDeviceGetPowerUsage(g); print('out')"
    timer = threading.Timer(0.7, world.clear)
    timer.start()
    with pytest.raises(subprocess.TimeoutExpired) as hung:
        in_world(sys.executable, "-c", program, state=world.path, timeout=2)
    timer.join()
    assert hung.value.stdout is not None
    assert b"in" in hung.value.stdout
    assert b"out" not in hung.value.stdout
    assert world.faults() == []


def test_slow_calls_take_their_time(node: Any) -> None:
    node.world.set("slow", 0, call="memory", ms=150)
    started = time.monotonic()
    node.nv.nvmlDeviceGetPowerUsage(node.gpu)
    node.nv.nvmlDeviceGetMemoryInfo(node.gpu)
    assert time.monotonic() - started >= 0.149


def test_faults_begin_and_expire_by_the_boot_clock_though_the_simulated_one_is_frozen(node: Any) -> None:
    node.world.freeze()
    node.world.set("gpu_lost", 0, at=0.2, duration=0.3)
    (fault,) = node.world.faults()
    assert not fault.active
    assert 0 < fault.begins_in <= 0.2
    assert fault.expires_in is not None
    assert 0.3 < fault.expires_in <= 0.5
    assert node.code("nvmlDeviceGetPowerUsage") == 0
    deadline = time.monotonic() + 5
    while node.code("nvmlDeviceGetPowerUsage") != 15:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [fault.active for fault in node.world.faults()] == [True]
    while node.code("nvmlDeviceGetPowerUsage") != 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert node.world.faults() == []


def test_an_expired_fault_leaves_room_and_its_integral(node: Any) -> None:
    nv = node.nv
    for number in range(3 * records.MAX_FAULTS):
        node.world.set("ecc_uncorrected", 0, count=1, duration=1e-6)
        assert nv.nvmlDeviceGetTotalEccErrors(node.gpu, 1, 0) == number + 1


def test_a_gpu_holds_24_faults_that_act(node: Any) -> None:
    for _ in range(records.MAX_FAULTS):
        node.world.set("ecc_corrected", 0, rate=1)
    with pytest.raises(ConfigError, match="24 faults"):
        node.world.set("ecc_corrected", 0, rate=1)
    assert node.world.clear() == records.MAX_FAULTS
    node.world.set("ecc_corrected", 0, rate=1)


def test_clearing_takes_one_or_all_and_nothing_twice(node: Any) -> None:
    first = node.world.set("gpu_lost", 0)
    second = node.world.set("gpu_lost", 1, at=60)
    shuffled = node.world.set("order_shuffled")
    assert [fault.id for fault in node.world.faults()] == [first, second, shuffled]
    assert [fault.gpu for fault in node.world.faults()] == [0, 1, None]
    assert node.world.clear(second) == 1
    assert node.world.clear(second) == 0
    assert node.world.clear() == 2
    assert node.world.faults() == []


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_can_be_set_by_its_documented_defaults_and_shown(make: Make, name: str) -> None:
    parameters = {parameter.name: parameter.default for parameter in KINDS[name].parameters}
    world = make(gpus=1)
    world.set(name, None if KINDS[name].scope == "node" else 0, duration=60, **parameters)
    (fault,) = world.faults()
    assert fault.kind == name
    assert {key: str(value) for key, value in fault.parameters.items()} == parameters


@pytest.mark.parametrize(
    ("kind", "gpu", "options", "said"),
    [
        ("gpu_stolen", 0, {}, "unknown"),
        ("gpu_lost", None, {}, "name it"),
        ("gpu_lost", 9, {}, "no GPU 9"),
        ("gpu_lost", -1, {}, "no GPU -1"),
        ("driver_unloaded", 0, {}, "whole node"),
        ("xid", 0, {"cod": 79}, "no parameter"),
        ("xid", 0, {"code": "seventy"}, "not valid"),
        ("hang", 0, {"call": "power+cooking"}, "not valid"),
        ("ecc_corrected", 0, {"location": "moon"}, "not valid"),
        ("gpu_lost", 0, {"at": -1.0}, "must not be negative"),
        ("gpu_lost", 0, {"duration": 0.0}, "must be positive"),
        ("ecc_corrected", 0, {"rate": "nan"}, "not valid"),
        ("gpu_lost", 0, {"kmsg": "x"}, "goes with kind xid"),
    ],
)
def test_wrong_faults_are_refused_with_their_reason(
    make: Make, kind: str, gpu: int | None, options: dict[str, Any], said: str
) -> None:
    world = make(gpus=1)
    with pytest.raises(ConfigError, match=said):
        world.set(kind, gpu, **options)
    assert world.faults() == []


def test_an_xid_writes_a_kernel_log_record_only_where_nobody_acts_on_it(make: Make, tmp_path: Path) -> None:
    world = make(gpus=4)
    log = tmp_path / "kmsg"
    for code in (79, 31):
        world.set("xid", 3, code=code, kmsg=log)
    first, second = log.read_text().splitlines()
    prefix, text = first.split(";")
    priority, sequence, microseconds, flags = prefix.split(",")
    assert (priority, sequence, flags) == ("3", "0", "-")
    assert int(microseconds) > 0
    assert text == "NVRM: Xid (PCI:0000:61:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
    assert second.split(",")[1] == "1"
    with pytest.raises(ConfigError, match="regular file"):
        world.set("xid", 3, kmsg="/dev/null")
    with pytest.raises(ConfigError, match="no delay"):
        world.set("xid", 3, at=1, kmsg=log)
