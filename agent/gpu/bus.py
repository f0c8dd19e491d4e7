"""What the kernel tells of a GPU's place on the PCI bus, from sysfs: no driver is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

_AER: Final = {
    "correctable": ("aer_dev_correctable", "TOTAL_ERR_COR"),
    "nonfatal": ("aer_dev_nonfatal", "TOTAL_ERR_NONFATAL"),
    "fatal": ("aer_dev_fatal", "TOTAL_ERR_FATAL"),
}
_GENERATION: Final = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}
"""PCIe generation by GT/s, as `max_link_speed` spells it."""


class Link(NamedTuple):
    """What one end of a link allows; None where it does not tell."""

    generation: int | None
    width: int | None


def aer_errors(sys: str | Path, pci: str) -> dict[str, int]:
    """PCIe errors since boot by severity (AER); empty where the slot has no AER or is gone."""
    folder = _folder(sys, pci)
    found = {}
    for severity, (name, total) in _AER.items():
        for row in _text(folder / name).splitlines():
            key, _, value = row.rpartition(" ")
            if key.strip() == total and value.isdigit():
                found[severity] = int(value)
    return found


def link_limits(sys: str | Path, pci: str) -> dict[str, Link]:
    """What `card` and `slot` (the port above it) allow; an end that is not there is left out."""
    card = _folder(sys, pci)
    slot = Path(os.path.realpath(card)).parent
    return {end: link for end, folder in (("card", card), ("slot", slot)) if any(link := _link(folder))}


def _link(folder: Path) -> Link:
    speed, width = _text(folder / "max_link_speed"), _text(folder / "max_link_width").strip()
    lanes = int(width) if width.isdigit() and 0 < int(width) <= 32 else None
    return Link(_GENERATION.get(speed.partition(" ")[0]), lanes)


def _folder(sys: str | Path, pci: str) -> Path:
    return Path(sys, "bus/pci/devices", pci + ".0")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
