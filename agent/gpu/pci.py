"""PCI bus ids in one form, and the GPUs the PCI bus shows (whatever the driver says)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_BDF = re.compile(r"(?:(?P<domain>[0-9a-f]{1,8}):)?(?P<bus>[0-9a-f]{1,2}):(?P<device>[0-9a-f]{1,2})(?:\.[0-7])?")
_NVIDIA: Final = "0x10de"
_CLASSES: Final = ("0x0302", "0x0300")
"""3D controller (data-centre boards) and VGA controller."""


def normalise(text: str) -> str:
    """`0000:1a:00` from any spelling: 8-digit domain, upper case, no domain, with function; "" if none."""
    found = _BDF.fullmatch(text.strip().lower())
    if not found:
        return ""
    domain = int(found["domain"] or "0", 16)
    return f"{domain:04x}:{int(found['bus'], 16):02x}:{int(found['device'], 16):02x}"


def scan(sys: str | Path = "/sys") -> list[str] | None:
    """Bus ids of the NVIDIA GPUs on the PCI bus; None where the bus cannot be read (containers)."""
    devices = Path(sys, "bus/pci/devices")
    found = []
    try:
        for device in sorted(devices.iterdir()):
            try:
                vendor = (device / "vendor").read_text(encoding="ascii").strip()
                kind = (device / "class").read_text(encoding="ascii").strip()
            except OSError:
                continue
            if vendor == _NVIDIA and kind.startswith(_CLASSES):
                found.append(normalise(device.name))
    except OSError:
        return None
    return found
