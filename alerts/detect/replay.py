"""A training log replayed: what was expected of the run at each of its records, and whether it was late.

The clock of a replay is the wall clock of the lines; where they have none, the run's own clock since its last
reset (programs reset it after warm-up); where there is none either, the sum of the step times the run reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.base.errors import CannotTell
from agent.base.trainlog import Progress
from alerts.detect.clocks import CLOCKS, LATEST, WALL, Clock, Continuous, held_by
from alerts.detect.eta import Schedule, Track
from alerts.detect.lateness import Judgement, Lateness
from alerts.detect.records import read

TRIAL = 4
"""Records after which the first steps of a run's own clock are told from those made before it was started."""

BEGINNING = 0.1
"""Share of its steps within which the first record of a run lies."""


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
    last: tuple[_Run, float] | None = None
    for record in _in_order(read(lines, log_format)):
        total = total_steps or record.total_steps or total
        waiting.append(record)
        if not total or total < 0:
            continue
        for each in waiting:
            seen += 1
            for run in runs:
                run.add(each, float(total))
            run = next((run for run in runs if 2 * run.told >= seen), None) or max(runs, key=lambda run: run.told)
            if run.moment is None or (last and run is not last[0] and run.moment.elapsed < last[1]):
                continue  # another clock became the better one and is behind: time does not go back
            last = run, run.moment.elapsed
            yield run.moment
        waiting.clear()
    if last is None:
        raise CannotTell(_why_not(seen, len(waiting)))


def _in_order(records: Iterable[Progress]) -> Iterator[Progress]:
    """The records of one run: what other ranks tell late of steps already made is left out, a restart is not.

    A step that was made before is a restart's if the log says so, or if the next one follows it.
    """
    rank: int | None = None
    furthest = -1
    doubtful: Progress | None = None
    for record in records:
        step = record.step
        if step is None:
            continue
        other = record.rank != rank
        if other and step <= furthest and not record.restart:
            continue  # every rank tells the same steps: the first to tell one counts
        if step < furthest and not (other and record.restart) and (doubtful is None or step <= (doubtful.step or 0)):
            doubtful = record
            continue
        if doubtful is not None and step < furthest:
            yield doubtful
        doubtful = None
        rank, furthest = record.rank, step
        yield record


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
        self._continuous = Continuous(clock)
        self._track: Track | None = None
        self._lateness = Lateness(plan)
        self._first: list[tuple[float, int, object]] = []
        """Records of a clock of which it is not known yet how many steps it holds."""
        self.told = 0
        """Records that carry this clock."""
        self.moment: Moment | None = None
        """What is expected at the last record; None if that does not carry this clock."""

    def add(self, record: Progress, total: float) -> None:
        value, step = getattr(record, self._clock), record.step
        self.moment = None
        if value is None or step is None or not abs(value) < LATEST:
            return
        self.told += 1
        before = self._continuous.step
        value = self._continuous.read(value, step)
        if self._continuous.was_reset or self._track is None or self._is_another(step):
            self._begin(total, before if self._continuous.was_reset and step > before else None)
        assert self._track is not None
        self._track.total = total
        self._first.append((value, step, _phase(record)))
        if self._track.started is None and self._clock not in WALL:
            if len(self._first) < TRIAL and 1 < step < total:
                self.moment = Moment(value, step, self._lateness.judge(self._track))
                return
            self._track.begin(0.0, held_by(self._first))
        for when, made, phase in self._first:
            self._track.add(when, made, phase)
        self._first.clear()
        self.moment = Moment(self._track.elapsed, step, self._lateness.judge(self._track))

    def _is_another(self, step: int) -> bool:
        """Whether a run that has come to its end is followed by one that begins: no restart."""
        return self._track is not None and self._track.done >= 1.0 and step < BEGINNING * self._track.total

    def _begin(self, total: float, made: int | None) -> None:
        """A first record, or the first after the clock was set to 0, with `made` steps if that is known."""
        self._track, self._lateness = Track(total, self._schedule), Lateness(self._plan)
        self._first.clear()
        if made is not None:
            self._track.begin(0.0, made)


def _phase(record: Progress) -> object:
    if record.batch_size is None and record.sequence_length is None:
        return None
    return record.batch_size, record.sequence_length
