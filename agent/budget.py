"""The node's own limits on a page: one series once, and no more series than agreed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from agent.base.exposition import Families, Family
from agent.base.log import OnChange
from agent.worker import Result


class Budget:
    """Joins the collectors' results to one page's blocks; counts what it leaves out, once a result.

    Over the budget whole families go, the largest first: it is the one that exploded, and half a
    family would read as a wrong one.
    """

    def __init__(self, series: int) -> None:
        self.series = series
        self.dropped: Counter[tuple[str, str]] = Counter()
        """Samples left out so far, by collector and reason."""
        self._seen: dict[str, Result] = {}
        self._report = OnChange(logging.getLogger("gpuvigil.runner"))

    def apply(self, results: Mapping[str, Result], *, reserved: int = 0) -> dict[str, Families]:
        """Families by collector that may stand on the page beside `reserved` other series."""
        blocks: dict[str, dict[str, Family]] = {name: dict(result.families) for name, result in results.items()}
        fresh = {name for name, result in results.items() if self._seen.get(name) is not result}
        self._seen = dict(results)
        self._drop_duplicates(blocks, fresh)
        self._drop_largest(blocks, fresh, self.series - reserved)
        return dict(blocks)

    def _drop_duplicates(self, blocks: dict[str, dict[str, Family]], fresh: set[str]) -> None:
        owner: dict[str, str] = {}
        for name, families in blocks.items():
            for stem, family in families.items():
                first = owner.setdefault(stem, name)
                if first == name:
                    continue
                twice = family.lines.keys() & blocks[first][stem].lines.keys()
                if twice:
                    lines = {start: value for start, value in family.lines.items() if start not in twice}
                    families[stem] = Family(family.metric, lines)
                    self.dropped[name, "duplicate"] += len(twice) if name in fresh else 0

    def _drop_largest(self, blocks: dict[str, dict[str, Family]], fresh: set[str], room: int) -> None:
        total = sum(len(family.lines) for families in blocks.values() for family in families.values())
        if total <= room:
            self._report.good("all series fit the budget again")
            return
        sizes = sorted(
            ((len(f.lines), name, stem) for name, families in blocks.items() for stem, f in families.items()),
            reverse=True,
        )
        gone: list[str] = []
        for size, name, stem in sizes:
            if total <= room:
                break
            del blocks[name][stem]
            total -= size
            gone.append(stem)
            self.dropped[name, "node_budget"] += size if name in fresh else 0
        self._report.bad(f"over the budget of {self.series} series (series_budget): left out {', '.join(gone)}")
