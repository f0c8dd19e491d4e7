"""The clocks of a training log, made to go forwards only."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Literal

Clock = Literal["time", "time_of_day", "elapsed", "step_seconds"]
CLOCKS: tuple[Clock, ...] = ("time", "time_of_day", "elapsed", "step_seconds")
"""The fields of a record that tell time; the earlier one is preferred."""

WALL: tuple[Clock, ...] = ("time", "time_of_day")
"""Those that were not started with the run."""
HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
CORRECTED = 60.0
"""A wall clock that goes back further was set, by whole hours where summer time ends; else it was corrected."""
USUAL = 5.0
"""So many times the usual seconds between records may lie where the clock was set by whole hours."""
LATEST = 1e12
"""Seconds beyond which no clock can be."""
RESET = 0.5
"""A run's own clock below this share of what it was has been reset; else another rank's is a little behind."""


class Continuous:
    """Readings of one clock, as seconds that never fall but where the run's own clock is reset."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: float | None = None
        self._shift = 0.0
        self._usual: deque[float] = deque(maxlen=9)
        """Seconds between the last records."""
        self.step = 0
        """Steps made at the last reading."""
        self.was_reset = False
        """The run's own clock began anew with the last reading."""

    def read(self, value: float, step: int) -> float:
        """Seconds on the clock at a record: a wall clock's since any moment, others' since the run began.

        Args:
            value: what the record says, in seconds; for `step_seconds` those of one step.
            step: steps made at the record.
        """
        last = self._last if self._last is not None else 0.0
        if self._clock == "step_seconds":
            value = last + value * max(step - self.step, 1)
        value += self._shift
        self.was_reset = self._clock == "elapsed" and value < RESET * last
        if self._last is not None and not self.was_reset:
            shift = self._was_set(value - last)
            self._shift += shift
            value = max(value + shift, last)
            if step > self.step:
                self._usual.append(value - last)
        self._last, self.step = value, step
        return value

    def _was_set(self, passed: float) -> float:
        """Seconds to add to all readings from now on, as this one is `passed` seconds after the last.

        A clock that was set goes on at the usual distance, unless a change by whole hours explains it. One that leaps
        by more than a year had not been set before.
        """
        usual = median(self._usual) if self._usual else 0.0
        if self._clock == "time_of_day" and passed < -DAY / 2:
            return DAY
        if self._clock not in WALL or -CORRECTED <= passed <= YEAR:
            return 0.0
        hours = passed + HOUR * math.ceil(-passed / HOUR)
        return (hours if passed < 0 and hours <= USUAL * usual else usual) - passed


def held_by(first: Sequence[tuple[float, int, object]]) -> float:
    """Steps made before a run's own clock was started, from its first records (seconds, steps made, anything).

    0 where the clock holds about all of them at the pace seen since; the log of a resumed run begins with many steps
    and a clock that is near 0.
    """
    (begin, made, _), (end, reached, _) = first[0], first[-1]
    if end <= begin or reached <= made:
        return 0.0
    held = begin * (reached - made) / (end - begin)
    return 0.0 if held >= made / 2 else made - held
