"""Event sets: Xids and others, at their time, once, to everybody who listens."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from chaos.simulator.world import World

Make = Callable[..., World]
Start = Callable[[], ModuleType]


class Listener:
    """An event set that listens to all GPUs of the world for all that they support."""

    def __init__(self, nv: ModuleType, gpus: int) -> None:
        self.nv = nv
        self.set = nv.nvmlEventSetCreate()
        self.handles = [nv.nvmlDeviceGetHandleByIndex(index) for index in range(gpus)]
        for handle in self.handles:
            nv.nvmlDeviceRegisterEvents(handle, nv.nvmlDeviceGetSupportedEventTypes(handle), self.set)

    def wait(self, ms: int = 3000) -> tuple[int, int, int] | None:
        """(GPU, type, data) of the next event; None if none came."""
        try:
            event = self.nv.nvmlEventSetWait(self.set, ms)
        except self.nv.NVMLError_Timeout:
            return None
        places = [ctypes.cast(handle, ctypes.c_void_p).value for handle in self.handles]
        gpu = places.index(ctypes.cast(event.device, ctypes.c_void_p).value)
        assert (event.gpuInstanceId, event.computeInstanceId) == (0xFFFFFFFF, 0xFFFFFFFF)
        return gpu, event.eventType, event.eventData


@pytest.fixture
def world(make: Make) -> World:
    return make(profile="h100", gpus=3)


@pytest.fixture
def listen(world: World, nvml: Start) -> Iterator[Callable[[], Listener]]:
    nv = nvml()
    made: list[Listener] = []

    def create() -> Listener:
        made.append(Listener(nv, 3))
        return made[-1]

    yield create
    for listener in made:
        nv.nvmlEventSetFree(listener.set)


def test_an_xid_comes_once_to_each_listener(world: World, listen: Callable[[], Listener]) -> None:
    first, second = listen(), listen()
    world.set("xid", 2, code=48)
    for listener in (first, second):
        assert listener.wait() == (2, listener.nv.nvmlEventTypeXidCriticalError, 48)
        assert listener.wait(20) is None


def test_what_was_before_registering_is_lost(world: World, listen: Callable[[], Listener]) -> None:
    world.set("xid", 0, code=31)
    listener = listen()
    world.set("xid", 0, code=79)
    found = listener.wait()
    assert found is not None
    assert found[2] == 79
    assert listener.wait(20) is None


def test_a_waiting_thread_is_woken_at_once_and_lets_others_run(world: World, listen: Callable[[], Listener]) -> None:
    listener = listen()
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append((listener.wait(20_000), time.monotonic())))
    thread.start()
    ticks = 0
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        ticks += 1
        time.sleep(0.001)
    assert thread.is_alive()
    assert ticks > 20, "the wait holds no lock of Python's"
    world.set("xid", 1, code=94)
    thread.join(10)
    assert answers[0][0] == (1, listener.nv.nvmlEventTypeXidCriticalError, 94)


def test_an_event_comes_at_its_time_though_nobody_writes(world: World, listen: Callable[[], Listener]) -> None:
    listener = listen()
    started = time.monotonic()
    world.set("xid", 0, code=63, at=0.3)
    assert listener.wait() == (0, 8, 63)
    assert time.monotonic() - started >= 0.29


def test_no_event_is_a_timeout_after_its_time(listen: Callable[[], Listener]) -> None:
    listener = listen()
    started = time.monotonic()
    assert listener.wait(150) is None
    assert time.monotonic() - started >= 0.149


def test_an_xid_repeats_while_its_fault_lasts(world: World, listen: Callable[[], Listener]) -> None:
    listener = listen()
    world.set("xid", 0, code=119, every=0.1, duration=0.35)
    found = []
    while (event := listener.wait(500)) is not None:
        found.append(event[2])
    assert found == [119] * 4


def test_a_lifted_fault_that_never_began_sends_nothing(world: World, listen: Callable[[], Listener]) -> None:
    listener = listen()
    world.set("xid", 0, code=79, at=0.1)
    world.clear()
    assert listener.wait(300) is None


def test_a_burst_is_delivered_whole(world: World, listen: Callable[[], Listener]) -> None:
    listener = listen()
    sent = [(gpu, code) for code in range(40, 60) for gpu in range(3)]
    for gpu, code in sent:
        world.set("xid", gpu, code=code)
    found = []
    while (event := listener.wait(50)) is not None:
        found.append((event[0], event[2]))
    assert sorted(found) == sorted(sent)


def test_ring_reuse_delivers_later_events_too(world: World, listen: Callable[[], Listener]) -> None:
    listener = listen()
    for code in range(100):
        world.set("xid", 0, code=code)
        assert listener.wait() == (0, 8, code)


def test_double_bit_errors_and_recovery_actions_have_events(world: World, listen: Callable[[], Listener]) -> None:
    listener = listen()
    nv = listener.nv
    world.set("ecc_uncorrected", 1, count=2)
    assert listener.wait() == (1, nv.nvmlEventTypeDoubleBitEccError, 0)
    world.set("recovery_action", 1, action=1)
    assert listener.wait() == (1, nv.nvmlEventTypeGpuRecoveryAction, 0)


def test_only_what_was_asked_for_comes(world: World, nvml: Start) -> None:
    nv = nvml()
    events = nv.nvmlEventSetCreate()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    nv.nvmlDeviceRegisterEvents(gpu, nv.nvmlEventTypeDoubleBitEccError, events)
    world.set("xid", 0)
    world.set("ecc_uncorrected", 1)
    with pytest.raises(nv.NVMLError_Timeout):
        nv.nvmlEventSetWait(events, 50)
    with pytest.raises(nv.NVMLError_NotSupported):
        nv.nvmlDeviceRegisterEvents(gpu, nv.nvmlEventTypeClock, events)
    nv.nvmlEventSetFree(events)


def test_a_4090_has_no_ecc_events(make: Make, nvml: Start) -> None:
    make(profile="rtx4090")
    nv = nvml()
    types = nv.nvmlDeviceGetSupportedEventTypes(nv.nvmlDeviceGetHandleByIndex(0))
    assert types & nv.nvmlEventTypeXidCriticalError
    assert not types & nv.nvmlEventTypeDoubleBitEccError


def test_a_wait_ends_when_the_driver_goes(world: World, listen: Callable[[], Listener]) -> None:
    listener = listen()
    timer = threading.Timer(0.1, lambda: world.set("driver_unloaded"))
    timer.start()
    with pytest.raises(listener.nv.NVMLError_Unknown):
        listener.nv.nvmlEventSetWait(listener.set, 20_000)
    timer.join()
    world.clear()


def test_a_freed_set_is_refused(world: World, nvml: Start) -> None:
    nv = nvml()
    with pytest.raises(nv.NVMLError_InvalidArgument):
        nv.nvmlEventSetWait(None, 10)
