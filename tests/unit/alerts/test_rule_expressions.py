"""Every expression parses, names only series that exist, and only labels that somebody gives.

promtool passes a mistyped metric; this does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import promql_parser as pp
import pytest

from agent.base.catalogue import CATALOGUE, TARGET_LABELS, Metric, central, load_all
from alerts.rules import registry
from alerts.rules.model import Alert, Recording
from alerts.rules.thresholds import PROFILES

load_all()
FOREIGN = {"up": TARGET_LABELS, "ALERTS": frozenset({"alertstate", "severity", "scope", "drill"})}
SERIES: dict[str, Metric] = {name: metric for metric in CATALOGUE.values() for name in metric.series}
ADDED = {"alertname", "severity", "fault", "scope", "action", "le", "source", "since"}
LABELS = {label for metric in CATALOGUE.values() for label in metric.labels} | TARGET_LABELS | ADDED
RECORDED = {
    rule.record
    for profile in PROFILES.values()
    for group in registry.discover()
    for rule in group.rules(profile)
    if isinstance(rule, Recording)
}


def nodes(node: object) -> Iterator[object]:
    yield node
    for attr in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(node, attr, None)
        if isinstance(child, (pp.Expr, pp.VectorSelector)):
            yield from nodes(child)
    for child in getattr(node, "args", None) or []:
        yield from nodes(child)


def problems(expr: str) -> list[str]:
    """What is wrong with an expression; empty if nothing."""
    try:
        tree = pp.parse(expr)
    except ValueError as error:
        return [str(error)]
    found = []
    for node in nodes(tree):
        if isinstance(node, pp.VectorSelector):
            found += _selector(node)
        modifier = getattr(node, "modifier", None)
        if modifier is not None:
            matching = getattr(modifier, "matching", None)
            named = [
                *(getattr(modifier, "labels", None) or []),
                *(getattr(matching, "labels", None) or []),
                *(getattr(modifier, "group_labels", None) or []),
            ]
            found += [f"no metric has the label {label!r}" for label in named if label not in LABELS]
    return found


def _selector(node: pp.VectorSelector) -> list[str]:
    name = node.name
    if name is None:
        return ["a selector without a name"]
    matchers = [*node.matchers.matchers, *(one for group in node.matchers.or_matchers for one in group)]
    if name in FOREIGN:
        known: frozenset[str] | set[str] = FOREIGN[name]
    elif name in RECORDED:
        known = LABELS
    elif name in SERIES:
        metric = SERIES[name]
        known = LABELS if metric.dynamic else {*metric.labels, *TARGET_LABELS}
        known = {*known, "le"} if name.endswith("_bucket") else known
    else:
        return [f"no series {name!r}"]
    return [f"{name} has no label {one.name!r}" for one in matchers if one.name not in known]


EXPRESSIONS = [
    pytest.param(
        rule.expr(t) if isinstance(rule, Alert) else rule.expr,
        id=f"{profile}-{rule.name + '-' + rule.severity if isinstance(rule, Alert) else rule.record}",
    )
    for profile, t in PROFILES.items()
    for group in registry.discover()
    for rule in group.rules(t)
]


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_expression_names_only_what_exists(expr: str) -> None:
    assert problems(expr) == []


@pytest.mark.parametrize("alert", registry.alerts(PROFILES["default"]), ids=lambda a: f"{a.name}-{a.severity}")
def test_look_ups_in_annotations_name_only_what_exists(alert: Alert) -> None:
    for text in (alert.summary, alert.description):
        for query in re.findall(r'query \(printf "([^"]*)"', text):
            assert problems(query.replace("%s", "x")) == []
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= LABELS


@pytest.mark.parametrize(
    ("expr", "told"),
    [
        ("gpuvigil_gpu_utilisation_ratio > 0", "no series 'gpuvigil_gpu_utilisation_ratio'"),
        ('gpuvigil_gpu_up{device="0"} == 0', "gpuvigil_gpu_up has no label 'device'"),
        ("sum by (banana) (gpuvigil_gpu_up)", "no metric has the label 'banana'"),
        ("gpuvigil_gpu_up * on (noed) gpuvigil_gpu_up", "no metric has the label 'noed'"),
        ("rate(gpuvigil_gpu_up[5m]) >", "invalid promql query"),
        ('{__name__="gpuvigil_gpu_up"}', "a selector without a name"),
        ('max_over_time((gpuvigil_gpu_up{gpuu="1"} == 1)[5m:])', "gpuvigil_gpu_up has no label 'gpuu'"),
        ("-(absent(gpuvigil_gpu_up) or gpuvigil_gpu_upp offset 5m)", "no series 'gpuvigil_gpu_upp'"),
    ],
)
def test_the_checker_sees_what_promtool_does_not(expr: str, told: str) -> None:
    assert any(told in problem for problem in problems(expr)), problems(expr)


OTHERS = ("gpuvigil_agent_", "gpuvigil_collector_", "gpuvigil_config_")
"""The agent's own series, which no budget leaves out."""
CENTRAL = {metric.stem for metric in vars(central).values() if isinstance(metric, Metric)}


def test_a_full_node_leaves_out_last_what_alerts_go_by() -> None:
    """A rule whose series was left out for want of room is silent, and nobody knows."""
    exprs = [rule.expr(t) for t in PROFILES.values() for group in registry.discover() for rule in group.rules(t)
             if isinstance(rule, Alert)]  # fmt: skip
    exprs += [rule.expr for group in registry.discover() for rule in group.rules(PROFILES["default"])
              if isinstance(rule, Recording)]  # fmt: skip
    read = {SERIES[name] for expr in exprs for name in re.findall(r"gpuvigil_\w+", expr) if name in SERIES}
    here = [metric for metric in read if metric.stem not in CENTRAL and not metric.stem.startswith(OTHERS)]
    assert len(here) > 15
    assert [metric.stem for metric in here if not metric.vital] == []
