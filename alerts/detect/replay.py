"""A training log replayed: what was expected of the run at each of its records, and whether it was late.

The clock of a replay is the wall clock of the lines; where they have none, the run's own clock since its last
reset (programs reset it after warm-up); where there is none either, the sum of the step times the run reports.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.base.errors import CannotTell
from agent.base.trainlog import Progress, open_format
from alerts.detect.eta import Schedule, Track
from alerts.detect.lateness import Judgement, Lateness

_STEP = ("step", "iteration", "global_step", "iter")
_CLOCKS = {
    "train_time_ms": 1e-3,
    "elapsed_ms": 1e-3,
    "time_ms": 1e-3,
    "elapsed": 1.0,
    "train_time": 1.0,
    "seconds": 1.0,
}
_TOTAL = ("total_steps", "max_steps", "total_iterations", "steps_planned")


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
        CannotTell: the log has no progress, no time or no total.
    """
    records = _records(lines, log_format)
    if not records:
        raise CannotTell("no line of the log tells a step")
    if total_steps is None and not any(record.total_steps for record in records):
        raise CannotTell("the log does not say how many steps the run makes: give --total-steps")
    clock = _Clock(records)
    lateness = Lateness(plan)
    track: Track | None = None
    total = total_steps
    for record in records:
        total = total_steps or record.total_steps or total
        at, reset = clock.read(record)
        if at is None or record.step is None or total is None:
            continue
        if track is None or reset:
            track = Track(float(total), schedule or Schedule())
            if clock.own:
                track.begin(0.0)
        track.total = float(total)
        track.add(at, record.step, _phase(record))
        yield Moment(track.elapsed, record.step, lateness.judge(track))


class _Clock:
    """Chooses one clock for the whole log and reads it."""

    def __init__(self, records: list[Progress]) -> None:
        self._kind = next((kind for kind in ("time", "elapsed", "step_seconds") if _told(records, kind)), "")
        if not self._kind:
            raise CannotTell("the log has neither wall stamps nor a clock of its own: nothing to measure time by")
        self.own = self._kind != "time"
        self._last: float | None = None
        self._sum = 0.0
        self._step = 0

    def read(self, record: Progress) -> tuple[float | None, bool]:
        """Seconds on the clock at a record (None: it tells no time), and whether the clock was reset before it."""
        if self._kind == "step_seconds":
            if record.step_seconds is None or record.step is None:
                return None, False
            made = record.step - self._step if record.step > self._step else 1
            self._sum += record.step_seconds * made
            self._step = record.step
            return self._sum, False
        at = record.time if self._kind == "time" else record.elapsed
        if at is None:
            return None, False
        reset = self._kind == "elapsed" and self._last is not None and at < self._last
        self._last = at
        return at, reset


def _told(records: list[Progress], kind: str) -> bool:
    """Whether at least half of the records with a step carry this clock."""
    steps = [record for record in records if record.step is not None]
    return 2 * sum(getattr(record, kind) is not None for record in steps) >= max(len(steps), 1)


def _phase(record: Progress) -> object:
    if record.batch_size is None and record.sequence_length is None:
        return None
    return record.batch_size, record.sequence_length


def _records(lines: Iterable[str], log_format: str) -> list[Progress]:
    source = iter(lines)
    head = next(source, "")
    names = [name.strip().lower() for name in head.split(",")]
    if log_format == "auto" and any(name in names for name in _STEP) and len(names) > 1:
        return list(_from_csv(names, source))
    parser = open_format(log_format)
    found = []
    for line in (head, *source):
        record = parser.feed(line)
        if record is not None and record.step is not None:
            found.append(record)
    return found


def _from_csv(names: list[str], lines: Iterator[str]) -> Iterator[Progress]:
    step = next(name for name in _STEP if name in names)
    clock = next((name for name in _CLOCKS if name in names), "")
    total = next((name for name in _TOTAL if name in names), "")
    for row in csv.DictReader(lines, fieldnames=names):
        made, seconds, planned = _number(row.get(step)), _number(row.get(clock)), _number(row.get(total))
        if made is not None:
            yield Progress(
                step=int(made),
                total_steps=int(planned) if planned is not None else None,
                elapsed=seconds * _CLOCKS[clock] if seconds is not None else None,
                loss=_number(row.get("loss")),
            )


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
