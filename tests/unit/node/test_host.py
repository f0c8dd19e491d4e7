"""The host collector on a recorded /proc."""

from pathlib import Path

import pytest

from agent.base.catalogue import Sample
from agent.base.catalogue import node as m
from agent.base.collector import Context, PartialFailure
from agent.collectors.host import Host, HostSettings

STAT = """cpu  1000 10 500 8000 400 0 90 0 0 0
cpu0 500 5 250 4000 200 0 45 0 0 0
cpu1 500 5 250 4000 200 0 45 0 0 0
intr 1 2 3
btime 1795340428
procs_running 1
procs_blocked 3
"""
MEMINFO = """MemTotal:       2113000 kB
MemFree:         100000 kB
MemAvailable:   1500000 kB
SwapTotal:       500000 kB
SwapFree:        400000 kB
HugePages_Total:       7
"""
DISKS = """   7       0 loop0 9 0 9 9 0 0 0 0 0 9 9 0 0 0 0 0 0
 259       0 nvme0n1 100 0 2048 50 200 0 4096 60 0 1500 110 0 0 0 0 0 0
 259       1 nvme0n1p1 100 0 2048 50 200 0 4096 60 0 1500 110 0 0 0 0 0 0
   8      16 sdb 1 0 8 5 2 0 16 6 0 250 11 0 0 0 0 0 0
   8      17 sdb1 1 0 8 5 2 0 16 6 0 250 11 0 0 0 0 0 0
 253       0 dm-0 1 0 8 5 2 0 16 6 0 125 11 0 0 0 0 0 0
   9       0 md0 1 0 8 5
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for name, text in {
        "stat": STAT,
        "meminfo": MEMINFO,
        "diskstats": DISKS,
        "loadavg": "1.25 1.5 1.75 2/300 4242\n",
        "vmstat": "nr_free_pages 5\noom_kill 2\n",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def host(proc: Path) -> Host:
    return Host(HostSettings(proc=proc), Context("", ""))


def values(samples: list[Sample]) -> dict[tuple[str, tuple[str, ...]], float]:
    return {(s.metric.stem, s.labels): s.value for s in samples}


def test_recorded_values(proc: Path) -> None:
    found = values(list(host(proc).collect()))
    assert found[m.CPUS.stem, ()] == 2
    assert found[m.BOOT_TIME.stem, ()] == 1795340428
    assert found[m.LOAD1.stem, ()] == 1.25
    assert found[m.PROCESSES_BLOCKED.stem, ()] == 3
    assert found[m.OOM_KILLS.stem, ()] == 2
    assert found[m.MEMORY_TOTAL.stem, ()] == 2113000 * 1024
    assert found[m.MEMORY_AVAILABLE.stem, ()] == 1500000 * 1024
    assert found[m.SWAP_USED.stem, ()] == 100000 * 1024
    assert found[m.CPU_SECONDS.stem, ("iowait",)] == pytest.approx(4.0)
    assert found[m.DISK_READ.stem, ("nvme0n1",)] == 1 << 20
    assert found[m.DISK_WRITTEN.stem, ("nvme0n1",)] == 2 << 20
    assert found[m.DISK_BUSY.stem, ("nvme0n1",)] == 1.5
    assert {labels[0] for stem, labels in found if stem == m.DISK_READ.stem} == {"nvme0n1", "sdb", "dm-0"}


def test_utilization_needs_two_looks_and_is_of_the_time_between(proc: Path) -> None:
    collector = host(proc)
    assert (m.CPU_UTILIZATION.stem, ()) not in values(list(collector.collect()))
    (proc / "stat").write_text(STAT.replace("cpu  1000 10 500 8000 400", "cpu  1060 10 515 8020 405"))
    assert values(list(collector.collect()))[m.CPU_UTILIZATION.stem, ()] == pytest.approx(0.75)


def test_iowait_that_runs_backwards_is_no_negative_share(proc: Path) -> None:
    collector = host(proc)
    list(collector.collect())
    (proc / "stat").write_text(STAT.replace("cpu  1000 10 500 8000 400", "cpu  1000 10 500 8100 100"))
    assert values(list(collector.collect()))[m.CPU_UTILIZATION.stem, ()] == 0


def test_a_kernel_without_swap_lines_has_no_swap_series(proc: Path) -> None:
    (proc / "meminfo").write_text("MemTotal: 1 kB\n")
    found = values(list(host(proc).collect()))
    assert (m.SWAP_USED.stem, ()) not in found
    assert (m.MEMORY_AVAILABLE.stem, ()) not in found


def test_this_node() -> None:
    found = values(list(Host(HostSettings(), Context("", "")).collect()))
    assert found[m.CPUS.stem, ()] >= 1
    assert 0 < found[m.MEMORY_AVAILABLE.stem, ()] <= found[m.MEMORY_TOTAL.stem, ()]


FILES = ("stat", "loadavg", "meminfo", "vmstat", "diskstats")


@pytest.mark.parametrize("name", FILES)
def test_a_file_the_kernel_lacks_takes_no_other_with_it(proc: Path, name: str) -> None:
    whole = {sample.metric.stem for sample in host(proc).collect()}
    (proc / name).unlink()
    without = {sample.metric.stem for sample in host(proc).collect()}
    assert without < whole
    assert len(without) >= len(whole) - 6, "what the file does not hold is still told"


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_nonsense_is_named_and_takes_no_other_with_it(proc: Path, name: str) -> None:
    (proc / name).write_text({"stat": "cpu  1 2 x\n", "meminfo": "MemTotal: \u00b2 kB\n"}.get(name, ""))
    if name in ("vmstat", "diskstats"):
        (proc / name).write_text("oom_kill x\n" if name == "vmstat" else " ".join("x" * 14))
    found = set()
    with pytest.raises(PartialFailure, match=f"{name}: "):  # noqa: PT012
        for sample in host(proc).collect():
            found.add(sample.metric)
    others = {"stat": m.CPU_SECONDS, "loadavg": m.LOAD1, "meminfo": m.MEMORY_TOTAL, "vmstat": m.OOM_KILLS}
    others["diskstats"] = m.DISK_READ
    assert {metric for other, metric in others.items() if other != name} <= found


def test_no_process_tree_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(host(tmp_path).collect())
