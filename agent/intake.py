"""The customs between a collector and the page: what is declared, valid, single and within budget passes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from struct import Struct
from typing import NamedTuple

from agent.base.catalogue import CATALOGUE, Layout, Metric, Sample, Table
from agent.base.errors import CatalogueError
from agent.base.exposition import Family, prefix

_LONGEST_LABEL = 1024
_PARTS = {"histogram": ("bucket", "count", "sum")}

_Key = tuple[tuple[str, ...], str]


class _Column(NamedTuple):
    """One metric's part of a table: whose values `take` picks and `pack` turns to bytes."""

    metric: Metric
    starts: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    take: Callable[[Sequence[float]], tuple[float, ...]]
    pack: Callable[..., bytes]
    good: bool
    """No flaw in any of its series, and no more of them than may be."""


class Intake:
    """Checks the samples of one collector and turns them into families of lines.

    Used by one thread. Line prefixes are kept from run to run, so that a known series costs a
    dictionary look-up. With `strict` (tests) a sample that would be dropped is an error instead.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.dropped: Counter[str] = Counter()
        """Samples dropped so far, by reason."""
        self._strict = strict
        self._prefixes: dict[str, dict[_Key, str]] = {}
        self._admitted: dict[str, set[tuple[str, ...]]] = {}
        self._open: dict[str, tuple[Metric, dict[str, float]]] = {}
        """Families that are filled sample by sample."""
        self._whole: dict[str, Family] = {}
        """Families that a table gave at once."""
        self._columns: tuple[Layout | None, list[_Column]] = (None, [])
        self._last: dict[str, Family] = {}

    def begin(self) -> None:
        """Start a run with empty hands."""
        self._open, self._whole = {}, {}
        self._admitted = {}

    def take(self, samples: Iterable[Sample | Table]) -> None:
        """Take whatever a collector yields.

        Raises:
            CatalogueError: under `strict`, instead of a drop.
        """
        for each in samples:
            if type(each) is Table:
                self._add_table(each)
            else:
                self.add(each)  # type: ignore[arg-type]

    def add(self, sample: Sample) -> None:
        """Take one sample, or drop and count it.

        Raises:
            CatalogueError: under `strict`, instead of a drop.
        """
        metric, labels, value, part = sample
        stem = metric.stem
        family = self._open.get(stem)
        if family is None:
            if CATALOGUE.get(stem) is not metric:
                return self._drop("undeclared", sample)
            whole = self._whole.pop(stem, None)
            family = self._open[stem] = (metric, {} if whole is None else whole.lines)
        lines = family[1]
        known = self._prefixes.setdefault(stem, {})
        key = (labels, part)
        start = known.get(key)
        if start is None:
            if reason := _flaw(metric, labels, part):
                return self._drop(reason, sample)
            start = known[key] = prefix(metric, labels, part)
        if type(value) is not float:
            try:
                value = float(value)
            except (TypeError, ValueError, OverflowError):
                return self._drop("invalid", sample)
        if value < 0 and metric.kind != "gauge":
            return self._drop("negative", sample)
        if math.isnan(value):
            return self._drop("nan", sample)
        if start in lines:
            return self._drop("duplicate", sample)
        if not self._within_budget(metric, lines, labels, part):
            return self._drop("family_budget", sample)
        lines[start] = value
        return None

    def _add_table(self, table: Table) -> None:
        """Take the families of a table whole; one that is not as it should be goes sample by sample."""
        layout, columns = self._columns
        if table.layout is not layout:
            columns = list(_columns(table.layout))
            self._columns = (table.layout, columns)
        for column in columns:
            metric, values, starts = column.metric, column.take(table.values), column.starts
            stem = metric.stem
            doubtful = not column.good or stem in self._open or stem in self._whole
            if doubtful or (metric.kind != "gauge" and any(value < 0 for value in values)):
                for labels, value in zip(column.labels, values, strict=True):
                    if value == value:
                        self.add(Sample(metric, labels, value))
                continue
            if math.isnan(sum(values)):  # infinities of both signs, too; they pass
                kept = {start: value for start, value in zip(starts, values, strict=True) if value == value}
                self._whole[stem] = Family.of(metric, kept, self._last.get(stem))
            else:
                self._whole[stem] = Family(metric, starts, column.pack(*values))

    def end(self) -> dict[str, Family]:
        """The families of this run; forgets prefixes of series that are no more."""
        last = self._last
        families = {stem: family for stem, family in self._whole.items() if family.starts}
        for stem, (metric, lines) in self._open.items():
            if lines:
                families[stem] = Family.of(metric, lines, last.get(stem))
        if families == last:  # the same object says that nothing has changed
            families = last
        self._last = families
        live = sum(len(lines) for _, lines in self._open.values())
        if sum(map(len, self._prefixes.values())) > 2 * live + 256:
            self._prefixes = {}
        return families

    def _within_budget(self, metric: Metric, lines: dict[str, float], labels: tuple[str, ...], part: str) -> bool:
        if metric.kind != "histogram":
            return len(lines) < metric.budget
        # a histogram is admitted or refused whole: half of one reads as a wrong one
        owner = labels[:-1] if part == "bucket" else labels
        admitted = self._admitted.setdefault(metric.stem, set())
        if owner not in admitted:
            if len(lines) >= metric.budget:
                return False
            admitted.add(owner)
        return True

    def _drop(self, reason: str, sample: Sample) -> None:
        if self._strict:
            raise CatalogueError(f"{sample.metric.name}{sample.labels!r} {sample.part} {sample.value!r}: {reason}")
        self.dropped[reason] += 1


def _columns(layout: Layout) -> Iterable[_Column]:
    """A layout by metric."""
    slots: dict[Metric, list[int]] = {}
    for slot, (metric, _) in enumerate(layout.series):
        slots.setdefault(metric, []).append(slot)
    for metric, own in slots.items():
        labels = tuple(layout.series[slot][1] for slot in own)
        good = (
            CATALOGUE.get(metric.stem) is metric
            and not any(_flaw(metric, each, "") for each in labels)
            and len(own) <= metric.budget
        )
        starts = tuple(prefix(metric, each) for each in labels) if good else ()
        pack = Struct(f"{len(own)}d").pack
        good = good and len(set(starts)) == len(starts)
        yield _Column(metric, starts, labels, _picker(own), pack, good)


def _picker(slots: list[int]) -> Callable[[Sequence[float]], tuple[float, ...]]:
    if len(slots) > 1:
        return itemgetter(*slots)
    (only,) = slots
    return lambda values: (values[only],)


def _flaw(metric: Metric, labels: tuple[str, ...], part: str) -> str:
    """Why a series may not stand on the page, in a word; empty if it may."""
    if part not in _PARTS.get(metric.kind, ("",)):
        return "undeclared"
    if len(labels) != len(metric.labels) + (part == "bucket"):
        return "undeclared"
    if not all(isinstance(value, str) for value in labels):
        return "invalid"
    if any(len(value) > _LONGEST_LABEL for value in labels):
        return "label_too_long"
    if part == "bucket":
        try:
            if math.isnan(float(labels[-1])):
                return "invalid"
        except ValueError:
            return "invalid"
    return ""


def gather(samples: Iterable[Sample], intake: Intake | None = None) -> dict[str, Family]:
    """Families of samples that are known to be good (the agent's own); any flaw is an error.

    Give the same strict `intake` again and again to keep its prefixes.
    """
    intake = intake or Intake(strict=True)
    intake.begin()
    for sample in samples:
        intake.add(sample)
    return intake.end()
