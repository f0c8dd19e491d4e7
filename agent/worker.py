"""One collector, its thread, and the one immutable state by which others know of it."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.base.collector import Collector, Context, Kind, PartialFailure, Settings
from agent.base.errors import CatalogueError
from agent.base.exposition import Families
from agent.base.log import OnChange
from agent.intake import Intake

_log = logging.getLogger("gpuvigil.runner")
_MOST_REASONS = 24


@dataclass(frozen=True, slots=True)
class Result:
    """What one finished run brought. Times are monotonic seconds."""

    started: float
    ended: float
    families: Families
    series: int
    error: str = ""

    def says_as(self, other: Result) -> bool:
        """Whether, but for its times, it is the other's equal."""
        return self.families is other.families and self.error == other.error


@dataclass(frozen=True, slots=True)
class State:
    """Everything others may know of a worker; replaced whole, written by its thread alone."""

    running_since: float | None = None
    result: Result | None = None
    last_success: float | None = None
    """Unix time."""
    errors: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)


class Worker:
    """Runs one collector every period, in a thread of its own, one run at a time.

    A run that ends after its deadline counts as late and its samples are thrown away: nobody knows
    when they were read. `predecessor` is the thread of the same collector under an older
    configuration; the first run waits for it, so that a hung collector never runs twice. The second run
    comes after the share `phase` of a period, so that collectors do not all work at the same moment.
    """

    def __init__(
        self,
        kind: Kind,
        settings: Settings,
        context: Context,
        *,
        strict: bool = False,
        predecessor: threading.Thread | None = None,
        phase: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = kind.name
        self.settings = settings
        self.state = State()
        self._kind = kind
        self._context = context
        self._predecessor = predecessor
        self._phase = phase
        self._monotonic = monotonic
        self._wall = wall
        self._intake = Intake(strict=strict)
        self._collector: Collector | None = None
        self._report = OnChange(_log, clock=monotonic)
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._live, name=f"collect-{self.name}", daemon=True)

    # what the tick asks

    def late(self, now: float) -> float:
        """Seconds by which the present run is past its deadline; 0 if it is not."""
        since = self.state.running_since
        return max(0.0, now - since - self.settings.deadline) if since is not None else 0.0

    def current(self, now: float) -> Result | None:
        """The newest result while it is fresh: until the next run should have ended."""
        result = self.state.result
        if result is None or self.late(now) or now > result.started + self.settings.period + self.settings.deadline:
            return None
        return result

    # life

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Ask the thread to end after its present run; does not wait."""
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Wait for the end; a thread that hangs is left behind, its collector closed from outside.

        Returns:
            Whether the thread has ended.
        """
        if self.thread.ident is None:
            return True
        self.thread.join(timeout)
        if self.thread.is_alive() and self._collector is not None:
            threading.Thread(target=self._close, name=f"close-{self.name}", daemon=True).start()
        return not self.thread.is_alive()

    def _live(self) -> None:
        _show(self.name)
        due = self._monotonic() - (1 - self._phase) * self.settings.period
        while not self._stop.is_set():
            self.step()
            due += self.settings.period
            now = self._monotonic()
            if due < now:  # missed turns are not made up for
                due += math.ceil((now - due) / self.settings.period) * self.settings.period
            self._stop.wait(due - now)
        self._close()

    def _close(self) -> None:
        collector, self._collector = self._collector, None
        if collector is not None:
            try:
                collector.close()
            except Exception:
                _log.warning("collector did not close", exc_info=True, extra={"collector": self.name})

    # one run

    def step(self) -> Result:
        """One run, whatever happens in it; the result is also in `state`."""
        started = self._monotonic()
        self.state = replace(self.state, running_since=started)
        reason = detail = ""
        self._intake.begin()
        try:
            self._collect()
        except PartialFailure as error:
            reason, detail = error.reason, str(error)
        except CatalogueError as error:
            reason, detail = "catalogue", str(error)
        except BaseException as error:
            # SystemExit from a library, too: a source may not take the thread with it
            reason, detail = _reason(error), f"{type(error).__name__}: {error}"
            _log.debug("collector failed", exc_info=True, extra={"collector": self.name})
        families = self._intake.end()
        ended = self._monotonic()
        if ended - started > self.settings.deadline:
            reason, detail, families = (
                "late",
                f"took {ended - started:.1f} s, deadline {self.settings.deadline:g} s",
                {},
            )
        series = sum(len(family.starts) for family in families.values())
        result = Result(started, ended, families, series, f"{reason}: {detail}" if reason else "")
        self._publish(result, reason)
        return result

    def _collect(self) -> None:
        if self._predecessor is not None:
            self._predecessor.join()
            self._predecessor = None
        if self._collector is None:
            self._collector = self._kind.build(self.settings, self._context)
        self._intake.take(self._collector.collect())

    def _publish(self, result: Result, reason: str) -> None:
        errors = self.state.errors
        if reason:
            if reason not in errors and len(errors) >= _MOST_REASONS:
                reason = "other"
            errors = {**errors, reason: errors.get(reason, 0) + 1}
            self._report.bad(f"collector failed: {result.error}", collector=self.name)
        else:
            self._report.good("collector works again", collector=self.name)
        self.state = State(
            running_since=None,
            result=result,
            last_success=self.state.last_success if reason else self._wall(),
            errors=errors,
            dropped=dict(self._intake.dropped),
        )


def _show(name: str) -> None:
    """Name the thread for `top -H`; the kernel keeps 15 characters."""
    with contextlib.suppress(OSError):
        Path("/proc/thread-self/comm").write_text(name[:15], encoding="utf-8")


def _reason(error: BaseException) -> str:
    """One short word for the error counter."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionError):
        return "connection"
    if isinstance(error, OSError):
        return "os"
    return type(error).__name__.lower()
