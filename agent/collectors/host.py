"""CPU, memory, load and disks of the node, from /proc."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field

from agent.base.catalogue import Sample
from agent.base.catalogue import node as m
from agent.base.collector import Context, PartialFailure, Settings, register

# Order of the columns of /proc/stat; guest time is part of user time already.
CPU_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
IDLE = ("idle", "iowait")
SECTOR = 512
"""Bytes of a sector in /proc/diskstats, whatever the device's own sectors are."""
NOT_DISKS = re.compile(r"(z?ram|loop|fd|sr)\d+|(h|s|v|xv)d[a-z]+\d+|(nvme\d+n\d+|mmcblk\d+)p\d+")
"""Partitions and pseudo devices: their bytes are the whole device's, or nobody's."""


class HostSettings(Settings):
    proc: Path = Field(default=Path("/proc"), description="Root of the process tree.")


@register("host", HostSettings)
class Host:
    """CPU, memory, load, disks."""

    def __init__(self, settings: HostSettings, context: Context) -> None:
        self._proc = settings.proc
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._before: dict[str, int] | None = None

    def collect(self) -> Iterable[Sample]:
        """A file that this kernel lacks, or that cannot be understood, takes no other's series with it.

        Raises:
            FileNotFoundError: it has none of them.
            PartialFailure: one cannot be read or understood.
        """
        uname = os.uname()
        yield m.UNAME.sample(1, uname.nodename, uname.release, uname.machine)
        parts = {
            "stat": self._stat,
            "loadavg": self._load,
            "meminfo": self._memory,
            "vmstat": self._oom_kills,
            "diskstats": self._disks,
        }
        lacking, wrong = [], []
        for name, part in parts.items():
            try:
                yield from part(self._read(name))
            except FileNotFoundError as error:
                lacking.append(error)
            except (OSError, ValueError) as error:
                wrong.append(f"{name}: {error}")
        if len(lacking) == len(parts):
            raise lacking[0]
        if wrong:
            raise PartialFailure("proc", "; ".join(wrong))

    def close(self) -> None: ...

    def _read(self, name: str) -> str:
        return (self._proc / name).read_text(encoding="utf-8", errors="replace")

    def _stat(self, text: str) -> Iterator[Sample]:
        cpus = 0
        for line in text.splitlines():
            key, _, rest = line.partition(" ")
            if key == "cpu":
                ticks = dict(zip(CPU_MODES, map(int, rest.split()), strict=False))
                for mode, value in ticks.items():
                    yield m.CPU_SECONDS.sample(value / self._ticks, mode)
                yield from self._utilization(ticks)
            elif key.startswith("cpu"):
                cpus += 1
            elif key == "btime":
                yield m.BOOT_TIME.sample(float(rest))
            elif key == "procs_blocked":
                yield m.PROCESSES_BLOCKED.sample(float(rest))
        yield m.CPUS.sample(cpus)

    def _utilization(self, ticks: dict[str, int]) -> Iterator[Sample]:
        """Busy share of the time since the last run; iowait may run backwards, so steps are clipped at 0."""
        before, self._before = self._before, ticks
        if before is None:
            return
        steps = {mode: max(0, value - before.get(mode, 0)) for mode, value in ticks.items()}
        total = sum(steps.values())
        if total:
            yield m.CPU_UTILIZATION.sample(1 - sum(steps.get(mode, 0) for mode in IDLE) / total)

    def _load(self, text: str) -> Iterator[Sample]:
        yield m.LOAD1.sample(float(text.partition(" ")[0]))

    def _memory(self, text: str) -> Iterator[Sample]:
        found: dict[str, float] = {}
        for line in text.splitlines():
            key, _, rest = line.partition(":")
            words = rest.split()
            if words and words[0].isdigit():
                found[key] = float(words[0]) * (1024 if words[1:] == ["kB"] else 1)
        if "MemTotal" in found:
            yield m.MEMORY_TOTAL.sample(found["MemTotal"])
        if "MemAvailable" in found:
            yield m.MEMORY_AVAILABLE.sample(found["MemAvailable"])
        if "SwapTotal" in found and "SwapFree" in found:
            yield m.SWAP_USED.sample(found["SwapTotal"] - found["SwapFree"])

    def _oom_kills(self, text: str) -> Iterator[Sample]:
        for line in text.splitlines():
            key, _, rest = line.partition(" ")
            if key == "oom_kill":
                yield m.OOM_KILLS.sample(float(rest))

    def _disks(self, text: str) -> Iterator[Sample]:
        for line in text.splitlines():
            words = line.split()
            if len(words) < 14 or NOT_DISKS.fullmatch(words[2]):
                continue
            device = words[2]
            yield m.DISK_READ.sample(int(words[5]) * SECTOR, device)
            yield m.DISK_WRITTEN.sample(int(words[9]) * SECTOR, device)
            yield m.DISK_BUSY.sample(int(words[12]) / 1000, device)
