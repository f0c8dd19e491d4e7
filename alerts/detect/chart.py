"""A page with charts of scored series: values, bands and alerts as inline SVG, nothing to download."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

import numpy as np

from alerts.detect.bands import Array, Bands
from alerts.detect.quality import runs

WIDTH, HEIGHT, MARGIN = 1000, 220, 46
MOST = 1200
"""Points of a chart; more are thinned, alerts never."""

_STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;"
    "padding:0 1rem}"
    "svg{width:100%;height:auto}.band{fill:#3b82f633}.yhat{stroke:#3b82f6;fill:none}.value{stroke:currentColor;fill:none}"
    ".alert{fill:#dc2626}.axis{stroke:#8883}text{fill:currentColor;font-size:11px}table{border-collapse:collapse}"
    "td,th{padding:.2rem .7rem;border-bottom:1px solid #8884;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
)


_LEGEND = "Line: value. Blue: expected, with the interval. Red: scores above 1. Times are UTC."
_ANCHORS = ("start", "middle", "middle", "middle", "end")


def page(title: str, rows: Iterable[Mapping[str, object]], charts: Iterable[str]) -> str:
    """An HTML document: a table of `rows` (all with the same keys) and the charts below it."""
    table = list(rows)
    head = "".join(f"<th>{html.escape(str(key))}" for key in (table[0] if table else {}))
    body = "".join("<tr>" + "".join(f"<td>{html.escape(_text(v))}" for v in row.values()) for row in table)
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1><table><tr>{head}{body}</table>"
        f"<p>{_LEGEND}</p>{''.join(charts)}</html>\n"
    )


def chart(title: str, times: Array, values: Array, bands: Bands, scores: Array) -> str:
    """One series as SVG: Unix times (T,), values (T,), bands (T,) each, scores (T,)."""
    yhat, lower, upper = bands
    everything = np.concatenate([values, lower, upper])
    known = everything[np.isfinite(everything)]
    if not len(known):
        return f"<h2>{html.escape(title)}</h2><p>no values</p>"
    low, high = float(known.min()), float(known.max())
    high = high if high > low else low + 1.0
    span = max(float(times[-1] - times[0]), 1.0)

    def x(time: float) -> float:
        return MARGIN + float(time - times[0]) / span * (WIDTH - MARGIN - 8)

    def y(value: float) -> float:
        return HEIGHT - 22 - (value - low) / (high - low) * (HEIGHT - 34)

    keep = np.unique(np.linspace(0, len(times) - 1, MOST).astype(np.intp))
    band = ""
    for first, last in runs(np.isfinite(lower[keep]) & np.isfinite(upper[keep])):
        there = keep[first:last].tolist()
        edge = [(x(times[i]), y(upper[i])) for i in there] + [(x(times[i]), y(lower[i])) for i in reversed(there)]
        band += f'<polygon class="band" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in edge)}"/>'
    alerts = "".join(
        f'<circle class="alert" cx="{x(times[i]):.1f}" cy="{y(values[i]):.1f}" r="3"><title>{_moment(times[i])}: '
        f"{values[i]:.4g}, score {scores[i]:.2f}</title></circle>"
        for i in np.flatnonzero(scores > 1)
    )
    axis = "".join(
        f'<text x="2" y="{y(level) + 4:.0f}">{level:.4g}</text>'
        f'<path class="axis" d="M{MARGIN},{y(level):.1f}H{WIDTH - 8}"/>'
        for level in (low, (low + high) / 2, high)
    ) + "".join(
        f'<text x="{x(time):.0f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{_moment(time)}</text>'
        for time, anchor in zip(np.linspace(times[0], times[-1], 5), _ANCHORS, strict=True)
    )
    return (
        f'<h2>{html.escape(title)}</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"{band}{_line('yhat', times, yhat, keep, x, y)}"
        f"{_line('value', times, values, keep, x, y)}{alerts}{axis}</svg>"
    )


def _line(name: str, times: Array, values: Array, keep: Iterable[int], x, y) -> str:  # type: ignore[no-untyped-def]
    path, pen = [], "M"
    for i in keep:
        if math.isfinite(values[i]):
            path.append(f"{pen}{x(times[i]):.1f},{y(values[i]):.1f}")
            pen = "L"
        else:
            pen = "M"
    return f'<path class="{name}" d="{"".join(path)}"/>'


def _moment(time: float) -> str:
    return datetime.fromtimestamp(float(time), timezone.utc).strftime("%Y-%m-%d %H:%M")


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
