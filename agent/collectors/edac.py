"""Host memory errors, as the kernel's EDAC drivers count them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.base.catalogue import Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, register
from agent.health import machine
from agent.node import sysfs
from agent.node.sysfs import SysSettings

_CHANNEL = re.compile(r"(ch\d+)_ce_count")


@register("edac", SysSettings)
class Edac:
    """Host memory errors."""

    def __init__(self, settings: SysSettings, context: Context) -> None:
        self._settings, self._context = settings, context
        self._root = settings.sys / "devices" / "system" / "edac" / "mc"

    def collect(self) -> Iterable[Sample]:
        return machine.lend(self._context, "edac", self._settings, self._counts())

    def close(self) -> None:
        machine.take_back(self._context, "edac")

    def _counts(self) -> Iterator[Sample]:
        for controller in sysfs.entries(self._root, "mc[0-9]*"):
            for kind, name in (("correctable", "ce_count"), ("uncorrectable", "ue_count")):
                count = sysfs.number(controller / name)
                if count is not None:
                    yield m.EDAC_ERRORS.sample(count, controller.name, kind)
            yield from _modules(controller)


def _modules(controller: Path) -> Iterator[Sample]:
    """Modules with errors: a node may have dozens, and those without say nothing."""
    counts: Counter[tuple[str, str]] = Counter()  # ranks of one module may bear its label
    for label, kind, count in _ranks(controller) or _rows(controller):
        counts[label, kind] += count
    seen = {label for (label, _), count in counts.items() if count}
    for (label, kind), count in counts.items():
        if label in seen:
            yield m.EDAC_DIMM_ERRORS.sample(count, controller.name, label, kind)


def _ranks(controller: Path) -> list[tuple[str, str, int]]:
    """Label, kind and count by module; by rank where the driver counts by chip select, as that of AMD does."""
    return [
        (sysfs.text(folder / "dimm_label") or folder.name, kind, count)
        for folder in (*sysfs.entries(controller, "dimm[0-9]*"), *sysfs.entries(controller, "rank[0-9]*"))
        for kind, name in (("correctable", "dimm_ce_count"), ("uncorrectable", "dimm_ue_count"))
        if (count := sysfs.number(folder / name)) is not None
    ]


def _rows(controller: Path) -> Iterator[tuple[str, str, int]]:
    """The same where rows of chips are all that is known; an error that cannot be corrected is a row's, no module's."""
    for row in sysfs.entries(controller, "csrow[0-9]*"):
        for file in sysfs.entries(row):
            found, count = _CHANNEL.fullmatch(file.name), sysfs.number(file)
            if found and count is not None:
                yield sysfs.text(row / f"{found[1]}_dimm_label") or f"{row.name} {found[1]}", "correctable", count
        count = sysfs.number(row / "ue_count")
        if count is not None:
            yield row.name, "uncorrectable", count
