"""What nvidia-ml-py reads from simulated GPUs: every profile, every rule of NVML about buffers and codes."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agent.base.errors import ConfigError
from chaos.simulator import profiles
from chaos.simulator.build import LIBRARY
from chaos.simulator.world import World

Make = Callable[..., World]
Start = Callable[[], ModuleType]
ALL_LINKS = 0xFFFFFFFF


def supported(nv: ModuleType, call: Callable[..., Any], *arguments: Any) -> bool:
    try:
        call(*arguments)
    except nv.NVMLError_NotSupported:
        return False
    return True


def field(nv: ModuleType, handle: Any, number: int, scope: int = 0) -> tuple[int, int]:
    """(return code, value) of one field."""
    (entry,) = nv.nvmlDeviceGetFieldValues(handle, [(number, scope)])
    wide = entry.valueType in (2, 3)
    return entry.nvmlReturn, entry.value.ullVal if wide else entry.value.siVal


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_each_profile_tells_what_its_architecture_can(make: Make, nvml: Start, name: str) -> None:
    profile = profiles.PROFILES[name]
    make(profile=name)
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    has = lambda feature: bool(profile.features & feature)  # noqa: E731

    assert nv.nvmlDeviceGetName(gpu) == profile.name
    assert nv.nvmlDeviceGetArchitecture(gpu) == profile.architecture
    assert nv.nvmlDeviceGetCudaComputeCapability(gpu) == profile.capability
    assert nv.nvmlDeviceGetMemoryInfo(gpu).total == profile.memory[0] << 20
    assert nv.nvmlDeviceGetMemoryBusWidth(gpu) == profile.bus_width
    assert nv.nvmlDeviceGetMaxClockInfo(gpu, nv.NVML_CLOCK_SM) == profile.clocks[0]

    ecc, remap = has(profiles.ECC), has(profiles.REMAP)
    assert supported(nv, nv.nvmlDeviceGetEccMode, gpu) == ecc
    assert supported(nv, nv.nvmlDeviceGetTotalEccErrors, gpu, 0, 0) == ecc
    assert supported(nv, nv.nvmlDeviceGetRemappedRows, gpu) == remap
    assert supported(nv, nv.nvmlDeviceGetRetiredPagesPendingStatus, gpu) == (ecc and not remap)
    assert supported(nv, nv.nvmlDeviceGetNvLinkState, gpu, 0) == (profile.links[0] > 0)
    assert supported(nv, nv.nvmlDeviceGetMigMode, gpu) == has(profiles.MIG)
    assert supported(nv, nv.nvmlDeviceGetFanSpeed, gpu) == has(profiles.FAN)
    assert supported(nv, nv.nvmlDeviceGetTemperatureThreshold, gpu, 1) == has(profiles.THRESHOLDS)
    assert supported(nv, nv.nvmlDeviceGetMarginTemperature, gpu) == has(profiles.TLIMIT)
    assert supported(nv, nv.nvmlDeviceGetSerial, gpu) == has(profiles.SERIAL)
    assert bool(nv.nvmlGpmQueryDeviceSupport(gpu).isSupportedDevice) == has(profiles.GPM)
    assert (field(nv, gpu, nv.NVML_FI_DEV_MEMORY_TEMP)[0] == 0) == has(profiles.MEMORY_TEMPERATURE)
    assert (field(nv, gpu, nv.NVML_FI_DEV_POWER_AVERAGE)[0] == 0) == has(profiles.POWER_AVERAGE)
    assert field(nv, gpu, nv.NVML_FI_DEV_POWER_INSTANT)[0] == 0
    # Blackwell counts NVLink bytes under other ids than those before it.
    old, new = (field(nv, gpu, number, 0)[0] == 0 for number in (138, 202))
    assert (old, new) == (profile.links[0] > 0 and profile.architecture < 10, profile.architecture >= 10)


def test_gaps_that_everybody_knows(make: Make, nvml: Start) -> None:
    """No GPM before Hopper, no ECC or NVLink on a 4090: said here by name, apart from the table."""
    make(profile="a100")
    nv = nvml()
    assert not nv.nvmlGpmQueryDeviceSupport(nv.nvmlDeviceGetHandleByIndex(0)).isSupportedDevice
    nv.nvmlShutdown()
    make(profile="rtx4090")
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    with pytest.raises(nv.NVMLError_NotSupported):
        nv.nvmlDeviceGetEccMode(gpu)
    with pytest.raises(nv.NVMLError_NotSupported):
        nv.nvmlDeviceGetNvLinkState(gpu, 0)


@pytest.mark.parametrize("count", [1, 16])
def test_handles_by_index_uuid_serial_and_bus_agree(make: Make, nvml: Start, count: int) -> None:
    world = make(gpus=count)
    nv = nvml()
    assert nv.nvmlDeviceGetCount() == count
    uuids = set()
    for gpu in world.gpus:
        handle = nv.nvmlDeviceGetHandleByIndex(gpu.index)
        uuids.add(nv.nvmlDeviceGetUUID(handle))
        assert nv.nvmlDeviceGetUUID(handle) == gpu.uuid
        bus = nv.nvmlDeviceGetPciInfo(handle)
        assert bus.busIdLegacy == gpu.bus_id
        assert bus.busId == f"0000{gpu.bus_id}"
        for other in (
            nv.nvmlDeviceGetHandleByUUID(gpu.uuid.encode()),
            nv.nvmlDeviceGetHandleBySerial(nv.nvmlDeviceGetSerial(handle).encode()),
            nv.nvmlDeviceGetHandleByPciBusId(gpu.bus_id.lower().encode()),
            nv.nvmlDeviceGetHandleByPciBusId(f"0000{gpu.bus_id}".encode()),
        ):
            assert nv.nvmlDeviceGetIndex(other) == gpu.index
    assert len(uuids) == count
    with pytest.raises(nv.NVMLError_InvalidArgument):
        nv.nvmlDeviceGetHandleByIndex(count)
    with pytest.raises(nv.NVMLError_NotFound):
        nv.nvmlDeviceGetHandleByUUID(b"GPU-00000000-0000-0000-0000-000000000000")


def test_life_cycle_is_counted_and_stale_handles_are_caught(make: Make, nvml: Start) -> None:
    make()
    nv = nvml()
    nv.nvmlInit()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    nv.nvmlShutdown()
    assert nv.nvmlDeviceGetTemperature(gpu, 0) > 0, "one initialisation is left"
    nv.nvmlShutdown()
    with pytest.raises(nv.NVMLError_Uninitialized):
        nv.nvmlDeviceGetTemperature(gpu, 0)
    nv.nvmlInit()
    with pytest.raises(nv.NVMLError_InvalidArgument):
        nv.nvmlDeviceGetTemperature(gpu, 0)


def test_without_a_state_file_the_driver_is_not_loaded(
    nvml: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: ModuleType
) -> None:
    monkeypatch.setenv("GPUVIGIL_SIM_STATE", str(tmp_path / "absent"))
    with pytest.raises(bound.NVMLError_DriverNotLoaded):
        nvml()
    monkeypatch.delenv("GPUVIGIL_SIM_STATE")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(bound.NVMLError_DriverNotLoaded):
        nvml()


def test_default_state_file_is_in_the_runtime_directory(
    make: Make, nvml: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(profile="t4")
    world.path.rename(tmp_path / "gpuvigil-sim.state")
    monkeypatch.delenv("GPUVIGIL_SIM_STATE")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    nv = nvml()
    assert nv.nvmlDeviceGetName(nv.nvmlDeviceGetHandleByIndex(0)) == "Tesla T4"
    with World.open() as again:
        assert again.gpus == world.gpus


def test_strings_need_room_for_their_end(make: Make, nvml: Start) -> None:
    make()
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    name = nv.nvmlDeviceGetName(gpu).encode()
    call = nv.nvmlLib["nvmlDeviceGetName"]
    for room, code in ((len(name), 7), (len(name) + 1, 0), (0, 7)):
        buffer = ctypes.create_string_buffer(b"\xaa" * 200, 200)
        assert call(gpu, buffer, ctypes.c_uint(room)) == code
        assert buffer.raw[room:] == b"\xaa" * (200 - room), "nothing is written beyond the room"
    assert call(gpu, None, ctypes.c_uint(96)) == 2


def test_versioned_structures_refuse_another_version(make: Make, nvml: Start) -> None:
    make()
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    with pytest.raises(nv.NVMLError) as refused:
        nv.nvmlDeviceGetMemoryInfo(gpu, version=0x01000028)
    assert refused.value.value == nv.NVML_ERROR_ARGUMENT_VERSION_MISMATCH
    support = nv.c_nvmlGpmSupport_t(version=2)
    assert nv.nvmlLib["nvmlGpmQueryDeviceSupport"](gpu, ctypes.byref(support)) == 25


def test_null_pointers_and_foreign_handles_are_refused(make: Make, nvml: Start) -> None:
    make()
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    assert nv.nvmlLib["nvmlDeviceGetPowerUsage"](gpu, None) == 2
    assert nv.nvmlLib["nvmlDeviceGetUtilizationRates"](gpu, None) == 2
    out = ctypes.c_uint()
    for handle in (0, 8, 0xDEADBEEF, (1 << 64) - 8):
        assert nv.nvmlLib["nvmlDeviceGetPowerUsage"](ctypes.c_void_p(handle), ctypes.byref(out)) == 2


def test_symbols_we_lack_are_absent_and_ours_are_many(library: Path, make: Make, nvml: Start) -> None:
    make()
    nv = nvml()
    with pytest.raises(nv.NVMLError_FunctionNotFound):
        nv.nvmlDeviceGetBBXTimeData_v1(nv.nvmlDeviceGetHandleByIndex(0))
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", str(library / LIBRARY)], capture_output=True, text=True, check=True
    )
    exported = {line.split()[-1] for line in listing.stdout.splitlines()}
    assert "gpuvigil_sim" in exported
    assert all(name.startswith("nvml") for name in exported - {"gpuvigil_sim"}), "nothing else leaks out"
    assert len(exported) > 90


def test_memory_adds_up(make: Make, nvml: Start) -> None:
    world = make(workload="idle")
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    world.set_process(0, 4711, 10 << 30)
    info = nv.nvmlDeviceGetMemoryInfo(gpu, version=nv.nvmlMemory_v2)
    assert info.total == info.reserved + info.used + info.free
    assert info.used == 10 << 30
    old = nv.nvmlDeviceGetMemoryInfo(gpu)
    assert (old.total, old.used, old.free) == (info.total, info.used + info.reserved, info.free)


def test_processes_come_and_go(make: Make, nvml: Start) -> None:
    world = make(gpus=2)
    nv = nvml()
    gpu, other = (nv.nvmlDeviceGetHandleByIndex(index) for index in range(2))
    assert nv.nvmlDeviceGetComputeRunningProcesses(gpu) == []
    world.set_process(0, 100, 1 << 30)
    world.set_process(0, 200, 3 << 30)
    world.set_process(0, 300, 1 << 20, graphics=True)
    found = {entry.pid: entry for entry in nv.nvmlDeviceGetComputeRunningProcesses(gpu)}
    assert {pid: entry.usedGpuMemory for pid, entry in found.items()} == {100: 1 << 30, 200: 3 << 30}
    assert found[100].gpuInstanceId == 0xFFFFFFFF
    assert [entry.pid for entry in nv.nvmlDeviceGetGraphicsRunningProcesses(gpu)] == [300]
    assert [entry.pid for entry in nv.nvmlDeviceGetComputeRunningProcesses_v2(gpu)] == [100, 200]
    detail = nv.nvmlDeviceGetRunningProcessDetailList(gpu, nv.nvmlProcessDetailList_v1, nv.NVML_PROCESS_MODE_COMPUTE)
    assert [entry.pid for entry in detail] == [100, 200]
    shares = {entry.pid: entry.smUtil for entry in nv.nvmlDeviceGetProcessUtilization(gpu, 0)}
    assert shares[200] > shares[100] > 0
    assert {entry.pid: entry.smUtil for entry in nv.nvmlDeviceGetProcessesUtilizationInfo(gpu, 0)} == shares
    assert nv.nvmlDeviceGetComputeRunningProcesses(other) == []
    world.remove_process(0, 100)
    assert [entry.pid for entry in nv.nvmlDeviceGetComputeRunningProcesses(gpu)] == [200]


def test_what_processes_do_with_the_video_engines(make: Make, nvml: Start) -> None:
    world = make(workload="idle")
    world.set_process(0, 100, 1 << 30, encoder=40, decoder=15)
    world.set_process(0, 200, 1 << 30, encoder=70)
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    found = {each.pid: (each.encUtil, each.decUtil) for each in nv.nvmlDeviceGetProcessUtilization(gpu, 0)}
    assert found == {100: (40, 15), 200: (70, 0)}
    found = {each.pid: (each.encUtil, each.decUtil) for each in nv.nvmlDeviceGetProcessesUtilizationInfo(gpu, 0)}
    assert found == {100: (40, 15), 200: (70, 0)}
    assert nv.nvmlDeviceGetEncoderUtilization(gpu)[0] == 100, "no more than all of it"
    assert nv.nvmlDeviceGetDecoderUtilization(gpu)[0] == 15
    with pytest.raises(ConfigError, match="101"):
        world.set_process(0, 300, 1, encoder=101)


def test_process_utilisation_is_not_found_when_nothing_is_newer(make: Make, nvml: Start) -> None:
    world = make()
    world.set_process(0, 100, 1 << 30)
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    (sample,) = nv.nvmlDeviceGetProcessUtilization(gpu, 0)
    with pytest.raises(nv.NVMLError_NotFound):
        nv.nvmlDeviceGetProcessUtilization(gpu, sample.timeStamp)


def test_field_values_answer_one_by_one(make: Make, nvml: Start) -> None:
    make(profile="h100")
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    entries = nv.nvmlDeviceGetFieldValues(gpu, [nv.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, 29, 999, (165, 17), (165, 18)])
    assert [entry.nvmlReturn for entry in entries] == [0, 3, 3, 0, 2]
    assert [entry.value.ullVal for entry in entries[1:3]] == [0, 0]
    assert entries[0].value.ullVal == nv.nvmlDeviceGetTotalEnergyConsumption(gpu)
    assert entries[0].valueType == nv.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG


@pytest.mark.parametrize(
    ("old", "ids", "others"), [(False, (269, 270, 271), (251, 252)), (True, (251, 252, 253), (269, 270))]
)
def test_clock_event_counters_have_the_ids_of_their_driver(
    make: Make, nvml: Start, old: bool, ids: tuple[int, ...], others: tuple[int, ...]
) -> None:
    world = make(driver="580.65.06" if old else "580.82.07")
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    world.set("thermal_throttle", 0)
    world.step(10)
    assert [field(nv, gpu, number)[0] for number in ids] == [0, 0, 0]
    assert field(nv, gpu, ids[1])[1] == pytest.approx(10e9, rel=0.01), "hardware thermal slowdown, ns"
    assert [field(nv, gpu, number)[0] for number in others] == [3, 3]


def test_fields_and_getters_tell_the_same(make: Make, nvml: Start) -> None:
    world = make(profile="h100", gpus=2)
    world.set("ecc_corrected", 0, rate=7)
    world.set("nvlink_errors", 0, link=2, replay=3, crc=5)
    world.set("pcie_degraded", 0, replays=2)
    world.step(60)
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    pairs = {
        nv.NVML_FI_DEV_ECC_SBE_VOL_TOTAL: nv.nvmlDeviceGetTotalEccErrors(gpu, 0, 0),
        nv.NVML_FI_DEV_ECC_DBE_AGG_TOTAL: nv.nvmlDeviceGetTotalEccErrors(gpu, 1, 1),
        nv.NVML_FI_DEV_PCIE_REPLAY_COUNTER: nv.nvmlDeviceGetPcieReplayCounter(gpu),
        nv.NVML_FI_DEV_POWER_CURRENT_LIMIT: nv.nvmlDeviceGetEnforcedPowerLimit(gpu),
        nv.NVML_FI_DEV_POWER_AVERAGE: nv.nvmlDeviceGetPowerUsage(gpu),
    }
    for number, value in pairs.items():
        assert field(nv, gpu, number) == (0, value)
    assert pairs[nv.NVML_FI_DEV_ECC_SBE_VOL_TOTAL] == pytest.approx(420, abs=7)
    assert field(nv, gpu, 161, 2) == (0, nv.nvmlDeviceGetNvLinkErrorCounter(gpu, 2, nv.NVML_NVLINK_ERROR_DL_REPLAY))
    assert field(nv, gpu, 161, ALL_LINKS) == field(nv, gpu, 161, 2)
    assert field(nv, gpu, 163, 3) == (0, 0)


def test_gpm_measures_between_two_samples(make: Make, nvml: Start) -> None:
    world = make(profile="h100")
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    samples = [nv.nvmlGpmSampleAlloc() for _ in range(2)]
    nv.nvmlGpmSampleGet(gpu, samples[0])
    wanted = [1, 2, 3, 5, 10, 20, 21, 60, 61, 62, 97, 400]

    def measure() -> dict[int, tuple[int, float]]:
        get = nv.c_nvmlGpmMetricsGet_t(version=1, numMetrics=len(wanted), sample1=samples[0], sample2=samples[1])
        for index, number in enumerate(wanted):
            get.metrics[index].metricId = number
        get.metrics[len(wanted)].value = -1.0
        nv.nvmlGpmMetricsGet(get)
        assert get.metrics[len(wanted)].value == -1.0, "nothing beyond numMetrics is touched"
        return {entry.metricId: (entry.nvmlReturn, entry.value) for entry in get.metrics[: len(wanted)]}

    nv.nvmlGpmSampleGet(gpu, samples[1])
    with pytest.raises(nv.NVMLError_InvalidArgument):
        measure()  # no time has passed
    world.step(20)
    nv.nvmlGpmSampleGet(gpu, samples[1])
    found = measure()
    assert found[400][0] == nv.NVML_ERROR_NOT_SUPPORTED
    assert all(code == 0 for number, (code, _) in found.items() if number != 400)
    for number in (1, 2, 3, 5, 10):
        assert 0 < found[number][1] <= 100
    links = sum(found[number][1] for number in (62, 97))
    assert found[60][1] == pytest.approx(links / 2 * 18)
    for sample in samples:
        nv.nvmlGpmSampleFree(sample)


def test_pcie_throughput_takes_its_time_and_lets_others_run(make: Make, nvml: Start) -> None:
    import time

    make()
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    started = time.monotonic()
    received = nv.nvmlDeviceGetPcieThroughput(gpu, nv.NVML_PCIE_UTIL_RX_BYTES)
    assert time.monotonic() - started >= 0.019
    assert received > nv.nvmlDeviceGetPcieThroughput(gpu, nv.NVML_PCIE_UTIL_TX_BYTES) > 0


def test_samples_are_newer_than_the_last_seen(make: Make, nvml: Start) -> None:
    world = make()
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    kind, samples = nv.nvmlDeviceGetSamples(gpu, nv.NVML_TOTAL_POWER_SAMPLES, 0)
    assert kind == nv.NVML_VALUE_TYPE_UNSIGNED_INT
    stamps = [sample.timeStamp for sample in samples]
    assert stamps == sorted(set(stamps))
    world.step(0.5)
    _, newer = nv.nvmlDeviceGetSamples(gpu, nv.NVML_TOTAL_POWER_SAMPLES, stamps[-1])
    assert [sample.timeStamp for sample in newer if sample.timeStamp <= stamps[-1]] == []
    assert 2 <= len([sample for sample in newer if sample.timeStamp]) <= 4


def test_mig_instances_are_devices_of_their_own(make: Make, nvml: Start) -> None:
    world = make(profile="h100", gpus=2)
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    assert nv.nvmlDeviceGetMigMode(gpu) == [0, 0]
    world.set_mig(0, [1, 2, 4])
    world.set_process(0, 100, 1 << 30, gpu_instance=2)
    assert nv.nvmlDeviceGetMigMode(gpu) == [1, 1]
    assert nv.nvmlDeviceGetMaxMigDeviceCount(gpu) == 7
    instances = [nv.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index) for index in range(3)]
    with pytest.raises(nv.NVMLError_NotFound):
        nv.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 3)
    with pytest.raises(nv.NVMLError_NotSupported):
        nv.nvmlDeviceGetUtilizationRates(gpu)
    memory = [nv.nvmlDeviceGetMemoryInfo(instance).total for instance in instances]
    assert memory == sorted(memory)
    assert sum(memory) <= nv.nvmlDeviceGetMemoryInfo(gpu).total
    names = {nv.nvmlDeviceGetUUID(instance) for instance in instances}
    assert len(names) == 3
    for number, instance in enumerate(instances, start=1):
        assert nv.nvmlDeviceIsMigDeviceHandle(instance).value == 1
        assert nv.nvmlDeviceGetGpuInstanceId(instance) == number
        assert "MIG" in nv.nvmlDeviceGetName(instance)
        name = nv.nvmlDeviceGetUUID(instance)
        assert name.startswith("MIG-")
        assert nv.nvmlDeviceGetUUID(nv.nvmlDeviceGetHandleByUUID(name.encode())) == name
        assert nv.nvmlDeviceGetIndex(nv.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)) == 0
        with pytest.raises(nv.NVMLError_NotSupported):
            nv.nvmlDeviceGetPowerUsage(instance)
    assert [entry.pid for entry in nv.nvmlDeviceGetComputeRunningProcesses(instances[1])] == [100]
    assert nv.nvmlDeviceGetComputeRunningProcesses(instances[0]) == []
    sample = nv.nvmlGpmSampleAlloc()
    nv.nvmlGpmMigSampleGet(gpu, 2, sample)
    with pytest.raises(nv.NVMLError_InvalidArgument):
        nv.nvmlGpmMigSampleGet(gpu, 4, sample)
    nv.nvmlGpmSampleFree(sample)
    world.set_mig(0, [])
    with pytest.raises(nv.NVMLError_NotFound):
        nv.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 0)


def test_structures_of_13_are_filled_when_passed_by_reference(make: Make, nvml: Start) -> None:
    world = make(profile="h100")
    world.set("ecc_uncorrected", 0, count=2, location="sram")
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    sram = nv.c_nvmlEccSramErrorStatus_v1_t()
    nv.nvmlDeviceGetSramEccErrorStatus(gpu, ctypes.byref(sram))
    assert sram.volatileUncSecDed == 2
    fabric = nv.c_nvmlGpuFabricInfo_v3_t()
    nv.nvmlDeviceGetGpuFabricInfoV(gpu, ctypes.byref(fabric))
    assert (fabric.state, fabric.healthSummary) == (nv.NVML_GPU_FABRIC_STATE_COMPLETED, 1)
    older = nv.c_nvmlGpuFabricInfo_v2_t()
    nv.nvmlDeviceGetGpuFabricInfoV(gpu, ctypes.byref(older))
    assert older.state == fabric.state
    rows = nv.c_nvmlRemappedRowsInfo_v2_t()
    nv.nvmlDeviceGetRemappedRows_v2(gpu, ctypes.byref(rows))
    assert (rows.uncActiveRemaps, rows.bPending) == (0, 0)


def test_links_to_the_processor(make: Make, nvml: Start) -> None:
    world = make(profile="gh200")
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    assert field(nv, gpu, nv.NVML_FI_DEV_C2C_LINK_COUNT) == (0, 10)
    assert [field(nv, gpu, nv.NVML_FI_DEV_C2C_LINK_GET_STATUS, link) for link in (0, 9, 10)] == [(0, 1), (0, 1), (2, 0)]
    world.set("c2c_down", 0, link=9)
    assert field(nv, gpu, nv.NVML_FI_DEV_C2C_LINK_GET_STATUS, 9) == (0, 0)
    assert field(nv, gpu, nv.NVML_FI_DEV_C2C_LINK_GET_MAX_BW, 8) == (0, 44712)


def test_without_a_processor_on_the_module_there_are_none(make: Make, nvml: Start) -> None:
    make(profile="h100")
    nv = nvml()
    assert field(nv, nv.nvmlDeviceGetHandleByIndex(0), nv.NVML_FI_DEV_C2C_LINK_COUNT)[0] == 3


def test_the_inforom(make: Make, nvml: Start) -> None:
    world = make()
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    assert nv.nvmlDeviceGetInforomVersion(gpu, nv.NVML_INFOROM_ECC) == "6.16"
    nv.nvmlDeviceValidateInforom(gpu)
    world.set("inforom_corrupted", 0)
    with pytest.raises(nv.NVMLError_CorruptedInforom):
        nv.nvmlDeviceValidateInforom(gpu)


@pytest.mark.parametrize("wide", [False, True])
def test_pcie_counters_wrap_at_32_bits_or_not(make: Make, nvml: Start, wide: bool) -> None:
    world = make(wide_pcie_counters=wide)
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    world.step(60)
    entry = nv.nvmlDeviceGetFieldValues(gpu, [nv.NVML_FI_DEV_PCIE_COUNT_RX_BYTES])[0]
    assert (entry.value.ullVal > 1 << 32) == wide
    assert entry.valueType == (nv.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG if wide else nv.NVML_VALUE_TYPE_UNSIGNED_INT)
