"""The pace of a run from its blocks of records: what is steady, what interrupts, and how it drifts.

Step cost often grows like the logarithm of the step (attention windows and sequences that lengthen), so a slope on
ln(work) is fitted since the pace last changed suddenly, and drawn towards 0 by its own uncertainty.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field

import numpy as np

from alerts.detect.bands import Array

CUT = 1.5
"""Medians beyond which a record holds an interruption."""
ALIKE = 0.6
"""Interruptions of at least this share of the costliest are of one kind."""
SHIFT = 0.08
"""A change of the pace between neighbouring blocks beyond this share starts the slope afresh."""
SHIFT_BLOCKS = 6
DAMPING = 4.0
"""A slope of t standard errors counts by t^2 / (t^2 + DAMPING), and so does what is off the trend with `DRAWING`."""
DRAWING = 1.0
MOST_DRIFT = 0.25
LASTING = 3
BEFORE = 6
APART = 4.0
"""So many records in a row that all lie beyond this many deviations of at least so many before them (and beyond
`SHIFT`) are a new pace."""


@dataclass(slots=True)
class Block:
    """Neighbouring records, and what was known at the last of them.

    Attributes:
        at: mean work done; `end`: work done after the last record; `gained`: work made, repeated work included.
        spent: seconds that took, without pauses.
        pace: steady seconds per unit of work in the block; `level`: the same drawn to the trend.
        trend: how the pace had gone until then; None while there are too few blocks to say.
        stall: what interruptions had added to a unit of work on average, since the first block.
    """

    at: float
    end: float
    gained: float
    spent: float
    pace: float
    level: float
    trend: Trend | None = None
    stall: float = 0.0


@dataclass(frozen=True, slots=True)
class Trend:
    """The pace since its last sudden change: `pace` at ln(work) = `place` on average, and a damped slope.

    `error` is the standard error of `pace`; `sure` the share of the fitted slope that its uncertainty left.
    """

    place: float
    pace: float
    slope: float
    error: float
    sure: float

    def drawn(self, pace: float, error: float, work: float) -> float:
        """A pace seen at `work` with this standard error, drawn to the trend as far as the two may be the same.

        What drifts is not: its newest pace knows more than a line does.
        """
        usual = self.pace + self.slope * (np.log(work) - self.place)
        return float(usual + damped(pace - usual, float(np.hypot(error, self.error)), DRAWING * (1.0 - self.sure)))


@dataclass(frozen=True, slots=True)
class Regular:
    """An interruption of `seconds` at every multiple of `gap` in work, each found to within `width`.

    Attributes:
        times: how often it was seen; what was seen once is taken to come as far apart as it was from the start.
        last: place of the last.
    """

    gap: float
    seconds: float
    width: float
    times: int
    last: float

    def due(self, now: float, whole: float) -> int:
        """How many are still to come."""
        return max(int((whole + self.width) // self.gap) - int((now + self.width) // self.gap), 0)

    def stays_out(self, now: float) -> bool:
        """Whether one was due and did not come."""
        return now > self.last + self.gap + 2.0 * self.width

    def at_the_end(self, whole: float) -> bool:
        """Whether one falls on the last step, where it may or may not be counted."""
        return abs(whole - round(whole / self.gap) * self.gap) <= self.width


@dataclass(slots=True)
class Interruptions:
    """What checkpoints, evaluations and hiccups have cost so far."""

    work: float = 0.0
    """Work in which they came: all that was made since the last one that is not expected again."""
    regular: list[Regular] = field(default_factory=list)
    _end: float = 0.0
    """Work that has been looked at."""
    _lost: list[tuple[float, float]] = field(default_factory=list)
    """Place and seconds of each."""
    _all: float = 0.0
    """Seconds of all."""
    _other: float = 0.0
    """Seconds of those that are not regular, and the squares of all that are not surely regular."""
    _squares: float = 0.0

    def add(self, excess: Array, at: Array, work: Array, once: float) -> None:
        """Take the seconds (n) that records lost, most of them 0; they begin at `at` and hold `work`.

        What costs more than `once` seconds is expected again only when it has come again.
        """
        self.work += float(work.sum())
        self._end = float(at[-1] + work[-1])
        found = np.flatnonzero(excess)
        self._lost += zip(at[found].tolist(), excess[found].tolist(), strict=True)
        if not len(found):
            return
        places, seconds = np.array(self._lost).T
        regular, other = sort_out(places, seconds, 2.0 * float(work.max()))
        self.regular = [each for each in regular if each.times > 1 or each.seconds <= once]
        single = np.array([each.seconds for each in regular if each.times == 1])
        self._all, self._other = float(seconds.sum()), float(other.sum())
        self._squares = float(other @ other) + float(single @ single)

    def leave_out(self, excess: Array, work: Array) -> None:
        """Take records whose interruptions do not come again (n): only what was made after the last one counts."""
        found = np.flatnonzero(excess)
        if len(found):
            self.work = 0.0
        self.work += float(work[found[-1] + 1 if len(found) else 0 :].sum())

    @property
    def stall(self) -> float:
        """Seconds per unit of work, on average."""
        return self._all / self.work if self.work else 0.0

    def to_come(self, now: float, whole: float) -> float:
        """Seconds expected between `now` and the end."""
        due = self._other * self._again(whole - now)
        for each in self.regular:
            if each.stays_out(self._end):
                due += each.times * each.seconds * self._again(whole - now)
            else:
                due += each.seconds * each.due(now, whole)
        return due

    def _again(self, left: float) -> float:
        """How often what has come so far comes in the work left."""
        return left / self.work if self.work else 0.0

    def uncertain(self, now: float, whole: float) -> tuple[float, float]:
        """Seconds by which those that are not regular may take less, or more, than expected: standard deviations.

        They come like a compound Poisson process: how often is known from those seen, and how many will come is chance.
        There cannot be less than none.
        """
        part = self._again(whole - now)
        spread = math.sqrt(self._squares * part * (1.0 + part))
        return min(spread, self.to_come(now, whole)), spread

    def last(self, whole: float) -> float:
        """Seconds of what is due on the very last step."""
        return sum(each.seconds for each in self.regular if each.at_the_end(whole))


def sort_out(places: Array, seconds: Array, width: float) -> tuple[list[Regular], Array]:
    """What comes at every multiple of a distance, the costliest kind first, and the seconds of all the rest."""
    regular: list[Regular] = []
    rest: list[Array] = []
    while len(seconds):
        alike = seconds >= ALIKE * seconds.max()
        found = _regular(places[alike], seconds[alike], width)
        if found is not None:
            regular.append(found)
        else:
            rest.append(seconds[alike])
        places, seconds = places[~alike], seconds[~alike]
    return regular, np.concatenate([*rest, np.zeros(0)])


def _regular(places: Array, seconds: Array, width: float) -> Regular | None:
    """Interruptions of one kind as a regular one, if they are; what was made again after a restart counts once."""
    order = np.argsort(places)
    places, seconds = places[order], seconds[order]
    first = np.diff(places, prepend=-np.inf) > width
    places, seconds = places[first], seconds[first]
    gaps = np.diff(places) if len(places) > 1 else places
    if gaps.min() <= 4 * width or np.ptp(gaps) > width:
        return None
    gap = float(np.median(gaps))
    off = places / gap - np.round(places / gap)
    if np.abs(off).max() * gap > width:
        return None
    return Regular(gap, float(seconds.mean()), width, len(places), float(places[-1]))


def after_last_change(each: Array) -> int:
    """Index in times per work, the oldest first, where a pace begins that all since have kept; 0 if there is none."""
    least, most = (function.accumulate(each[::-1])[::-1].tolist() for function in (np.minimum, np.maximum))
    before: list[float] = []
    for start, one in enumerate(each.tolist()):
        if start > len(each) - LASTING:
            break
        if start >= BEFORE:
            usual, quarter = before[start // 2], start // 4
            apart = max(SHIFT * usual, APART * (before[-1 - quarter] - before[quarter]) / 1.349)
            if least[start] > usual + apart or most[start] < usual - apart:
                return start
        insort(before, one)
    return 0


def steady(each: Array) -> Array:
    """Times per work without what interrupted them: beyond `CUT` medians the median stands instead.

    Of an even number the lower one, for interruptions only lengthen: a first step that compiles is one of two.
    """
    usual = np.sort(each)[(len(each) - 1) // 2]
    return np.asarray(np.where(each > CUT * usual, usual, each))


def drift(slope: float, pace: float, measured: float, begin: float, end: float) -> float:
    """Mean of the pace over the work from `begin` to `end`, relative to that measured at `measured`, minus 1."""
    if not slope or pace <= 0 or begin >= end:
        return 0.0
    mean = (end * np.log(end) - (begin * np.log(begin) if begin > 0 else 0.0)) / (end - begin) - 1.0
    return float(np.clip(slope * (mean - np.log(measured)) / pace, -MOST_DRIFT, MOST_DRIFT))


def damped(value: float, error: float, damping: float) -> float:
    """`value` drawn towards 0 by its own uncertainty."""
    return value * value**2 / (value**2 + damping * error**2) if value else 0.0


def trend(at: Array, paces: Array) -> Trend | None:
    """How the pace of blocks at these places has gone since its last sudden change; None if that is too short."""
    if len(paces) < 2 * SHIFT_BLOCKS:  # a sudden change cannot be told from a drift yet
        return None
    start = after_last_shift(paces)
    at, paces = at[start:], paces[start:]
    if len(paces) < SHIFT_BLOCKS:
        return None
    place, mean = float(np.log(at).mean()), float(paces.mean())
    x = np.log(at) - place
    spread = float(x @ x)
    slope = float(x @ paces) / spread if spread > 0 else 0.0
    rest = paces - mean - slope * x
    # Neighbouring blocks are alike: twice the usual standard errors.
    noise = 2.0 * float(np.sqrt(rest @ rest / max(len(x) - 2, 1)))
    kept = damped(slope, noise / float(np.sqrt(spread)), DAMPING) if slope else 0.0
    return Trend(place, mean, kept, noise / float(np.sqrt(len(x))), kept / slope if slope else 0.0)


def after_last_shift(paces: Array) -> int:
    """Index of the first block after the last sudden change of the pace; `paces` are at least 2 * SHIFT_BLOCKS."""
    level = np.median(np.lib.stride_tricks.sliding_window_view(paces, SHIFT_BLOCKS), axis=1)
    change = np.abs(level[SHIFT_BLOCKS:] / level[:-SHIFT_BLOCKS] - 1.0)
    sudden = np.flatnonzero(change > SHIFT)
    return int(sudden[-1]) + SHIFT_BLOCKS + 1 if len(sudden) else 0
