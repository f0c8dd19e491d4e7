"""Checkpoints of this node's training jobs: age, size, completeness, interval; hashes as far as the service got.

A job whose folder cannot be listed has no series. No data is read here: that a checkpoint is complete means that
its manifest is there and all sizes agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median

from agent.base import statefile
from agent.base.aside import Aside, wait_all
from agent.base.catalogue import Sample, train
from agent.base.collector import Context, PartialFailure, register
from agent.checkpoint.judge import Judge, State, Verdict
from agent.checkpoint.ledger import Ledger
from agent.checkpoint.settings import CheckpointJob, CheckpointSettings
from agent.node.lent import TRAIN_PROGRESS, Reached

NAME = "checkpoint"
_REMEMBERED = 64


class History:
    """Times at which a job finished checkpoints, those long deleted included: from them the interval is learned."""

    def __init__(self, times: Iterable[float] = ()) -> None:
        self.times = sorted(times)

    def add(self, written: Iterable[float]) -> bool:
        """Take in what was seen; True if anything is new."""
        new = {round(one, 3) for one in written} - set(self.times)
        self.times = sorted({*self.times, *new})[-_REMEMBERED:]
        return bool(new)

    @property
    def interval(self) -> float | None:
        """Median seconds between one checkpoint and the next; None before there are two."""
        gaps = [after - before for before, after in zip(self.times, self.times[1:], strict=False) if after > before]
        return median(gaps) if gaps else None


class _Job:
    """One job's folder and its backup, judged aside: a dead file server holds up nobody else."""

    def __init__(self, job: CheckpointJob, settings: CheckpointSettings, clock: Callable[[], float]) -> None:
        self.settings = job
        self._clock = clock
        self._judge = Judge(job.directory, quiet=settings.quiet, recheck=settings.recheck)
        self._backup = Judge(job.backup, quiet=settings.quiet, recheck=settings.recheck) if job.backup else None
        self.main = Aside(f"checkpoints-{job.job_id}", self._look)
        self.copies = Aside(f"backups-{job.job_id}", self._look_at_backup)

    def _look(self) -> list[Verdict]:
        return self._judge.look(self._clock())

    def _look_at_backup(self) -> list[Verdict]:
        return self._backup.look(self._clock()) if self._backup else []


