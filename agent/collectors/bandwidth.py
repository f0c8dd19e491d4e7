"""Host memory bandwidth: what CPU cores move (resctrl), and what the memory controllers move (uncore counters).

resctrl's MBM counts traffic of the cores of one cache domain; transfers of devices (a GPU's DMA, an HCA's) are not in
it. Controllers count everything, but take CAP_PERFMON or kernel.perf_event_paranoid <= 0. Each is absent where
the hardware or the permission is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.base.catalogue import Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, register
from agent.gpu.accumulate import Accumulator
from agent.node import perf, sysfs, uncore
from agent.node.sysfs import SysSettings

SCOPES = {"total": "mbm_total_bytes", "local": "mbm_local_bytes"}
OWN_FOLDERS = frozenset({"info", "mon_data", "mon_groups"})


@register("bandwidth", SysSettings)
class Bandwidth:
    """Host memory bandwidth by resctrl and memory-controller counters."""

    def __init__(self, settings: SysSettings, context: Context, opener: uncore.Open = perf.Counter) -> None:
        self._root = settings.sys / "fs" / "resctrl"
        self._counters = Accumulator()
        self._channels: list[uncore.Traffic] = []
        try:
            self._channels.extend(uncore.channels(settings.sys, opener))
        except OSError:  # not permitted: absent, and no half of the channels either
            self._drop()

    def collect(self) -> Iterable[Sample]:
        yield from self._resctrl()
        moved: dict[tuple[str, str], float] = {}
        for channel in self._channels:
            key = (channel.socket, channel.direction)
            moved[key] = moved.get(key, 0.0) + channel.bytes()
        for key, total in moved.items():
            yield m.UNCORE_TRAFFIC.sample(total, *key)

    def close(self) -> None:
        self._drop()

    def _drop(self) -> None:
        for channel in self._channels:
            channel.counter.close()
        self._channels.clear()

    def _resctrl(self) -> Iterator[Sample]:
        traffic: dict[tuple[str, str], float] = {}
        cache: dict[str, float] = {}
        for group in self._groups():
            for domain in sysfs.entries(group / "mon_data", "mon_L3_*"):
                name = domain.name.removeprefix("mon_L3_")
                for scope, file in SCOPES.items():
                    count = sysfs.number(domain / file)  # "Unavailable" until the hardware has counted
                    if count is not None:
                        step = self._counters.add(f"{group.name}/{name}/{scope}", count)
                        traffic[name, scope] = traffic.get((name, scope), 0.0) + step
                occupied = sysfs.number(domain / "llc_occupancy")
                if occupied is not None:
                    cache[name] = cache.get(name, 0.0) + occupied
        for (name, scope), total in traffic.items():
            yield m.MEMORY_TRAFFIC.sample(total, name, scope)
        for name, occupied_bytes in cache.items():
            yield m.LLC_OCCUPANCY.sample(occupied_bytes, name)

    def _groups(self) -> Iterator[Path]:
        """The default group and every control group: each counts its own tasks (monitor groups are inside)."""
        if (self._root / "mon_data").is_dir():
            yield self._root
        for entry in sysfs.entries(self._root):
            if entry.name not in OWN_FOLDERS and (entry / "mon_data").is_dir():
                yield entry
