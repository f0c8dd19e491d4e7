"""Energy counters of CPU packages and memory (Intel and AMD, the kernel's powercap interface).

Reading them takes root or a relaxed mode of `energy_uj`, because they leak what the CPU computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.node import sysfs


@dataclass(frozen=True, slots=True)
class Zone:
    """One counter: joules that wrap round at `range` joules."""

    name: str
    joules: float
    range: float


def zones(sys: Path) -> Iterator[Zone]:
    """Packages and their memory; cores and uncore are parts of a package, psys holds them all."""
    for folder in sysfs.entries(sys / "class" / "powercap", "intel-rapl:*"):
        name, energy = sysfs.text(folder / "name"), sysfs.number(folder / "energy_uj")
        limit = sysfs.number(folder / "max_energy_range_uj")
        if name is None or energy is None or not limit:
            continue
        if name.startswith("package"):
            yield Zone(name, energy / 1e6, limit / 1e6)
        elif name == "dram":
            package = folder.name.split(":")[1]
            yield Zone(f"dram-{package}", energy / 1e6, limit / 1e6)
