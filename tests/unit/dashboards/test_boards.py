"""The boards as files: built from code, complete, and speaking only the catalogue's words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as pp
import pytest

from agent.base.catalogue import TARGET_LABELS, Metric, load_all
from dashboards.boards import load_all as load_boards
from dashboards.lib import Board, Query, at, dump, finish, series, steps
from dashboards.query_check import ALL, expressions, substitute

COMMITTED = Path(__file__).parents[3] / "deploy/grafana/dashboards"
BOARDS = load_boards()
FOREIGN = {"up": TARGET_LABELS, "ALERTS": {"alertname", "alertstate", "severity", "drill", "synthetic", *TARGET_LABELS}}


def selectors(node: Any) -> Iterator[Any]:
    if isinstance(node, pp.VectorSelector):
        yield node
        return
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(node, name, None)
        if isinstance(child, (pp.Expr, pp.VectorSelector)):
            yield from selectors(child)
    for child in getattr(node, "args", None) or []:
        yield from selectors(child)


def known_series() -> dict[str, Metric]:
    return {name: metric for metric in load_all().values() for name in metric.series}


@pytest.mark.parametrize("uid", BOARDS)
def test_the_committed_file_is_what_the_code_builds(uid: str) -> None:
    assert (COMMITTED / f"{uid}.json").read_text() == dump(BOARDS[uid][1]), "run ./dev docs"


def test_no_board_is_committed_that_no_module_builds() -> None:
    assert {path.stem for path in COMMITTED.glob("*.json")} == set(BOARDS)


@pytest.mark.parametrize("uid", BOARDS)
def test_every_selector_names_a_declared_series_and_its_labels(uid: str) -> None:
    known = known_series()
    for expression in expressions(*BOARDS[uid]):
        for selector in selectors(pp.parse(substitute(expression.expr, ALL))):
            assert selector.name in known or selector.name in FOREIGN, f"{expression.place}: {selector.name}"
            if selector.name in FOREIGN:
                labels = set(FOREIGN[selector.name])
            else:
                metric = known[selector.name]
                labels = {*metric.labels, *TARGET_LABELS, "le"}
                if metric.dynamic:
                    continue
            for matcher in selector.matchers.matchers:
                assert matcher.name in labels, f"{expression.place}: {selector.name} has no label {matcher.name}"


@pytest.mark.parametrize("uid", BOARDS)
def test_rates_are_over_the_rate_interval_and_of_counters(uid: str) -> None:
    for expression in expressions(*BOARDS[uid]):
        for inner in re.findall(r"\b(?:rate|irate)\(([^()]*)\)", expression.expr):
            assert inner.endswith("[$__rate_interval]"), expression.expr
            name = re.match(r"\w+", inner)
            assert name
            assert name[0].endswith(("_total", "_bucket", "_count", "_sum")), expression.expr


@pytest.mark.parametrize("uid", BOARDS)
def test_what_a_reader_at_night_needs_is_there(uid: str) -> None:
    board, dashboard = BOARDS[uid]
    assert len(uid) <= 40
    assert dashboard["editable"] is False
    assert dashboard["graphTooltip"] == 1
    text = dump(dashboard)
    assert '"value": "null"' not in text, "grafanalib's Threshold draws an empty panel"
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["description"]
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] in ("timeseries", "stat", "table"):
            assert defaults["noValue"] == "not reported"
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"]["showLegend"] is True
            assert defaults["custom"]["stacking"]["mode"] == "none"
            assert defaults["unit"]
        assert "maxDataPoints" not in panel, "100 points a panel hide short stalls"
    assert board.may_be_empty.keys() <= {
        (panel["id"], target["refId"]) for panel in dashboard["panels"] for target in panel["targets"]
    }


def test_loss_stands_left_and_utilisation_right() -> None:
    _, dashboard = BOARDS["gpuvigil-training"]
    panel = next(panel for panel in dashboard["panels"] if panel["title"] == "Loss and GPU utilisation")
    legends = [target["legendFormat"] for target in panel["targets"]]
    to_the_right = [
        override["matcher"]["options"]
        for override in panel["fieldConfig"]["overrides"]
        if {"id": "custom.axisPlacement", "value": "right"} in override["properties"]
    ]
    assert len(to_the_right) == 1, "two right-hand groups would make two right-hand axes"
    pattern = to_the_right[0].strip("/")
    assert [bool(re.search(pattern, legend)) for legend in legends] == [False, True, True]
    assert panel["fieldConfig"]["defaults"]["custom"]["axisLabel"] == "loss"


def test_threshold_base_keeps_its_null() -> None:
    assert json.loads(json.dumps(steps((None, "green"), (1.0, "red"))))[0] == {"color": "green", "value": None}
    limits = [
        panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        for _, dashboard in BOARDS.values()
        for panel in dashboard["panels"]
    ]
    assert all("value" in step for steps_ in limits for step in steps_)


def board_of(*ids: int, title: str = "t", grid: tuple[int, int, int, int] = (0, 0, 4, 4)) -> Board:
    board = Board(uid="x", title="x", description="x")
    for number, id in enumerate(ids):
        x, y, w, h = grid
        series(board, id, title, "d", at(x, y + number * h, w, h), [Query("up")])
    return board


@pytest.mark.parametrize(
    ("board", "says"),
    [
        (board_of(1, 1), "taken"),
        (board_of(1, title=""), "title"),
        (board_of(1, grid=(22, 0, 4, 4)), "column 24"),
    ],
)
def test_a_broken_board_is_refused(board: Board, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        finish(board, load_all()["gpuvigil_build"], [])


def test_overlapping_panels_are_refused() -> None:
    board = board_of(1)
    series(board, 2, "other", "d", at(2, 2, 4, 4), [Query("up")])
    with pytest.raises(ValueError, match="overlaps"):
        finish(board, load_all()["gpuvigil_build"], [])
