"""What is known of one run of a job, from its records. No I/O."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any, Final

from agent.base.trainlog import Progress

LATEST: Final = (
    "grad_norm", "learning_rate", "validation_loss", "epoch", "step_seconds", "tokens_per_second",
    "tokens_per_second_gpu", "flops_gpu", "mfu", "communication_ratio", "consumed_tokens", "consumed_samples",
    "batch_size", "sequence_length",
)  # fmt: skip
"""Fields of which the last given value stands."""
_KEPT: Final = (
    "step", "first_step", "total", "started", "last_time", "loss", "values", "restarts", "nonfinite", "ended",
    "clocked",
)  # fmt: skip
SILENCE: Final = 1800.0
"""Seconds without a step after which a run counts as ended, unless ten of its usual intervals are longer."""
_COPY_SECONDS: Final = 60.0
STEP_LIMIT: Final = 1 << 62
"""No run has as many steps: what a log says beyond is damage."""
RANKS: Final = 4096
"""Ranks of which a pace is kept."""
FRESH: Final = 120.0
"""Seconds for which a pace is a pace of now, unless ten of its usual intervals are longer."""


@dataclass(slots=True)
class Run:
    """State of a run. Times are Unix seconds.

    A run is over when its log says so, when all planned steps are made, or after a silence of ten usual
    intervals between records, at least `silence` seconds: a hung job is running (and stalled) until then.
    """

    silence: float = SILENCE
    planned_steps: int | None = None
    """From configuration; else the log's own total counts."""
    step: int | None = None
    first_step: int | None = None
    total: int | None = None
    started: float | None = None
    last_time: float | None = None
    loss: float | None = None
    """The last loss; None when it was not finite."""
    values: dict[str, float] = field(default_factory=dict)
    ranks: dict[int, float] = field(default_factory=dict)
    """Seconds per step by rank, where ranks log apart."""
    restarts: int = 0
    nonfinite: int = 0
    ended: bool = False
    clocked: float = 0.0
    """Seconds since the first record by the run's own clock, resets bridged."""
    _elapsed: float | None = None
    _dated: tuple[int, float] | None = None
    """The last step of which the time is known, and that time."""
    _undated: bool = False
    _logs_pace: bool = False
    _gap: int = 0
    """Fewest steps between two records: more where a part of the log was passed over."""
    _shadow: int | None = None
    """A step before the last one that was not said to be a restart."""
    _shadow_since: tuple[int, float] | None = None
    _new_file: bool = False
    _rank: int | None = None
    """The rank whose steps are the run's, where ranks log apart: the least."""
    _foreign: int = 0
    """Records of other ranks since its last one."""
    _restarting: bool = False
    """Another rank was the first to tell of a restart."""
    _rank_seen: dict[int, tuple[int, float]] = field(default_factory=dict)
    _intervals: deque[float] = field(default_factory=lambda: deque(maxlen=64))

    @property
    def steps_planned(self) -> int | None:
        return self.planned_steps if self.planned_steps is not None else self.total

    @property
    def interval(self) -> float | None:
        """Usual seconds between two records: the median of the last 64."""
        return median(self._intervals) if len(self._intervals) >= 3 else None

    def running(self, now: float) -> bool:
        return not self.ended and self.last_time is not None and self._age(now) <= self._patience(self.silence)

    def on_pace(self, now: float) -> bool:
        """Whether the last pace is one of now: the run is neither over nor silent."""
        return self.running(now) and self._age(now) <= self._patience(FRESH)

    def _age(self, now: float) -> float:
        return now - self.last_time if self.last_time is not None else float("inf")

    def _patience(self, least: float) -> float:
        """Ten intervals; until there are enough to know it, as the pace and the steps between two records tell it."""
        usual = self.interval
        if usual is None:
            seconds = self.values.get("step_seconds", 0.0)
            usual = self._gap * seconds if math.isfinite(seconds) else 0.0
        return max(least, 10 * usual)

    def new_file(self) -> None:
        """The next records come from another file, or from a re-used one."""
        self._new_file = self.step is not None
        self._elapsed = self._rank = None

    def take(self, record: Progress, at: float | None) -> None:
        """Take in a record. `at` is when it was written, None if that is not known (an old log without clocks)."""
        self._take_rank(record, at)
        self.nonfinite += max(record.nonfinite, record.loss is not None and not record.loss_is_finite)
        if self._rank is not None and record.rank is not None and record.rank != self._rank:
            self._restarting = self._restarting or record.restart
            return
        if record.step is not None:
            if 0 <= record.step < STEP_LIMIT:
                self._take_step(record, record.step, at)
        elif record.total_steps is not None:
            self._take_total(record.total_steps)
        for name in record.damaged:  # what was known before the damage no longer stands
            self.values.pop(name, None)
        if record.loss is not None or "loss" in record.damaged:
            self.loss = record.loss if record.loss_is_finite else None
        for name in LATEST:
            if (value := getattr(record, name)) is not None:
                self.values[name] = value
        if record.ended:
            self.ended = True

    def _take_step(self, record: Progress, step: int, at: float | None) -> None:
        back = self.step is not None and step < self.step
        restart, self._restarting = record.restart or self._restarting, False
        if back and not restart and not self._new_file:
            self._shadow = step
            return
        if back and step <= (self.first_step or 0) and (self._new_file or self.ended):
            self._forget()  # from the first step on, in a new file or after the end: another run, not a restart
        elif self.step is not None and (restart or back):
            self.restarts += 1
            self._dated = None
            self._elapsed = None
        self._new_file = False
        self._shadow = self._shadow_since = None
        if self.first_step is None:
            self.first_step, self.started = step, at
        self._logs_pace = self._logs_pace or record.step_seconds is not None
        self._tick(record.elapsed)
        if self.step != step:
            if self.step is not None and step > self.step:
                self._gap = min(self._gap or step, step - self.step)
            self.step = step
            self._undated = at is None
            if at is not None:
                self._date(at)
        self.ended = False
        self._take_total(record.total_steps)

    def _take_total(self, total: int | None) -> None:
        if total is not None and 0 <= total < STEP_LIMIT:
            self.total = total or None
        planned = self.steps_planned
        self.ended = self.ended or (planned is not None and self.step is not None and self.step >= planned > 0)

    def _forget(self) -> None:
        """Another run of the same job: counters go on, facts do not."""
        fresh = Run(self.silence, self.planned_steps)
        for one in fields(Run):
            if one.name not in ("restarts", "nonfinite"):
                setattr(self, one.name, getattr(fresh, one.name))

    def _tick(self, elapsed: float | None) -> None:
        if elapsed is None:
            return
        if self._elapsed is not None:
            self.clocked += elapsed - self._elapsed if elapsed >= self._elapsed else elapsed
        self._elapsed = elapsed

    def _date(self, at: float) -> None:
        """The last step was reported at `at`: gives the interval, and the pace where the log has none."""
        assert self.step is not None
        if self._dated is not None and self.step > self._dated[0] and at > self._dated[1]:
            gone = at - self._dated[1]
            self._intervals.append(gone)
            if not self._logs_pace:
                self.values["step_seconds"] = gone / (self.step - self._dated[0])
        self._dated = (self.step, at)
        self.last_time = at
        self._undated = False

    def _take_rank(self, record: Progress, at: float | None) -> None:
        if record.rank is None or record.step is None:
            return
        if record.rank not in self._rank_seen and len(self._rank_seen) >= RANKS:
            return
        self._foreign = self._foreign + 1 if self._rank is not None and record.rank > self._rank else 0
        gone = self._foreign > 3 * len(self._rank_seen) + 8  # started anew with other ranks, of which another one logs
        self._rank = record.rank if self._rank is None or gone else min(self._rank, record.rank)
        seconds = record.step_seconds
        if seconds is None and at is not None and (seen := self._rank_seen.get(record.rank)):
            step, before = seen
            seconds = (at - before) / (record.step - step) if record.step > step and at > before else None
        if at is not None:
            self._rank_seen[record.rank] = (record.step, at)
        if seconds is not None:
            self.ranks[record.rank] = seconds
        elif "step_seconds" in record.damaged:
            self.ranks.pop(record.rank, None)

    def settle(self, at: float) -> None:
        """All that was written until `at` has been read: date what had no clock of its own."""
        if self._undated:
            self._date(at)
        self._follow_shadow(at)
        if self.started is None and self.last_time is not None and self.clocked > 0:
            self.started = self.last_time - self.clocked

    def _follow_shadow(self, at: float) -> None:
        """Steps again after the end: another rank's copy if they come at once, another run if they take their time."""
        if self._shadow is None or not self.ended:
            return
        if self._shadow_since is None:
            self._shadow_since = (self._shadow, at)
            return
        first, since = self._shadow_since
        if self._shadow > first and at - since > _COPY_SECONDS:
            step = self._shadow
            self._forget()
            self.first_step, self.started = first, since
            self.step, self._undated = step, True
            self._date(at)

    def state(self) -> dict[str, Any]:
        """What outlives a restart of the agent."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return kept | {"values": dict(self.values), "intervals": list(self._intervals)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back a `state`.

        Raises:
            KeyError, TypeError, ValueError: not a state.
        """
        for name in _KEPT:
            setattr(self, name, state[name])
        self._intervals.extend(map(float, state.get("intervals", ())))
