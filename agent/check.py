"""Is this node fit to work? A judgement of the agent's page, for prologs, Nagios and people.

It reads the page as anyone else could; unknown is never healthy.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from agent.base.catalogue import Metric, gpu, health, node
from agent.base.catalogue import self as own
from agent.base.hardfaults import XID_ACTIONS

_STALE_SECONDS = 30.0
_XID_SECONDS = 3600.0
_RECOVERY = (
    "none",
    "GPU reset",
    "node reboot",
    "drain P2P",
    "drain and reset",
    "recover IMEX domain",
    "bus reset",
    "system reboot",
)

_IN_WORDS = ("driver", "inventory", "presence", "recovery")
"""Components whose trouble is found on the page itself, and told better than by a verdict's state."""


class Level(IntEnum):
    """In rising order of what decides the answer."""

    NOTE = 0
    UNKNOWN = 1
    WARN = 2
    CRIT = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be; a note decides nothing."""

    level: Level
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Point:
    labels: dict[str, str]
    value: float


_LEVELS: Final = {"healthy": Level.NOTE, "degraded": Level.WARN, "unhealthy": Level.CRIT}
"""By the state of a verdict; every other state is unknown."""


class Page:
    """The samples of one page, by series name.

    Raises:
        ValueError: it is no page.
    """

    def __init__(self, text: str) -> None:
        self._points: dict[str, list[Point]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._points.setdefault(sample.name, []).append(Point(sample.labels, sample.value))

    def all(self, metric: Metric) -> list[Point]:
        return self._points.get(metric.name, [])

    def one(self, metric: Metric) -> float | None:
        return next((point.value for point in self.all(metric)), None)


def judge(page: Page, now: float | None = None) -> list[Finding]:
    """Everything that speaks against this node, the worst first."""
    when = time.time() if now is None else now
    driver, gpus = list(_driver(page)), list(_gpus(page))
    judged = any(point.labels.get("component") == "xid" for point in page.all(health.STATE))
    xids = () if judged else _xids(page, when)  # a verdict knows what was cured, and what somebody settled
    verdicts = _verdicts(page, {finding.what for finding in (*driver, *gpus)})
    found = [*_freshness(page, when), *driver, *gpus, *xids, *verdicts, *_agent(page, when)]
    return sorted(found, key=lambda finding: -finding.level)


def judge_kept(document: Mapping[str, Any]) -> list[Finding]:
    """The same by the verdicts that the running agent keeps on disk, where its page is closed to us.

    Raises:
        ValueError: it is no document of verdicts.
    """
    found = []
    try:
        for verdict in document["verdicts"]:
            level = _LEVELS.get(verdict["state"], Level.UNKNOWN)
            if level is not Level.NOTE:
                who = f"GPU {verdict['gpu'] or verdict['uuid']}" if verdict["uuid"] else "node"
                action = f", action {verdict['action']}" if verdict["action"] else ""
                found.append(Finding(level, who, f"{verdict['component']}: {verdict['reason']}{action}"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a document of verdicts: {error!r}") from None
    if document.get("simulated"):
        found.append(_SIMULATED)
    return sorted(found, key=lambda finding: -finding.level)


def worst(findings: Iterable[Finding]) -> Level:
    return max((finding.level for finding in findings), default=Level.NOTE)


def _freshness(page: Page, now: float) -> Iterator[Finding]:
    taken = page.one(own.TICK_TIME)
    if taken is None:
        yield Finding(Level.UNKNOWN, "agent", "this is not a page of the agent")
    elif now - taken > _STALE_SECONDS:
        yield Finding(Level.UNKNOWN, "agent", f"the page is {now - taken:.0f} s old")


def _driver(page: Page) -> Iterator[Finding]:
    for point in page.all(gpu.DRIVER_STUCK):
        if point.value > 0:
            who = f"GPU {point.labels['gpu']}" if "gpu" in point.labels else "the driver"
            text = f"{who}: {point.labels.get('call', 'a call')} has not returned for {point.value:.0f} s"
            yield Finding(Level.CRIT, "driver", text)
    up = page.one(gpu.DRIVER_UP)
    if page.one(gpu.DRIVER_RELEASED) == 1:
        yield Finding(Level.UNKNOWN, "driver", "let go on request; gpuvigil agent gpu take ends that")
    elif up == 0:
        yield Finding(Level.CRIT, "driver", "NVML is not there or does not answer")
    elif up is None:
        yield Finding(Level.UNKNOWN, "driver", "nothing is known of the GPU driver")
    expected, known = page.one(gpu.EXPECTED), page.one(gpu.KNOWN)
    if expected is not None and known is not None and expected > known:
        yield Finding(Level.CRIT, "gpus", f"{expected - known:.0f} of {expected:.0f} GPUs are missing")


def _gpus(page: Page) -> Iterator[Finding]:
    for point in page.all(gpu.UP):
        if point.value == 0:
            yield Finding(Level.CRIT, _gpu(point), f"is lost ({point.labels.get('uuid', 'no UUID')})")
    for point in page.all(gpu.RECOVERY_ACTION):
        if point.value:
            code = int(point.value)
            word = _RECOVERY[code] if 0 <= code < len(_RECOVERY) else f"action {code}"
            yield Finding(Level.CRIT, _gpu(point), f"the driver asks for: {word}")
    for metric, level, text in (
        (gpu.ROW_REMAP_FAILURE, Level.CRIT, "a row remapping failed: replace the board"),
        (gpu.ROW_REMAP_PENDING, Level.WARN, "a row remapping waits for a GPU reset"),
        (gpu.RETIRED_PAGES_PENDING, Level.WARN, "a page retirement waits for a reset"),
    ):
        yield from (Finding(level, _gpu(point), text) for point in page.all(metric) if point.value)


def _verdicts(page: Page, told: set[str]) -> Iterator[Finding]:
    """Verdicts of the agent; of components whose trouble the page tells in words, those not `told` already."""
    for point in page.all(health.VERDICT):
        component, state = point.labels["component"], point.labels["state"]
        who, level = _gpu(point) if "gpu" in point.labels else "node", _LEVELS.get(state, Level.UNKNOWN)
        in_words = component in _IN_WORDS or (component == "memory" and who in told)
        if level is Level.UNKNOWN:  # that a GPU's presence is not known is told where the driver is the reason
            in_words = component == "driver" or (component == "presence" and "driver" in told)
        if not in_words:
            action = point.labels.get("action", "")
            yield Finding(level, who, f"{component} is {state}" + (f", action {action}" if action else ""))


def _xids(page: Page, now: float) -> Iterator[Finding]:
    actions = {(p.labels.get("uuid"), p.labels.get("xid")): p.labels.get("action", "") for p in page.all(gpu.XID_CODES)}
    for point in page.all(gpu.XID_LAST):
        xid = point.labels.get("xid", "?")
        action = actions.get((point.labels.get("uuid"), xid), "")
        severity = XID_ACTIONS.get(action, "ticket")
        if now - point.value <= _XID_SECONDS and severity != "info":
            level = Level.CRIT if severity == "page" else Level.WARN
            text = f"Xid {xid} {(now - point.value) / 60:.0f} min ago" + (f", action {action}" if action else "")
            yield Finding(level, _gpu(point), text)


def _agent(page: Page, now: float) -> Iterator[Finding]:
    for point in page.all(own.SUCCESS):
        if point.value == 0:
            yield Finding(Level.WARN, f"collector {point.labels['collector']}", "its last run failed or hangs")
    if page.one(own.RELOAD_OK) == 0:
        yield Finding(Level.WARN, "agent", "its last configuration reload was refused")
    until = page.one(node.MAINTENANCE_UNTIL)
    if until is not None and until > now:
        yield Finding(Level.NOTE, "maintenance", f"pages stay quiet for {(until - now) / 60:.0f} more minutes")
    if page.one(own.SIMULATED) == 1:
        yield _SIMULATED


_SIMULATED: Final = Finding(Level.NOTE, "simulated", "SIMULATED: the GPU values come from a simulator")


def _gpu(point: Point) -> str:
    return f"GPU {point.labels.get('gpu', '?')}"
