"""Capacity: reads how full each resource is, and says when it will be exhausted."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

import numpy as np

from agent.base.catalogue.central import EXHAUSTION
from agent.base.log import OnChange
from alerts.central import masks
from alerts.central.monitor import REREAD, View
from alerts.central.page import Line, labelled
from alerts.central.promread import Reader, ReadError
from alerts.central.ring import Ring
from alerts.central.settings import Capacity
from alerts.detect.capacity import exhaustion


class CapacityWatch:
    """One resource. As `Watch`: `turn` by the scheduler, `view` by anybody."""

    def __init__(
        self,
        settings: Capacity,
        reader: Reader,
        *,
        mask_tail: float = 0.0,
        series_limit: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.view = View()
        self._reader = reader
        self._clock = clock
        self._mask_tail = mask_tail
        self._limit = settings.series_limit or series_limit
        self._ring = Ring(settings.length, settings.step)
        self._error = OnChange(logging.getLogger(f"{__name__}.{settings.name}"))
        self._lock = threading.Lock()

    def turn(self) -> str:
        """Read new points and forecast; returns the outcome."""
        with self._lock:
            begin, now = time.monotonic(), self._clock()
            outcome = "ok"
            try:
                self._read(now)
                view = self._decide()
                self._error.good("reading again", monitor=self.settings.name)
            except ReadError as error:
                outcome = error.reason
                self._error.bad(str(error), monitor=self.settings.name)
                state = "error" if outcome in ("bad_query", "budget", "denied") else "stale"
                view = View("error" if state == "error" else "stale", str(error), self._ring.series)
            view.duration = time.monotonic() - begin
            view.last_run = now if outcome == "ok" else self.view.last_run
            self.view = view
            return outcome

    def _read(self, now: float) -> None:
        settings, ring = self.settings, self._ring
        head = math.floor(now / settings.step)
        first = head - ring.length + 1
        if ring.head is not None:
            first = max(first, ring.head - REREAD + 1)
        count = self._reader.count(settings.query, self._limit, head * settings.step)
        ring.advance(head)
        for chunk in self._reader.range(settings.query, first, head, settings.step, max(count, 1)):
            for series in chunk:
                if settings.synthetic == "include" or not masks.is_synthetic(series.labels):
                    ring.put(series)
        masks.apply(ring, masks.silences(self._reader, first, head, settings.step, self._mask_tail))
        ring.forget_silent()

    def _decide(self) -> View:
        settings = self.settings
        times, values = self._ring.window()
        lines: list[Line] = []
        warm = 0
        for column, key in enumerate(self._ring.keys):
            there = np.flatnonzero(~np.isnan(values[:, column]))
            if not len(there) or times[there[-1]] - times[there[0]] < settings.min_history:
                continue
            found = exhaustion(times, values[:, column], settings.limit, settings.horizon)
            if found.state == "warming_up":
                continue
            warm += 1
            for name, seconds in (("low", found.low), ("expected", found.expected), ("high", found.high)):
                if seconds is not None:
                    labels = labelled(key, {"monitor": settings.name, "bound": name})
                    lines.append(Line(EXHAUSTION, labels, seconds))
        series = self._ring.series
        if not series:
            return View("no_data", "the query has no series")
        if not warm:
            return View("warming_up", f"no series has {settings.min_history:.0f} s of history yet", series)
        return View("ok", f"{warm} of {series} series judged", series, lines=lines)
