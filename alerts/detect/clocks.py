"""The clocks of a training log, made to go forwards only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Clock = Literal["time", "time_of_day", "elapsed", "step_seconds"]
CLOCKS: tuple[Clock, ...] = ("time", "time_of_day", "elapsed", "step_seconds")
"""The fields of a record that tell time; the earlier one is preferred."""

WALL: tuple[Clock, ...] = ("time", "time_of_day")
"""Those that were not started with the run."""
HOUR, DAY = 3600.0, 86400.0
CORRECTED = 60.0
"""A wall clock that goes back further was changed by whole hours, as summer time ends; else it was corrected."""
RESET = 0.5
"""A run's own clock below this share of what it was has been reset; else another rank's is a little behind."""


class Continuous:
    """Readings of one clock, as seconds that never fall but where the run's own clock is reset."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: float | None = None
        self._shift = 0.0
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
        if self._last is not None and value < last and not self.was_reset:
            value += (shift := self._forwards(last - value))
            self._shift += shift
            value = max(value, last)
        self._last, self.step = value, step
        return value

    def _forwards(self, back: float) -> float:
        """Seconds to add to all readings from now on, as this one is `back` seconds before the last."""
        if self._clock == "time_of_day" and back > DAY / 2:
            return DAY
        if self._clock in WALL and back > CORRECTED:
            return HOUR * math.ceil(back / HOUR)
        return 0.0


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
