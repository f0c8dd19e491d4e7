"""Sensors of the kernel's hwmon drivers in base units.

Attributes: Documentation/hwmon/sysfs-interface.rst of the kernel: milli-degrees, micro-watts, turns a minute.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from agent.node import sysfs

_INPUT = re.compile(r"(temp|power|fan)(\d+)_(input|average)")
FACTORS = {"temp": 1e-3, "power": 1e-6, "fan": 1.0}
DECILITERS_AN_HOUR = 1e-4 / 3600
"""In cubic metres a second; coolant meters of the aquacomputer driver show flow as a fan in dL/h."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor: `stem` as in temp1, `kind` is temp, power, fan or flow, `alarm` its own alarm bit, if it has one."""

    chip: str
    source: str
    stem: str
    name: str
    kind: str
    value: float | None
    alarm: bool | None


def sensors(root: Path) -> Iterator[Sensor]:
    """Every sensor below `root` (/sys/class/hwmon); a chip's name is made unique by its device's, a label by a stem."""
    chips = [(folder, sysfs.text(folder / "name") or folder.name) for folder in sysfs.entries(root)]
    times = Counter(name for _, name in chips)
    for folder, chip in chips:
        device = (folder / "device").resolve().name if (folder / "device").exists() else folder.name
        source = chip if times[chip] == 1 else f"{chip}:{device}"
        found = list(_of_chip(folder, chip, source))
        labels = Counter(sensor.name for sensor in found)
        for sensor in found:
            yield sensor if labels[sensor.name] == 1 else replace(sensor, name=f"{sensor.name} ({sensor.stem})")


def _of_chip(folder: Path, chip: str, source: str) -> Iterator[Sensor]:
    seen: set[str] = set()
    for file in sysfs.entries(folder):
        found = _INPUT.fullmatch(file.name)
        if not found or (stem := found[1] + found[2]) in seen:
            continue
        seen.add(stem)
        raw = sysfs.number(file)
        label = sysfs.text(folder / f"{stem}_label") or stem
        kind, factor = found[1], FACTORS[found[1]]
        if label.endswith("[dL/h]"):
            kind, factor = "flow", DECILITERS_AN_HOUR
        alarms = [sysfs.number(folder / f"{stem}_{name}") for name in ("alarm", "crit_alarm", "fault")]
        known = [bit for bit in alarms if bit is not None]
        value = None if raw is None else raw * factor
        yield Sensor(chip, source, stem, label, kind, value, any(known) if known else None)
