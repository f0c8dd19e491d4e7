"""Training jobs of this node: step, loss, pace, restarts, from their logs.

A job whose log is not there has no series but `log_readable 0`. When a run has ended its facts stay, with
`running 0`; its pace goes, for it is no pace of now.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from agent.base.aside import Aside, wait_all
from agent.base.catalogue import Metric, Sample, train
from agent.base.collector import Context, PartialFailure, register
from agent.node.lent import TRAIN_PROGRESS, Reached
from agent.training.job import Job
from agent.training.reports import ReportSource, Socket
from agent.training.settings import TrainingSettings
from agent.training.source import readable

NAME = "training"
SOCKET = "training.sock"
_FACTS: dict[str, Metric] = {
    "validation_loss": train.VALIDATION_LOSS,
    "grad_norm": train.GRAD_NORM,
    "learning_rate": train.LEARNING_RATE,
    "epoch": train.EPOCH,
    "consumed_tokens": train.CONSUMED_TOKENS,
}
"""What stays true of an ended run."""


@register(NAME, TrainingSettings)
class Training:
    """Training progress from the jobs' logs: step, loss, pace, restarts."""

    def __init__(self, settings: TrainingSettings, context: Context, *, clock: Callable[[], float] = time.time) -> None:
        folder = Path(context.state_dir) / NAME
        self._wait = 0.6 * settings.deadline
        self._clock = clock
        self._jobs = [Job(job, folder) for job in settings.jobs]
        # A log on a dead file server holds up its own job only.
        self._asides = [Aside(f"log-{job.settings.job_id}", self._refresh(job)) for job in self._jobs]
        self._reports = {job.settings.job_id: job.source for job in self._jobs if isinstance(job.source, ReportSource)}
        self._path = settings.socket or Path(context.run_dir) / SOCKET
        self._mode = int(settings.socket_mode, 8)
        self._socket: Socket | None = None
        self._shared = context.shared
        self._shared[TRAIN_PROGRESS] = self.progress

    def progress(self) -> dict[str, Reached]:
        """Lent to the energy and checkpoint collectors."""
        now = self._clock()
        runs = {job.settings.job_id: job.run for job in self._jobs}
        return {
            name: Reached(run.step, run.last_time, run.running(now))
            for name, run in runs.items()
            if run.step is not None
        }

    def _refresh(self, job: Job) -> Callable[[], None]:
        return lambda: job.refresh(self._clock())

    def collect(self) -> Iterable[Sample]:
        for aside in self._asides:
            aside.kick()
        wait_all(self._asides, self._wait)
        now = self._clock()
        problems = self._listen()
        broken: BaseException | None = None
        for job, aside in zip(self._jobs, self._asides, strict=True):
            if aside.pending is not None:
                problems.append(f"{job.settings.job_id}: the log has not answered for {aside.pending:.0f} s")
                continue
            if aside.last is not None and aside.last.error is not None:
                broken = broken or aside.last.error  # what one job's log does to us costs the others nothing
                continue
            if job.denied:
                problems.append(f"{job.settings.job_id}: {job.denied}")
            yield from samples(job, now)
        if broken is not None:
            raise broken
        if problems:
            raise PartialFailure("unreadable", "; ".join(problems))

    def _listen(self) -> list[str]:
        """Open the socket once there is a job that reports; what is wrong if it cannot be."""
        if self._reports and self._socket is None:
            try:
                self._socket = Socket(self._path, self._mode, self._reports)
            except OSError as error:
                # `agent once` beside a running agent: the reports are the other's
                return [] if error.errno == errno.EADDRINUSE else [readable(error)]
        return []

    def close(self) -> None:
        if self._shared.get(TRAIN_PROGRESS) == self.progress:
            del self._shared[TRAIN_PROGRESS]
        if self._socket is not None:
            self._socket.close()
        for job, aside in zip(self._jobs, self._asides, strict=True):
            if aside.pending is None:
                job.save(self._clock())


def samples(job: Job, now: float) -> Iterator[Sample]:
    """The series of one job at Unix time `now`."""
    job_id, run = job.settings.job_id, job.run
    yield train.LOG_READABLE.sample(0.0 if job.missing else 1.0, job_id)
    if job.missing:
        return
    yield train.UNPARSED.sample(job.source.unparsed, job_id)
    yield train.RESTARTS.sample(run.restarts, job_id)
    yield train.LOSS_NONFINITE.sample(run.nonfinite, job_id)
    if job.settings.planned is not None:
        yield train.PLANNED_SECONDS.sample(job.settings.planned, job_id)
    if run.last_time is None and not run.values and run.loss is None:
        return
    yield train.RUNNING.sample(1.0 if run.running(now) else 0.0, job_id)
    facts = {
        train.STEP: run.step,
        train.STEPS_PLANNED: run.steps_planned,
        train.LOSS: run.loss,
        train.LAST_STEP_TIME: run.last_time,
        train.STARTED: run.started,
        train.INTERVAL: run.interval,
        **{metric: run.values.get(name) for name, metric in _FACTS.items()},
    }
    yield from _finite(facts, job_id)
    if run.on_pace(now):
        yield from _pace(job)


def _pace(job: Job) -> Iterator[Sample]:
    job_id, values = job.settings.job_id, job.run.values
    tokens = tokens_per_second(job)
    paces = {
        train.STEP_SECONDS: values.get("step_seconds"),
        train.TOKENS_RATE: tokens,
        train.MFU: mfu(job, tokens),
        train.COMMUNICATION: values.get("communication_ratio"),
    }
    yield from _finite(paces, job_id)
    if len(job.run.ranks) > 1:
        for rank, seconds in sorted(job.run.ranks.items()):
            yield from _finite({train.RANK_STEP_SECONDS: seconds}, job_id, str(rank))


def _finite(values: Mapping[Metric, float | None], *labels: str) -> Iterator[Sample]:
    """What is known: a job whose loss is lost writes `nan` for much else, too."""
    for metric, value in values.items():
        if value is not None and math.isfinite(value):
            yield metric.sample(value, *labels)


def tokens_per_second(job: Job) -> float | None:
    """Of the whole job: as logged, else that of a GPU times the configured GPUs, else batch x length / step time."""
    values = job.run.values
    if "tokens_per_second" in values:
        return values["tokens_per_second"]
    if "tokens_per_second_gpu" in values and job.settings.gpus:
        return values["tokens_per_second_gpu"] * job.settings.gpus
    batch, length, seconds = (values.get(name) for name in ("batch_size", "sequence_length", "step_seconds"))
    return batch * length / seconds if batch and length and seconds else None


def mfu(job: Job, tokens: float | None) -> float | None:
    """Model-FLOPs utilisation, a ratio: as logged, else logged FLOP/s over the configured peak, else 6 N tokens/s.

    6 FLOP per parameter and token (2 forward, 4 backward) is the estimate of Kaplan et al. 2020, section 2.1; it
    leaves attention out, and recomputation does not count, as in the PaLM paper's MFU (Chowdhery et al. 2022, B).
    """
    values, settings = job.run.values, job.settings
    if "mfu" in values:
        return values["mfu"]
    if settings.peak_flops is None:
        return None
    if "flops_gpu" in values:
        return values["flops_gpu"] / settings.peak_flops
    if tokens is None or settings.parameters is None or settings.gpus is None:
        return None
    return 6 * settings.parameters * tokens / (settings.gpus * settings.peak_flops)
