"""What has been hashed: written by the verification service, read by the collector and by `checkpoint latest`."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.base import statefile

FILE_NAME: Final = "verified.json"

Stamp = tuple[int, int, int]
"""Inode, modification time in nanoseconds, size: a file is the same while these are."""


def stamp(path: Path) -> Stamp:
    """Raises OSError where the file is not there."""
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_size


@dataclass(slots=True)
class Entry:
    """One checkpoint's hashes: `done` are the files found good, so that a stopped service goes on behind them."""

    job_id: str
    manifest: Stamp
    step: int | None = None
    written: float = 0.0
    """When the checkpoint was finished, Unix seconds."""
    done: dict[str, Stamp] = field(default_factory=dict)
    failed: dict[str, Stamp | None] = field(default_factory=dict)
    """The files found wrong, as they were then; None for one that was not there."""
    findings: list[str] = field(default_factory=list)
    """What is wrong, a file each; empty and `finished` means good."""
    finished: float | None = None
    """When its verification ended, Unix seconds."""
    hashed: bool = True
    """Whether its manifest has a hash for every file: else nothing can be verified."""

    @property
    def good(self) -> bool:
        return self.finished is not None and self.hashed and not self.findings

    @property
    def bad(self) -> bool:
        return self.finished is not None and bool(self.findings)

    def holds(self, root: Path) -> bool:
        """Whether the files below `root` are still those that were verified: the same inode, time and size."""
        return all(look(root / path) == kept for path, kept in {**self.done, **self.failed}.items())


def look(path: Path) -> Stamp | None:
    """As `stamp`; None where the file is not there."""
    try:
        return stamp(path)
    except OSError:
        return None


class Ledger:
    """Entries by the checkpoint's path, and counters that outlive them."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE_NAME
        self.entries: dict[str, Entry] = {}
        self.failures: dict[str, int] = {}
        """Checkpoints found corrupt so far, by job."""
        self.hashed: dict[str, float] = {}
        """Bytes hashed so far, by job."""
        self._version: Stamp | None = None
        self.load()

    def load(self) -> None:
        """Read the file if it has changed; a damaged one counts as empty."""
        version = look(self.file)
        if version == self._version:
            return
        self._version = version
        content = statefile.load(self.file) if version else {}
        try:
            entries = {path: _entry(one) for path, one in content.get("checkpoints", {}).items()}
            failures = {str(job): int(count) for job, count in content.get("failures", {}).items()}
            hashed = {str(job): float(count) for job, count in content.get("hashed", {}).items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            entries, failures, hashed = {}, {}, {}
        self.entries, self.failures, self.hashed = entries, failures, hashed

    def save(self) -> None:
        content = {
            "checkpoints": {path: asdict(one) for path, one in self.entries.items()},
            "failures": self.failures,
            "hashed": self.hashed,
        }
        if statefile.save(self.file, content):
            self._version = stamp(self.file)

    def of(self, checkpoint: Path, manifest: Path) -> Entry | None:
        """The entry of a checkpoint while its manifest is the one that was verified."""
        entry = self.entries.get(str(checkpoint))
        try:
            return entry if entry is not None and entry.manifest == stamp(manifest) else None
        except OSError:
            return None


def _entry(one: dict[str, Any]) -> Entry:
    fields = dict(one)
    inode, modified, size = fields["manifest"]
    fields["manifest"] = (inode, modified, size)
    fields["done"] = {path: (a, b, c) for path, (a, b, c) in fields["done"].items()}
    failed = fields.get("failed", {})
    fields["failed"] = {path: None if kept is None else (kept[0], kept[1], kept[2]) for path, kept in failed.items()}
    return Entry(**fields)
