"""What every watch has in common: a turn that never fails on bad input, and a view that is replaced whole."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from agent.base.exposition import Families
from agent.base.log import OnChange
from alerts.central.promread import ReadError

State = Literal["ok", "warming_up", "no_data", "stale", "error"]
STATES: tuple[State, ...] = ("ok", "warming_up", "no_data", "stale", "error")

Kind = Literal["monitor", "capacity", "training"]
KINDS: tuple[Kind, ...] = ("monitor", "capacity", "training")

NOT_RUN = "not run yet"
HOPELESS = ("bad_query", "budget", "denied", "gauge_wanted")
"""Reasons that asking again does not cure: somebody must change the configuration."""


@dataclass(slots=True)
class View:
    """What is shown of a watch; a page never sees half a turn."""

    state: State = "warming_up"
    why: str = NOT_RUN
    series: int = 0
    last_run: float = 0.0
    """Unix time at which a turn last ended well; 0 if none has."""
    duration: float = 0.0
    fitted_at: float = 0.0
    found: Families = field(default_factory=dict)
    """Series with their values, as the page takes them."""


class Watching:
    """A watch. `turn` is called by the scheduler, never twice at once; `view` may be read at any time."""

    kind: Kind = "monitor"

    def __init__(self, name: str, clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self.view = View()
        self.scored = 0
        """Points that got a score so far."""
        self._clock = clock
        self._log = OnChange(logging.getLogger(f"gpuvigil.central.{name}"))
        self._lock = threading.Lock()

    def turn(self) -> str:
        """Read and decide; returns the outcome: "ok", or the reason of a `ReadError`."""
        with self._lock:
            begin, now = time.monotonic(), self._clock()
            outcome = "ok"
            try:
                view = self._turn(now)
                view.last_run = now
                self._log.good("reading again", monitor=self.name)
            except ReadError as error:
                outcome = error.reason
                self._log.bad(str(error), monitor=self.name)
                # What was shown goes: nobody knows whether it still holds.
                old = self.view
                state: State = "error" if outcome in HOPELESS else "stale"
                view = View(state, str(error), old.series, old.last_run, fitted_at=old.fitted_at)
            view.duration = time.monotonic() - begin
            self.view = view
            return outcome

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No turn while this lasts: what is read inside belongs together."""
        with self._lock:
            yield

    def _turn(self, now: float) -> View:
        raise NotImplementedError
