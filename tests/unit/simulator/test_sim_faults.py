"""Each fault: what it changes, that it changes nothing else, and that it is over when it is over."""

from __future__ import annotations

import ctypes
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agent.base.errors import ConfigError
from chaos.simulator import records
from chaos.simulator.kinds import KINDS
from chaos.simulator.world import World

Make = Callable[..., World]
Start = Callable[[], ModuleType]


class Node:
    """Two H100 in training, five minutes after their start: the first gets the faults, the second stays well."""

    def __init__(self, world: World, nv: ModuleType) -> None:
        self.world, self.nv = world, nv
        self.gpu, self.other = (nv.nvmlDeviceGetHandleByIndex(index) for index in range(2))

    def code(self, name: str, *arguments: Any, gpu: Any = None) -> int:
        try:
            getattr(self.nv, name)(self.gpu if gpu is None else gpu, *arguments)
        except self.nv.NVMLError as error:
            return int(error.value)
        return 0

    def codes(self, gpu: Any) -> dict[str, int]:
        return {name: self.code(name, *arguments, gpu=gpu) for name, arguments in GETTERS.items()}

    def field(self, number: int, scope: int = 0) -> int:
        (entry,) = self.nv.nvmlDeviceGetFieldValues(self.gpu, [(number, scope)])
        assert entry.nvmlReturn == 0
        return int(entry.value.ullVal)

    def readings(self, gpu: Any) -> list[Any]:
        nv = self.nv
        return [
            nv.nvmlDeviceGetPowerUsage(gpu),
            nv.nvmlDeviceGetTemperature(gpu, 0),
            nv.nvmlDeviceGetClockInfo(gpu, 1),
            nv.nvmlDeviceGetTotalEnergyConsumption(gpu),
            nv.nvmlDeviceGetMemoryInfo(gpu).used,
            nv.nvmlDeviceGetUtilizationRates(gpu).gpu,
            [entry.value.ullVal for entry in nv.nvmlDeviceGetFieldValues(gpu, list(range(1, 308)))],
        ]


GETTERS: dict[str, tuple[Any, ...]] = {
    "nvmlDeviceGetUUID": (),
    "nvmlDeviceGetName": (),
    "nvmlDeviceGetMemoryInfo": (),
    "nvmlDeviceGetUtilizationRates": (),
    "nvmlDeviceGetPowerUsage": (),
    "nvmlDeviceGetTemperature": (0,),
    "nvmlDeviceGetClockInfo": (1,),
    "nvmlDeviceGetTotalEccErrors": (0, 0),
    "nvmlDeviceGetCurrPcieLinkWidth": (),
    "nvmlDeviceGetNvLinkState": (0,),
    "nvmlDeviceGetFieldValues": ([83],),
    "nvmlDeviceGetComputeRunningProcesses": (),
    "nvmlGpmQueryDeviceSupport": (),
    "nvmlDeviceGetSupportedEventTypes": (),
    "nvmlDeviceGetMigMode": (),
}


@pytest.fixture
def node(make: Make, nvml: Start) -> Node:
    world = make(profile="h100", gpus=2)
    world.step(300)
    return Node(world, nvml())


def test_a_lost_gpu_fails_every_call_and_its_neighbour_none(node: Node) -> None:
    fault = node.world.set("gpu_lost", 0)
    assert set(node.codes(node.gpu).values()) == {15}
    assert set(node.codes(node.other).values()) == {0}
    assert node.nv.nvmlDeviceGetCount() == 2, "it is lost, not gone"
    with pytest.raises(node.nv.NVMLError_GpuIsLost):
        node.nv.nvmlDeviceGetHandleByIndex(0)
    node.world.clear(fault)
    assert set(node.codes(node.gpu).values()) == {0}


def test_a_partly_lost_gpu_goes_on_answering_some_calls(node: Node) -> None:
    node.world.set("gpu_lost", 0, partial=1)
    codes = node.codes(node.gpu)
    lost = {name for name, code in codes.items() if code == 15}
    assert lost == {
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetFieldValues",
    }
    assert {code for name, code in codes.items() if name not in lost} == {0}


