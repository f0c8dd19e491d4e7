"""The customs between a collector and the page: what is declared, valid, single and within budget passes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from agent.base.catalogue import CATALOGUE, Metric, Sample
from agent.base.errors import CatalogueError
from agent.base.exposition import Family, prefix

_LONGEST_LABEL = 1024
_PARTS = {"histogram": ("bucket", "count", "sum")}

_Key = tuple[tuple[str, ...], str]


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
        self.families: dict[str, Family] = {}
        self._last: dict[str, Family] = {}

    def begin(self) -> None:
        """Start a run with empty hands."""
        self.families = {}
        self._admitted = {}

    def add(self, sample: Sample) -> None:
        """Take one sample, or drop and count it.

        Raises:
            CatalogueError: under `strict`, instead of a drop.
        """
        metric, labels, value, part = sample
        stem = metric.stem
        family = self.families.get(stem)
        if family is None:
            if CATALOGUE.get(stem) is not metric:
                return self._drop("undeclared", sample)
            family = self.families[stem] = Family(metric, {})
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
            except (TypeError, ValueError):
                return self._drop("invalid", sample)
        if value < 0 and metric.kind != "gauge":
            return self._drop("negative", sample)
        if math.isnan(value):
            return self._drop("nan", sample)
        if start in family.lines:
            return self._drop("duplicate", sample)
        if not self._within_budget(metric, family, labels, part):
            return self._drop("family_budget", sample)
        family.lines[start] = value
        return None

    def end(self) -> dict[str, Family]:
        """The families of this run; forgets prefixes of series that are no more."""
        last = self._last
        families = {stem: family.settle(last.get(stem)) for stem, family in self.families.items() if family.lines}
        self._last = families
        live = sum(len(family.lines) for family in families.values())
        if sum(map(len, self._prefixes.values())) > 2 * live + 256:
            self._prefixes = {}
        return families

    def _within_budget(self, metric: Metric, family: Family, labels: tuple[str, ...], part: str) -> bool:
        if metric.kind != "histogram":
            return len(family.lines) < metric.budget
        # a histogram is admitted or refused whole: half of one reads as a wrong one
        owner = labels[:-1] if part == "bucket" else labels
        admitted = self._admitted.setdefault(metric.stem, set())
        if owner not in admitted:
            if len(family.lines) >= metric.budget:
                return False
            admitted.add(owner)
        return True

    def _drop(self, reason: str, sample: Sample) -> None:
        if self._strict:
            raise CatalogueError(f"{sample.metric.name}{sample.labels!r} {sample.part} {sample.value!r}: {reason}")
        self.dropped[reason] += 1


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
