"""The files for `promtool test rules`, made from the declared cases."""

from __future__ import annotations

import re
from typing import Any

from alerts.rules.model import SIMULATED, Alert, Case, Firing, Group, Recording, Severity, expand
from alerts.rules.registry import discover
from alerts.rules.render import dump, file_name
from alerts.rules.thresholds import Thresholds, duration

Variants = dict[Severity, Alert]
"""The rules of one alert name by severity."""


def case_files(t: Thresholds, only: str = "") -> dict[str, str]:
    """Every declared case: a file an alert and step between samples, loading the rules it needs.

    Args:
        t: thresholds the rules were built with.
        only: the name of one alert, or "" for all.
    """
    groups = discover()
    names = {alert.name: alert for group in groups for alert in group.alerts(t)}
    files = {}
    for name in names if not only else [only]:
        variants: Variants = {
            alert.severity: alert for group in groups for alert in group.alerts(t) if alert.name == name
        }
        needed = _needed(variants, groups, t)
        head = {
            "rule_files": [file_name(group) for group in needed],
            # promtool's own order is that of a hash table: recorded values would be one evaluation old, or not
            "group_eval_order": [group.name for group in needed],
        }
        by_step: dict[str, list[dict[str, Any]]] = {}
        for alert in variants.values():
            for case in alert.cases:
                step = case.step or duration(t.evaluation)
                by_step.setdefault(step, []).append(_test(alert, case, step, variants, t))
        for step, tests in by_step.items():
            files[f"case-{name}-{step}.yml"] = dump({**head, "evaluation_interval": step, "tests": tests})
    return files


def _needed(variants: Variants, groups: list[Group], t: Thresholds) -> list[Group]:
    """The groups of these alerts and, before them, those that record what they read."""
    text = "".join(alert.expr(t) for alert in variants.values())
    own = [group for group in groups if any(alert in variants.values() for alert in group.alerts(t))]
    found = list(own)
    for group in groups:
        recorded = [rule.record for rule in group.rules(t) if isinstance(rule, Recording)]
        if group not in own and any(record in text for record in recorded):
            found.insert(0, group)
    return found


def _test(alert: Alert, case: Case, step: str, variants: Variants, t: Thresholds) -> dict[str, Any]:
    def expected(firing: Firing) -> dict[str, Any]:
        made = variants[firing.severity or alert.severity]
        labels = {**made.labels, **firing.labels}
        return {"exp_labels": labels, "exp_annotations": _annotations(made, firing, labels, t)}

    return {
        "name": f"{alert.name}: {case.name}",
        "interval": step,
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": at, "alertname": alert.name, "exp_alerts": [expected(firing) for firing in firings]}
            for at, firings in case.expect.items()
        ],
    }


_ACTION = re.compile(r'{{ (?:else )?if eq \$labels\.action "(\w+)" }}([^{]*)')


def _annotations(made: Alert, firing: Firing, labels: dict[str, str], t: Thresholds) -> dict[str, str]:
    """The annotations of `made` as Prometheus renders them for `labels`."""
    rendered = {}
    for name, template in made.annotations(t).items():
        if name == "description" and firing.description is not None:
            simulated = " These readings are SIMULATED." if SIMULATED in template and "synthetic" in labels else ""
            rendered[name] = firing.description + simulated
        elif name == "action" and not made.action:
            rendered[name] = dict(_ACTION.findall(template))[labels["action"]]
        else:
            rendered[name] = expand(template.replace(SIMULATED, ""), labels)
    return rendered
