"""How a preset is made of a declared metric: query, labels to watch by, floors in the metric's unit."""

from __future__ import annotations

import math
from typing import Any

from agent.base.catalogue import Metric
from alerts.central.settings import Monitor
from alerts.detect.bands import Direction

FLOORS = {"ratio": 0.05, "celsius": 3.0}
"""Least deviation that counts, by unit: five points, three degrees. Other units have none that suits all."""

TYPICAL = {"uuid": 8, "device": 2, "sensor": 2, "resource": 3, "kind": 2}
"""Series that a label usually makes on a node of eight GPUs with one job or one engine; others count as one."""


def level(name: str, metric: Metric, direction: Direction, floor: float | None = None, **more: Any) -> Monitor:
    """A gauge: five-minute means, so that one sample does not stand for all."""
    if metric.unit == "ratio":
        more = {"data_range": (0, 1), "min_dev_rel": 0.0} | more
    if metric.unit == "celsius":
        more = {"min_dev_rel": 0.0} | more
    selector, by, more = _selector(metric, more)
    query = f"avg by ({by}) (avg_over_time({selector}[5m]))"
    return monitor(name, query, direction, FLOORS[metric.unit] if floor is None else floor, **more)


def rate(name: str, metric: Metric, direction: Direction, floor: float, **more: Any) -> Monitor:
    """A counter of quantities: what is added a second."""
    selector, by, more = _selector(metric, more)
    return monitor(name, f"sum by ({by}) (rate({selector}[5m]))", direction, floor, **{"model": "robust"} | more)


def events(name: str, metric: Metric, floor: float = 1.0, **more: Any) -> Monitor:
    """A counter of mishaps: more of them in five minutes than is usual here, and more than `floor`."""
    selector, by, more = _selector(metric, more)
    more = {"model": "robust", "min_dev_rel": 0.0} | more
    return monitor(name, f"sum by ({by}) (increase({selector}[5m]))", "above", floor, **more)


def quantile(name: str, metric: Metric, q: float, floor: float, **more: Any) -> Monitor:
    """A histogram: one quantile of the last five minutes, whoever measured."""
    _, by, more = _selector(metric, {"drop": ("source",)} | more)
    query = f"histogram_quantile({q}, sum by (le, {by}) (rate({metric.stem}_bucket[5m])))"
    return monitor(name, query, "above", floor, **{"model": "robust"} | more)


def monitor(name: str, query: str, direction: Direction, floor: float, **more: Any) -> Monitor:
    """A monitor at the presets' pace: two weeks at five minutes, fitted every six hours."""
    values: dict[str, Any] = {"model": "prophet_batched", "step": "5m", "fit_window": "14d", "fit_every": "6h"}
    values |= {"min_history": "2d", "direction": direction, "min_dev_abs": floor, "min_dev_rel": 0.1}
    return Monitor.model_validate({"name": name, "query": query} | values | more)


def by_labels(metric: Metric, drop: tuple[str, ...] = ()) -> str:
    """The labels a metric's series are told apart by: its own and its node's, none of the scrape's."""
    return ", ".join(("cluster", "node", *(label for label in metric.labels if label not in drop)))


def series_of(made: Monitor) -> int:
    """Series on a usual node (see `TYPICAL`), from the labels that the query aggregates by."""
    labels = made.query.partition("by (")[2].partition(")")[0].split(", ")
    return math.prod(TYPICAL.get(label, 1) for label in labels)


def _selector(metric: Metric, more: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """`where` (matchers) and `drop` (labels summed over) taken out of what is left for the monitor."""
    rest = {key: value for key, value in more.items() if key not in ("where", "drop")}
    where = more.get("where", {})
    constant = tuple(key for key, value in where.items() if not value.startswith(("!", "=~")))
    return metric("", **where) if where else metric.name, by_labels(metric, (*more.get("drop", ()), *constant)), rest
