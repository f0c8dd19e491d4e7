"""The only room that knows grafanalib and its traps; boards are written with these few functions.

grafanalib 0.7.1 is the object layer. Its defaults are those of an old Grafana (schema 12, 100 data
points, refId ""), and its `Threshold`, heatmap and annotation classes draw empty panels in a new one;
this package puts that right, so no board has to know.
"""

from dashboards.lib.board import SCOPE, Board, Json, Query, at, select, steps
from dashboards.lib.finish import annotation, dump, finish, variable
from dashboards.lib.panels import paint, right_axis, series, stat, table, timeline

__all__ = [
    "SCOPE",
    "Board",
    "Json",
    "Query",
    "annotation",
    "at",
    "dump",
    "finish",
    "paint",
    "right_axis",
    "select",
    "series",
    "stat",
    "steps",
    "table",
    "timeline",
    "variable",
]
