"""PCIe errors as the kernel counts them for a GPU's slot (AER), from sysfs: no driver is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_FILES: Final = {
    "correctable": ("aer_dev_correctable", "TOTAL_ERR_COR"),
    "nonfatal": ("aer_dev_nonfatal", "TOTAL_ERR_NONFATAL"),
    "fatal": ("aer_dev_fatal", "TOTAL_ERR_FATAL"),
}


def read(sys: str | Path, pci: str) -> dict[str, int]:
    """Errors since boot by severity; empty where the slot has no AER or is gone."""
    folder = Path(sys, "bus/pci/devices", pci + ".0")
    found = {}
    for severity, (name, total) in _FILES.items():
        try:
            rows = (folder / name).read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            continue
        for row in rows:
            key, _, value = row.rpartition(" ")
            if key.strip() == total and value.isdigit():
                found[severity] = int(value)
    return found