def test_a_lost_handle_may_answer_unknown(node: Node) -> None:
    node.world.set("gpu_lost", 0, handle_code=999)
    with pytest.raises(node.nv.NVMLError_Unknown):
        node.nv.nvmlDeviceGetHandleByIndex(0)
    assert node.code("nvmlDeviceGetPowerUsage") == 15


def test_a_flapping_gpu_comes_and_goes(node: Node) -> None:
    node.world.set("gpu_lost", 0, period=0.2)
    seen = []
    for _ in range(40):
        seen.append(node.code("nvmlDeviceGetPowerUsage"))
        time.sleep(0.02)
    changes = sum(1 for a, b in pairwise(seen) if a != b)
    assert set(seen) == {0, 15}
    assert changes >= 3


def test_corrected_errors_count_at_their_rate_and_place(node: Node) -> None:
    nv, before = node.nv, node.nv.nvmlDeviceGetTotalEccErrors(node.gpu, 0, 1)
    node.world.set("ecc_corrected", 0, rate=100, location="l2")
    node.world.step(60)
    count = nv.nvmlDeviceGetTotalEccErrors(node.gpu, 0, 0)
    assert count == pytest.approx(6000, abs=2)
    assert nv.nvmlDeviceGetMemoryErrorCounter(node.gpu, 0, 0, nv.NVML_MEMORY_LOCATION_L2_CACHE) == count
    assert nv.nvmlDeviceGetMemoryErrorCounter(node.gpu, 0, 0, nv.NVML_MEMORY_LOCATION_DRAM) == 0
    assert nv.nvmlDeviceGetTotalEccErrors(node.gpu, 0, 1) == before + count, "the aggregate counts them too"
    assert nv.nvmlDeviceGetTotalEccErrors(node.gpu, 1, 0) == 0
    node.world.clear()
    node.world.step(60)
    assert nv.nvmlDeviceGetTotalEccErrors(node.gpu, 0, 0) == count, "its integral stays"


def test_uncorrected_errors_come_at_once_and_ask_for_a_reset(node: Node) -> None:
    nv = node.nv
    assert node.field(nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION) == nv.NVML_GPU_RECOVERY_ACTION_NONE
    node.world.set("ecc_uncorrected", 0, count=3)
    assert nv.nvmlDeviceGetTotalEccErrors(node.gpu, 1, 0) == 3
    assert nv.nvmlDeviceGetMemoryErrorCounter(node.gpu, 1, 1, nv.NVML_MEMORY_LOCATION_DRAM) == 3
    assert node.field(nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION) == nv.NVML_GPU_RECOVERY_ACTION_GPU_RESET
    node.world.clear()
    assert nv.nvmlDeviceGetTotalEccErrors(node.gpu, 1, 0) == 3
    assert node.field(nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION) == nv.NVML_GPU_RECOVERY_ACTION_NONE


def test_row_remapping_pending_and_failed(node: Node) -> None:
    nv = node.nv
    assert nv.nvmlDeviceGetRemappedRows(node.gpu) == (0, 0, 0, 0)
    node.world.set("remap_pending", 0, rows=2)
    assert nv.nvmlDeviceGetRemappedRows(node.gpu) == (0, 2, 1, 0)
    assert node.field(nv.NVML_FI_DEV_REMAPPED_PENDING) == 1
    assert nv.nvmlDeviceGetRowRemapperHistogram(node.gpu).high == 2
    node.world.clear()
    assert nv.nvmlDeviceGetRemappedRows(node.gpu) == (0, 2, 0, 0), "remapped rows stay remapped"
    node.world.set("remap_failure", 0)
    assert nv.nvmlDeviceGetRemappedRows(node.gpu) == (0, 2, 0, 1)
    assert nv.nvmlDeviceGetRowRemapperHistogram(node.gpu).none == 1


def test_a_t4_retires_pages_instead(make: Make, nvml: Start) -> None:
    world = make(profile="t4")
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    assert nv.nvmlDeviceGetRetiredPages(gpu, nv.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR) == []
    world.set("remap_pending", 0, rows=2)
    assert nv.nvmlDeviceGetRetiredPagesPendingStatus(gpu) == 1
    pages = nv.nvmlDeviceGetRetiredPages(gpu, nv.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR)
    assert len([page for page in pages if page]) == 2


