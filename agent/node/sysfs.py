"""Attributes of sysfs and procfs: one value a file, absent where the hardware or the permission is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from agent.base.collector import Settings


class SysSettings(Settings):
    """Settings of a collector that reads sysfs alone."""

    sys: Path = Field(default=Path("/sys"), description="Root of sysfs.")


def text(path: Path) -> str | None:
    """The attribute's text, or None where there is none, it may not be read or its device gives an error."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> int | None:
    """The attribute as a whole number; None also where it says something else ("N/A", "Unavailable")."""
    found = text(path)
    try:
        return int(found) if found else None
    except ValueError:
        return None


def entries(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """The folder's entries in a stable order; none where there is no such folder."""
    try:
        yield from sorted(folder.glob(pattern))
    except OSError:
        return
