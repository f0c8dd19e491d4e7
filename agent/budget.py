"""The node's own limits on a page: one series once, and no more series than agreed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from agent.base.exposition import Families, Family
from agent.base.log import OnChange
from agent.worker import Result

_SPARED_MOST = 256
"""Series of a vital family that are spared: the verdicts on sixteen GPUs are some 200."""
_FITS = "all series fit the budget again"


class Budget:
    """Joins the collectors' results to one page's blocks; counts what it leaves out, once a result.

    Over the budget whole families go, the largest first: it is the one that exploded, and half a
    family would read as a wrong one. Those that alerts go by are last, as long as they are no larger
    than what a full node has of them.
    """

    def __init__(self, series: int) -> None:
        self.series = series
        self.dropped: Counter[tuple[str, str]] = Counter()
        """Samples left out so far, by collector and reason."""
        self._results: dict[str, Result] = {}
        self._counted: dict[tuple[str, str, str], Result] = {}
        """For which result a family's samples were counted last, by collector, stem and reason."""
        self._shared = True
        """Some family comes from more than one collector, as far as is known."""
        self._report = OnChange(logging.getLogger("gpuvigil.runner"))

    def apply(self, results: Mapping[str, Result], *, reserved: int = 0) -> dict[str, Families]:
        """Families by collector that may stand on the page beside `reserved` other series."""
        room = self.series - reserved
        before, self._results = self._results, dict(results)
        if before.keys() != results.keys() or any(
            result is not before[name] and result.families.keys() != before[name].families.keys()
            for name, result in results.items()
        ):
            stems = [stem for result in results.values() for stem in result.families]
            self._shared = len(set(stems)) < len(stems)
        if not self._shared and sum(result.series for result in results.values()) <= room:
            self._report.good(_FITS)
            return {name: result.families for name, result in results.items()}
        blocks: dict[str, dict[str, Family]] = {name: dict(result.families) for name, result in results.items()}
        self._drop_duplicates(blocks)
        self._drop_largest(blocks, room)
        return dict(blocks)

    def _count(self, name: str, stem: str, reason: str, samples: int) -> None:
        """Count samples that are left out, once for each result they came with."""
        result = self._results[name]
        if self._counted.get((name, stem, reason)) is not result:
            self._counted[name, stem, reason] = result
            self.dropped[name, reason] += samples

    def _drop_duplicates(self, blocks: dict[str, dict[str, Family]]) -> None:
        owner: dict[str, str] = {}
        for name, families in blocks.items():
            for stem, family in families.items():
                first = owner.setdefault(stem, name)
                if first == name:
                    continue
                twice = family.lines.keys() & blocks[first][stem].lines.keys()
                if twice:
                    lines = {start: value for start, value in family.lines.items() if start not in twice}
                    families[stem] = Family.of(family.metric, lines)
                    self._count(name, stem, "duplicate", len(twice))

    def _drop_largest(self, blocks: dict[str, dict[str, Family]], room: int) -> None:
        total = sum(len(family.starts) for families in blocks.values() for family in families.values())
        if total <= room:
            self._report.good(_FITS)
            return
        sizes = sorted(
            (
                (not (f.metric.vital and len(f.starts) <= _SPARED_MOST), len(f.starts), name, stem)
                for name, families in blocks.items()
                for stem, f in families.items()
            ),
            reverse=True,
        )
        gone: list[str] = []
        for _, size, name, stem in sizes:
            if total <= room:
                break
            del blocks[name][stem]
            total -= size
            gone.append(stem)
            self._count(name, stem, "node_budget", size)
        self._report.bad(f"over the budget of {self.series} series (series_budget): left out {', '.join(gone)}")
