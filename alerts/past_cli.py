"""`gpuvigil detect backtest|explain|tune`: a monitor on Prometheus' past."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.base.config import load, parse_duration
from agent.base.errors import ConfigError, Exit

if TYPE_CHECKING:
    from alerts.central.backtest import Past


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    backtest = verbs.add_parser("backtest", help="what a monitor would have said in the past, without looking ahead")
    _common(backtest)
    backtest.add_argument("--html", type=Path, metavar="FILE", help="write charts with bands and alerts")
    backtest.set_defaults(run=_backtest)
    explain = verbs.add_parser("explain", help="why a monitor scored as it did at a moment")
    _common(explain, span=False)
    explain.add_argument("--at", required=True, help="the moment: ISO time, or a time ago such as 2h")
    explain.add_argument("--series", default="", metavar="LABEL=VALUE,...", help="only series with these labels")
    explain.set_defaults(run=_explain)
    tune = verbs.add_parser("tune", help="what an absolute floor would have done, and which to take")
    _common(tune)
    tune.set_defaults(run=_tune)


def _common(parser: argparse.ArgumentParser, *, span: bool = True) -> None:
    parser.add_argument("--monitor", required=True, help="a monitor of the configuration or of a preset")
    parser.add_argument("--config", help="central.yaml (default: /etc/gpuvigil/central.yaml if there)")
    parser.add_argument("-o", "--output", default="text", choices=("text", "json"))
    if span:
        parser.add_argument("--from", dest="begin", default="7d", help="ISO time, or a time ago (%(default)s)")
        parser.add_argument("--to", dest="end", default="now", help="ISO time, or a time ago (%(default)s)")


def _moment(text: str) -> float:
    if text == "now":
        return time.time()
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ConfigError(f"{text!r}: must be an ISO time such as 2025-03-01T12:00, or a time ago such as 2h") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _run(args: argparse.Namespace, begin: float, end: float) -> Past:
    from alerts.central.backtest import find_monitor, run
    from alerts.central.pool import one_thread
    from alerts.central.settings import Settings
    from alerts.central_cli import DEFAULT

    one_thread()
    path = DEFAULT if args.config is None and Path(DEFAULT).exists() else args.config
    settings = load(Settings, path)
    return run(settings, find_monitor(settings, args.monitor), begin, end, _bar)


def _bar(share: float) -> None:
    if sys.stderr.isatty():
        done = round(40 * min(share, 1.0))
        print(f"\r[{'#' * done}{'.' * (40 - done)}] {share:4.0%}", end="", file=sys.stderr, flush=True)


def _backtest(args: argparse.Namespace) -> int:
    if args.html is not None and not args.html.parent.is_dir():
        raise ConfigError(f"--html {args.html}: there is no directory {args.html.parent}")
    past = _run(args, _moment(args.begin), _moment(args.end))
    rows = [_row(past, column) for column in range(len(past.keys))]
    if args.html is not None:
        from alerts.detect.bands import Bands
        from alerts.detect.chart import chart, page

        order = sorted(range(len(rows)), key=lambda column: -rows[column]["alerts"])
        charts = [
            chart(
                rows[column]["series"],
                past.times,
                past.values[:, column],
                Bands(*(part[:, column] for part in past.bands)),
                past.scores[:, column],
            )
            for column in order[:50]
        ]
        try:
            args.html.write_text(page(f"Back-test of {past.monitor.name}", rows, charts), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--html {args.html}: cannot be written: {error.strerror}") from None
    if args.output == "json":
        document = [
            row | {"alerted": [list(alert) for alert in past.alerts(column)]} for column, row in enumerate(rows)
        ]
        print(json.dumps({"monitor": past.monitor.name, "model": past.monitor.model, "series": document}))
        return Exit.GOOD
    wide = max(len("series"), *(len(row["series"]) for row in rows))
    print(f"{'series':{wide}} {'points':>7} {'scored':>7} {'inside':>7} {'alerts':>7} {'highest':>8}")
    for row in rows:
        print(
            f"{row['series']:{wide}} {row['points']:7} {row['scored']:7} {row['inside']:7.1%} {row['alerts']:7} "
            f"{row['highest']:8.2f}"
        )
    return Exit.GOOD


def _row(past: Past, column: int) -> dict[str, Any]:
    import numpy as np

    scores = past.scores[:, column]
    known = scores[~np.isnan(scores)]
    return {
        "series": _name(past.keys[column]),
        "points": int(np.count_nonzero(~np.isnan(past.values[:, column]))),
        "scored": len(known),
        "inside": float(np.mean(known <= 1)) if len(known) else 0.0,
        "alerts": len(past.alerts(column)),
        "highest": float(known.max()) if len(known) else 0.0,
    }


def _name(key: tuple[tuple[str, str], ...]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in key) + "}"


def _explain(args: argparse.Namespace) -> int:
    import numpy as np

    at = _moment(args.at)
    wanted = dict(part.split("=", 1) for part in args.series.split(",") if "=" in part)
    past = _run(args, at - 86400.0, at)
    row = int(np.searchsorted(past.times, at, side="right")) - 1
    found = []
    for column, key in enumerate(past.keys):
        if any(dict(key).get(name) != value for name, value in wanted.items()):
            continue
        found.append(_reason(past, row, column))
    if not found:
        raise ConfigError(f"no series with {args.series!r}")
    if args.output == "json":
        print(json.dumps({"monitor": past.monitor.name, "at": float(past.times[row]), "series": found}))
    else:
        for reason in found:
            print("\n".join(f"{name:>16}: {value}" for name, value in reason.items()) + "\n")
    return Exit.GOOD


def _reason(past: Past, row: int, column: int) -> dict[str, Any]:
    monitor = past.monitor
    value, score = float(past.values[row, column]), float(past.scores[row, column])
    yhat, lower, upper = (float(part[row, column]) for part in past.bands)
    floor = max(monitor.min_dev_abs, monitor.min_dev_rel * abs(yhat))
    half = upper - yhat if value > yhat else yhat - lower
    if score != score:
        verdict = "not scored: the value or the expectation is missing (warming up, a gap, a drill, maintenance)"
    else:
        verdict = "an anomaly" if score > 1 else "as expected"
    return {
        "series": _name(past.keys[column]),
        "value": _plain(value),
        "expected": _plain(yhat),
        "interval": [_plain(lower), _plain(upper)],
        "floor": _plain(floor),
        "decided by": "the floor" if floor > half else "the model's interval",
        "direction": monitor.direction,
        "score": _plain(score),
        "verdict": verdict,
        "model": past.why[column],
        "a day before": _plain(float(past.values[0, column])),
        "alerts this day": len(past.alerts(column)),
    }


def _plain(value: float) -> float | None:
    return None if value != value else float(f"{value:.6g}")


def _tune(args: argparse.Namespace) -> int:
    from alerts.central.backtest import suggested, tune

    past = _run(args, _moment(args.begin), _moment(args.end))
    rows = tune(past)
    best = suggested(rows)
    if args.output == "json":
        document = [
            {"min_dev_abs": row.min_dev_abs, "alerts_per_day": row.alerts_per_day, "incidents": row.incidents}
            for row in rows
        ]
        print(json.dumps({"monitor": args.monitor, "suggested": best.min_dev_abs, "floors": document}))
        return Exit.GOOD
    print(f"{'min_dev_abs':>14} {'short alerts a day and series':>30} {'incidents':>10}")
    for row in rows:
        mark = "   <- suggested" if row is best else ""
        print(f"{row.min_dev_abs:14.4g} {row.alerts_per_day:30.3f} {row.incidents:10}{mark}")
    return Exit.GOOD