@pytest.mark.parametrize(("hardware", "reason", "field"), [(1, 0x40, 270), (0, 0x20, 269)])
def test_thermal_throttling(node: Node, hardware: int, reason: int, field: int) -> None:
    nv = node.nv
    clock, power, heat = (
        nv.nvmlDeviceGetClockInfo(node.gpu, 1),
        nv.nvmlDeviceGetPowerUsage(node.gpu),
        nv.nvmlDeviceGetTemperature(node.gpu, 0),
    )
    node.world.set("thermal_throttle", 0, hardware=hardware)
    node.world.step(30)
    assert nv.nvmlDeviceGetCurrentClocksEventReasons(node.gpu) & reason
    assert bool(nv.nvmlDeviceGetCurrentClocksEventReasons(node.gpu) & 0x8) == bool(hardware)
    assert nv.nvmlDeviceGetClockInfo(node.gpu, 1) <= 0.7 * clock
    assert nv.nvmlDeviceGetPowerUsage(node.gpu) < 0.6 * power
    assert nv.nvmlDeviceGetTemperature(node.gpu, 0) >= 90 > heat
    assert node.field(field) == pytest.approx(30e9, rel=0.01)
    node.world.clear()
    node.world.step(200)
    assert nv.nvmlDeviceGetCurrentClocksEventReasons(node.gpu) & reason == 0
    assert nv.nvmlDeviceGetTemperature(node.gpu, 0) == pytest.approx(heat, abs=5), "it has cooled down"
    assert node.field(field) == pytest.approx(30e9, rel=0.01)


def test_power_brake_power_cap_and_clock_drop(node: Node) -> None:
    nv = node.nv
    clock, power = nv.nvmlDeviceGetClockInfo(node.gpu, 1), nv.nvmlDeviceGetPowerUsage(node.gpu)
    node.world.set("power_brake", 0)
    node.world.step(4)
    assert nv.nvmlDeviceGetCurrentClocksEventReasons(node.gpu) & 0x88 == 0x88
    assert nv.nvmlDeviceGetClockInfo(node.gpu, 1) <= 0.55 * clock
    assert nv.nvmlDeviceGetPowerUsage(node.gpu) < 0.5 * power
    assert node.field(271) == pytest.approx(4e9, rel=0.01)
    node.world.clear()
    node.world.set("power_cap", 0, watts=300)
    node.world.step(4)
    assert nv.nvmlDeviceGetEnforcedPowerLimit(node.gpu) == 300_000
    assert nv.nvmlDeviceGetPowerManagementDefaultLimit(node.gpu) == 700_000
    assert nv.nvmlDeviceGetPowerUsage(node.gpu) <= 300_000
    assert nv.nvmlDeviceGetCurrentClocksEventReasons(node.gpu) == 0x4
    assert node.field(74) == pytest.approx(4e9, rel=0.01)
    node.world.clear()
    node.world.set("clock_drop", 0, mhz=600)
    node.world.step(4)
    assert nv.nvmlDeviceGetClockInfo(node.gpu, 1) == 600
    assert nv.nvmlDeviceGetCurrentClocksEventReasons(node.gpu) == 0, "no reason is given"


def test_pcie_trains_down_and_replays(node: Node) -> None:
    nv = node.nv
    node.world.set("pcie_degraded", 0, generation=1, width=4, replays=50)
    node.world.step(10)
    assert (nv.nvmlDeviceGetCurrPcieLinkGeneration(node.gpu), nv.nvmlDeviceGetCurrPcieLinkWidth(node.gpu)) == (1, 4)
    assert (nv.nvmlDeviceGetMaxPcieLinkGeneration(node.gpu), nv.nvmlDeviceGetMaxPcieLinkWidth(node.gpu)) == (5, 16)
    assert nv.nvmlDeviceGetPcieSpeed(node.gpu) == 2500
    assert nv.nvmlDeviceGetPcieReplayCounter(node.gpu) == pytest.approx(500, abs=2)
    node.world.clear()
    node.world.step(10)
    assert (nv.nvmlDeviceGetCurrPcieLinkGeneration(node.gpu), nv.nvmlDeviceGetCurrPcieLinkWidth(node.gpu)) == (5, 16)
    assert nv.nvmlDeviceGetPcieReplayCounter(node.gpu) == pytest.approx(500, abs=2)


