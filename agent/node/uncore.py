"""Memory traffic at the controllers of a server CPU: Intel's IMC, AMD's UMC (Zen 4 on) or data fabric (Zen 1-3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.node import perf, sysfs

LINE = 64
"""Bytes that one column access (CAS) moves."""
INTEL = {"read": "cas_count_read", "write": "cas_count_write"}
AMD = {"read": "event=0x0a,rdwrmask=0x1", "write": "event=0x0a,rdwrmask=0x2"}
"""umc_cas_cmd.rd and .wr: tools/perf/pmu-events/arch/x86/amdzen4/memory-controller.json of the kernel."""

ZEN_1_TO_3 = re.compile(r"ven0002fam(?:0017|0019mod00(?:0|[2-5])[0-9A-F])", re.I)
"""CPUs of /sys/devices/system/cpu/modalias whose data fabric has the events below; others use the same numbers for
something else: arch/x86/kernel/cpu/amd.c of the kernel."""
FABRIC = tuple(f"event={channel << 6 | 0x07:#x},umask=0x38" for channel in range(8))
"""dram_channel_data_controller_0 to 7, reads and writes together: amdzen2/data-fabric.json there."""

Open = Callable[[int, int, int], perf.Counter]


@dataclass(slots=True)
class Traffic:
    """One direction of one memory channel's counter; `socket` is the package of the CPU it is read on."""

    socket: str
    direction: str
    counter: perf.Counter
    _most: float = 0.0

    def bytes(self) -> float:
        """Never less than before: an estimate that is scaled up, where counters take turns, may fall a little."""
        self._most = max(self._most, self.counter.read() * LINE)
        return self._most


def channels(sys: Path, opener: Open = perf.Counter) -> Iterator[Traffic]:
    """Open a counter for each direction of each memory channel that the kernel shows.

    Raises:
        OSError: counting is not permitted.
    """
    devices = sys / "bus" / "event_source" / "devices"
    for pmu in sysfs.entries(devices, "uncore_imc_*"):
        if "free_running" not in pmu.name:  # counts the same traffic again
            yield from _open(
                sys, pmu, [(way, sysfs.text(pmu / "events" / name)) for way, name in INTEL.items()], opener
            )
    for pmu in sysfs.entries(devices, "amd_umc_*"):
        yield from _open(sys, pmu, AMD.items(), opener)
    if ZEN_1_TO_3.search(sysfs.text(sys / "devices" / "system" / "cpu" / "modalias") or ""):
        yield from _open(sys, devices / "amd_df", [("both", event) for event in FABRIC], opener)


def _open(sys: Path, pmu: Path, events: Iterable[tuple[str, str | None]], opener: Open) -> Iterator[Traffic]:
    kind = sysfs.number(pmu / "type")
    for direction, event in events:
        if kind is None or event is None:
            continue
        try:
            number = perf.config(pmu, event)
        except ValueError:
            continue
        for cpu in perf.cpus(pmu):
            socket = sysfs.text(sys / "devices" / "system" / "cpu" / f"cpu{cpu}" / "topology" / "physical_package_id")
            yield Traffic(socket or "0", direction, opener(kind, number, cpu))
