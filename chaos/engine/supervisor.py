"""Runs one drill: permit, journal, injection, measurement, undo, verification, verdict.

The order is the promise: undo record on disk, the fault's own end armed with it, and only then the
injection. Whatever happens afterwards, the undo runs; if we are killed, the fault ends by itself,
the mute in drill.json expires, and `recover` finds the journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.base.errors import VigilError
from chaos import measure
from chaos.engine import permit
from chaos.engine.announce import announced
from chaos.engine.drill import Drill
from chaos.engine.fault import Fault, Plan, Refused, find
from chaos.engine.journal import Journal
from chaos.engine.result import MARKS, Result, Say
from chaos.engine.stations import Stations
from chaos.engine.target import Target
from chaos.engine.undo import take_back

GRACE = 120.0
"""Seconds by which the mute outlasts the fault's own end: alerts need time to resolve."""


@dataclass(slots=True)
class Supervisor:
    """One drill on one target.

    Args:
        interrupted: asked all the time; a text is the reason to end early and take everything back.
        say: gets one line of progress at a time.
    """

    name: str
    drill: Drill
    target: Target
    say: Say
    interrupted: Callable[[], str | None] = lambda: None

    def run(self) -> Result:
        """Run it to the end; every outcome is a Result."""
        drill, target = self.drill, self.target
        began = time.time()
        identity = f"{self.name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(began))}"
        result = Result(identity, self.name, drill.title, drill.why, target.node, began)
        journal = Journal(target.state_dir)
        try:
            with permit.lock(target, identity):
                if unfinished := journal.unfinished():
                    raise Refused(f"drill {unfinished[0].drill} is unfinished: gpuvigil chaos recover")
                self._held(result, journal)
        except VigilError as error:  # all that is raised after the injection is handled where it arises
            result.verdict, result.reasons = "refused", [str(error)]
        return result

    def _stopped(self) -> str | None:
        return self.interrupted() or permit.asked_to_stop(self.target.state_dir)

    def _held(self, result: Result, journal: Journal) -> None:
        drill, target = self.drill, self.target
        fault, plan = planned(drill, target)
        result.plan = list(plan.steps)
        result.touches = [{"scope": item.scope, "target": item.target} for item in plan.touches]
        stations = Stations(target, drill, plan, self._stopped)
        permit.check(stations.prometheus)
        stations.steady()
        journal.write(result.id, "planned", drill.fault)
        self.say(f"drill {result.id}: " + "; ".join(plan.steps))
        expires = time.time() + drill.max_duration + GRACE
        with announced(target, result.id, drill.page, plan, expires) as mute:
            stations.announced(result.id)
            self._inject(result, journal, fault, plan, stations)
            self.say("waiting until everything touched is healthy and none of the drill's pages fires any more")
            mute.over = stations.healthy(result.id)
            if not mute.over:
                result.reasons.append("the target is not healthy and quiet again; its mute stays until it expires")
        stations.collect(result)
        self._judge(result)

    def _inject(self, result: Result, journal: Journal, fault: Fault, plan: Plan, stations: Stations) -> None:
        drill = self.drill
        journal.write(result.id, "armed", drill.fault, plan.undo)
        marks = {"injected": time.monotonic()}
        try:
            fault.inject(plan)
            result.evidence.append(fault.verify_injected(plan))
            journal.write(result.id, "injected", drill.fault)
            self.say(f"injected: {result.evidence[-1]}")
            marks |= stations.detection(self.say, marks["injected"])
            measure.watch({"hold": lambda: False}, drill.hold, self._stopped)
        except measure.Stopped as stop:
            result.verdict, result.reasons = "aborted", [str(stop)]
        except VigilError as error:
            result.reasons.append(str(error))
        finally:
            undone = take_back(journal, result.id, drill.fault, fault, plan.undo)
        if undone.error:
            result.verdict = "undo_failed"
            result.reasons.append(undone.error)
        else:
            marks["undone"] = time.monotonic()
            result.evidence.append(undone.evidence)
            self.say(f"undone: {undone.evidence}")
            marks |= stations.resolution(self.say, marks["injected"], fired="firing" in marks)
        since = {name: round(at - marks["injected"], 3) for name, at in marks.items()}
        result.timeline = {name: since[name] for name in MARKS if name in since}
        result.details = {name: at for name, at in since.items() if name not in MARKS}

    def _judge(self, result: Result) -> None:
        if result.verdict in ("aborted", "undo_failed"):
            return
        expect = self.drill.expect
        result.reasons += [f"never {MARKS[mark]}" for mark in MARKS if mark not in result.timeline]
        page = {**result.page.get("labels", {}), **result.page.get("annotations", {})}
        if page and (missing := [name for name in expect.carries if not page.get(name)]):
            result.reasons.append(f"the page lacks: {', '.join(missing)}")
        for path in expect.silent:
            if count := result.received.get(path, 0):
                result.reasons.append(f"{count} deliveries at {path}, which should have stayed silent")
        result.verdict = "fail" if result.reasons else "pass"


def planned(drill: Drill, target: Target) -> tuple[Fault, Plan]:
    """The drill's fault and what it would do to the target; touches nothing."""
    fault = find(drill.fault)
    return fault, fault.plan(drill.parameters, target, drill.max_duration)
