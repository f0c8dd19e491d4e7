"""Families that their sources tell again only when something has changed: what the agent says of itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agent.base.catalogue import Metric, Sample
from agent.base.exposition import Families, Family, prefix


class Kept:
    """Samples by source. Used by one thread."""

    def __init__(self) -> None:
        self.size = 0
        """Series."""
        self._starts: dict[tuple[Metric, tuple[str, ...]], str] = {}
        self._lines: dict[Metric, dict[str, float]] = {}
        self._told: dict[str, dict[str, Metric]] = {}
        self._families: dict[str, Family] = {}
        self._changed: set[Metric] = set()

    def tell(self, source: str, samples: Iterable[Sample]) -> None:
        """All that a source has to say now, in place of what it said last."""
        before = self._told.get(source, {})
        told: dict[str, Metric] = {}
        for metric, labels, value, _ in samples:
            start = self._starts.get((metric, labels))
            if start is None:
                start = self._starts[metric, labels] = prefix(metric, labels)
            told[start] = metric
            lines = self._lines.setdefault(metric, {})
            if lines.get(start) != value:
                lines[start] = float(value)
                self._changed.add(metric)
        for start in before.keys() - told.keys():
            del self._lines[before[start]][start]
            self._changed.add(before[start])
        self.size += len(told) - len(before)
        self._told[source] = told

    def keep(self, sources: Collection[str]) -> None:
        """Forget what all others said."""
        for source in self._told.keys() - sources:
            self.tell(source, ())
            del self._told[source]

    def families(self) -> Families:
        """What is told now; a family that did not change is the same object as the last time."""
        if self._changed:
            self._families = dict(self._families)
            for metric in self._changed:
                self._families[metric.stem] = Family.of(metric, self._lines[metric], self._families.get(metric.stem))
                if not self._lines[metric]:
                    del self._families[metric.stem]
            self._changed = set()
        return self._families
