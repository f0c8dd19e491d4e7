"""`gpuvigil agent`: run the node agent, look once, check it, set maintenance."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import datetime, timezone

from agent import maintenance
from agent.base.config import parse_duration
from agent.base.errors import Exit, VigilError
from agent.base.exposition import OPENMETRICS, TEXT


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    run = verbs.add_parser("run", help="run the agent until SIGTERM; SIGHUP reloads")
    _add_config(run)
    run.add_argument("--strict", action="store_true", help="an undeclared or invalid sample fails its collector")
    run.set_defaults(run=_run)

    once = verbs.add_parser("once", help="collect once and print the page")
    _add_config(once)
    once.add_argument("--format", choices=("text", "openmetrics"), default="text", help="format of the page")
    once.add_argument("--strict", action="store_true", help="an undeclared or invalid sample fails its collector")
    once.set_defaults(run=_once)

    flag = verbs.add_parser("maintenance", help="keep this node's pages quiet for a while")
    states = flag.add_subparsers(dest="state", metavar="STATE", required=True)
    on = states.add_parser("on", help="start or change the window")
    on.add_argument("--for", dest="span", required=True, metavar="DURATION", help="how long, such as 2h or 90m")
    on.add_argument("--why", required=True, help="the reason, for those who ask later")
    on.set_defaults(run=_maintenance_on)
    off = states.add_parser("off", help="end the window now")
    off.set_defaults(run=_maintenance_off)
    status = states.add_parser("status", help="say whether a window is set")
    status.set_defaults(run=_maintenance_status)
    for each in (on, off, status):
        _add_config(each)
        each.add_argument("-o", dest="output", choices=("text", "json"), default="text", help="form of the answer")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="agent.yaml; without one every setting has its default")


# What a command needs is imported when it runs, so that `--help` and completion stay quick.


def _run(args: argparse.Namespace) -> int:
    from agent.daemon import run

    return run(args.config, strict=args.strict)


def _once(args: argparse.Namespace) -> int:
    from agent.oneshot import collect_once
    from agent.settings import load_config

    snapshot = collect_once(load_config(args.config), strict=args.strict)
    sys.stdout.buffer.write(snapshot.page(OPENMETRICS if args.format == "openmetrics" else TEXT))
    sys.stdout.buffer.flush()
    bad = [status for status in snapshot.statuses if status.state != "ok"]
    for status in bad:
        print(f"gpuvigil: {status.name} {status.state}: {status.error}", file=sys.stderr)
    return int(Exit.BAD if bad else Exit.GOOD)


def _state_dir(args: argparse.Namespace) -> str:
    from agent.settings import load_config

    return load_config(args.config).state_dir


def _maintenance_on(args: argparse.Namespace) -> int:
    try:
        seconds = parse_duration(args.span)
    except ValueError as error:
        problem = VigilError(f"--for {error}")
        problem.code = Exit.USAGE
        raise problem from None
    state_dir = _state_dir(args)
    window = maintenance.switch_on(state_dir, seconds, args.why, time.time())
    return _say_window(window, args.output)


def _maintenance_off(args: argparse.Namespace) -> int:
    state_dir = _state_dir(args)
    was = maintenance.switch_off(state_dir)
    if args.output == "json":
        print(json.dumps({"active": False, "was_set": was}))
    else:
        print("maintenance is off" if was else "no maintenance was set")
    return int(Exit.GOOD)


def _maintenance_status(args: argparse.Namespace) -> int:
    try:
        window = maintenance.read(_state_dir(args))
    except ValueError as error:
        raise VigilError(str(error)) from None
    return _say_window(window, args.output)


def _say_window(window: maintenance.Maintenance | None, output: str) -> int:
    left = window.until - time.time() if window is not None else 0.0
    if output == "json":
        print(json.dumps({"active": left > 0, **(asdict(window) if window is not None else {})}))
    elif window is None or left <= 0:
        print("no maintenance" if window is None else f"no maintenance; the last ended {_utc(window.until)}")
    else:
        print(f"maintenance until {_utc(window.until)} ({left / 60:.0f} min), by {window.by}: {window.why}")
    return int(Exit.GOOD)


def _utc(when: float) -> str:
    return datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
