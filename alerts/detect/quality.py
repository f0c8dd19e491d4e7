"""How good are scores? Point-wise and by event, with delay and false alerts a day."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quality:
    """Counts over one or more series; they add up.

    Attributes:
        hits, false, missed: points. A point without a score counts as not flagged.
        events, found: labelled windows, and those with a flagged point inside.
        false_events: runs of flagged points that touch no window.
        delays: seconds from a window's first point to its first flagged one, of the windows found.
        days: length of the series.
    """

    hits: int = 0
    false: int = 0
    missed: int = 0
    events: int = 0
    found: int = 0
    false_events: int = 0
    delays: tuple[float, ...] = ()
    days: float = 0.0

    def __add__(self, other: Quality) -> Quality:
        return Quality(
            self.hits + other.hits,
            self.false + other.false,
            self.missed + other.missed,
            self.events + other.events,
            self.found + other.found,
            self.false_events + other.false_events,
            self.delays + other.delays,
            self.days + other.days,
        )

    @property
    def precision(self) -> float:
        return _ratio(self.hits, self.hits + self.false)

    @property
    def recall(self) -> float:
        return _ratio(self.hits, self.hits + self.missed)

    @property
    def f1(self) -> float:
        return _ratio(2 * self.hits, 2 * self.hits + self.false + self.missed)

    @property
    def event_precision(self) -> float:
        return _ratio(self.found, self.found + self.false_events)

    @property
    def event_recall(self) -> float:
        return _ratio(self.found, self.events)

    @property
    def event_f1(self) -> float:
        return _ratio(2 * self.found, self.found + self.false_events + self.events)

    @property
    def delay(self) -> float | None:
        """Median seconds to the first flagged point of a window."""
        return float(np.median(self.delays)) if self.delays else None

    @property
    def false_per_day(self) -> float:
        return _ratio(self.false_events, self.days)


def judge(times: Array, scores: Array, labels: Labels, threshold: float = 1.0) -> Quality:
    """Quality of the scores (R,) of one series; NaN is no score."""
    order = np.argsort(times, kind="stable")
    times = times[order]
    wanted: npt.NDArray[np.bool_] = np.asarray(labels[order] > 0, dtype=bool)
    with np.errstate(invalid="ignore"):
        flagged: npt.NDArray[np.bool_] = np.asarray(scores[order] > threshold, dtype=bool)
    delays = []
    windows = runs(wanted)
    for begin, end in windows:
        inside = np.flatnonzero(flagged[begin:end])
        if len(inside):
            delays.append(float(times[begin + inside[0]] - times[begin]))
    return Quality(
        int(np.count_nonzero(flagged & wanted)),
        int(np.count_nonzero(flagged & ~wanted)),
        int(np.count_nonzero(~flagged & wanted)),
        len(windows),
        len(delays),
        sum(not wanted[begin:end].any() for begin, end in runs(flagged)),
        tuple(delays),
        float(times[-1] - times[0]) / 86400.0 if len(times) > 1 else 0.0,
    )


def runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Runs of true values as (first, past the last)."""
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def confidence(each: Iterable[Quality], measure: str, seed: int = 1, rounds: int = 400) -> tuple[float, float]:
    """95 % interval of a property of the sum, by drawing whole series with replacement."""
    parts = list(each)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rounds):
        total = Quality()
        for place in rng.integers(0, len(parts), len(parts)):
            total = total + parts[place]
        found.append(getattr(total, measure))
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
