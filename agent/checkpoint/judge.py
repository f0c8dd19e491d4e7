"""Complete, being written, or bad: the state of each checkpoint in a job's folder, without reading its data."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from agent.checkpoint import layout, manifest, markers, shards, verify
from agent.checkpoint.layout import Candidate

MOST = 64
"""Checkpoints looked at, newest steps first: a folder of thousands would cost a stat a file."""


class State(Enum):
    COMPLETE = "complete"
    WRITING = "writing"
    BAD = "bad"
    UNREADABLE = "unreadable"
    """It may not be looked at: nothing is known."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one checkpoint. `written` (Unix seconds) is when it was finished; 0 unless complete."""

    candidate: Candidate
    state: State
    reason: str = ""
    written: float = 0.0
    size: int = 0
    seconds: float | None = None
    """From the first file finished to the manifest, as the files' times tell; None for a single file."""
    manifest: Path | None = None

    @property
    def step(self) -> int | None:
        return self.candidate.step


@dataclass(frozen=True, slots=True)
class _Tree:
    """What lies under a path; times are modification times in Unix seconds."""

    newest: float
    """Last write to a file."""
    oldest: float
    changed: float
    """Last change at all: also a file created, renamed or deleted."""
    size: int


class Judge:
    """Judges a folder again and again; a verdict is kept while nothing it rests on has changed.

    A file cut short leaves its folder's time alone, so that kept verdicts are made anew every `recheck` seconds, that
    of the newest checkpoint each time.
    """

    def __init__(self, folder: Path, *, quiet: float = 300.0, recheck: float = 600.0) -> None:
        """`quiet`: seconds without a write after which an unfinished checkpoint is no longer being written."""
        self.folder = folder
        self._quiet = quiet
        self._recheck = recheck
        self._kept: dict[Path, tuple[object, float, Verdict]] = {}

    def look(self, now: float) -> list[Verdict]:
        """Verdicts in order of steps; `now` is Unix time.

        Raises:
            OSError: the folder cannot be listed.
        """
        found = layout.candidates(self.folder)[-MOST:]
        tracked = layout.tracked_step(self.folder)
        manifests = {one.path: manifest.locate(one.path) for one in found}
        by_manifest = any(manifests.values())
        verdicts = [
            self._verdict(one, manifests[one.path], tracked, by_manifest, now, newest=one is found[-1]) for one in found
        ]
        self._kept = {path: kept for path, kept in self._kept.items() if path in manifests}
        return verdicts

    def _verdict(
        self, one: Candidate, listed: Path | None, tracked: int | None, by_manifest: bool, now: float, newest: bool
    ) -> Verdict:
        basis = (_stamp(one.path), listed and _stamp(listed), tracked, by_manifest)
        kept = self._kept.get(one.path)
        if kept and kept[0] == basis and not newest and now - kept[1] < self._recheck:
            return kept[2]
        try:
            verdict = self._judge(one, listed, tracked, by_manifest, now)
        except FileNotFoundError:  # rotated away while we looked
            verdict = Verdict(one, State.WRITING, "is being deleted")
        except PermissionError as error:
            return Verdict(one, State.UNREADABLE, f"{error.filename}: {error.strerror}")
        if verdict.state is not State.WRITING:
            self._kept[one.path] = (basis, now, verdict)
        return verdict

    def _judge(
        self, one: Candidate, listed: Path | None, tracked: int | None, by_manifest: bool, now: float
    ) -> Verdict:
        tree = _walk(one.path)
        reason = ""
        if listed is not None:
            try:
                read = manifest.read(listed)
            except manifest.ManifestError as error:
                reason = str(error)
            else:
                size, findings = verify.check_sizes(read)
                if not findings:
                    return self._complete(one, listed, listed, tree, size, now)
                reason = str(findings[0])
        elif by_manifest:
            reason = "has no manifest, though others here have one"
        elif fault := shards.fault(one.path):
            reason = fault
        elif sign := markers.marker(one, tracked):
            return self._complete(one, sign, None, tree, tree.size, now)
        else:
            reason = "has neither a manifest nor its framework's sign of being finished"
        if now - tree.changed < self._quiet:
            return Verdict(one, State.WRITING, reason)
        return Verdict(one, State.BAD, reason)

    @staticmethod
    def _complete(one: Candidate, sign: Path, listed: Path | None, tree: _Tree, size: int, now: float) -> Verdict:
        # a folder's own time changes when anything in it is deleted: the newest file dates it instead
        written = tree.newest if sign == one.path else sign.stat().st_mtime
        seconds = max(written - tree.oldest, 0.0) if one.is_folder else None
        return Verdict(one, State.COMPLETE, "", min(written, now), size, seconds, listed)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _refused(error: OSError) -> None:
    if isinstance(error, PermissionError):
        raise error


def _walk(path: Path) -> _Tree:
    """Times and sizes of the regular files under `path`.

    Raises:
        FileNotFoundError: `path` is no longer there.
        PermissionError: a folder may not be listed.
    """
    status = path.stat()
    if not path.is_dir():
        return _Tree(status.st_mtime, status.st_mtime, status.st_mtime, status.st_size)
    changed = status.st_mtime
    times: list[float] = []
    size = 0
    for folder, folders, names in os.walk(path, onerror=_refused):
        for name in (*names, *folders):
            try:
                one = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            changed = max(changed, one.st_mtime)
            if stat.S_ISREG(one.st_mode):
                times.append(one.st_mtime)
                size += one.st_size
    times = times or [status.st_mtime]
    return _Tree(max(times), min(times), max(changed, *times), size)
