"""The only module that knows grafanalib and its traps; boards are written with these few functions.

grafanalib 0.7.1 is the object layer. Its defaults are those of an old Grafana (schema 12, 100 data
points, refId ""), and its `Threshold`, heatmap and annotation classes draw empty panels in a new one;
`finish` and the factories here put that right, so no board has to know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from grafanalib import core
from grafanalib._gen import DashboardEncoder

from agent.base.catalogue import Metric

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA = 41
TAG = "gpuvigil"
NOT_REPORTED = "not reported"
SCOPE = {"job": "=~$job", "cluster": "=~$cluster", "node": "=~$node"}

LEGACY_KEYS = frozenset(
    {
        *("editable", "error", "height", "span", "minSpan", "hideTimeOverride", "rows", "hideControls", "style"),
        *("sharedCrosshair", "__inputs", "columns", "fontSize", "cacheTimeout", "useTags", "tagsQuery", "gnetId"),
        *("tagValuesQuery", "metric", "intervalFactor", "step", "time_options", "transparent"),
    }
)
"""What grafanalib writes for Grafana 4 and no Grafana since has read."""


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


def variable(name: str, label: str, query: str, *, multi: bool = True) -> Json:
    """A query variable such as `label_values(up, node)`, refreshed when the time range changes."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": f"var-{name}"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": multi,
        "includeAll": True,
        "allValue": ".+",
        "hide": 0,
        "options": [],
        "current": {"text": "All", "value": "$__all"},
    }


def _scope_variables(info: Metric) -> list[Json]:
    # taken from a metric that every agent always has, so that a node without GPUs is still listed
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "hide": 0,
            "options": [],
            "current": {},
        },
        variable("job", "Job", f"label_values({info}, job)"),
        variable("cluster", "Cluster", f'label_values({info}{{job=~"$job"}}, cluster)'),
        variable("node", "Node", f'label_values({info}{{job=~"$job",cluster=~"$cluster"}}, node)'),
    ]


def annotation(name: str, expr: str, text: str, colour: str) -> Json:
    """Marks drawn where `expr` has a value, on every panel."""
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": colour,
        "target": {"expr": expr, "refId": f"anno-{name}", "interval": "10s"},
        "titleFormat": name,
        "textFormat": text,
    }


def finish(board: Board, info: Metric, annotations: Sequence[Json]) -> Json:
    """The board as the JSON that Grafana provisions: pruned, with what grafanalib forgets.

    Raises:
        ValueError: panel ids or refIds repeat, panels overlap, or a title or description is missing.
    """
    raw: Json = json.loads(
        json.dumps(core.Dashboard(title=board.title, panels=board.panels, uid=board.uid), cls=DashboardEncoder)
    )
    dashboard: Json = _prune(raw)
    dashboard |= {
        "description": board.description,
        "annotations": {"list": list(annotations)},
        "templating": {"list": [*_scope_variables(info), *board.variables]},
        "links": [
            {
                "type": "dashboards",
                "tags": [TAG],
                "title": "gpuvigil",
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "icon": "external link",
                "targetBlank": False,
                "tooltip": "",
                "url": "",
            }
        ],
        "tags": [TAG],
        "schemaVersion": SCHEMA,
        "editable": False,
        "graphTooltip": 1,
        "refresh": board.refresh,
        "time": {"from": board.since, "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "version": 1,
    }
    for panel in dashboard["panels"]:
        _complete(panel)
    _check(dashboard)
    return dashboard


def _prune(value: Any, key: str = "") -> Any:
    """Drop nulls and dead keys, except a threshold's null base, which Grafana needs."""
    if isinstance(value, dict):
        return {
            name: _prune(inner, name)
            for name, inner in value.items()
            if name not in LEGACY_KEYS and (inner is not None or (name == "value" and "color" in value))
        }
    if isinstance(value, list):
        return [_prune(inner, key) for inner in value]
    return value


def _complete(panel: Json) -> None:
    for target in panel.get("targets", []):
        for dead in ("target", "query"):
            target.pop(dead, None)
        target |= {"editorMode": "code", "range": not target["instant"]}
    options = panel.setdefault("options", {})
    if "legend" in options:
        options["legend"] |= {"showLegend": True}
        options["legend"].setdefault("calcs", [])
    panel["fieldConfig"].setdefault("overrides", [])
    if not panel["fieldConfig"]["defaults"].get("mappings"):
        panel["fieldConfig"]["defaults"].pop("mappings", None)
    if panel["type"] == "table":
        for dead in ("color", "mappings"):
            panel.pop(dead, None)
        panel["fieldConfig"]["defaults"]["custom"].pop("displayMode", None)


def _check(dashboard: Json) -> None:
    seen: set[int] = set()
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        title = panel.get("title")
        if not title or not panel.get("description"):
            raise ValueError(f"panel {panel.get('id')}: needs a title and a description")
        if panel["id"] in seen:
            raise ValueError(f"{title}: id {panel['id']} is taken")
        seen.add(panel["id"])
        refs = [target["refId"] for target in panel["targets"]]
        if len(set(refs)) != len(refs) or not all(refs):
            raise ValueError(f"{title}: refIds {refs} must differ")
        grid = panel["gridPos"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                if (other := taken.setdefault((x, y), title)) != title:
                    raise ValueError(f"{title} overlaps {other}")
        if grid["x"] + grid["w"] > 24:
            raise ValueError(f"{title}: reaches beyond column 24")


def dump(dashboard: Json) -> str:
    """Deterministic JSON text of a finished board."""
    return json.dumps(dashboard, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