@register(NAME, CheckpointSettings)
class Checkpoint:
    """Checkpoints: age, size, completeness, verification, backups."""

    def __init__(
        self, settings: CheckpointSettings, context: Context, *, clock: Callable[[], float] = time.time
    ) -> None:
        folder = Path(context.state_dir) / NAME
        self._shared = context.shared
        self._clock = clock
        self._wait = 0.6 * settings.deadline
        self._jobs = [_Job(job, settings, clock) for job in settings.jobs]
        self._asides = [aside for job in self._jobs for aside in (job.main, job.copies)]
        self._ledger = Ledger(folder)
        self._kept = folder / "history.json"
        times = statefile.load(self._kept) if settings.jobs else {}
        self._history = {job.job_id: History(_floats(times.get(job.job_id))) for job in settings.jobs}

    def collect(self) -> Iterable[Sample]:
        for aside in self._asides:
            aside.kick()
        wait_all(self._asides, self._wait)
        self._ledger.load()
        now = self._clock()
        problems: list[str] = []
        lent: Callable[[], dict[str, Reached]] | None = self._shared.get(TRAIN_PROGRESS)
        progress = lent() if lent else {}
        for job in self._jobs:
            verdicts = self._found(job.main, job.settings.directory, problems)
            reached = progress.get(job.settings.job_id)
            worked = reached.time if reached is not None and reached.time is not None else now
            if verdicts is not None:
                yield from self._samples(job.settings, verdicts, reached, min(worked, now))
            copies = self._found(job.copies, job.settings.backup, problems) if job.settings.backup else None
            if copies is not None:
                yield from _backup(job.settings.job_id, copies, verdicts or [], min(worked, now))
        if problems:
            raise PartialFailure("unreadable", "; ".join(problems))

    def close(self) -> None:
        return None

    @staticmethod
    def _found(aside: Aside[list[Verdict]], folder: Path | None, problems: list[str]) -> list[Verdict] | None:
        if (pending := aside.pending) is not None:
            problems.append(f"{folder}: has not answered for {pending:.0f} s")
            return None
        last = aside.last
        if last is None or last.error is not None:
            error = last.error if last else None
            if not isinstance(error, FileNotFoundError):  # a job that has not begun has no folder
                problems.append(f"{folder}: {error.strerror if isinstance(error, OSError) else repr(error)}")
            return None
        if refused := next((one.reason for one in last.value or () if one.state is State.UNREADABLE), None):
            problems.append(refused)  # it may be the newest: which one is the last is not known
            return None
        return last.value

    def _samples(
        self, job: CheckpointJob, verdicts: list[Verdict], reached: Reached | None, worked: float
    ) -> Iterator[Sample]:
        """The series of one job; `worked` is until when there was work to lose, Unix seconds."""
        job_id = job.job_id
        complete = [one for one in verdicts if one.state is State.COMPLETE]
        corrupt = [one for one in complete if self._is(one, "bad")]
        yield train.CHECKPOINTS.sample(len(complete), job_id)
        yield train.CHECKPOINTS_BAD.sample(sum(one.state is State.BAD for one in verdicts), job_id)
        yield train.CHECKPOINTS_CORRUPT.sample(len(corrupt), job_id)
        yield train.CHECKPOINT_WRITING.sample(float(any(one.state is State.WRITING for one in verdicts)), job_id)
        yield train.CHECKPOINT_VERIFY_FAILURES.sample(self._ledger.failures.get(job_id, 0), job_id)
        yield train.CHECKPOINT_VERIFIED_BYTES.sample(self._ledger.hashed.get(job_id, 0.0), job_id)
        history = self._history[job_id]
        if history.add(one.written for one in complete):
            statefile.save(self._kept, {name: one.times for name, one in self._history.items()}, sync=False)
        interval = job.interval if job.interval is not None else history.interval
        if interval is not None:
            yield train.CHECKPOINT_INTERVAL.sample(interval, job_id)
        last = _last([one for one in complete if one not in corrupt])
        if last is not None:
            yield train.CHECKPOINT_COMPLETE_TIME.sample(last.written, job_id)
            yield train.CHECKPOINT_BYTES.sample(last.size, job_id)
            yield train.CHECKPOINT_RPO.sample(max(worked - last.written, 0.0), job_id, "complete")
            if last.step is not None:
                yield train.CHECKPOINT_STEP.sample(last.step, job_id)
                if reached is not None and reached.running:
                    yield train.CHECKPOINT_STEPS_SINCE.sample(max(reached.step - last.step, 0), job_id)
            if last.seconds is not None:
                yield train.CHECKPOINT_WRITE_SECONDS.sample(last.seconds, job_id)
        verified = _last([one for one in complete if self._is(one, "good")])
        if verified is not None:
            yield train.CHECKPOINT_VERIFIED_TIME.sample(verified.written, job_id)
            yield train.CHECKPOINT_RPO.sample(max(worked - verified.written, 0.0), job_id, "verified")

    def _is(self, one: Verdict, verdict: str) -> bool:
        entry = self._ledger.of(one.candidate.path, one.manifest) if one.manifest else None
        return entry is not None and bool(getattr(entry, verdict))


def _backup(job_id: str, copies: list[Verdict], originals: list[Verdict], worked: float) -> Iterator[Sample]:
    """A copy is as old as its original, as far as that is still here: copying may have set a time of its own."""
    last = _last([one for one in copies if one.state is State.COMPLETE])
    if last is None:
        return
    name = last.candidate.path.name
    original = next((one for one in originals if one.candidate.path.name == name and one.written), last)
    written = min(last.written, original.written)
    yield train.BACKUP_TIME.sample(written, job_id)
    yield train.CHECKPOINT_RPO.sample(max(worked - written, 0.0), job_id, "backup")
    if last.step is not None:
        yield train.BACKUP_STEP.sample(last.step, job_id)


def _last(verdicts: list[Verdict]) -> Verdict | None:
    return max(verdicts, key=lambda one: one.written, default=None)


def _floats(kept: object) -> list[float]:
    return [float(one) for one in kept if isinstance(one, (int, float))] if isinstance(kept, list) else []