def test_an_nvlink_goes_down_and_its_bytes_stand_still(node: Node) -> None:
    nv = node.nv
    node.world.set("nvlink_down", 0, link=4)
    still, moving = node.field(138, 4), node.field(138, 5)
    node.world.step(60)
    states = [nv.nvmlDeviceGetNvLinkState(node.gpu, link) for link in range(18)]
    assert states == [0 if link == 4 else 1 for link in range(18)]
    assert (node.field(165, 4), node.field(164, 4)) == (0, 0)
    assert node.field(138, 4) == still
    assert node.field(138, 5) > moving
    node.world.clear()
    node.world.step(60)
    assert nv.nvmlDeviceGetNvLinkState(node.gpu, 4) == 1
    assert node.field(138, 4) > still


def test_nvlink_errors_count_by_link_and_kind(node: Node) -> None:
    node.world.set("nvlink_errors", 0, link=1, crc=10, replay=5, recovery=1)
    node.world.step(100)
    assert [node.field(number, 1) for number in (161, 162, 163)] == pytest.approx([500, 100, 1000], abs=2)
    assert [node.field(number, 2) for number in (161, 162, 163)] == [0, 0, 0]


def test_blackwell_counts_its_own_nvlink_errors(make: Make, nvml: Start) -> None:
    world = make(profile="b200")
    nv = nvml()
    world.set("nvlink_errors", 0, link=1, crc=10)
    world.step(100)
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    old, new = nv.nvmlDeviceGetFieldValues(gpu, [(163, 1), (219, 1)])
    assert old.nvmlReturn == nv.NVML_ERROR_NOT_SUPPORTED
    assert new.value.ullVal == pytest.approx(1000, abs=2)


def test_memory_leaks_until_it_is_full(node: Node) -> None:
    nv = node.nv
    used = nv.nvmlDeviceGetMemoryInfo(node.gpu).used
    node.world.set("memory_leak", 0, mib_per_second=100)
    node.world.step(10)
    assert nv.nvmlDeviceGetMemoryInfo(node.gpu).used - used == pytest.approx(1000 << 20, rel=0.01)
    node.world.step(1e6)
    full = nv.nvmlDeviceGetMemoryInfo(node.gpu)
    assert full.free == 0
    assert full.used <= full.total
    node.world.clear()
    assert nv.nvmlDeviceGetMemoryInfo(node.gpu).used == used, "the process died and its memory came back"


def test_a_hung_collective_looks_busy_and_draws_little(node: Node) -> None:
    nv = node.nv
    power = nv.nvmlDeviceGetPowerUsage(node.gpu)
    node.world.set("hung_collective", 0)
    node.world.step(120)
    rates = nv.nvmlDeviceGetUtilizationRates(node.gpu)
    assert rates.gpu == 100
    assert rates.memory <= 2
    assert nv.nvmlDeviceGetPowerUsage(node.gpu) < 0.4 * power
    assert nv.nvmlDeviceGetTemperature(node.gpu, 0) < nv.nvmlDeviceGetTemperature(node.other, 0) - 10
    assert nv.nvmlDeviceGetPerformanceState(node.gpu) == 0
    first, second = nv.nvmlGpmSampleAlloc(), nv.nvmlGpmSampleAlloc()
    nv.nvmlGpmSampleGet(node.gpu, first)
    node.world.step(5)
    nv.nvmlGpmSampleGet(node.gpu, second)
    get = nv.c_nvmlGpmMetricsGet_t(version=1, numMetrics=3, sample1=first, sample2=second)
    for index, number in enumerate((1, 5, 10)):
        get.metrics[index].metricId = number
    nv.nvmlGpmMetricsGet(get)
    assert [round(entry.value) for entry in get.metrics[:3]] == [100, 0, 0]
    nv.nvmlGpmSampleFree(first)
    nv.nvmlGpmSampleFree(second)


