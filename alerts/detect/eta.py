"""When a training job will end, from its progress records alone.

Work is steps, or steps weighted by a known schedule. The pace is the mean time per unit of work over the recent
records, where one beyond 1.5 medians counts as the median, so that a checkpoint or an evaluation does not move it,
and is drawn to the trend of the whole run as far as the two may be the same. What that leaves out is added: where it
comes at a regular distance as often as it is due, else on average. Both are in `alerts.detect.pace`. Time lost to
restarts and pauses counts in the finish, which is wall time, but not in the pace.

The interval has three parts: what no record can tell yet (more upwards, for runs get dearer far more often than
cheaper), the noise of the pace, and what forecasts made earlier in this very run have missed by. A change of the cost
of steps that nobody announced cannot be seen before it comes; after the first the interval allows for another.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from statistics import NormalDist

import numpy as np

from alerts.detect.bands import Array
from alerts.detect.pace import Block, Interruptions, after_last_change, drift, steady, trend

SETTLED = 8
SETTLED_SHARE = 0.09
"""Records before anything is estimated, or share of the work if the records are further apart."""
RECENT = 12
FEW = 3
RECENT_SHARE = 0.02
"""The pace is that of the last `RECENT` records, or of this share of the work if that is more."""
BLOCK = 12
BLOCK_SHARE = 0.005
"""Records of a block, or its share of the work if that is more."""
FINEST = (1 / 4000, 1 / 64)
"""Records that lie closer than this share of the work, and of what is made of it, count as one."""
WARM_UP = 0.02
"""Share of the work that the slope leaves out at the beginning."""
UNUSUAL = 0.05
"""Share of the work at the beginning whose interruptions are not expected to come again."""
ONCE = 0.02
"""Share of the run that an interruption may cost and be expected again before it has come again."""
PAUSE = 10.0
PAUSE_SECONDS = 1800.0
"""A gap beyond both this and `PAUSE` expected intervals is a pause."""
DEARER = 0.08
CHEAPER = 0.01
"""What a run that has shown nothing yet may cost more, or less, than it seems, at the ends of the interval."""
LEAST = 0.01
"""The same of what is left of a run that has almost ended."""
END = 1.0
"""Steps by which the end of a run is uncertain whatever the pace."""
LOOK_BACK = (0.5, 0.75, 0.875)
"""Shares of the work done whose forecasts are held against what has come since."""
COARSE = (2.0, 8.0)
COARSE_SHARE = 0.03
"""Least seconds, and share of the run, between records that count where the clock shows whole seconds only."""
ANNOUNCED = 0.25
"""Announced changes of the cost hold to about this share of the change: tokens of a step overrate it."""
INTERVAL = 0.8
_Z = NormalDist().inv_cdf(0.5 + INTERVAL / 2)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Relative cost of a step from given steps on: (0, 1.0), (720, 1.8) means 1.8 times as long from step 720."""

    points: tuple[tuple[float, float], ...] = ((0.0, 1.0),)

    def work(self, step: float) -> float:
        """Work of all steps before `step`."""
        if len(self.points) == 1:  # what most runs have, and it is asked for often
            begin, cost = self.points[0]
            return cost * max(step - begin, 0.0)
        done = 0.0
        for (begin, cost), (end, _) in zip(self.points, (*self.points[1:], (float("inf"), 0.0)), strict=True):
            done += cost * max(min(step, end) - begin, 0.0)
        return done

    def cost(self, step: float) -> float:
        """Cost of the step after `step`."""
        return next((cost for begin, cost in reversed(self.points) if begin <= step), self.points[0][1])

    def changes(self, step: float, total: float) -> float:
        """Work from `step` to `total` that is there, or not there, because costs change on the way."""
        now, changed = self.cost(step), 0.0
        for (begin, cost), (end, _) in zip(self.points, (*self.points[1:], (float("inf"), 0.0)), strict=True):
            changed += abs(cost - now) * max(min(total, end) - max(step, begin), 0.0)
        return changed


