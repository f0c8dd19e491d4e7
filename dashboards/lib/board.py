"""A board in the making: its queries, its place on the grid, its selectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from grafanalib import core

from agent.base.catalogue import Metric

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
NOT_REPORTED = "not reported"
SCOPE = {"job": "=~$job", "cluster": "=~$cluster", "node": "=~$node"}


@dataclass(frozen=True)
class Query:
    """One target of a panel.

    Attributes:
        expr: PromQL; template variables allowed.
        legend: Grafana legend format.
        instant: one value instead of a range.
        empty: why the answer may be empty on a healthy node; "" means it must have data.
    """

    expr: str
    legend: str = ""
    instant: bool = False
    empty: str = ""


@dataclass
class Board:
    """A dashboard in the making.

    Attributes:
        uid: stable address, as alerts link to it; at most 40 characters.
        title: shown in Grafana.
        description: one sentence.
        variables: beyond data source, job, cluster and node.
        since: start of the default time range.
        refresh: how often the browser asks again.
    """

    uid: str
    title: str
    description: str
    variables: Sequence[Json] = ()
    since: str = "now-1h"
    refresh: str = "10s"
    panels: list[Any] = field(default_factory=list)
    may_be_empty: dict[tuple[int, str], str] = field(default_factory=dict)

    def add(self, panel: Any, queries: Sequence[Query]) -> None:
        """Put a panel on the board; remembers which of its queries may be empty, and why."""
        self.panels.append(panel)
        for target, query in zip(panel.targets, queries, strict=True):
            if query.empty:
                self.may_be_empty[panel.id, target.refId] = query.empty


def select(metric: Metric, part: Literal["", "bucket", "count", "sum"] = "", /, **matchers: str) -> str:
    """A selector limited to the board's job, cluster and node variables."""
    return metric(part, **SCOPE, **matchers)


def at(x: int, y: int, w: int, h: int) -> core.GridPos:
    return core.GridPos(h=h, w=w, x=x, y=y)


def steps(*pairs: tuple[float | None, str]) -> list[Json]:
    """Threshold steps, first the base `(None, colour)`: plain dicts, because grafanalib's class writes "null"."""
    return [{"color": colour, "value": value} for value, colour in pairs]


def targets(queries: Iterable[Query]) -> list[core.Target]:
    return [
        core.Target(
            expr=query.expr,
            legendFormat=query.legend or "__auto",
            refId=chr(ord("A") + number),
            instant=query.instant,
            datasource=DATASOURCE,
        )
        for number, query in enumerate(queries)
    ]
