"""Run every expression of a board against a real Prometheus: the proof that no panel is empty.

A board breaks silently when a metric is renamed; Grafana shows an empty panel and nobody is told.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from agent.base.errors import CannotTell
from dashboards.lib import Board, Json

ALL = {"job": ".+", "cluster": ".+", "node": ".+", "engine": ".+", "job_id": ".+"}
_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+),\s*(?P<label>\w+)\)")


@dataclass(frozen=True)
class Expression:
    """One query of a board: a panel's target, a variable or an annotation."""

    board: str
    place: str
    expr: str
    instant: bool
    may_be_empty: str


@dataclass(frozen=True)
class Finding:
    """What Prometheus said: `problem` is "" when there was data, or none was demanded."""

    expression: Expression
    series: int
    problem: str


def expressions(board: Board, dashboard: Json) -> Iterator[Expression]:
    """Every query of a finished board, template variables still in it."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            allowed = board.may_be_empty.get((panel["id"], target["refId"]), "")
            place = f"panel {panel['id']} {panel['title']!r} {target['refId']}"
            yield Expression(board.uid, place, target["expr"], bool(target["instant"]), allowed)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = _LABEL_VALUES.fullmatch(variable["definition"])
            if not found:
                raise ValueError(f"{board.uid}: variable {variable['name']}: only label_values(metric, label) is known")
            expr = f"count by ({found['label']}) ({found['selector']})"
            yield Expression(board.uid, f"variable {variable['name']}", expr, True, "")
    for mark in dashboard["annotations"]["list"]:
        allowed = "marks show only while there is something to mark"
        yield Expression(board.uid, f"annotation {mark['name']}", mark["target"]["expr"], False, allowed)


def substitute(expr: str, values: dict[str, str], interval: str = "1m") -> str:
    """Fill in template variables as Grafana does for "All".

    Raises:
        ValueError: a variable has no value here.
    """
    text = expr.replace("$__rate_interval", interval).replace("$__interval", interval).replace("$__range", "1h")
    text = re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], found[0]), text)
    if "$" in text:
        raise ValueError(f"a template variable is left in {text}")
    return text


def check(url: str, board: Board, dashboard: Json, *, span: float = 120.0, step: float = 5.0) -> list[Finding]:
    """Ask Prometheus at `url` for every expression over the last `span` seconds.

    Raises:
        CannotTell: Prometheus does not answer.
    """
    now = _query(url, "query", {"query": "time()"})
    end = float(now["result"][1])
    findings = []
    for expression in expressions(board, dashboard):
        query = substitute(expression.expr, ALL)
        window = {"time": f"{end:.3f}"}
        if not expression.instant:
            window = {"start": f"{end - span:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        verb = "query" if expression.instant else "query_range"
        try:
            result = _query(url, verb, {"query": query, **window})["result"]
        except ValueError as error:
            findings.append(Finding(expression, 0, f"refused: {error}"))
            continue
        problem = "" if result or expression.may_be_empty else "no data"
        findings.append(Finding(expression, len(result), problem))
    return findings


def _query(url: str, verb: str, parameters: dict[str, str]) -> Json:
    body = urllib.parse.urlencode(parameters).encode()
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/api/v1/{verb}", body, timeout=10) as answer:
            document: Json = json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            reason = json.load(error)["error"]
        except (ValueError, KeyError):
            raise CannotTell(f"{url} answered {error.code}: is it a Prometheus?") from None
        raise ValueError(reason) from None
    except (OSError, ValueError) as error:
        raise CannotTell(f"Prometheus at {url} does not answer: {error}") from None
    data: Json = document["data"]
    return data
