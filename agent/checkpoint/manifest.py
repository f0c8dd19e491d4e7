"""What a checkpoint says about its own files: `manifest.json`, or the sums files of md5sum and sha256sum.

manifest.json: `{"version": 1, "step": 100, "files": [{"path": "w.npz", "size": 123, "md5": "..."}]}`; of `size`, `md5`
and `sha256` each may be missing. A sums file has lines `<hex>  <relative path>`. Both are written last and by
rename, so that a checkpoint without one is not finished.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from agent.base.errors import VigilError

JSON_NAME: Final = "manifest.json"
SUMS: Final = {"SHA256SUMS": "sha256", "sha256sums.txt": "sha256", "MD5SUMS": "md5", "md5sums.txt": "md5"}
"""Names of sums files and their algorithm; the stronger is preferred."""
SIDECARS: Final = {".sha256": "sha256", ".md5": "md5"}
"""A checkpoint that is one file has its sum beside it: `model.pt.sha256`."""
LENGTHS: Final = {"md5": 32, "sha256": 64}
_LIMIT = 64 * 1024 * 1024
_SUM = re.compile(r"(\\?)([0-9a-fA-F]{32}|[0-9a-fA-F]{64})\s[ *](.+)")
_BSD = re.compile(r"(?:MD5|SHA2?-?256) \((.+)\) = ([0-9a-fA-F]{32,64})")


class ManifestError(VigilError):
    """A manifest is there and cannot be believed; the text names file and line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a checkpoint: `path` relative to its folder, `size` in bytes, `digest` in lower-case hex."""

    path: str
    size: int | None = None
    algorithm: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    file: Path
    root: Path
    """The folder to which the paths are relative."""
    entries: tuple[Entry, ...]
    step: int | None = None

    @property
    def hashed(self) -> bool:
        """Whether every file has a hash."""
        return all(entry.digest for entry in self.entries)


def locate(path: Path) -> Path | None:
    """The manifest of a checkpoint, a folder or a single file; None if it has none."""
    if os.path.isdir(path):
        candidates = [path / name for name in (JSON_NAME, *SUMS)]
    else:
        candidates = [path.with_name(path.name + suffix) for suffix in SIDECARS]
    return next((one for one in candidates if os.path.isfile(one)), None)  # False where it may not be looked at


def read(file: Path) -> Manifest:
    """Read a manifest.

    Raises:
        ManifestError: it cannot be believed: damaged, empty, a path outside its folder, a file named twice.
        OSError: it cannot be read.
    """
    if file.stat().st_size > _LIMIT:
        raise ManifestError(f"{file}: is larger than {_LIMIT} bytes: not a manifest")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ManifestError(f"{file}: is not UTF-8 text") from None
    step: int | None = None
    if file.suffix == ".json":
        step, entries = _from_json(file, text)
    else:
        entries = _from_sums(file, text)
    if not entries:
        raise ManifestError(f"{file}: lists no files")
    seen: set[str] = set()
    for entry in entries:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or "\0" in entry.path:
            raise ManifestError(f"{file}: {entry.path!r} leads out of the checkpoint's folder")
        if entry.path in seen:
            raise ManifestError(f"{file}: {entry.path!r} is listed twice")
        seen.add(entry.path)
    return Manifest(file, file.parent, tuple(entries), step)


def _from_json(file: Path, text: str) -> tuple[int | None, list[Entry]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{file}: is not JSON: {error}") from None
    listed = content.get("files") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise ManifestError(f'{file}: has no list "files"')
    step = content.get("step")
    return (step if isinstance(step, int) else None), [_entry(file, number, one) for number, one in enumerate(listed)]


def _entry(file: Path, number: int, one: Any) -> Entry:
    where = f"{file}: files[{number}]"
    if not isinstance(one, dict) or not isinstance(one.get("path"), str) or not one["path"]:
        raise ManifestError(f'{where}: has no "path"')
    size = one.get("size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise ManifestError(f"{where}: size must be bytes, got {size!r}")
    for algorithm in ("sha256", "md5"):
        digest = one.get(algorithm)
        if digest is None:
            continue
        if not isinstance(digest, str) or not re.fullmatch(rf"[0-9a-fA-F]{{{LENGTHS[algorithm]}}}", digest):
            raise ManifestError(f"{where}: {algorithm} must be {LENGTHS[algorithm]} hex digits, got {digest!r}")
        return Entry(one["path"], size, algorithm, digest.lower())
    return Entry(one["path"], size)


def _from_sums(file: Path, text: str) -> list[Entry]:
    entries: list[Entry] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if found := _SUM.fullmatch(line):
            escaped, digest, path = found.groups()
            if escaped:  # as coreutils writes a name with a newline or a backslash
                path = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), path)
        elif found := _BSD.fullmatch(line):
            path, digest = found.groups()
        else:
            raise ManifestError(f"{file}:{number}: not a line of checksums: {line[:80]!r}")
        algorithm = next((name for name, length in LENGTHS.items() if length == len(digest)), None)
        if algorithm is None:
            raise ManifestError(f"{file}:{number}: a hash of {len(digest)} digits is neither MD5 nor SHA-256")
        entries.append(Entry(path.removeprefix("./"), None, algorithm, digest.lower()))
    return entries
