"""The points that a query gave, read once and then only as they come, in order, without gaps of our own making."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from alerts.central import masks
from alerts.central.promread import Labels, Reader, ReadError, Series
from alerts.central.ring import Ring
from alerts.central.shard import Shard

REREAD = 2
"""Rows read again each time, for samples that came late."""
BACK = 5.0
"""Seconds that the clock may go back without being named."""


class Query(Protocol):
    """The settings that a history needs; monitors and capacity forecasts have them."""

    @property
    def query(self) -> str: ...
    @property
    def step(self) -> float: ...
    @property
    def length(self) -> int: ...
    @property
    def synthetic(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for all histories: most series, seconds left out after a drill, and whose series these are."""

    series_limit: int = 25_000
    mask_tail: float = 0.0
    shard: Shard = Shard()  # noqa: RUF009 - frozen


class History:
    """A ring of points of one query. `ring.head` is the newest row that had data."""

    def __init__(self, settings: Query, reader: Reader, bounds: Bounds, length: int | None = None) -> None:
        """`length`: rows to remember, if not the whole window of the settings."""
        self.settings = settings
        self.ring = Ring(length or settings.length, settings.step)
        self._reader = reader
        self._bounds = bounds
        self._complete: int | None = None
        """Row up to which everything has been read: a read that failed half-way is made again from here."""

    def update(self, now: float) -> bool:
        """Bring the ring up to date; returns whether the newest point is of now or of the row before.

        Raises:
            ReadError: Prometheus did not answer, or the clock went back ("clock").
        """
        settings, ring = self.settings, self.ring
        newest = math.floor(now / settings.step)
        oldest = newest - ring.length + 1
        first = oldest if self._complete is None else max(self._complete - REREAD + 1, oldest)
        if self._complete is not None and newest < self._complete:
            behind = (self._complete - newest) * settings.step
            if behind > BACK:
                raise ReadError("clock", f"the clock went back by {behind:.0f} s; waiting until it is where it was")
            return True  # within the row, or a small correction
        count = self._reader.count(settings.query, self._bounds.series_limit, newest * settings.step)
        for chunk in self._reader.range(settings.query, first, newest, settings.step, max(count, ring.series, 1)):
            ours = [series for series in chunk if self._wanted(series)]
            self._make_room(ours)
            for series in ours:
                last = int(series.rows[-1])
                # Only data moves the ring: a clock that jumps ahead must not push the history out of it.
                ring.advance(last)
                ring.put(series)
        if ring.head is not None:
            quiet = masks.silences(self._reader, first, newest, settings.step, self._bounds.mask_tail)
            masks.apply(ring, quiet)
            self._complete = ring.head
        return ring.head is not None and newest - ring.head <= 1

    def _wanted(self, series: Series) -> bool:
        if self.settings.synthetic == "exclude" and masks.is_synthetic(series.labels):
            return False
        return len(series.rows) > 0 and self._bounds.shard.mine(series.labels)

    def _make_room(self, coming: list[Series]) -> None:
        """Hold the budget over the whole window: series that come and go are few at any one time.

        Raises:
            ReadError: "budget", with the number of series.
        """
        limit, fresh = self._bounds.series_limit, [s.labels for s in coming]
        if len(known := {*self.ring.keys, *fresh}) <= limit:
            return
        self.ring.forget_silent()
        if len(known := {*self.ring.keys, *fresh}) > limit:
            raise ReadError(
                "budget",
                f"{len(known)} series within the window where at most {limit} are allowed (series_limit); labels that "
                f"change with every restart make one series many, aggregate them away: {self.settings.query}",
            )

    # --- kept over restarts ---------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """The points, as arrays and plain values."""
        return {
            "keys": [list(key) for key in self.ring.keys],
            "head": self.ring.head,
            "values": self.ring.window()[1],
        }

    def restore(self, found: dict[str, Any]) -> None:
        """Take over what `dump` gave.

        Raises:
            ValueError: it does not fit this query's window.
        """
        head, values = found["head"], np.asarray(found["values"], dtype=np.float64)
        keys: list[Labels] = [tuple((str(k), str(v)) for k, v in key) for key in found["keys"]]
        if head is None:
            return
        if values.shape != (self.ring.length, len(keys)):
            raise ValueError(f"{values.shape} points kept, {(self.ring.length, len(keys))} wanted")
        self.ring.fill(int(head), keys, values)
        self._complete = int(head)
