"""Work that may hang, done aside: one daemon thread at most, its last result kept.

A dead NFS server holds `statvfs` for ever and an engine may never answer. Such a call runs in a
thread of its own; while it has not come back no second one is started, so that a source which stays
dead costs one thread and not one a round.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What one run came back with: a value or the exception, and its times on the monotonic clock."""

    value: T | None
    error: Exception | None
    started: float
    finished: float

    @property
    def seconds(self) -> float:
        return self.finished - self.started


class Aside(Generic[T]):
    """Runs `work` in a thread when told to, unless the previous run still lasts."""

    def __init__(self, name: str, work: Callable[[], T]) -> None:
        self.name = name
        self.last: Outcome[T] | None = None
        self._work = work
        self._started: float | None = None
        self._done = threading.Event()
        self._done.set()

    def kick(self) -> bool:
        """Start a run; False if one is still under way."""
        if not self._done.is_set():
            return False
        self._done.clear()
        self._started = time.monotonic()
        try:
            threading.Thread(target=self._run, name=self.name, daemon=True).start()
        except RuntimeError as error:  # no thread to be had: an outcome like any other
            self._finish(Outcome(None, error, self._started, time.monotonic()))
        return True

    def wait(self, timeout: float) -> bool:
        """True once no run is under way; waits `timeout` seconds at most."""
        return self._done.wait(max(0.0, timeout))

    @property
    def pending(self) -> float | None:
        """Seconds that the present run has lasted, or None when none is under way."""
        started = self._started
        return None if self._done.is_set() or started is None else time.monotonic() - started

    def _run(self) -> None:
        started = self._started if self._started is not None else time.monotonic()
        value: T | None = None
        failure: Exception | None = None
        try:
            value = self._work()
        except Exception as error:  # whatever it was is the caller's to judge
            failure = error
        self._finish(Outcome(value, failure, started, time.monotonic()))

    def _finish(self, outcome: Outcome[T]) -> None:
        self.last = outcome
        self._started = None
        self._done.set()


def wait_all(asides: list[Aside[T]], timeout: float) -> None:
    """Wait until every one is done or `timeout` seconds have passed for all together."""
    end = time.monotonic() + timeout
    for aside in asides:
        aside.wait(end - time.monotonic())
