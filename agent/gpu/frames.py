"""Frames of the child as tables of the page: the same series in the same order until the next description."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence

from agent.base.catalogue import Layout, Metric, Table
from agent.gpu.accumulate import Accumulator

Row = tuple[int, Metric, tuple[str, ...], str]
"""Place in a frame, metric, label values, and the key of the counter that adds up its steps ("" for none)."""


class Frames:
    """What the slots of the frames of one generation become.

    Args:
        rows: see `Row`.
    """

    def __init__(self, generation: int, rows: Iterable[Row]) -> None:
        rows = list(rows)
        self.generation = generation
        self._layout = Layout((metric, labels) for _, metric, labels, _ in rows)
        self._slots = [slot for slot, *_ in rows]
        self._counters = [(place, key) for place, (*_, key) in enumerate(rows) if key]
        self._read: list[float] = []
        self._shown: Sequence[float] = ()

    def table(self, frame: Sequence[float], counters: Accumulator) -> Table:
        """The values of a frame, its counters added up."""
        read = [frame[slot] for slot in self._slots]
        shown = array("d", read)
        before, totals = self._read or [math.nan] * len(read), self._shown
        for place, key in self._counters:
            value = read[place]
            if value == before[place]:  # most errors are never counted again
                shown[place] = totals[place]
            elif value == value:
                shown[place] = counters.add(key, value)
        self._read, self._shown = read, shown
        return Table(self._layout, shown)
