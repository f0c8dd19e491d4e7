"""Each fault: what it changes, that it changes nothing else, and that it is over when it is over."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest

from chaos.simulator.world import World

Make = Callable[..., World]
Start = Callable[[], ModuleType]


def test_a_lost_gpu_fails_every_call_and_its_neighbour_none(node: Any) -> None:
    fault = node.world.set("gpu_lost", 0)
    assert set(node.codes(node.gpu).values()) == {15}
    assert set(node.codes(node.other).values()) == {0}
    assert node.nv.nvmlDeviceGetCount() == 2, "it is lost, not gone"
    with pytest.raises(node.nv.NVMLError_GpuIsLost):
        node.nv.nvmlDeviceGetHandleByIndex(0)
    node.world.clear(fault)
    assert set(node.codes(node.gpu).values()) == {0}


def test_a_partly_lost_gpu_goes_on_answering_some_calls(node: Any) -> None:
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


def test_a_lost_handle_may_answer_unknown(node: Any) -> None:
    node.world.set("gpu_lost", 0, handle_code=999)
    with pytest.raises(node.nv.NVMLError_Unknown):
        node.nv.nvmlDeviceGetHandleByIndex(0)
    assert node.code("nvmlDeviceGetPowerUsage") == 15


def test_a_flapping_gpu_comes_and_goes(node: Any) -> None:
    node.world.set("gpu_lost", 0, period=0.2)
    seen = []
    for _ in range(40):
        seen.append(node.code("nvmlDeviceGetPowerUsage"))
        time.sleep(0.02)
    changes = sum(1 for a, b in pairwise(seen) if a != b)
    assert set(seen) == {0, 15}
    assert changes >= 3


def test_corrected_errors_count_at_their_rate_and_place(node: Any) -> None:
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


def test_uncorrected_errors_come_at_once_and_ask_for_a_reset(node: Any) -> None:
    nv = node.nv
    assert node.field(nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION) == nv.NVML_GPU_RECOVERY_ACTION_NONE
    node.world.set("ecc_uncorrected", 0, count=3)
    assert nv.nvmlDeviceGetTotalEccErrors(node.gpu, 1, 0) == 3
    assert nv.nvmlDeviceGetMemoryErrorCounter(node.gpu, 1, 1, nv.NVML_MEMORY_LOCATION_DRAM) == 3
    assert node.field(nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION) == nv.NVML_GPU_RECOVERY_ACTION_GPU_RESET
    node.world.clear()
    assert nv.nvmlDeviceGetTotalEccErrors(node.gpu, 1, 0) == 3
    assert node.field(nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION) == nv.NVML_GPU_RECOVERY_ACTION_NONE


def test_row_remapping_pending_and_failed(node: Any) -> None:
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
def test_thermal_throttling(node: Any, hardware: int, reason: int, field: int) -> None:
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


def test_power_brake_power_cap_and_clock_drop(node: Any) -> None:
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


def test_pcie_trains_down_and_replays(node: Any) -> None:
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


def test_an_nvlink_goes_down_and_its_bytes_stand_still(node: Any) -> None:
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


def test_nvlink_errors_count_by_link_and_kind(node: Any) -> None:
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


def test_memory_leaks_until_it_is_full(node: Any) -> None:
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


def test_a_hung_collective_looks_busy_and_draws_little(node: Any) -> None:
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


def test_frozen_values_stand_still_and_catch_up(node: Any) -> None:
    fault = node.world.set("frozen", 0)
    frozen, moving = node.readings(node.gpu), node.readings(node.other)
    node.world.set("ecc_corrected", 0, rate=100)
    node.world.step(77)
    assert node.readings(node.gpu) == frozen
    assert node.readings(node.other) != moving
    node.world.clear(fault)
    thawed = node.readings(node.gpu)
    assert thawed[3] > frozen[3]


def test_driver_unloaded_is_unknown_now_and_not_loaded_at_the_next_init(node: Any) -> None:
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


def test_a_version_mismatch_shows_at_the_next_init(node: Any) -> None:
    nv = node.nv
    node.world.set("version_mismatch")
    assert node.code("nvmlDeviceGetPowerUsage") == 0
    nv.nvmlShutdown()
    with pytest.raises(nv.NVMLError_LibRmVersionMismatch):
        nv.nvmlInit()
    node.world.clear()
    nv.nvmlInit()


def test_reset_required_leaves_identity(node: Any) -> None:
    node.world.set("reset_required", 0)
    codes = node.codes(node.gpu)
    assert codes["nvmlDeviceGetUUID"] == codes["nvmlDeviceGetName"] == 0
    assert codes["nvmlDeviceGetPowerUsage"] == codes["nvmlDeviceGetFieldValues"] == 16
    node.nv.nvmlDeviceGetHandleByIndex(0)


def test_no_permission_strikes_the_groups_it_names(node: Any) -> None:
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


def test_fabric_and_recovery_action(node: Any) -> None:
    nv = node.nv
    node.world.set("fabric", 0, state=2, status=27, degraded=1)
    info = nv.c_nvmlGpuFabricInfo_v3_t()
    nv.nvmlDeviceGetGpuFabricInfoV(node.gpu, ctypes.byref(info))
    assert (info.state, info.status, info.healthSummary) == (2, 27, nv.NVML_GPU_FABRIC_HEALTH_SUMMARY_UNHEALTHY)
    node.world.set("recovery_action", 0, action=2)
    assert node.field(nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION) == nv.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT


def test_garbage_is_absurd_but_stays_in_its_buffers(node: Any) -> None:
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
