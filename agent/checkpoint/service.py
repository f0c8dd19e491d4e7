"""Hashes what is complete, newest first, one file after another, and keeps what it has done.

Made for a process of its own at idle priority: a 1.3 TB checkpoint takes half an hour of reading. It can be
stopped at any time; on the next start it goes on with the first file that has not been hashed.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.base.log import OnChange
from agent.checkpoint import manifest as manifests
from agent.checkpoint import verify
from agent.checkpoint.judge import Judge, State, Verdict
from agent.checkpoint.ledger import Entry, Ledger, look, stamp
from agent.checkpoint.settings import CheckpointJob, CheckpointSettings

_log = logging.getLogger("gpuvigil.checkpoint")
_IOPRIO_CLASS_IDLE = 3
_SAVE_EVERY = 30.0


def be_idle() -> None:
    """Take the lowest CPU priority and the idle I/O class; where the kernel refuses, that is logged."""
    try:
        os.nice(19)
        psutil.Process().ionice(_IOPRIO_CLASS_IDLE)
    except (OSError, psutil.Error) as error:
        _log.warning("idle priority is refused: %s", error)


class Stopped(Exception):
    """The service was told to stop in the middle of a file."""


@dataclass(frozen=True, slots=True)
class Work:
    job: CheckpointJob
    verdict: Verdict
    manifest: Path


class Verifier:
    """Looks for work and does it, a file at a time."""

    def __init__(
        self,
        settings: CheckpointSettings,
        ledger: Ledger,
        *,
        stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._stop = stop
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._judges = {
            job.job_id: Judge(job.directory, quiet=settings.quiet, recheck=settings.recheck)
            for job in settings.jobs
            if job.verify
        }
        self._saved = monotonic()
        self._refused: set[str] = set()
        """Checkpoints with a file that we may not read, in this turn."""
        self._looked: dict[str, float] = {}
        """When the files of a verified checkpoint were compared with what they were then."""
        self._report = OnChange(_log)

    def turn(self) -> int:
        """Verify everything that is complete and not yet verified; returns how many checkpoints were finished.

        Raises:
            Stopped: `stop` said so; what was done is kept.
        """
        finished = 0
        self._refused.clear()
        while (work := self._next()) is not None:
            try:
                finished += self._verify(work)
            finally:
                self._ledger.save()
        return finished

    def pending(self) -> list[Work]:
        """Complete checkpoints with hashes that have not been verified, newest first; forgets those that are gone."""
        found: list[Work] = []
        present: set[str] = set()
        for job in self._settings.jobs:
            judge = self._judges.get(job.job_id)
            if judge is None:
                continue
            try:
                verdicts = judge.look(self._clock())
            except OSError as error:
                _log.warning("%s: %s", job.directory, error.strerror, extra={"job_id": job.job_id})
                continue
            for verdict in reversed(verdicts):
                present.add(str(verdict.candidate.path))
                if verdict.state is State.COMPLETE and verdict.manifest is not None:
                    entry = self._ledger.of(verdict.candidate.path, verdict.manifest)
                    if entry is not None and entry.finished is not None and self._changed(verdict, entry):
                        entry.finished = None
                    refused = str(verdict.candidate.path) in self._refused
                    if not refused and (entry is None or entry.finished is None):
                        found.append(Work(job, verdict, verdict.manifest))
        for path in [path for path in self._ledger.entries if path not in present]:
            if not Path(path).exists():
                del self._ledger.entries[path]
                self._looked.pop(path, None)
        return sorted(found, key=lambda work: -work.verdict.written)

    def _changed(self, verdict: Verdict, entry: Entry) -> bool:
        """Whether a file has been written since it was verified; looked at as seldom as sizes are."""
        path, now = str(verdict.candidate.path), self._monotonic()
        if now - self._looked.get(path, -math.inf) < self._settings.recheck:
            return False
        self._looked[path] = now
        return not entry.holds(verdict.candidate.path if verdict.candidate.is_folder else verdict.candidate.path.parent)

    def _next(self) -> Work | None:
        if self._stop():
            raise Stopped
        return next(iter(self.pending()), None)

    def _verify(self, work: Work) -> bool:
        """Hash the files of one checkpoint that have not been hashed; False if it changed or vanished meanwhile."""
        path, job_id = work.verdict.candidate.path, work.job.job_id
        try:
            before = stamp(work.manifest)
            listed = manifests.read(work.manifest)
        except (OSError, manifests.ManifestError):
            return False
        entry = self._ledger.of(path, work.manifest) or Entry(job_id, before)
        entry.step, entry.written, entry.hashed = work.verdict.step, work.verdict.written, listed.hashed
        self._ledger.entries[str(path)] = entry
        entry.failed = {}
        findings: list[str] = []
        try:
            for one in listed.entries:
                if (finding := self._file(listed, one, entry)) is not None:
                    findings.append(str(finding))
                    entry.done.pop(one.path, None)
                    entry.failed[one.path] = look(listed.root / one.path)
        except PermissionError as error:
            self._refused.add(str(path))
            self._report.bad("checkpoint may not be read", job_id=job_id, error=str(error))
            return False
        self._report.good("checkpoint is read", job_id=job_id)
        try:
            if stamp(work.manifest) != before:
                raise FileNotFoundError
        except OSError:  # deleted or written anew while we read: no verdict on what is no more
            self._ledger.entries.pop(str(path), None)
            return False
        entry.findings, entry.finished = findings, self._clock()
        if findings:
            self._ledger.failures[job_id] = self._ledger.failures.get(job_id, 0) + 1
            _log.error("checkpoint is corrupt", extra={"job_id": job_id, "path": str(path), "error": findings[0]})
        elif not listed.hashed:
            _log.warning("manifest has no hashes: nothing to verify", extra={"job_id": job_id, "path": str(path)})
        else:
            _log.info("checkpoint verified", extra={"job_id": job_id, "path": str(path)})
        return True

    def _file(self, listed: manifests.Manifest, one: manifests.Entry, entry: Entry) -> verify.Finding | None:
        sized = verify.size_of(listed, one)
        if isinstance(sized, verify.Finding):
            return sized
        path = listed.root / one.path
        now = stamp(path)
        if entry.done.get(one.path) == now:
            return None
        finding = verify.check_hash(listed, one, self._pacer(entry.job_id))
        if finding is None:
            entry.done[one.path] = now
        self._keep()
        return finding

    def _keep(self) -> None:
        if self._monotonic() - self._saved >= _SAVE_EVERY:
            self._ledger.save()
            self._saved = self._monotonic()

    def _pacer(self, job_id: str) -> Callable[[int], None]:
        rate, begun, done = self._settings.verify_bytes_per_second, self._monotonic(), 0

        def after(count: int) -> None:
            nonlocal done
            done += count
            self._ledger.hashed[job_id] = self._ledger.hashed.get(job_id, 0.0) + count
            if self._stop():
                raise Stopped
            if rate and (ahead := done / rate - (self._monotonic() - begun)) > 0:
                self._sleep(ahead)

        return after
