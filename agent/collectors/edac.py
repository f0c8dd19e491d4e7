"""Host memory errors, as the kernel's EDAC drivers count them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.base.catalogue import Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, register
from agent.node import sysfs
from agent.node.sysfs import SysSettings


@register("edac", SysSettings)
class Edac:
    """Host memory errors."""

    def __init__(self, settings: SysSettings, context: Context) -> None:
        self._root = settings.sys / "devices" / "system" / "edac" / "mc"

    def collect(self) -> Iterable[Sample]:
        for controller in sysfs.entries(self._root, "mc[0-9]*"):
            for kind, name in (("correctable", "ce_count"), ("uncorrectable", "ue_count")):
                count = sysfs.number(controller / name)
                if count is not None:
                    yield m.EDAC_ERRORS.sample(count, controller.name, kind)
            yield from self._dimms(controller)

    def close(self) -> None: ...

    def _dimms(self, controller: Path) -> Iterator[Sample]:
        """Modules with errors: a node may have dozens, and those without say nothing."""
        for dimm in sysfs.entries(controller, "dimm[0-9]*"):
            label = sysfs.text(dimm / "dimm_label") or dimm.name
            counts = {
                "correctable": sysfs.number(dimm / "dimm_ce_count"),
                "uncorrectable": sysfs.number(dimm / "dimm_ue_count"),
            }
            if any(counts.values()):
                for kind, count in counts.items():
                    if count is not None:
                        yield m.EDAC_DIMM_ERRORS.sample(count, controller.name, label, kind)
