"""Capacity: reads how full each resource is, and says when it will be exhausted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from agent.base.catalogue.central import CAPACITY_ERROR, CAPACITY_STATE, EXHAUSTION
from alerts.central.history import Bounds, History
from alerts.central.page import Line, families, labelled
from alerts.central.promread import Reader
from alerts.central.settings import Capacity
from alerts.central.watching import View, Watching
from alerts.detect.capacity import Exhaustion, exhaustion

SILENT = 3
"""Steps without a point after which a resource has no forecast: it may be gone, or grown."""


class CapacityWatch(Watching):
    """One resource."""

    kind = "capacity"

    def __init__(
        self,
        settings: Capacity,
        reader: Reader,
        bounds: Bounds | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(settings.name, clock)
        self.settings = settings
        self.history = History(settings, reader, bounds or Bounds())

    def _turn(self, now: float) -> View:
        self.history.update(now)
        self.history.ring.forget_silent()
        return self._decide(now)

    def dump(self) -> dict[str, Any]:
        """The points."""
        return {"history": self.history.dump()}

    def restore(self, found: dict[str, Any]) -> None:
        """Take over what `dump` gave."""
        self.history.restore(found["history"])

    def _decide(self, now: float) -> View:
        settings = self.settings
        times, values = self.history.ring.window()
        lines: list[Line] = []
        warm = silent = 0
        for column, key in enumerate(self.history.ring.keys):
            there = np.flatnonzero(~np.isnan(values[:, column]))
            if not len(there):
                continue
            if now - times[there[-1]] > SILENT * settings.step:
                silent += 1
                continue
            found = Exhaustion("warming_up")
            if times[there[-1]] - times[there[0]] >= settings.min_history:
                found = exhaustion(times, values[:, column], settings.limit, settings.horizon)
            own = {"monitor": settings.name}
            lines.append(Line(CAPACITY_STATE, labelled(key, own | {"state": found.state}), 1.0))
            if found.state == "warming_up":
                continue
            warm += 1
            if found.error is not None:
                lines.append(Line(CAPACITY_ERROR, labelled(key, own), found.error))
            for name, seconds in (("low", found.low), ("expected", found.expected), ("high", found.high)):
                if seconds is not None:
                    lines.append(Line(EXHAUSTION, labelled(key, own | {"bound": name}), seconds))
        series = self.history.ring.series
        if not series:
            return View("no_data", "the query has no series")
        if silent == series:
            return View("no_data", "no new points", series)
        if not warm:
            return View(
                "warming_up",
                f"no series has {settings.min_history:.0f} s of history yet",
                series,
                found=families(lines),
            )
        why = f"{warm} of {series} series judged" + (f"; {silent} without new points" if silent else "")
        return View("ok", why, series, found=families(lines))
