"""Values are pure functions of seed, GPU and time, and move together as physics has it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.base.errors import ConfigError
from chaos.simulator import profiles, records
from chaos.simulator.world import World

Make = Callable[..., World]
Start = Callable[[], ModuleType]

READ = """
import json, pynvml as nv
nv.nvmlInit()
rows = []
for index in range(nv.nvmlDeviceGetCount()):
    gpu = nv.nvmlDeviceGetHandleByIndex(index)
    rows.append([
        nv.nvmlDeviceGetUUID(gpu), nv.nvmlDeviceGetPowerUsage(gpu), nv.nvmlDeviceGetTotalEnergyConsumption(gpu),
        nv.nvmlDeviceGetTemperature(gpu, 0), nv.nvmlDeviceGetClockInfo(gpu, 1),
        nv.nvmlDeviceGetMemoryInfo(gpu).used, nv.nvmlDeviceGetUtilizationRates(gpu).gpu,
        [(entry.nvmlReturn, entry.value.ullVal) for entry in nv.nvmlDeviceGetFieldValues(gpu, list(range(1, 308)))],
    ])
print(json.dumps(rows))
"""


def reading(nv: ModuleType, gpu: Any) -> dict[str, float]:
    rates = nv.nvmlDeviceGetUtilizationRates(gpu)
    return {
        "utilization": rates.gpu,
        "memory_activity": rates.memory,
        "power": nv.nvmlDeviceGetPowerUsage(gpu) / 1000,
        "energy": nv.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000,
        "temperature": nv.nvmlDeviceGetTemperature(gpu, 0),
        "sm_clock": nv.nvmlDeviceGetClockInfo(gpu, nv.NVML_CLOCK_SM),
        "reasons": nv.nvmlDeviceGetCurrentClocksEventReasons(gpu),
        "pstate": nv.nvmlDeviceGetPerformanceState(gpu),
        "pcie_generation": nv.nvmlDeviceGetCurrPcieLinkGeneration(gpu),
    }


def test_a_frozen_clock_gives_the_same_bytes_to_every_process(make: Make, in_world: Callable[..., Any]) -> None:
    first, same, other = (make(gpus=3, seed=seed).path for seed in (1, 1, 2))
    answers = [in_world(sys.executable, "-c", READ, state=path).stdout for path in (first, first, same, other)]
    assert answers[0] == answers[1]
    assert answers[0] == answers[2], "the world is its seed, profile and time"
    assert answers[0] != answers[3]
    rows = json.loads(answers[0])
    assert len({json.dumps(row[1:4]) for row in rows}) == 3, "no two GPUs are equal"


def test_the_clock_freezes_steps_and_speeds_up(make: Make) -> None:
    world = make()
    began = world.now()
    time.sleep(0.05)
    assert world.now() == began
    world.step(3600)
    assert world.now() == began + 3600
    world.set_clock(speed=1000)
    time.sleep(0.05)
    world.freeze()
    assert world.now() >= began + 3600 + 50
    stopped = world.now()
    world.set_clock(speed=1.0)
    time.sleep(0.05)
    assert stopped + 0.05 <= world.now() <= stopped + 30
    for wrong in ({"speed": -1.0}, {"speed": 2e6}, {"speed": 1.0, "step": -1.0}):
        with pytest.raises(ConfigError):
            world.set_clock(**wrong)


@pytest.mark.parametrize("profile", profiles.PROFILES)
@pytest.mark.parametrize("workload", records.WORKLOADS)
def test_energy_is_the_integral_of_power(make: Make, nvml: Start, profile: str, workload: str) -> None:
    world = make(profile=profile, workload=workload)
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    averaged = bool(profiles.PROFILES[profile].features & profiles.POWER_AVERAGE)
    start, total, step = reading(nv, gpu)["energy"], 0.0, 1.0 if averaged else 0.1
    count = 120 if averaged else 300
    for _ in range(count):
        world.step(step)
        total += reading(nv, gpu)["power"] * step
    assert reading(nv, gpu)["energy"] - start == pytest.approx(total, rel=0.002)


@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_load_heat_power_and_clocks_move_together(make: Make, nvml: Start, profile: str) -> None:
    model = profiles.PROFILES[profile]
    idle, default, _, _ = model.power
    world = make(profile=profile, workload="idle")
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    world.step(300)
    rest = reading(nv, gpu)
    assert rest["utilization"] <= 2
    assert rest["power"] == pytest.approx(idle, rel=0.25)
    assert rest["sm_clock"] == model.idle_clocks[0]
    assert rest["pstate"] == model.idle_pstate
    assert rest["pcie_generation"] == 1
    assert rest["reasons"] == nv.nvmlClocksEventReasonGpuIdle

    world.set_workload("training")
    soon = reading(nv, gpu)
    world.step(300)
    load = reading(nv, gpu)
    for _ in range(8):  # some models report power at the instant, and a step has its all-reduce
        world.step(0.5)
        load = max(load, reading(nv, gpu), key=lambda row: row["power"])
    assert load["utilization"] >= 95
    assert 0.6 * default < load["power"] <= default
    assert load["sm_clock"] > 0.8 * model.clocks[0]
    assert load["pcie_generation"] == model.pcie[0]
    assert load["reasons"] == 0
    assert load["temperature"] > rest["temperature"] + 10
    assert load["temperature"] < model.thresholds[1], "a healthy GPU does not throttle"
    assert soon["temperature"] <= load["temperature"]


def test_temperature_follows_with_a_lag(make: Make, nvml: Start) -> None:
    world = make(workload="idle")
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    world.set("power_cap", 0, watts=71)  # holds the GPU at rest, whatever it is asked to do
    world.set_workload("training")
    world.step(200)
    cold = reading(nv, gpu)["temperature"]
    world.clear()
    seen = []
    for _ in range(20):
        world.step(5)
        seen.append(reading(nv, gpu)["temperature"])
    assert seen[0] > cold
    assert seen[0] < seen[3] < seen[-1], "it climbs over tens of seconds"
    assert seen[-1] - cold > 20


def test_training_has_checkpoints_and_inference_a_day(make: Make, nvml: Start) -> None:
    world = make(gpus=2)
    nv = nvml()
    gpu, other = (nv.nvmlDeviceGetHandleByIndex(index) for index in range(2))
    power = []
    for _ in range(300):
        world.step(2)
        power.append((reading(nv, gpu)["power"], reading(nv, other)["power"]))
    stalls = [index for index, (a, _) in enumerate(power) if a < 250]
    assert 10 <= len(stalls) <= 20, "one checkpoint of 30 s in ten minutes"
    assert [index for index, (_, b) in enumerate(power) if b < 250] == stalls, "the GPUs of a job march in step"

    world.set_workload("inference")
    hours = []
    for _ in range(24):
        samples = []
        for _ in range(10):
            world.step(360)
            samples.append(reading(nv, gpu)["power"])
        hours.append(sum(samples) / len(samples))
    assert max(hours) > 1.4 * min(hours)


def test_changing_the_workload_never_steps_a_counter(make: Make, nvml: Start) -> None:
    world = make()
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    world.step(1000)
    before = reading(nv, gpu)["energy"]
    for workload in ("inference", "idle", "training"):
        world.set_workload(workload)
        assert reading(nv, gpu)["energy"] == pytest.approx(before, abs=0.01)


# One step of a life: what is done, and how much simulated time passes after it.
rates = st.floats(0, 1000)
LIFE = st.lists(
    st.tuples(
        st.one_of(
            st.tuples(st.just("ecc_corrected"), st.fixed_dictionaries({"rate": rates})),
            st.tuples(st.just("ecc_uncorrected"), st.fixed_dictionaries({"count": st.integers(0, 9)})),
            st.tuples(
                st.sampled_from(["thermal_throttle", "power_brake", "hung_collective", "frozen", "gpu_lost"]),
                st.just({}),
            ),
            st.tuples(st.just("power_cap"), st.fixed_dictionaries({"watts": st.integers(1, 900)})),
            st.tuples(st.just("clock_drop"), st.fixed_dictionaries({"mhz": st.integers(0, 3000)})),
            st.tuples(st.just("nvlink_down"), st.fixed_dictionaries({"link": st.sampled_from(["all", "0", "3"])})),
            st.tuples(st.just("nvlink_errors"), st.fixed_dictionaries({"crc": rates, "replay": rates})),
            st.tuples(st.just("pcie_degraded"), st.fixed_dictionaries({"replays": rates})),
            st.tuples(st.just("clear"), st.just({})),
            st.tuples(st.just("workload"), st.fixed_dictionaries({"workload": st.sampled_from(records.WORKLOADS)})),
            st.tuples(st.just("speed"), st.fixed_dictionaries({"speed": st.sampled_from([0.0, 1.0, 1e4])})),
        ),
        st.sampled_from([0.0, 0.004, 0.3, 7.0, 1000.0]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(life=LIFE, lasting=st.sampled_from([None, 0.0005, 0.01]))
def test_no_counter_ever_steps_back(
    make: Make, bound: ModuleType, life: list[tuple[tuple[str, dict[str, Any]], float]], lasting: float | None
) -> None:
    """Whatever is set, lifted, expires or is dropped from the full ring, its integral stays."""
    world = make(profile="h100", workload="training")
    bound.nvmlInit()
    try:
        gpu = bound.nvmlDeviceGetHandleByIndex(0)
        fields = [3, 4, 5, 6, 74, 75, 83, 94, 269, 270, 271]
        fields += [(number, link) for number in (138, 139, 161, 162, 163) for link in (0, 3, 0xFFFFFFFF)]
        last = [0] * len(fields)
        for (kind, parameters), seconds in life:
            if kind == "clear":
                world.clear()
            elif kind == "workload":
                world.set_workload(**parameters)
            elif kind == "speed":
                world.set_clock(**parameters)
            else:
                try:
                    world.set(kind, 0, duration=lasting, **parameters)
                except ConfigError:
                    world.clear()  # the ring is full of what still acts
            world.step(seconds)
            try:
                entries = bound.nvmlDeviceGetFieldValues(gpu, fields)
            except bound.NVMLError_GpuIsLost:
                continue
            now = [entry.value.ullVal for entry in entries]
            assert all(entry.nvmlReturn == 0 for entry in entries)
            assert [(field, a, b) for field, a, b in zip(fields, last, now, strict=True) if b < a] == []
            last = now
    finally:
        bound.nvmlShutdown()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"profile": "h900"}, "profile"),
        ({"gpus": 0}, "1 to 16"),
        ({"gpus": 17}, "1 to 16"),
        ({"workload": "mining"}, "workload"),
        ({"speed": -1.0}, "speed"),
    ],
)
def test_wrong_worlds_are_refused(make: Make, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make(**options)


def test_a_world_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "state"
    World.create(path, gpus=1).close()
    with pytest.raises(ConfigError, match="stands here already"):
        World.create(path, gpus=2)
    with World.create(path, gpus=2, replace=True) as world:
        assert len(world.gpus) == 2


def test_those_in_a_replaced_world_lose_their_driver_and_find_the_new_one(make: Make, nvml: Start) -> None:
    world = make(gpus=1)
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    with World.create(world.path, gpus=2, replace=True):
        with pytest.raises(nv.NVMLError_Unknown):
            nv.nvmlDeviceGetTemperature(gpu, 0)
        nv.nvmlShutdown()
        nv.nvmlInit()
        assert nv.nvmlDeviceGetCount() == 2


@pytest.mark.parametrize(
    ("gpu", "slices", "profile"), [(0, [8], "h100"), (0, [4, 4], "h100"), (0, [1], "l40s"), (5, [1], "h100")]
)
def test_impossible_partitions_are_refused(make: Make, gpu: int, slices: list[int], profile: str) -> None:
    with pytest.raises(ConfigError):
        make(profile=profile).set_mig(gpu, slices)


def test_a_gpu_lists_sixteen_processes(make: Make) -> None:
    world = make()
    for pid in range(16):
        world.set_process(0, 1000 + pid, 1)
    world.set_process(0, 1000, 2)
    with pytest.raises(ConfigError, match="16 processes"):
        world.set_process(0, 2000, 1)
