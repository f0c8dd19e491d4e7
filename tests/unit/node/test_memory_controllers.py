"""Memory-controller counters: event numbers from sysfs, opened counters, a real counter of this kernel."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agent.base.catalogue import hardware as m
from agent.base.collector import Context
from agent.collectors.bandwidth import Bandwidth
from agent.node import perf
from agent.node.sysfs import SysSettings
from agent.node.uncore import Traffic

Tree = Callable[[Mapping[str, str]], Path]
DEVICES = "bus/event_source/devices/"


def imc(name: str) -> dict[str, str]:
    return {
        f"{DEVICES}{name}/type": "14\n",
        f"{DEVICES}{name}/cpumask": "0,32\n",
        f"{DEVICES}{name}/format/event": "config:0-7\n",
        f"{DEVICES}{name}/format/umask": "config:8-15\n",
        f"{DEVICES}{name}/events/cas_count_read": "event=0x05,umask=0xcf\n",
        f"{DEVICES}{name}/events/cas_count_write": "event=0x05,umask=0xf0\n",
    }


INTEL = {
    **imc("uncore_imc_0"),
    **imc("uncore_imc_1"),
    **imc("uncore_imc_free_running_0"),
    "devices/system/cpu/cpu0/topology/physical_package_id": "0\n",
    "devices/system/cpu/cpu32/topology/physical_package_id": "1\n",
}
AMD = {
    f"{DEVICES}amd_umc_0/type": "20\n",
    f"{DEVICES}amd_umc_0/cpumask": "3\n",
    f"{DEVICES}amd_umc_0/format/event": "config:0-7\n",
    f"{DEVICES}amd_umc_0/format/rdwrmask": "config:8-9\n",
}


class Opened:
    """Stands for the kernel: remembers what was opened, counts one line a read."""

    def __init__(self, permitted: int = 1000) -> None:
        self.asked: list[tuple[int, int, int]] = []
        self.open = 0
        self._permitted = permitted

    def __call__(self, kind: int, config: int, cpu: int) -> "Opened.One":
        if len(self.asked) == self._permitted:
            raise PermissionError(13, "Permission denied")
        self.asked.append((kind, config, cpu))
        self.open += 1
        return Opened.One(self)

    class One:
        def __init__(self, kernel: "Opened") -> None:
            self._kernel = kernel
            self._lines = 0

        def read(self) -> float:
            self._lines += 1
            return self._lines

        def close(self) -> None:
            self._kernel.open -= 1


def test_intel(tree: Tree) -> None:
    kernel = Opened()
    collector = Bandwidth(SysSettings(sys=tree(INTEL)), Context("", ""), kernel)  # type: ignore[arg-type]
    assert set(kernel.asked) == {(14, 0xCF05, 0), (14, 0xCF05, 32), (14, 0xF005, 0), (14, 0xF005, 32)}
    assert len(kernel.asked) == 8, "two channels; free-running counters count the same traffic again"
    found = {s.labels: s.value for s in collector.collect() if s.metric is m.UNCORE_TRAFFIC}
    assert found == {(socket, way): 128 for socket in "01" for way in ("read", "write")}
    collector.close()
    assert kernel.open == 0


def test_amd(tree: Tree) -> None:
    kernel = Opened()
    Bandwidth(SysSettings(sys=tree(AMD)), Context("", ""), kernel)  # type: ignore[arg-type]
    assert kernel.asked == [(20, 0x10A, 3), (20, 0x20A, 3)]


def zen(modalias: str) -> dict[str, str]:
    return {
        f"{DEVICES}amd_df/type": "21\n",
        f"{DEVICES}amd_df/cpumask": "0\n",
        f"{DEVICES}amd_df/format/event": "config:0-7,32-35,59-60\n",
        f"{DEVICES}amd_df/format/umask": "config:8-15\n",
        "devices/system/cpu/modalias": f"cpu:type:x86,{modalias}:feature:,0000,\n",
    }


@pytest.mark.parametrize("modalias", ["ven0002fam0017mod0031", "ven0002fam0019mod0001", "ven0002fam0019mod0050"])
def test_amd_before_zen_4_counts_in_its_data_fabric(tree: Tree, modalias: str) -> None:
    kernel = Opened()
    collector = Bandwidth(SysSettings(sys=tree(zen(modalias))), Context("", ""), kernel)  # type: ignore[arg-type]
    low = [0x3807, 0x3847, 0x3887, 0x38C7]
    assert kernel.asked == [(21, config, 0) for config in (*low, *(one | 1 << 32 for one in low))]
    found = {s.labels: s.value for s in collector.collect() if s.metric is m.UNCORE_TRAFFIC}
    assert found == {("0", "both"): 8 * 64}


@pytest.mark.parametrize(
    "modalias", ["ven0002fam0019mod0011", "ven0002fam0019mod00A0", "ven0002fam001Amod0002", "ven0000fam0006"]
)
def test_another_data_fabric_has_other_events(tree: Tree, modalias: str) -> None:
    kernel = Opened()
    Bandwidth(SysSettings(sys=tree(zen(modalias))), Context("", ""), kernel)  # type: ignore[arg-type]
    assert kernel.asked == []


def test_a_scaled_count_that_falls_is_no_step_back() -> None:
    class Falling:
        values = iter((100.0, 90.0, 110.0))

        def read(self) -> float:
            return next(self.values)

    traffic = Traffic("0", "both", Falling())  # type: ignore[arg-type]
    assert [traffic.bytes() for _ in range(3)] == [6400, 6400, 7040]


def test_half_a_permission_is_none(tree: Tree) -> None:
    kernel = Opened(permitted=3)
    collector = Bandwidth(SysSettings(sys=tree(INTEL)), Context("", ""), kernel)  # type: ignore[arg-type]
    assert list(collector.collect()) == []
    assert kernel.open == 0


def test_event_numbers(tree: Tree) -> None:
    pmu = tree(AMD) / DEVICES / "amd_umc_0"
    assert perf.config(pmu, "event=0x0a,rdwrmask=0x2") == 0x20A
    for wrong in ("nothing=1", "rdwrmask=0x4"):
        with pytest.raises(ValueError, match=r"amd_umc_0"):
            perf.config(pmu, wrong)
    assert perf.cpus(pmu) == [3]


def test_a_real_counter() -> None:
    """Task clock (PERF_TYPE_SOFTWARE 1, PERF_COUNT_SW_CPU_CLOCK 0) on CPU 0: the only PMU every kernel has."""
    handles = len(os.listdir("/proc/self/fd"))
    try:
        counter = perf.Counter(1, 0, 0)
    except OSError as error:
        pytest.skip(f"perf is not permitted here: {error}")
    first = counter.read()
    sum(range(200_000))
    assert counter.read() > first
    counter.close()
    counter.close()
    assert len(os.listdir("/proc/self/fd")) == handles
