"""`gpuvigil alerts routing build|check`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from agent.base import config
from agent.base.errors import Exit
from alerts.routing import amtool, build
from alerts.routing.settings import RoutingConfig, sink

SINK = "http://127.0.0.1:9843"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `gpuvigil alerts routing`."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, summary, run in (
        ("build", "write alertmanager.yml from routing.yaml", run_build),
        ("check", "have amtool check it, and test where alerts go", run_check),
    ):
        sub = verbs.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:] + ".")
        source = sub.add_mutually_exclusive_group()
        source.add_argument("--config", metavar="FILE", help="routing.yaml: channels, receivers, teams")
        source.add_argument("--sink", metavar="URL", default=SINK, help=f"without --config: a webhook sink ({SINK})")
        if name == "build":
            sub.add_argument("-o", dest="output", metavar="FILE", required=True, help="where to write it")
        else:
            sub.add_argument("--amtool", metavar="PATH", help="which amtool (else the one on PATH)")
        sub.set_defaults(run=run)


def routing(args: argparse.Namespace) -> RoutingConfig:
    """The settings asked for; without a file, everything to the demo's sink, said on stderr.

    Raises:
        ConfigError: the file is wrong.
    """
    if args.config is not None:
        return config.load(RoutingConfig, args.config)
    print(f"note: no --config, so every alert goes to the webhook sink at {args.sink}", file=sys.stderr)
    return sink(args.sink)


def run_build(args: argparse.Namespace) -> int:
    settings = routing(args)
    path = Path(args.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    # WeChat's secret stands in the file: its owner alone may read it then
    secret = any(channel.wechat for channel in settings.channels.values())
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if secret else 0o644)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(build.text(settings))
    if secret:
        path.chmod(0o600)
    print(path)
    if not settings.receivers.watchdog:
        print("note: receivers.watchdog is empty: nobody notices when alerting itself stops", file=sys.stderr)
    return Exit.GOOD


def run_check(args: argparse.Namespace) -> int:
    found = amtool.problems(build.text(routing(args)), args.amtool)
    for problem in found:
        print(problem)
    print(f"{len(amtool.ROUTES)} routes tested, {len(found)} problems", file=sys.stderr)
    return Exit.BAD if found else Exit.GOOD
