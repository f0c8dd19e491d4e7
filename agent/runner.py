"""Schedule, time-outs and freshness of the collectors; the tick that joins them to one snapshot.

The tick never waits on a collector: it reads each worker's immutable state and is done.
"""

from __future__ import annotations

import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from operator import is_
from typing import NamedTuple

from agent import __version__
from agent.base import statefile
from agent.base.catalogue import Sample
from agent.base.catalogue import self as own
from agent.base.collector import Context, Kind, Settings
from agent.base.usage import Usage
from agent.base.web import Server, WebSecurity
from agent.budget import Budget
from agent.kept import Kept
from agent.snapshot import Pages, Snapshot, Status
from agent.worker import Result, State, Worker

OWN = "agent"
"""Name under which the agent's own families stand among the collectors'."""
_USAGE_EVERY = 5.0
_SLOW_S = 15.0
_STAYS_S = 5.0
"""How old the agent's own series may become while its collectors say nothing new."""


class Standing(NamedTuple):
    """How a collector stands at one tick: its state, what of it is fresh, and by how many seconds it is late."""

    worker: Worker
    state: State
    result: Result | None
    late: float

    def is_like(self, other: Standing) -> bool:
        return all(map(is_, self[:3], other[:3])) and self.late == other.late

    def says_as(self, other: Standing) -> bool:
        """Whether, but for the times of the run, there is nothing new to tell."""
        mine, theirs = self.result, other.result
        return (
            self.worker is other.worker
            and self.state.errors is other.state.errors
            and self.state.dropped == other.state.dropped
            and self.late == other.late
            and (mine is theirs or (mine is not None and theirs is not None and mine.says_as(theirs)))
        )


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
        self._kept = Kept()
        self._kept.tell("", [own.SERIES.sample(0)])
        self._standings: Mapping[str, Standing] = {}
        self._statuses: dict[str, Status] = {}
        self._left_out = 0
        self._newest: Snapshot | None = None
        self._events: tuple[object, ...] = ()
        self._pages = Pages(monotonic)
        self._costs = Usage()
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
                phase=_phase(place / len(enabled), settings.period),
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

    def tick(self) -> Snapshot:
        """What is known now: the last snapshot for some seconds more, as long as nobody has anything new to say."""
        now = self._monotonic()
        standings, before, last = self._stand(now), self._standings, self._newest
        events, self._events = self._events, self._happened()
        if (
            last is not None
            and now - last.at < _STAYS_S
            and events == self._events
            and before.keys() == standings.keys()
            and all(standing.says_as(before[name]) for name, standing in standings.items())
        ):
            return last
        self._newest = self._join(standings, now)
        return self._newest

    def snapshot(self) -> Snapshot:
        """What is known now."""
        now = self._monotonic()
        return self._join(self._stand(now), now)

    def _happened(self) -> tuple[object, ...]:
        """What seldom happens to the agent, and is to be seen at once."""
        refused = sum(self.server.refused.values()) if self.server is not None else 0
        secure = self.security.good if self.security is not None else True
        return refused, secure, self.reload_good, self.reload_time, statefile.writable()

    def _stand(self, now: float) -> dict[str, Standing]:
        return {
            name: Standing(worker, worker.state, worker.current(now), worker.late(now))
            for name, worker in self.workers.items()
        }

    def _join(self, standings: dict[str, Standing], now: float) -> Snapshot:
        results = {name: standing.result for name, standing in standings.items() if standing.result is not None}
        blocks = self.budget.apply(results, reserved=self._kept.size)
        self._tell(standings)
        series = sum(len(family.starts) for families in blocks.values() for family in families.values())
        self._kept.tell(OWN, self._of_agent(now))
        self._kept.tell("", [own.SERIES.sample(series + self._kept.size)])
        blocks[OWN] = self._kept.families()
        return Snapshot(self._wall(), blocks, tuple(self._statuses.values()), now, self._pages)

    def _tell(self, standings: Mapping[str, Standing]) -> None:
        """What there is to say of the collectors, anew of those alone that stand otherwise than before."""
        before, self._standings = self._standings, standings
        if before.keys() - standings.keys():
            self._kept.keep(["", OWN, *standings])
        left_out, self._left_out = self._left_out, sum(self.budget.dropped.values())
        statuses = {}
        for name, standing in standings.items():
            if name in before and standing.is_like(before[name]) and left_out == self._left_out:
                statuses[name] = self._statuses[name]
                continue
            statuses[name] = _status(name, standing)
            self._kept.tell(name, [*_of_collector(name, standing), *self._dropped(name, standing.state)])
        self._statuses = statuses

    def _dropped(self, name: str, state: State) -> Iterator[Sample]:
        counts = Counter(state.dropped)
        counts["undeclared"] += 0
        counts.update({reason: count for (who, reason), count in self.budget.dropped.items() if who == name})
        for reason in counts:
            yield own.DROPPED.sample(counts[reason], name, reason)

    def _of_agent(self, now: float) -> Iterator[Sample]:
        if now - self._usage[0] >= _USAGE_EVERY:
            self._usage = (now, *self._costs.read())
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


def _phase(share: float, period: float) -> float:
    """After which part of its period a collector runs: slow ones in three groups, the others together.

    So neither all work at one moment, nor does the process wake up for each by itself, which costs more than most runs.
    """
    return math.ceil(3 * share) / 3 if period >= _SLOW_S else 1.0


def _of_collector(name: str, standing: Standing) -> Iterator[Sample]:
    worker, state, result, late = standing
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


def _status(name: str, standing: Standing) -> Status:
    worker, state, result, late = standing
    if late:
        return Status(name, "late", f"hangs: {late:.0f} s past its deadline of {worker.settings.deadline:g} s")
    if state.result is None:
        return Status(name, "starting")
    if result is None:
        return Status(name, "late", "its last result is too old")
    return Status(name, "failed" if result.error else "ok", result.error, result.series, result.started)
