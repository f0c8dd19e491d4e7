"""What is asked beside the sweep: a source that falls silent takes its value with it."""

from __future__ import annotations

import ctypes
import math
from types import SimpleNamespace
from typing import Any

from agent.gpu import codes
from agent.gpu.events import SlowLane


class Driver:
    """Answers the calls of the lane with one code for each name."""

    def __init__(self) -> None:
        self.answers = {"nvmlDeviceGetPcieThroughput": codes.SUCCESS, "nvmlDeviceValidateInforom": codes.SUCCESS}

    def call(self, name: str, handle: object, *args: Any, index: int, lane: object) -> int:
        if name == "nvmlDeviceGetPcieThroughput":
            args[1]._obj.value = 7
        return self.answers[name]


class Gpu(SimpleNamespace):
    __hash__ = object.__hash__


def device(slow_pcie: bool = True) -> Any:
    return Gpu(handle=ctypes.c_void_p(1), identity=SimpleNamespace(index=0, uuid="GPU-a"), slow_pcie=slow_pcie)


def test_a_throughput_that_is_no_longer_told_is_no_longer_shown() -> None:
    driver, gpu = Driver(), device()
    lane = SlowLane(driver, memoryview(b""))  # type: ignore[arg-type]
    lane.look([gpu])
    assert lane.results["GPU-a"] == {"inforom_valid": 1.0, "pcie_tx": 7168.0, "pcie_rx": 7168.0}
    driver.answers["nvmlDeviceGetPcieThroughput"] = codes.NO_PERMISSION
    for _ in range(2):
        lane.look([gpu])
        assert lane.results["GPU-a"]["inforom_valid"] == 1.0
        assert all(math.isnan(lane.results["GPU-a"][key]) for key in ("pcie_tx", "pcie_rx"))
    driver.answers["nvmlDeviceGetPcieThroughput"] = codes.SUCCESS
    lane.look([gpu])
    assert lane.results["GPU-a"]["pcie_rx"] == 7168.0


def test_what_was_never_told_has_no_reading() -> None:
    driver = Driver()
    driver.answers = dict.fromkeys(driver.answers, codes.NOT_SUPPORTED)
    lane = SlowLane(driver, memoryview(b""))  # type: ignore[arg-type]
    lane.look([device()])
    assert lane.results == {"GPU-a": {}}


def test_a_better_source_found_meanwhile_keeps_its_reading() -> None:
    """The byte counters proved wide: the lane no longer asks, and does not speak of the throughput any more."""
    lane = SlowLane(Driver(), memoryview(b""))  # type: ignore[arg-type]
    gpu = device()
    lane.look([gpu])
    gpu.slow_pcie = False
    lane.look([gpu])
    assert lane.results["GPU-a"] == {"inforom_valid": 1.0}
