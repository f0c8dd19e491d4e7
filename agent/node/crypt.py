"""Whether a block device is encrypted by dm-crypt, itself or below itself."""

from __future__ import annotations

import os
from pathlib import Path

from agent.node import sysfs

DEPTH = 8


def encrypted(device: int, sys: Path) -> bool | None:
    """Whether what is written to the device passes dm-crypt; None if it is no block device known here.

    Every path down must be encrypted: of a mirror with one plain leg half lies open.

    Args:
        device: the number as in `st_dev`.
        sys: root of sysfs.
    """
    folder = sys / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}"
    return _below(folder, DEPTH) if os.major(device) and folder.exists() else None


def _below(folder: Path, depth: int) -> bool:
    if (sysfs.text(folder / "dm" / "uuid") or "").startswith("CRYPT-"):
        return True
    parts = list(sysfs.entries(folder / "slaves"))
    return bool(parts) and depth > 0 and all(_below(part, depth - 1) for part in parts)
