"""A training log replayed: what was expected of the run at each of its records, and whether it was late.

The clock of a replay is the wall clock of the lines; where they have none, the run's own clock since its last
reset (programs reset it after warm-up); where there is none either, the sum of the step times the run reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from agent.base.errors import CannotTell
from agent.base.trainlog import Progress
from alerts.detect.eta import Schedule, Track
from alerts.detect.lateness import Judgement, Lateness
from alerts.detect.records import read

Clock = Literal["time", "elapsed", "step_seconds"]
CLOCKS: tuple[Clock, ...] = ("time", "elapsed", "step_seconds")
"""The fields of a record that tell time; the earlier one is preferred."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One record replayed: seconds since the start (or the clock's last reset), steps made, and the judgement."""

    elapsed: float
    step: int
    judgement: Judgement


def replay(
    lines: Iterable[str],
    *,
    plan: float | None = None,
    total_steps: int | None = None,
    schedule: Schedule | None = None,
    log_format: str = "auto",
) -> Iterator[Moment]:
    """Replay a log, record by record; what is said at a record uses nothing after it.

    Args:
        lines: the log, or a CSV of progress with a header (`step`, a clock, `total_steps`).
        plan: seconds that the run was to take.
        total_steps: steps that it was to make, if the log does not say or says wrong.
        schedule: known costs of steps.
        log_format: a format of `agent.base.trainlog`.

    Raises:
        CannotTell: the log has no progress, no time or no total; nothing has been given before.
    """
    runs = [_Run(clock, plan, schedule or Schedule()) for clock in CLOCKS]
    seen = 0
    total = total_steps
    waiting: list[Progress] = []
    rank: int | None = None
    given = False
    for record in read(lines, log_format):
        if record.step is None:
            continue
        rank = record.rank if rank is None else rank
        if record.rank != rank:  # every rank tells the same steps
            continue
        total = total_steps or record.total_steps or total
        waiting.append(record)
        if not total or total < 0:
            continue
        for each in waiting:
            seen += 1
            for run in runs:
                run.add(each, float(total))
            run = next((run for run in runs if 2 * run.told >= seen), runs[-1])
            if run.moment is not None:
                given = True
                yield run.moment
        waiting.clear()
    if not given:
        raise CannotTell(_why_not(seen, len(waiting)))


def _why_not(seen: int, waiting: int) -> str:
    if seen:
        return "the log has neither wall stamps nor a clock of its own: nothing to measure time by"
    if waiting:
        return "the log does not say how many steps the run makes: give --total-steps"
    return "no line of the log tells a step"


class _Run:
    """The run by one of the log's clocks."""

    def __init__(self, clock: Clock, plan: float | None, schedule: Schedule) -> None:
        self._clock, self._plan, self._schedule = clock, plan, schedule
        self._track: Track | None = None
        self._lateness = Lateness(plan)
        self._last = 0.0
        self._step = 0
        self.told = 0
        """Records that carry this clock."""
        self.moment: Moment | None = None
        """What is expected at the last record; None if that does not carry this clock."""

    def add(self, record: Progress, total: float) -> None:
        value, step = getattr(record, self._clock), record.step
        self.moment = None
        if value is None or step is None:
            return
        self.told += 1
        if self._clock == "step_seconds":
            value = self._last + value * max(step - self._step, 1)
        if self._track is None or (self._clock == "elapsed" and value < self._last):
            self._begin(total, step)
        assert self._track is not None
        self._last, self._step = value, step
        self._track.total = total
        self._track.add(value, step, _phase(record))
        self.moment = Moment(self._track.elapsed, step, self._lateness.judge(self._track))

    def _begin(self, total: float, step: int) -> None:
        """A first record, or the first after the clock was set to 0: the steps since belong to it."""
        reset = self._track is not None
        self._track, self._lateness = Track(total, self._schedule), Lateness(self._plan)
        if self._clock != "time":
            # What was made before a reset was made on the old clock; a run that went back began who knows where.
            self._track.begin(0.0, (self._step if step > self._step else step) if reset else 0)


def _phase(record: Progress) -> object:
    if record.batch_size is None and record.sequence_length is None:
        return None
    return record.batch_size, record.sequence_length
