"""The witnesses of one drill, and the questions it puts to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from agent.base.catalogue import drill as metrics
from agent.base.catalogue import llm
from agent.base.catalogue import self as own
from agent.base.errors import CannotTell
from chaos import measure
from chaos.engine.drill import Drill
from chaos.engine.fault import Plan, Refused
from chaos.engine.result import Result, Say
from chaos.engine.target import Target

ANNOUNCE = 30.0
"""Seconds that agent and Prometheus have to show the drill before anything is touched."""
NEVER = float("nan")


class Stations:
    """The witnesses of one drill, and the questions it puts to them."""

    def __init__(self, target: Target, drill: Drill, plan: Plan, stopped: Callable[[], str | None]) -> None:
        self.drill, self.plan, self.stopped = drill, plan, stopped
        self.agent = measure.Agent(target.agent)
        self.prometheus = measure.Prometheus(target.prometheus)
        self.sink = measure.Sink(target.sink)
        self.first_page = self.sink.last()

    def _value(self) -> float | None:
        return self.agent.value(self.drill.expect.seen.metric, self.plan.labels)

    def _firing(self) -> bool:
        return bool(self.prometheus.alerts(self.drill.expect.alert, self.plan.labels))

    def _seen(self) -> float:
        """When the page was rendered that first showed the fault."""
        page = self.agent.page()
        if self.agent.value(self.drill.expect.seen.metric, self.plan.labels, page) != self.drill.expect.seen.value:
            return NEVER
        rendered = self.agent.value(own.TICK_TIME.name, {}, page)
        return measure.on_monotonic(rendered) if rendered else time.monotonic()

    def _fired(self, began: float) -> float:
        at = self.prometheus.fired_since(began, self.drill.expect.alert, self.plan.labels)
        return NEVER if at is None else measure.on_monotonic(at)

    def _paged(self, status: str) -> float:
        pages = self.sink.pages(self.first_page, self.drill.expect.receiver)
        found = measure.find_alert(pages, self.drill.expect.alert, self.plan.labels, status)
        return found[0] if found else NEVER

    def steady(self) -> None:
        """Refuse unless the target is healthy and its alert quiet."""
        seen = self.drill.expect.seen
        if (value := self._value()) != seen.healthy:
            raise Refused(f"not steady: {seen.metric} of the target is {value}, should be {seen.healthy:g}")
        if self._firing():
            raise Refused(f"not steady: {self.drill.expect.alert} is already firing for the target")

    def announced(self, drill_id: str) -> None:
        """Wait until the agent exports the drill and Prometheus has stored it."""
        stem, wanted = metrics.ACTIVE.name, len(self.plan.touches)
        looks: dict[str, measure.Look] = {
            "agent": lambda: self.agent.value(stem, {"drill": drill_id}) == 1,
            "prometheus": lambda: len(self.prometheus.query(metrics.ACTIVE(drill=drill_id))) == wanted,
        }
        try:
            marks = measure.watch(looks, ANNOUNCE, self.stopped)
        except measure.Stopped as stop:
            raise Refused(f"stopped before the injection: {stop}") from None
        if silent := [name for name in looks if name not in marks]:
            raise Refused(
                f"{' and '.join(silent)} did not show {stem} within {ANNOUNCE:g} s: pages would not be marked"
            )

    def detection(self, say: Say, zero: float) -> dict[str, float]:
        looks: dict[str, measure.Look] = {
            "seen": self._seen,
            "firing": partial(self._fired, time.time() - (time.monotonic() - zero)),
            "paged": lambda: self._paged("firing"),
        }
        return self._watch(looks, self.drill.expect.detected_within, say, zero)

    def resolution(self, say: Say, zero: float, fired: bool) -> dict[str, float]:
        """Marks healthy, quiet (the alert is gone), told (people know), and resolved, the last of both."""
        looks: dict[str, measure.Look] = {"healthy": lambda: self._value() == self.drill.expect.seen.healthy}
        if fired:
            looks |= {"quiet": lambda: not self._firing(), "told": lambda: self._paged("resolved")}
        marks = self._watch(looks, self.drill.expect.resolved_within, say, zero, stoppable=False)
        if {"quiet", "told"} <= marks.keys():
            marks["resolved"] = max(marks["quiet"], marks["told"])
        return marks

    def _watch(
        self, looks: dict[str, measure.Look], timeout: float, say: Say, zero: float, stoppable: bool = True
    ) -> dict[str, float]:
        stopped = self.stopped if stoppable else lambda: None
        return measure.watch(looks, timeout, stopped, lambda name, at: say(f"{name} after {at - zero:.1f} s"))

    def healthy(self, drill_id: str) -> bool:
        """Waits until everything touched is well again, engines too, and no page of the drill fires any more."""
        looks: dict[str, measure.Look] = {
            "target": lambda: self._value() == self.drill.expect.seen.healthy,
            "pages": lambda: not self.prometheus.alerts(labels={"drill": drill_id, "severity": "page"}),
        }
        for item in self.plan.touches:
            if item.scope == "engine":
                looks[item.target] = partial(self._engine_well, item.target)
        return len(measure.watch(looks, self.drill.expect.resolved_within, lambda: None)) == len(looks)

    def _engine_well(self, name: str) -> bool:
        return self.agent.value(llm.HEALTH_OK.name, {"engine": name}) == 1

    def collect(self, result: Result) -> None:
        """The page itself, and how many deliveries each receiver had since the drill began."""
        try:
            pages = self.sink.pages(self.first_page)
        except CannotTell as error:
            result.reasons.append(str(error))
            return
        for page in pages:
            result.received[page["path"]] = result.received.get(page["path"], 0) + 1
        wanted = [page for page in pages if page["path"] == self.drill.expect.receiver]
        if found := measure.find_alert(wanted, self.drill.expect.alert, self.plan.labels, "firing"):
            result.page = {kind: dict(found[1].get(kind, {})) for kind in ("labels", "annotations")}
