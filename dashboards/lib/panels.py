"""The panels a board is made of, and the overrides that colour and move their series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from grafanalib import core

from dashboards.lib.board import DATASOURCE, NOT_REPORTED, Board, Json, Query, steps, targets


def right_axis(pattern: str, label: str, unit: str, low: float | None = None, high: float | None = None) -> Json:
    """An override that sends every series matching `pattern` to one right-hand axis.

    Grafana shares an axis only between series whose unit, bounds, placement and label all agree, so
    one override must set them all for the whole group.
    """
    properties = [
        {"id": "unit", "value": unit},
        {"id": "custom.axisPlacement", "value": "right"},
        {"id": "custom.axisLabel", "value": label},
        {"id": "custom.axisColorMode", "value": "text"},
        {"id": "custom.lineWidth", "value": 1},
    ]
    if low is not None:
        properties.insert(1, {"id": "min", "value": low})
    if high is not None:
        properties.insert(2, {"id": "max", "value": high})
    return {"matcher": {"id": "byRegexp", "options": pattern}, "properties": properties}


def paint(pattern: str, colour: str, dash: bool = False) -> Json:
    """An override: fixed colour, dashed if asked."""
    properties: list[Json] = [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]
    if dash:
        properties.append({"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}})
    return {"matcher": {"id": "byRegexp", "options": pattern}, "properties": properties}


def series(
    board: Board,
    id: int,
    title: str,
    description: str,
    grid: core.GridPos,
    queries: Sequence[Query],
    *,
    unit: str = "none",
    label: str = "",
    overrides: Sequence[Json] = (),
    limit: float | None = None,
    low: float | None = None,
    high: float | None = None,
    legend: Literal["list", "table"] = "list",
) -> None:
    """A time-series panel; `limit` draws a dashed red line with the area above it shaded."""
    extra: Json = {"fieldConfig": {"defaults": {"noValue": NOT_REPORTED, "custom": {}}}}
    if low is not None:
        extra["fieldConfig"]["defaults"]["min"] = low
    if high is not None:
        extra["fieldConfig"]["defaults"]["max"] = high
    board.add(
        core.TimeSeries(
            id=id,
            title=title,
            description=description,
            dataSource=DATASOURCE,
            gridPos=grid,
            targets=targets(queries),
            unit=unit,
            axisLabel=label,
            lineWidth=2,
            fillOpacity=0,
            showPoints="never",
            maxDataPoints=None,
            stacking={"mode": "none", "group": "A"},
            tooltipMode="multi",
            tooltipSort="desc",
            legendDisplayMode=legend,
            legendPlacement="right" if legend == "table" else "bottom",
            legendCalcs=["lastNotNull", "min", "max"] if legend == "table" else [],
            thresholdsStyleMode="dashed+area" if limit is not None else "off",
            thresholds=steps((None, "transparent"), (limit, "red")) if limit is not None else steps((None, "green")),
            overrides=list(overrides),
            extraJson=extra,
        ),
        queries,
    )


def stat(
    board: Board,
    id: int,
    title: str,
    description: str,
    grid: core.GridPos,
    query: Query,
    *,
    unit: str = "none",
    colours: Sequence[tuple[float | None, str]] = ((None, "green"),),
    words: dict[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
) -> None:
    """One number, coloured by `colours`; `words` maps a value to (text, colour)."""
    query = Query(query.expr, query.legend, True, query.empty)
    mappings: list[Json] = []
    if words:
        options = {value: {"text": text, "color": colour} for value, (text, colour) in words.items()}
        mappings.append({"type": "value", "options": options})
    board.add(
        core.Stat(
            id=id,
            title=title,
            description=description,
            dataSource=DATASOURCE,
            gridPos=grid,
            targets=targets([query]),
            format=unit,
            decimals=decimals,
            reduceCalc="lastNotNull",
            graphMode="none",
            colorMode="background",
            noValue=NOT_REPORTED,
            maxDataPoints=None,
            mappings=mappings,
            thresholds=steps(*colours),
            extraJson={
                "fieldConfig": {"defaults": {"color": {"mode": "thresholds"}}},
                "options": {"wideLayout": True, "showPercentChange": False, "percentChangeColorMode": "standard"},
            },
        ),
        [query],
    )


def timeline(
    board: Board,
    id: int,
    title: str,
    description: str,
    grid: core.GridPos,
    queries: Sequence[Query],
    words: dict[str, tuple[str, str]],
) -> None:
    """A state timeline whose values read as `words`; silence reads "not reported", in grey."""
    options = {value: {"text": text, "color": colour} for value, (text, colour) in words.items()}
    silent = {"match": "null", "result": {"text": NOT_REPORTED, "color": "text"}}
    board.add(
        core.StateTimeline(
            id=id,
            title=title,
            description=description,
            dataSource=DATASOURCE,
            gridPos=grid,
            targets=targets(queries),
            maxDataPoints=None,
            mappings=[{"type": "value", "options": options}, {"type": "special", "options": silent}],
            thresholds=steps((None, "text")),
            extraJson={"options": {"tooltip": {"mode": "single", "sort": "none"}}},
        ),
        queries,
    )


def table(
    board: Board,
    id: int,
    title: str,
    description: str,
    grid: core.GridPos,
    queries: Sequence[Query],
    *,
    key: str,
    columns: Sequence[tuple[str, str]],
    overrides: Sequence[Json] = (),
) -> None:
    """A table with one row per `key` and one column per query.

    Args:
        board: the board to put it on.
        id: panel id.
        title: panel title.
        description: what it means and what to do.
        grid: place.
        queries: instant queries aggregated by `key`, one a column.
        key: label that joins the queries.
        columns: (title, unit) of each query.
        overrides: further field overrides.
    """
    queries = [Query(query.expr, query.legend, True, query.empty) for query in queries]
    made = targets(queries)
    for target in made:
        target.format = "table"
    renamed = {f"Value #{target.refId}": title for target, (title, _) in zip(made, columns, strict=True)}
    units = [
        {"matcher": {"id": "byName", "options": title}, "properties": [{"id": "unit", "value": unit}]}
        for title, unit in columns
    ]
    board.add(
        core.Table(
            id=id,
            title=title,
            description=description,
            dataSource=DATASOURCE,
            gridPos=grid,
            targets=made,
            maxDataPoints=None,
            thresholds=steps((None, "transparent")),
            overrides=[*units, *overrides],
            transformations=[
                {"id": "joinByField", "options": {"byField": key, "mode": "outer"}},
                {
                    "id": "organize",
                    "options": {
                        "excludeByName": {f"Time {number}": True for number in range(1, len(made) + 1)}
                        | {"Time": True},
                        "renameByName": renamed,
                        "indexByName": {},
                    },
                },
            ],
            extraJson={
                "fieldConfig": {
                    "defaults": {"noValue": NOT_REPORTED, "custom": {"cellOptions": {"type": "auto"}, "inspect": False}}
                },
                "options": {"frameIndex": 0, "showHeader": True},
            },
        ),
        queries,
    )
