"""Memory traffic at the controllers of a server CPU: Intel's IMC and AMD's UMC (Zen 4 and later)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.node import perf, sysfs

LINE = 64
"""Bytes that one column access (CAS) moves."""
INTEL = {"read": "cas_count_read", "write": "cas_count_write"}
AMD = {"read": "event=0x0a,rdwrmask=0x1", "write": "event=0x0a,rdwrmask=0x2"}
"""umc_cas_cmd.rd and .wr: tools/perf/pmu-events/arch/x86/amdzen4/memory-controller.json of the kernel."""

Open = Callable[[int, int, int], perf.Counter]


@dataclass(slots=True)
class Traffic:
    """One direction of one memory channel's counter; `socket` is the package of the CPU it is read on."""

    socket: str
    direction: str
    counter: perf.Counter

    def bytes(self) -> float:
        return self.counter.read() * LINE


def channels(sys: Path, opener: Open = perf.Counter) -> Iterator[Traffic]:
    """Open a counter for each direction of each memory channel that the kernel shows.

    Raises:
        OSError: counting is not permitted.
    """
    devices = sys / "bus" / "event_source" / "devices"
    for pmu in sysfs.entries(devices, "uncore_imc_*"):
        if "free_running" not in pmu.name:  # counts the same traffic again
            yield from _open(sys, pmu, {way: sysfs.text(pmu / "events" / name) for way, name in INTEL.items()}, opener)
    for pmu in sysfs.entries(devices, "amd_umc_*"):
        yield from _open(sys, pmu, dict(AMD), opener)


def _open(sys: Path, pmu: Path, events: dict[str, str] | dict[str, str | None], opener: Open) -> Iterator[Traffic]:
    kind = sysfs.number(pmu / "type")
    for direction, event in events.items():
        if kind is None or event is None:
            continue
        try:
            number = perf.config(pmu, event)
        except ValueError:
            continue
        for cpu in perf.cpus(pmu):
            socket = sysfs.text(sys / "devices" / "system" / "cpu" / f"cpu{cpu}" / "topology" / "physical_package_id")
            yield Traffic(socket or "0", direction, opener(kind, number, cpu))
