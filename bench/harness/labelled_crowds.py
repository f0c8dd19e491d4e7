"""Labelled series scored in crowds: those of one step share a grid, which costs a fiftieth of scoring each alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array
from alerts.detect.labelled import read_directory
from alerts.detect.quality import Quality, judge
from alerts.detect.sample_anomalies import every
from alerts.detect.stream import typical_step

WEEK = 7 * 86400.0
LONG = 3.0
"""Series this many times longer than the shortest of a crowd are in another one."""


@dataclass(frozen=True, slots=True)
class One:
    """A labelled series: the kind that it is of, Unix times in order, values and labels (R,)."""

    kind: str
    times: Array
    values: Array
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Series of one step on one grid (T, N), moved by whole weeks, which no model sees; NaN where one has no row."""

    times: Array
    values: Array
    rows: tuple[npt.NDArray[np.int64], ...]
    members: tuple[One, ...]

    def judged(self, scores: Array) -> list[Quality]:
        """Quality of the scores (T, N) of each member."""
        return [
            judge(one.times, scores[rows, column], one.labels)
            for column, (one, rows) in enumerate(zip(self.members, self.rows, strict=True))
        ]


def made_up(seeds: range) -> list[One]:
    """Every made-up shape on every grid, once a seed."""
    return [One(one.shape, one.times, one.values, one.labels) for one in every(seeds)]


def labelled(folder: Path) -> list[One]:
    """The labelled series of a directory; the folder that a file is in is its kind."""
    found = []
    for file in read_directory(folder):
        if file.labels is not None and len(file.times):
            order = np.argsort(file.times, kind="stable")
            kind = file.path.parent.name or "here"
            found.append(One(kind, file.times[order], file.values[order], file.labels[order]))
    return found


def crowds(series: list[One]) -> list[Crowd]:
    """The series by step and, roughly, length."""
    bins: dict[float, list[list[One]]] = defaultdict(list)
    for one in sorted(series, key=lambda one: len(one.times)):
        same = bins[typical_step(one.times)]
        if not same or len(one.times) > LONG * len(same[-1][0].times):
            same.append([])
        same[-1].append(one)
    return [_crowd(step, members) for step, same in bins.items() for members in same]


def _crowd(step: float, members: list[One]) -> Crowd:
    places = [np.round((one.times - one.times[0] // WEEK * WEEK) / step).astype(np.int64) for one in members]
    first, last = min(place[0] for place in places), max(place[-1] for place in places)
    values = np.full((last - first + 1, len(members)), np.nan)
    rows = tuple(place - first for place in places)
    for column, (one, place) in enumerate(zip(members, rows, strict=True)):
        values[place, column] = one.values
    return Crowd(2600 * WEEK + step * np.arange(first, last + 1), values, rows, tuple(members))
