"""`gpuvigil detect eta`: detection on files, without a service."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.base.config import parse_duration
from agent.base.errors import CannotTell, ConfigError, Exit

if TYPE_CHECKING:
    from alerts.detect.eta import Schedule
    from alerts.detect.replay import Moment


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    eta = verbs.add_parser("eta", help="replay a training log: when was it expected to end, and was it late?")
    eta.add_argument("log", metavar="LOG", help="training log, or a CSV of progress; - is standard input")
    eta.add_argument("--plan", type=_seconds, metavar="SECONDS", help="what the run was to take (90m and 2h are fine)")
    eta.add_argument("--total-steps", type=int, metavar="N", help="steps it was to make, if the log does not say")
    eta.add_argument(
        "--schedule",
        metavar="STEP:COST,...",
        help="known costs of steps: 720:1.8 means 1.8 times as long from step 720",
    )
    eta.add_argument("--format", default="auto", help="format of the log (%(default)s)")
    eta.add_argument("-o", "--output", default="text", choices=("text", "json"))
    eta.set_defaults(run=_eta)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _schedule(text: str | None) -> Schedule | None:
    from alerts.detect.eta import Schedule

    if not text:
        return None
    try:
        points = sorted(
            (float(step), float(cost)) for step, _, cost in (part.partition(":") for part in text.split(","))
        )
    except ValueError:
        raise ConfigError(f"--schedule {text!r}: must be STEP:COST,STEP:COST,..., such as 0:1,720:1.8") from None
    if any(cost <= 0 for _, cost in points):
        raise ConfigError(f"--schedule {text!r}: a cost must be above 0")
    if points[0][0] > 0:
        points.insert(0, (0.0, 1.0))
    return Schedule(tuple(points))


def _lines(path: str) -> Iterator[str]:
    if path == "-":
        yield from sys.stdin
        return
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            yield from file
    except OSError as error:
        raise CannotTell(f"{path}: cannot be read: {error.strerror}") from None


def _eta(args: argparse.Namespace) -> int:
    from alerts.detect.replay import replay

    if args.plan is not None and not args.plan > 0:
        raise ConfigError(f"--plan {args.plan:g}: must be above 0")
    moments = replay(
        _lines(args.log),
        plan=args.plan,
        total_steps=args.total_steps,
        schedule=_schedule(args.schedule),
        log_format=args.format,
    )
    if args.output == "json":
        for moment in moments:
            print(json.dumps(_as_json(moment)))
        return Exit.GOOD
    _table(moments)
    return Exit.GOOD


def _as_json(moment: Moment) -> dict[str, Any]:
    eta = moment.judgement.eta
    return {
        "elapsed": round(moment.elapsed, 3),
        "step": moment.step,
        "eta_total": round(eta.total, 3) if eta else None,
        "low": round(eta.low, 3) if eta else None,
        "high": round(eta.high, 3) if eta else None,
        "deviation": _rounded(moment.judgement.deviation),
        "alert": moment.judgement.alert,
        "plan": "learned" if moment.judgement.learned else "configured",
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _table(moments: Iterator[Moment]) -> None:
    """A row every twentieth of what the log holds, and one wherever the alert changes."""
    known = list(moments)
    every = max(len(known) // 20, 1)
    print(f"{'elapsed':>10} {'step':>9} {'expected':>10} {'80 % interval':>21} {'deviation':>9}  alert")
    before = None
    for number, moment in enumerate(known):
        changed = moment.judgement.alert != before
        before = moment.judgement.alert
        if not changed and number % every and number != len(known) - 1:
            continue
        eta, off = moment.judgement.eta, moment.judgement.deviation
        expected = f"{eta.total:10.0f} {eta.low:10.0f} {eta.high:10.0f}" if eta else f"{'warming up':>10} {'':21}"
        print(
            f"{moment.elapsed:10.0f} {moment.step:9d} {expected} "
            f"{'' if off is None else f'{off:+.1%}':>9}  {moment.judgement.alert or ''}"
        )
