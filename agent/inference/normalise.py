"""From an engine's page to samples of our vocabulary, at the engine's own bucket edges."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from agent.base.catalogue import Metric, Sample
from agent.inference.mapping import Engine, Rule
from agent.inference.page import Labels, Page

MODEL_LABELS = ("model_name", "model")
NATIVE = "native"

Series = list[tuple[Labels, float]]


def edge(value: float) -> str:
    """An upper edge as Prometheus 3 writes it (`1.0`, `0.025`, `+Inf`), whichever way the engine does."""
    return "+Inf" if math.isinf(value) else repr(float(value))


def normalise(page: Page, kind: Engine, engine: str, model: str) -> Iterator[Sample]:
    """The samples a page holds, each metric once a model.

    On a page that was cut, a name that is not the newest of its rule is left out: the newer one may
    have stood in the part that is missing.

    Args:
        page: what was read.
        kind: the engine's table.
        engine: value of the label `engine`.
        model: value of the label `model` for pages that name none.
    """
    done: set[tuple[Metric, str]] = set()
    for rule in kind.rules:
        key = (rule.metric, rule.outcome)
        if key in done:
            continue
        found = list(_apply(rule, page, engine, model))
        if found:
            done.add(key)
            yield from found


def served_model(page: Page) -> str:
    """The model that the page's first labelled sample names; empty if none does."""
    for series in page.samples.values():
        for labels, _ in series:
            if name := _model(labels, ""):
                return name
    return ""


def _apply(rule: Rule, page: Page, engine: str, model: str) -> Iterator[Sample]:
    for name in rule.names[:1] if page.cut else rule.names:
        if rule.metric.kind == "histogram":
            samples = list(_histogram(rule, page, name, engine, model))
        else:
            samples = list(_plain(rule, _series(rule, page, name), engine, model))
        if samples:
            yield from samples
            return


def _model(labels: Labels, default: str) -> str:
    for name in MODEL_LABELS:
        if labels.get(name):
            return labels[name]
    return default


def _series(rule: Rule, page: Page, name: str) -> Series:
    """The plain series a rule reads; where it wants two parts, both or none."""
    series = page.samples.get(name, [])
    if rule.plus and series:
        other = page.samples.get(rule.plus, [])
        return [*series, *other] if other else []
    return series


def _selected(rule: Rule, series: Iterable[tuple[Labels, float]]) -> Iterator[tuple[Labels, float]]:
    """Series that the rule wants, of ranks that repeat one another the lowest."""
    wanted = [
        (labels, value)
        for labels, value in series
        if all(labels.get(key, word) == word for key, word in rule.where.items())
    ]
    if not rule.ranks:
        yield from wanted
        return
    lowest: dict[frozenset[tuple[str, str]], tuple[tuple[tuple[int, str], ...], Labels, float]] = {}
    for labels, value in wanted:
        rest = frozenset(item for item in labels.items() if item[0] not in rule.ranks)
        rank = tuple((len(labels.get(key, "")), labels.get(key, "")) for key in rule.ranks)  # numbers, as text
        if rest not in lowest or rank < lowest[rest][0]:
            lowest[rest] = (rank, labels, value)
    for _, labels, value in lowest.values():
        yield labels, value


def _plain(rule: Rule, series: Iterable[tuple[Labels, float]], engine: str, model: str) -> Iterator[Sample]:
    groups: dict[tuple[str, ...], float] = {}
    broken: set[tuple[str, ...]] = set()
    for labels, value in _selected(rule, series):
        key: tuple[str, ...] = (engine, _model(labels, model))
        if rule.outcome:
            word = rule.outcome
            key = (*key, labels.get(word[1:-1], "unknown") if word.startswith("{") else word)
        value *= rule.factor
        if key not in groups:
            groups[key] = value
        else:
            groups[key] = max(groups[key], value) if rule.combine == "max" else groups[key] + value
        if not math.isfinite(value):
            broken.add(key)  # a sum without it would be that of another set
    for key, value in groups.items():
        if key not in broken:
            yield rule.metric.sample(value, *key)


def _histogram(rule: Rule, page: Page, name: str, engine: str, model: str) -> Iterator[Sample]:
    """Sums of cumulative buckets over the labels we drop; left out where the edges of two differ."""
    buckets: dict[str, dict[frozenset[tuple[str, str]], dict[float, float]]] = defaultdict(dict)
    for labels, value in _selected(rule, page.samples.get(f"{name}_bucket", ())):
        try:
            upper = float(labels["le"])
        except (KeyError, ValueError):
            return
        rest = frozenset(item for item in labels.items() if item[0] != "le")
        buckets[_model(labels, model)].setdefault(rest, {})[upper] = value
    sums = _totals(rule, page.samples.get(f"{name}_sum", ()), model)
    counts = _totals(rule, page.samples.get(f"{name}_count", ()), model)
    for served, by_series in buckets.items():
        edges = {tuple(sorted(one)) for one in by_series.values()}
        if len(edges) != 1 or served not in sums or served not in counts:
            continue
        uppers = edges.pop()
        if not math.isinf(uppers[-1]) or not math.isfinite(sums[served]):
            continue
        key = (engine, served, NATIVE)
        for upper in uppers:
            value = sum(one[upper] for one in by_series.values())
            yield Sample(rule.metric, (*key, edge(upper * rule.factor)), value, "bucket")
        yield Sample(rule.metric, key, sums[served] * rule.factor, "sum")
        yield Sample(rule.metric, key, counts[served], "count")


def _totals(rule: Rule, series: Iterable[tuple[Labels, float]], model: str) -> dict[str, float]:
    totals: dict[str, float] = defaultdict(float)
    for labels, value in _selected(rule, series):
        totals[_model(labels, model)] += value
    return dict(totals)
