"""Schedule, time-outs and freshness of the collectors; the tick that joins them to one snapshot.

The tick never waits on a collector: it reads each worker's immutable state and is done.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from agent import __version__
from agent.base import statefile
from agent.base.catalogue import Sample
from agent.base.catalogue import self as own
from agent.base.collector import Context, Kind, Settings
from agent.base.exposition import Family, Renderer
from agent.base.usage import usage
from agent.base.web import Server, WebSecurity
from agent.budget import Budget
from agent.intake import Intake, gather
from agent.snapshot import Snapshot, Status
from agent.worker import Result, Worker

OWN = "agent"
"""Name under which the agent's own families stand among the collectors'."""
_USAGE_EVERY = 5.0


class Runner:
    """The collectors of one configuration.

    Args:
        kinds: the collectors that exist, by name.
        context: what each of them is given.
        series_budget: most series on the page. The agent's own are never left out.
        strict: a sample that would be dropped fails its collector's run (tests).
    """

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        context: Context,
        *,
        series_budget: int = 2000,
        strict: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.budget = Budget(series_budget)
        self.workers: dict[str, Worker] = {}
        self.reload_good = True
        self.reload_time = wall()
        self._kinds = kinds
        self.context = context
        self.server: Server | None = None
        """Whose requests are counted on the page."""
        self.security: WebSecurity | None = None
        """Whose reload counts, too."""
        self._strict = strict
        self._monotonic = monotonic
        self._wall = wall
        self._started = wall()
        self._intake = Intake(strict=True)
        self._renderer = Renderer()
        self._own_series = 0
        """Series about the agent itself at the last tick."""
        self._usage = (-_USAGE_EVERY, 0.0, 0)

    def configure(self, enabled: Mapping[str, Settings], *, start: bool = True) -> None:
        """Run exactly these collectors; one whose settings did not change goes on untouched."""
        for name in list(self.workers):
            if enabled.get(name) != self.workers[name].settings:
                self.workers[name].stop()
        for place, (name, settings) in enumerate(sorted(enabled.items()), 1):
            old = self.workers.get(name)
            if old is not None and old.settings == settings:
                continue
            self.workers[name] = Worker(
                self._kinds[name],
                settings,
                self.context,
                strict=self._strict,
                predecessor=old.thread if old is not None and old.thread.is_alive() else None,
                phase=place / len(enabled),
                monotonic=self._monotonic,
                wall=self._wall,
            )
            if start:
                self.workers[name].start()
        self.workers = {name: self.workers[name] for name in sorted(enabled)}

    def stop(self, timeout: float = 5.0) -> list[str]:
        """Stop all collectors; returns the names of those that hang and were left behind."""
        for worker in self.workers.values():
            worker.stop()
        end = self._monotonic() + timeout
        return [name for name, worker in self.workers.items() if not worker.join(max(0.05, end - self._monotonic()))]

    def snapshot(self) -> Snapshot:
        """What is known now."""
        now = self._monotonic()
        workers = self.workers
        results = {name: result for name, worker in workers.items() if (result := worker.current(now))}
        blocks = self.budget.apply(results, reserved=self._own_series)
        statuses = tuple(_status(worker, results.get(name), now) for name, worker in workers.items())
        series = sum(len(family.lines) for families in blocks.values() for family in families.values())
        own_families = self._own(workers, results, now, series)
        self._own_series = sum(len(family.lines) for family in own_families.values())
        blocks[OWN] = own_families
        return Snapshot(self._wall(), blocks, statuses, self._renderer)

    def _own(
        self, workers: Mapping[str, Worker], results: Mapping[str, Result], now: float, series: int
    ) -> dict[str, Family]:
        samples = list(self._of_agent(now))
        for name, worker in workers.items():
            samples += _of_collector(name, worker, results.get(name), now)
        dropped = Counter(self.budget.dropped)
        for name, worker in workers.items():
            dropped.update({(name, reason): count for reason, count in worker.state.dropped.items()})
            dropped.setdefault((name, "undeclared"), 0)
        samples += [own.DROPPED.sample(count, *key) for key, count in dropped.items()]
        samples.append(own.SERIES.sample(series + len(samples) + 1))
        return gather(samples, self._intake)

    def _of_agent(self, now: float) -> Iterator[Sample]:
        if now - self._usage[0] >= _USAGE_EVERY:
            self._usage = (now, *usage())
        yield own.BUILD.sample(1, __version__, platform.python_version())
        yield own.START_TIME.sample(self._started)
        yield own.TICK_TIME.sample(self._wall())
        yield own.RELOAD_OK.sample(self.reload_good and (self.security is None or self.security.good))
        yield own.RELOAD_TIME.sample(self.reload_time)
        yield own.STATE_WRITABLE.sample(statefile.writable())
        yield own.CPU_SECONDS.sample(self._usage[1])
        yield own.RSS.sample(self._usage[2])
        if self.server is not None:
            yield own.HTTP_CONNECTIONS.sample(len(self.server.connections))
            for (path, code), count in self.server.answered.items():
                yield own.HTTP_REQUESTS.sample(count, path, str(code))
            for reason, count in self.server.refused.items():
                yield own.HTTP_REFUSED.sample(count, reason)


def _of_collector(name: str, worker: Worker, result: Result | None, now: float) -> Iterator[Sample]:
    state, late = worker.state, worker.late(now)
    yield own.PERIOD.sample(worker.settings.period, name)
    yield own.STUCK.sample(late, name)
    if late or state.result is not None:
        yield own.SUCCESS.sample(result is not None and not result.error, name)
    if state.result is not None:
        yield own.DURATION.sample(state.result.ended - state.result.started, name)
    if state.last_success is not None:
        yield own.LAST_SUCCESS.sample(state.last_success, name)
    errors = dict(state.errors)
    if late:  # the run that hangs counts already; when it ends, its thread counts it for good
        errors["late"] = errors.get("late", 0) + 1
    for reason in {"late": 0} | errors:
        yield own.ERRORS.sample(errors.get(reason, 0), name, reason)


def _status(worker: Worker, result: Result | None, now: float) -> Status:
    state, late = worker.state, worker.late(now)
    if late:
        return Status(worker.name, "late", f"hangs: {late:.0f} s past its deadline of {worker.settings.deadline:g} s")
    if state.result is None:
        return Status(worker.name, "starting")
    if result is None:
        return Status(worker.name, "late", "its last result is too old")
    age = now - result.started
    return Status(worker.name, "failed" if result.error else "ok", result.error, result.series, age)
