"""A drill's report: one JSON file for machines, one HTML page without outside parts for people."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from chaos.engine.result import MARKS, Result
from chaos.report_timeline import draw

STYLE = """
:root { --ink:#1b2430; --soft:#5d6b7c; --line:#dfe5ec; --paper:#fff; --ground:#f4f6f9; --good:#1a7f4b; --bad:#b3261e;
  --warn:#8a5a00; --fault:#d9534f; --agent:#2f7fd1; --rule:#c77f0a; --people:#7a55c7; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6ebf2; --soft:#9aa8b8; --line:#2e3946; --paper:#161d26;
  --ground:#0e141b; --good:#4cc38a; --bad:#ff8a80; --warn:#f0c060; } }
* { box-sizing:border-box }
body { margin:0; background:var(--ground); color:var(--ink); font:16px/1.5 system-ui,"Segoe UI",sans-serif }
main { max-width:62rem; margin:0 auto; padding:2rem 1.2rem 4rem }
h1 { font-size:1.7rem; margin:.2rem 0 } h2 { font-size:1.05rem; margin:0 0 .8rem }
section { background:var(--paper); border:1px solid var(--line); border-radius:12px; padding:1.2rem 1.4rem;
  margin:1rem 0 }
.soft { color:var(--soft) }
.badge { display:inline-block; padding:.15rem .8rem; border-radius:99px; color:var(--paper); font-weight:650;
  letter-spacing:.03em; background:var(--warn) }
.badge.pass { background:var(--good) } .badge.fail,.badge.undo_failed { background:var(--bad) }
.simulated { border-left:5px solid var(--rule); font-weight:600 }
.marks { display:grid; grid-template-columns:repeat(auto-fit,minmax(8.2rem,1fr)); gap:.7rem; margin-bottom:1.2rem }
.marks div { border:1px solid var(--line); border-radius:9px; padding:.5rem .8rem }
.marks b { display:block; font-size:1.35rem }
table { border-collapse:collapse; width:100% }
th,td { text-align:left; padding:.35rem .6rem .35rem 0; vertical-align:top; border-bottom:1px solid var(--line);
  overflow-wrap:anywhere }
th { color:var(--soft); font-weight:500; width:12rem }
ul { margin:.2rem 0; padding-left:1.3rem } a { color:var(--agent) } svg { width:100%; height:auto }
svg text { fill:var(--ink); font:13px system-ui,sans-serif } svg .soft { fill:var(--soft) }
svg .grid { stroke:var(--line) }
"""


def write(result: Result, folder: Path) -> Path:
    """Write `drill-<id>.json` and `drill-<id>.html` into `folder`; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"drill-{result.id}"
    stem.with_suffix(".json").write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    page = stem.with_suffix(".html")
    page.write_text(render(result), encoding="utf-8")
    return page


def text(result: Result) -> str:
    """The timeline and verdict as a table for a terminal."""
    rows = [f"  {name:10} {at:8.2f} s   {MARKS[name]}" for name, at in result.timeline.items()]
    reasons = [f"  - {reason}" for reason in result.reasons]
    return "\n".join([f"Drill {result.id}: {result.verdict.upper()}", *rows, *reasons])


def render(result: Result) -> str:
    """The HTML page."""
    e = html.escape
    started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(result.started))
    parts = [
        "<header>"
        f'<p class="soft">Drill report &middot; {e(result.node)} &middot; {started}</p><h1>{e(result.title)}</h1>'
        f'<p><span class="badge {e(result.verdict)}">{e(result.verdict.replace("_", " ").upper())}</span> '
        f'<span class="soft">{e(result.id)}</span></p><p>{e(result.why)}</p></header>'
    ]
    if result.simulated:
        parts.append(
            '<section class="simulated">The GPUs of this drill are simulated: the fault was set in a simulator of '
            "NVML, everything that noticed it is real.</section>"
        )
    if result.reasons:
        parts.append(_section("Why it is not a pass", _list(result.reasons)))
    if result.timeline:
        parts.append(_section("Timeline", _marks(result.timeline) + draw(result) + _FOOT))
    parts.append(_section("What was done, and what was read back", _list(result.plan) + _list(result.evidence)))
    if result.page:
        said, known_by = _table(result.page.get("annotations", {})), _table(result.page.get("labels", {}))
        parts.append(_section("The page that people would have received", said))
        parts.append(_section("Its labels", known_by))
    touched = {f"{item['scope']} touched": item["target"] for item in result.touches}
    received = {f"delivered at {path}": str(count) for path, count in sorted(result.received.items())}
    parts.append(_section("Scope and deliveries", _table({**touched, **received})))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{e(result.title)}: {e(result.verdict)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


_FOOT = (
    '<p class="soft">Seconds since just before the fault was set, all on one monotonic clock: when the agent rendered '
    "the page that showed it, when Prometheus evaluated the rule that fired, when the sink received the page. Ends of "
    "bars are when it was first seen, asked ten times a second.</p>"
)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"


def _marks(timeline: Mapping[str, float]) -> str:
    tiles = (f'<div><span class="soft">{name}</span><b>{at:.2f} s</b></div>' for name, at in timeline.items())
    return f'<div class="marks">{"".join(tiles)}</div>'


def _table(rows: Mapping[str, str]) -> str:
    return (
        "<table>"
        + "".join(f"<tr><th>{html.escape(k)}</th><td>{_linked(v)}</td></tr>" for k, v in rows.items())
        + "</table>"
    )


def _linked(value: str) -> str:
    shown = html.escape(value)
    return f'<a href="{shown}">{shown}</a>' if value.startswith(("http://", "https://")) else shown
