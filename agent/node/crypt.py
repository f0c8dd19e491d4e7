"""Whether a block device is encrypted by dm-crypt, itself or below itself."""

from __future__ import annotations

import os
from pathlib import Path

from agent.node import sysfs

DEPTH = 8


def encrypted(device: int, source: str, sys: Path) -> bool | None:
    """Whether what is written to the device passes dm-crypt; None if it is no block device known here.

    Every path down must be encrypted: of a mirror with one plain leg half lies open.

    Args:
        device: the number as in `st_dev`; that of btrfs and others belongs to no block device.
        source: where the file system lies, such as /dev/mapper/data; taken where the number leads to none.
        sys: root of sysfs.
    """
    folder = sys / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}"
    if not os.major(device):
        named = _named(Path(source), sys)
        if named is None:
            return None
        folder = named
    return _below(folder, DEPTH) if folder.exists() else None


def _named(source: Path, sys: Path) -> Path | None:
    """The block device that a path in /dev names: by its own name, or as a device mapper's."""
    if source.parts[:2] != ("/", "dev"):
        return None
    mapped = (
        one for one in sysfs.entries(sys / "class" / "block", "dm-*") if sysfs.text(one / "dm" / "name") == source.name
    )
    return next(mapped, sys / "class" / "block" / source.name)


def _below(folder: Path, depth: int) -> bool:
    if (sysfs.text(folder / "dm" / "uuid") or "").startswith("CRYPT-"):
        return True
    parts = list(sysfs.entries(folder / "slaves"))
    return bool(parts) and depth > 0 and all(_below(part, depth - 1) for part in parts)