def test_frozen_values_stand_still_and_catch_up(node: Node) -> None:
    fault = node.world.set("frozen", 0)
    frozen, moving = node.readings(node.gpu), node.readings(node.other)
    node.world.set("ecc_corrected", 0, rate=100)
    node.world.step(77)
    assert node.readings(node.gpu) == frozen
    assert node.readings(node.other) != moving
    node.world.clear(fault)
    thawed = node.readings(node.gpu)
    assert thawed[3] > frozen[3]


def test_driver_unloaded_is_unknown_now_and_not_loaded_at_the_next_init(node: Node) -> None:
    nv = node.nv
    node.world.set("driver_unloaded")
    assert set(node.codes(node.gpu).values()) | set(node.codes(node.other).values()) == {999}
    with pytest.raises(nv.NVMLError_Unknown):
        nv.nvmlDeviceGetCount()
    nv.nvmlShutdown()
    with pytest.raises(nv.NVMLError_DriverNotLoaded):
        nv.nvmlInit()
    node.world.clear()
    nv.nvmlInit()
    assert nv.nvmlDeviceGetCount() == 2


def test_a_version_mismatch_shows_at_the_next_init(node: Node) -> None:
    nv = node.nv
    node.world.set("version_mismatch")
    assert node.code("nvmlDeviceGetPowerUsage") == 0
    nv.nvmlShutdown()
    with pytest.raises(nv.NVMLError_LibRmVersionMismatch):
        nv.nvmlInit()
    node.world.clear()
    nv.nvmlInit()


def test_reset_required_leaves_identity(node: Node) -> None:
    node.world.set("reset_required", 0)
    codes = node.codes(node.gpu)
    assert codes["nvmlDeviceGetUUID"] == codes["nvmlDeviceGetName"] == 0
    assert codes["nvmlDeviceGetPowerUsage"] == codes["nvmlDeviceGetFieldValues"] == 16
    node.nv.nvmlDeviceGetHandleByIndex(0)


def test_no_permission_strikes_the_groups_it_names(node: Node) -> None:
    node.world.set("no_permission", 0, call="processes+ecc")
    codes = node.codes(node.gpu)
    assert {name for name, code in codes.items() if code == 4} == {
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetTotalEccErrors",
    }


def test_the_order_is_shuffled_at_the_next_init_and_uuids_keep_their_gpus(make: Make, nvml: Start) -> None:
    world = make(gpus=8)
    nv = nvml()

    def order() -> list[str]:
        return [nv.nvmlDeviceGetUUID(nv.nvmlDeviceGetHandleByIndex(index)) for index in range(8)]

    before = order()
    world.set("order_shuffled")
    assert order() == before, "not while the process lives on"
    nv.nvmlShutdown()
    nv.nvmlInit()
    after = order()
    assert sorted(after) == sorted(before)
    assert all(a != b for a, b in zip(before, after, strict=True)), "no GPU keeps its place"
    for index, uuid in enumerate(after):
        assert nv.nvmlDeviceGetIndex(nv.nvmlDeviceGetHandleByUUID(uuid.encode())) == index
        gpu = next(gpu for gpu in world.gpus if gpu.uuid == uuid)
        assert nv.nvmlDeviceGetPciInfo(nv.nvmlDeviceGetHandleByIndex(index)).busIdLegacy == gpu.bus_id


def test_a_missing_gpu_is_not_counted_after_the_next_init(make: Make, nvml: Start) -> None:
    world = make(gpus=3)
    nv = nvml()
    world.set("gpu_missing", 1)
    assert nv.nvmlDeviceGetCount() == 3
    nv.nvmlShutdown()
    nv.nvmlInit()
    assert nv.nvmlDeviceGetCount() == 2
    found = [nv.nvmlDeviceGetUUID(nv.nvmlDeviceGetHandleByIndex(index)) for index in range(2)]
    assert found == [world.gpus[0].uuid, world.gpus[2].uuid]
    with pytest.raises(nv.NVMLError_NotFound):
        nv.nvmlDeviceGetHandleByUUID(world.gpus[1].uuid.encode())


