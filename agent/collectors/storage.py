"""Drives: NVMe health and the state of software RAID arrays.

The health log takes an admin command, which a dying drive may never answer: it is asked aside, one
thread a drive, and its values are absent while it does not answer or where it may not be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from pydantic import Field

from agent.base.aside import Aside, wait_all
from agent.base.catalogue import Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, Settings, register
from agent.base.config import Duration
from agent.health import machine
from agent.node import nvme, sysfs


class StorageSettings(Settings):
    period: Duration = Field(default=60.0, gt=0, description="Time between two runs.")
    sys: Path = Field(default=Path("/sys"), description="Root of sysfs.")
    dev: Path = Field(default=Path("/dev"), description="Where device nodes are.")
    patience: Duration = Field(default=2.0, gt=0, description="How long a run waits for drives.")


@register("storage", StorageSettings)
class Storage:
    """NVMe health and software RAID."""

    def __init__(self, settings: StorageSettings, context: Context) -> None:
        self._settings, self._context = settings, context
        self._health: dict[str, Aside[nvme.Health]] = {}

    def collect(self) -> Iterable[Sample]:
        return machine.lend(self._context, "storage", self._settings, self._parts())

    def close(self) -> None:
        machine.take_back(self._context, "storage")

    def _parts(self) -> Iterator[Sample]:
        drives = list(sysfs.entries(self._settings.sys / "class" / "nvme", "nvme[0-9]*"))
        for drive in drives:
            if drive.name not in self._health:
                node = self._settings.dev / drive.name
                self._health[drive.name] = Aside(f"health-{drive.name}", partial(nvme.read, node))
            self._health[drive.name].kick()
            yield from self._drive(drive)
        for array in sysfs.entries(self._settings.sys / "block", "md*"):
            yield from raid(array)
        wait_all([self._health[drive.name] for drive in drives], self._settings.patience)
        for drive in drives:
            aside = self._health[drive.name]
            if aside.pending is None and aside.last is not None and aside.last.value is not None:
                yield from _health(drive.name, aside.last.value)

    def _drive(self, drive: Path) -> Iterator[Sample]:
        state = sysfs.text(drive / "state") or ""
        parts = [sysfs.text(drive / name) or "" for name in ("model", "firmware_rev", "transport")]
        yield m.NVME_INFO.sample(1, drive.name, *parts, state)
        if state:
            yield m.NVME_LIVE.sample(float(state == "live"), drive.name)
        for sensor in sysfs.entries(drive, "hwmon*/temp1_input"):
            milli = sysfs.number(sensor)
            if milli is not None:
                yield m.NVME_TEMPERATURE.sample(milli / 1000, drive.name)
            break


def _health(device: str, health: nvme.Health) -> Iterator[Sample]:
    for kind in nvme.WARNINGS:
        yield m.NVME_WARNING.sample(float(kind in health.warnings), device, kind)
    yield m.NVME_SPARE.sample(health.spare, device)
    yield m.NVME_USED.sample(health.used, device)
    yield m.NVME_MEDIA_ERRORS.sample(health.media_errors, device)
    yield m.NVME_POWER_ON.sample(health.power_on, device)
    yield m.NVME_UNSAFE.sample(health.unsafe_shutdowns, device)


def raid(array: Path) -> Iterator[Sample]:
    """One md array. Attributes: Documentation/admin-guide/md.rst of the kernel."""
    folder, device = array / "md", array.name
    state, level = sysfs.text(folder / "array_state"), sysfs.text(folder / "level") or ""
    if state is None or state == "clear" or (state == "inactive" and level == "container"):
        return  # no array, or the metadata of others, which is never active; one that could not start is inactive, too
    action = sysfs.text(folder / "sync_action") or ""
    yield m.RAID_INFO.sample(1, device, level, state, action)
    disks, _, _ = (sysfs.text(folder / "raid_disks") or "").partition(" ")  # "11 (10)": 11, reshaped from 10
    if disks.isdigit():
        yield m.RAID_DISKS.sample(int(disks), device)
    for metric, name in ((m.RAID_MISSING, "degraded"), (m.RAID_MISMATCHES, "mismatch_cnt")):
        count = sysfs.number(folder / name)
        if count is not None:
            yield metric.sample(count, device)
    members = list(sysfs.entries(folder, "dev-*"))
    if members:
        faulty = sum("faulty" in (sysfs.text(member / "state") or "").split(",") for member in members)
        yield m.RAID_FAULTY.sample(faulty, device)
    done, slash, total = (sysfs.text(folder / "sync_completed") or "").partition(" / ")  # "none" when idle
    if slash and done.isdigit() and total.isdigit() and int(total):
        yield m.RAID_SYNC.sample(int(done) / int(total), device)
