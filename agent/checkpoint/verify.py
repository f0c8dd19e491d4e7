"""Checking a checkpoint against its manifest: sizes first, then hashes, file by file."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.checkpoint.manifest import Entry, Manifest

PIECE = 4 * 1024 * 1024
Fault = Literal["missing", "size", "hash", "unreadable"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one file."""

    path: str
    fault: Fault
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


def size_of(manifest: Manifest, entry: Entry) -> int | Finding:
    """The file's size in bytes, or why it does not agree with the manifest. Looks at the inode only."""
    try:
        status = os.stat(manifest.root / entry.path)
    except FileNotFoundError:
        return Finding(entry.path, "missing", "is missing")
    except OSError as error:
        return Finding(entry.path, "unreadable", f"cannot be looked at: {error.strerror}")
    if not stat.S_ISREG(status.st_mode):
        return Finding(entry.path, "missing", "is not a regular file")
    if entry.size is not None and status.st_size != entry.size:
        return Finding(entry.path, "size", f"has {status.st_size} bytes instead of {entry.size}")
    return status.st_size


def check_sizes(manifest: Manifest) -> tuple[int, list[Finding]]:
    """Total bytes of the files that are there, and what is wrong."""
    total, findings = 0, []
    for entry in manifest.entries:
        found = size_of(manifest, entry)
        if isinstance(found, Finding):
            findings.append(found)
        else:
            total += found
    return total, findings


def check_hash(manifest: Manifest, entry: Entry, on_piece: Callable[[int], None] | None = None) -> Finding | None:
    """Read one file whole and compare its hash; None if it agrees, or if the manifest has none for it.

    `on_piece` is called with the number of bytes after each piece; it may sleep to keep a rate.

    Raises:
        PermissionError: we may not read it, which says nothing of the file.
    """
    if entry.digest is None or entry.algorithm is None:
        return None
    try:
        digest = hash_file(manifest.root / entry.path, entry.algorithm, on_piece)
    except FileNotFoundError:
        return Finding(entry.path, "missing", "is missing")
    except PermissionError:
        raise
    except OSError as error:
        return Finding(entry.path, "unreadable", f"cannot be read: {error.strerror}")
    if digest != entry.digest:
        return Finding(entry.path, "hash", f"{entry.algorithm} is {digest} instead of {entry.digest}")
    return None


def hash_file(path: Path, algorithm: str, on_piece: Callable[[int], None] | None = None) -> str:
    """Hex digest of a file. What was read is given back to the page cache's free list, so that it evicts nothing.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        done = 0
        while count := file.readinto(buffer):
            digest.update(view[:count])
            os.posix_fadvise(file.fileno(), done, count, os.POSIX_FADV_DONTNEED)
            done += count
            if on_piece is not None:
                on_piece(count)
    return digest.hexdigest()


def verify(manifest: Manifest, on_piece: Callable[[int], None] | None = None) -> Iterator[Finding]:
    """Everything that is wrong, file by file: sizes of all first (cheap), then the hashes of those that agree.

    Raises:
        PermissionError: as `check_hash`.
    """
    good = []
    for entry in manifest.entries:
        found = size_of(manifest, entry)
        if isinstance(found, Finding):
            yield found
        else:
            good.append(entry)
    for entry in good:
        finding = check_hash(manifest, entry, on_piece)
        if finding is not None:
            yield finding
