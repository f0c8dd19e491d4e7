"""From a board to the JSON that Grafana provisions: variables, marks, pruning and checks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from grafanalib import core
from grafanalib._gen import DashboardEncoder

from agent.base.catalogue import Metric
from dashboards.lib.board import DATASOURCE, Board, Json

SCHEMA = 41
TAG = "gpuvigil"
LEGACY_KEYS = frozenset(
    {
        *("editable", "error", "height", "span", "minSpan", "hideTimeOverride", "rows", "hideControls", "style"),
        *("sharedCrosshair", "__inputs", "columns", "fontSize", "cacheTimeout", "useTags", "tagsQuery", "gnetId"),
        *("tagValuesQuery", "metric", "intervalFactor", "step", "time_options", "transparent"),
    }
)
"""What grafanalib writes for Grafana 4 and no Grafana since has read."""


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