def test_fabric_and_recovery_action(node: Node) -> None:
    nv = node.nv
    node.world.set("fabric", 0, state=2, status=27, degraded=1)
    info = nv.c_nvmlGpuFabricInfo_v3_t()
    nv.nvmlDeviceGetGpuFabricInfoV(node.gpu, ctypes.byref(info))
    assert (info.state, info.status, info.healthSummary) == (2, 27, nv.NVML_GPU_FABRIC_HEALTH_SUMMARY_UNHEALTHY)
    node.world.set("recovery_action", 0, action=2)
    assert node.field(nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION) == nv.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT


def test_garbage_is_absurd_but_stays_in_its_buffers(node: Node) -> None:
    nv = node.nv
    node.world.set("garbage", 0)
    assert nv.nvmlDeviceGetPowerUsage(node.gpu) == 0xFFFFFFFF
    assert nv.nvmlDeviceGetTotalEnergyConsumption(node.gpu) == 0xFFFFFFFFFFFFFFFF
    assert nv.nvmlDeviceGetMemoryInfo(node.gpu).used == 0xFFFFFFFFFFFFFFFF
    buffer = ctypes.create_string_buffer(b"\xaa" * 128, 128)
    assert nv.nvmlLib["nvmlDeviceGetName"](node.gpu, buffer, ctypes.c_uint(96)) == 0
    assert buffer.raw[:96] == b"X" * 96, "no end in sight"
    assert buffer.raw[96:] == b"\xaa" * 32, "and nothing beyond the room given"
    count = ctypes.c_uint(0)
    assert nv.nvmlLib["nvmlDeviceGetComputeRunningProcesses_v3"](node.gpu, ctypes.byref(count), None) == 7
    assert count.value == 91000
    assert nv.nvmlDeviceGetNvLinkState(node.gpu, 90000) == 0xFFFFFFFF
    first, second = nv.nvmlGpmSampleAlloc(), nv.nvmlGpmSampleAlloc()
    nv.nvmlGpmSampleGet(node.gpu, first)
    node.world.step(1)
    nv.nvmlGpmSampleGet(node.gpu, second)
    get = nv.c_nvmlGpmMetricsGet_t(version=1, numMetrics=1, sample1=first, sample2=second)
    get.metrics[0].metricId = 10
    nv.nvmlGpmMetricsGet(get)
    assert math.isnan(get.metrics[0].value)
    assert len(nv.nvmlDeviceGetUUID(node.gpu)) == 40, "a GPU must still have a name"
    assert set(node.codes(node.other).values()) == {0}


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    return thread, answers


def test_a_hanging_call_hangs_alone_and_is_released_by_lifting(node: Node) -> None:
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


def test_a_hanging_call_is_released_by_expiry(node: Node) -> None:
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


def test_slow_calls_take_their_time(node: Node) -> None:
    node.world.set("slow", 0, call="memory", ms=150)
    started = time.monotonic()
    node.nv.nvmlDeviceGetPowerUsage(node.gpu)
    node.nv.nvmlDeviceGetMemoryInfo(node.gpu)
    assert time.monotonic() - started >= 0.149


def test_faults_begin_and_expire_by_the_boot_clock_though_the_simulated_one_is_frozen(node: Node) -> None:
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


def test_an_expired_fault_leaves_room_and_its_integral(node: Node) -> None:
    nv = node.nv
    for number in range(3 * records.MAX_FAULTS):
        node.world.set("ecc_uncorrected", 0, count=1, duration=1e-6)
        assert nv.nvmlDeviceGetTotalEccErrors(node.gpu, 1, 0) == number + 1


def test_a_gpu_holds_24_faults_that_act(node: Node) -> None:
    for _ in range(records.MAX_FAULTS):
        node.world.set("ecc_corrected", 0, rate=1)
    with pytest.raises(ConfigError, match="24 faults"):
        node.world.set("ecc_corrected", 0, rate=1)
    assert node.world.clear() == records.MAX_FAULTS
    node.world.set("ecc_corrected", 0, rate=1)


def test_clearing_takes_one_or_all_and_nothing_twice(node: Node) -> None:
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