@dataclass(frozen=True, slots=True)
class Eta:
    """What is expected of a run; times in seconds since its start.

    Attributes:
        total: expected duration, with an 80 % interval `low` to `high`.
        pace: seconds per unit of work now; `stall`: what interruptions add to it on average.
        stalled: no record for longer than a pause.
    """

    total: float
    low: float
    high: float
    pace: float
    stall: float
    stalled: bool


@dataclass(frozen=True, slots=True)
class _Outlook:
    """What the records so far say of those to come; it holds until the next one that counts.

    Attributes:
        whole: the work it was made for; `usual`: work between records.
        pace, error: seconds per unit of work now and their standard error; `cost`: mean until the end.
        low, high: shares by which earlier forecasts were too low, and too high.
    """

    whole: float
    usual: float
    pace: float
    error: float
    cost: float
    low: float
    high: float


@dataclass(slots=True)
class Track:
    """The records of one run, condensed; feed it in order and ask any time.

    Args:
        total: steps that the run will make.
        schedule: known costs of steps.
    """

    total: float
    schedule: Schedule = field(default_factory=Schedule)
    records: int = 0
    restarts: int = 0
    phases: int = 0
    """How often the run announced another cost of its steps."""
    phase_records: int = 0
    """Records since it last did."""
    _start: float | None = None
    _time: float = 0.0
    """When the last step was reported."""
    _clock: float = 0.0
    """When anything was."""
    _step: float = 0.0
    """The last step that counted: where the present interval begins."""
    _reached: float = 0.0
    """The last step reported."""
    _whole_seconds: bool = True
    _phase: object = None
    _recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=4096))
    _open: list[tuple[float, float, float]] = field(default_factory=list)
    _blocks: list[Block] = field(default_factory=list)
    _first: int = 0
    """Block with which the present phase begins."""
    _gained: float = 0.0
    _spent: float = 0.0
    """Work made, and the seconds it took without pauses and what restarts lost."""
    _interruptions: Interruptions = field(default_factory=Interruptions)
    _fresh: int = 0
    """Records since the cost of steps last changed, announced by the run or by the schedule."""
    _outlook: _Outlook | None = None

    def begin(self, time: float, step: float = 0.0) -> None:
        """The run's clock starts at `time`, with `step` steps made; without this it starts at the first record."""
        if self._start is None:
            self._start = self._time = self._clock = time
            self._step = self._reached = step

    def add(self, time: float, step: float, phase: object = None) -> None:
        """A record: `step` steps were made at `time`, in seconds on any clock that does not go back.

        `phase` is what the run announces about the cost of its steps (batch size, sequence length); when it
        changes, the past says nothing about the pace to come.
        """
        self._whole_seconds = self._whole_seconds and time == int(time)
        if self._start is None:
            self._start = self._time = self._clock = time
            self._step, self._reached, self._phase = step, step, phase
            return
        made = self.schedule.work(step) - self.schedule.work(self._reached)
        gained = self.schedule.work(step) - self.schedule.work(self._step)
        spent = time - self._time
        self._reached = step
        if made < 0:
            self.restarts += 1
        if phase != self._phase and phase is not None and self._phase is not None:
            self._new_phase()
            self.phases += 1
            self.phase_records = 0
        elif made > 0 and (0 <= spent < self._least() or 0 < gained < self._finest()):
            self._clock = max(time, self._clock)
            return  # the interval goes on
        elif made > 0 and gained > 0 and spent >= 0 and not self._is_pause(spent, gained):
            self._take(spent / gained, gained)
            if self.schedule.cost(step) != self.schedule.cost(self._step):
                self._new_phase()
        if phase is not None:
            self._phase = phase
        self._clock = max(time, self._clock)
        if made != 0:  # a second record of one step (an evaluation) belongs to the interval that it lies in
            self._time, self._step = self._clock, step

    @property
    def started(self) -> float | None:
        """When the run began, on the records' clock."""
        return self._start

    @property
    def elapsed(self) -> float:
        """Seconds since the start, at the last record."""
        return self._clock - (self._start or 0.0)

    @property
    def done(self) -> float:
        """Share of the work done."""
        whole = self.schedule.work(self.total)
        return self.schedule.work(self._reached) / whole if whole > 0 else 1.0

    @property
    def interrupted(self) -> float:
        """Seconds that checkpoints, evaluations and hiccups take of the whole run, as far as it is known now."""
        whole, lost = self.schedule.work(self.total), self._interruptions
        return lost.stall * lost.work + lost.to_come(self.schedule.work(self._reached), whole)

    def estimate(self, now: float | None = None) -> Eta | None:
        """What is expected at `now` (on the records' clock; the last record if None); None before it is settled."""
        whole = self.schedule.work(self.total)
        left = max(whole - self.schedule.work(self._reached), 0.0)
        if left == 0 and self.records:
            return Eta(self.elapsed, self.elapsed, self.elapsed, self._known(whole).pace, 0.0, False)
        if self.records < SETTLED and not (self.records and self.done >= SETTLED_SHARE):
            return None
        known, lost = self._known(whole), self._interruptions
        quiet = max((now if now is not None else self._clock) - self._clock, 0.0)
        interval = (known.pace + lost.stall) * known.usual
        to_come = left * known.cost + lost.to_come(whole - left, whole)
        total = self.elapsed + max(quiet - interval, 0.0) + to_come
        announced = self.schedule.changes(self._reached, self.total)
        sure = (_Z * known.error * left) ** 2 + (ANNOUNCED * known.pace * announced) ** 2
        sure += (_Z * END * known.pace * self.schedule.cost(self._reached)) ** 2
        ahead = left / whole
        fewer, more = lost.uncertain(whole - left, whole)
        up = ((DEARER * ahead**2 + LEAST) ** 2 + known.low**2) * to_come**2 + (_Z * more) ** 2
        down = ((CHEAPER * ahead) ** 2 + known.high**2) * to_come**2 + (_Z * fewer) ** 2 + lost.last(whole) ** 2
        low, high = total - math.sqrt(down + sure), total + math.sqrt(up + sure)
        stalled = quiet > max(PAUSE_SECONDS, PAUSE * interval)
        return Eta(total, min(max(low, self.elapsed + quiet), total), high, known.pace, lost.stall, stalled)

    # --- what the records say -------------------------------------------------------------------------------

    def _known(self, whole: float) -> _Outlook:
        if self._outlook is None or self._outlook.whole != whole:
            pace, error = self._pace(whole)
            cost, (low, high) = self._cost(pace, error, whole), self._missed()
            self._outlook = _Outlook(whole, self._usual_work(), pace, error, cost, low, high)
        return self._outlook

    def _is_pause(self, spent: float, gained: float) -> bool:
        if spent <= PAUSE_SECONDS or not self._recent:
            return False
        usual = float(np.median([each for each, _ in self._recent]))
        return spent > PAUSE * usual * gained

    def _least(self) -> float:
        """Seconds below which an interval says too little; those of a clock that shows fractions all count."""
        if not self._whole_seconds:
            return 0.0
        done = self.done
        return min(max(COARSE_SHARE * self.elapsed / done if done > 0 else 0.0, COARSE[0]), COARSE[1])

    def _finest(self) -> float:
        """Work below which records are counted as one."""
        whole, made = FINEST
        return min(whole * self.schedule.work(self.total), made * self._gained)

    def _take(self, each: float, work: float) -> None:
        self._outlook = None
        self.records += 1
        self.phase_records += 1
        self._fresh += 1
        self._gained += work
        self._spent += each * work
        self._recent.append((each, work))
        self._open.append((each, work, self.schedule.work(self._step)))
        wanted = BLOCK_SHARE * self.schedule.work(self.total)
        if len(self._open) >= BLOCK and sum(part[1] for part in self._open) >= wanted:
            self._close()

    def _new_phase(self) -> None:
        self._outlook = None
        self._close()
        self._first = len(self._blocks)
        self._fresh = 0

    def _close(self) -> None:
        if not self._open:
            return
        each, work, at = (np.array(column) for column in zip(*self._open, strict=True))
        smooth = steady(each)
        whole = float(work.sum())
        end = float(at[-1] + work[-1])
        usual = at >= UNUSUAL * self.schedule.work(self.total)
        excess = (each - smooth) * work
        usual &= bool(self._blocks)  # what the first steps cost (compilation, caches) does not come again
        self._interruptions.leave_out(excess[~usual], work[~usual])
        if usual.any():
            once = ONCE * self._spent / self._gained * self.schedule.work(self.total)
            self._interruptions.add(excess[usual], at[usual], work[usual], once)
        level = float(smooth @ work) / whole
        block = Block(float(at.mean()), end, self._gained, self._spent, level, level)
        block.stall = self._interruptions.stall
        self._blocks.append(block)
        self._open.clear()
        block.trend = trend(*self._present(self.schedule.work(self.total)))
        if block.trend is not None:
            block.level = block.trend.drawn(block.pace, float(smooth.std() / np.sqrt(len(smooth))), block.at)

    def _pace(self, whole: float) -> tuple[float, float]:
        """Seconds per work now, and the standard error of that."""
        wanted, work = RECENT_SHARE * whole, 0.0
        # A new phase is judged by its own records as soon as it has a few.
        fresh = self._fresh if self._fresh >= FEW else len(self._recent)
        taken: list[tuple[float, float]] = []
        window = 0
        for each, gained in islice(reversed(self._recent), fresh):
            taken.append((each, gained))
            window += len(taken) <= RECENT or work < wanted
            work += gained
            if len(taken) >= window + RECENT:
                break
        if not taken:
            return 0.0, 0.0
        each, weight = np.array(taken[::-1]).T
        start = max(after_last_change(each), len(taken) - window)
        each, weight = each[start:], weight[start:]
        smooth = steady(each)
        return float(np.average(smooth, weights=weight)), float(smooth.std() / np.sqrt(len(smooth)))

    def _usual_work(self) -> float:
        return float(np.median([gained for _, gained in islice(reversed(self._recent), SETTLED)]))

    def _present(self, whole: float) -> tuple[Array, Array]:
        """Places and paces of the blocks of this phase, without the warm-up."""
        blocks = [block for block in self._blocks[self._first :] if block.at > WARM_UP * whole]
        return np.array([b.at for b in blocks]), np.array([b.pace for b in blocks])

    def _cost(self, pace: float, error: float, whole: float) -> float:
        """Mean seconds per work from now to the end, without interruptions."""
        now = self.schedule.work(self._reached)
        measured = max(now - RECENT_SHARE * whole / 2, now / 2)
        known = self._blocks[-1].trend if len(self._blocks) > self._first else None
        if known is None:
            return pace
        pace = known.drawn(pace, error, measured)
        return pace * (1.0 + drift(known.slope, pace, measured, now, whole))

    def _missed(self) -> tuple[float, float]:
        """By how much, as a share, forecasts made earlier in this run were too low and too high for what came since."""
        now, known = self.schedule.work(self._reached), self._blocks[self._first :]
        low = high = 0.0
        for share in LOOK_BACK:
            place = bisect_left(known, share * self._gained, key=lambda block: block.gained)
            if not 1 <= place < len(known) - 1:
                continue
            then = known[place]
            change = drift(then.trend.slope, then.level, then.at, then.end, now) if then.trend else 0.0
            foreseen = then.level * (1.0 + change) + then.stall
            missed = (self._spent - then.spent) / (self._gained - then.gained) / foreseen - 1.0
            low, high = max(low, missed), max(high, -missed)
        return low, high
