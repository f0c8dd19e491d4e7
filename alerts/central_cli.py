"""`gpuvigil central run|check|monitors|presets`: the detection service."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.base import config
from agent.base import log as logging_setup
from agent.base.errors import CannotTell, Exit

if TYPE_CHECKING:
    from alerts.central.settings import Settings

DEFAULT = "/etc/gpuvigil/central.yaml"


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    run = verbs.add_parser("run", help="run the service in the foreground")
    _config(run)
    run.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    run.add_argument("--log-format", default="logfmt", choices=("logfmt", "json"))
    run.set_defaults(run=_run)
    check = verbs.add_parser("check", help="check the configuration, and every query against Prometheus")
    _config(check)
    check.add_argument("--offline", action="store_true", help="the file alone, no query")
    check.add_argument("-o", "--output", default="text", choices=("text", "json"))
    check.set_defaults(run=_check)
    monitors = verbs.add_parser("monitors", help="the state of every monitor of a running service")
    monitors.add_argument("--url", default="http://127.0.0.1:9841", help="where the service listens (%(default)s)")
    monitors.add_argument("-o", "--output", default="text", choices=("text", "json"))
    monitors.set_defaults(run=_monitors)
    presets = verbs.add_parser("presets", help="what the presets watch, with floors, and what they leave out and why")
    presets.add_argument("-o", "--output", default="text", choices=("text", "json"))
    presets.set_defaults(run=_presets)


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help=f"YAML file (default: {DEFAULT} if there, else defaults)")


def _path(given: str | None) -> str | None:
    return DEFAULT if given is None and Path(DEFAULT).exists() else given


def _load(path: str | None) -> Settings:
    from alerts.central.settings import Settings

    return config.load(Settings, path)


def _run(args: argparse.Namespace) -> int:
    from alerts.central.pool import one_thread

    one_thread()
    from alerts.central.serve import Process
    from alerts.central.service import Central

    logging_setup.setup(args.log_level, args.log_format)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    path = _path(args.config)
    process = Process(Central(_load(path)), lambda: _load(path), Path(path) if path else None)
    asyncio.run(process.run())
    # Turns that still wait for Prometheus hold nothing worth waiting for.
    sys.stderr.flush()
    os._exit(int(Exit.GOOD))


def _check(args: argparse.Namespace) -> int:
    from alerts.central.presets import monitors_of, resources_of
    from alerts.central.promread import Reader, ReadError
    from alerts.central.settings import Capacity, Monitor

    settings = _load(_path(args.config))
    as_json = args.output == "json"
    if args.offline:
        number = len(settings.monitors) + len(monitors_of(settings))
        resources = len(settings.capacity) + len(resources_of(settings))
        counted = json.dumps({"monitors": number, "capacity": resources})
        print(counted if as_json else f"good: {number} monitors, {resources} capacity forecasts")
        return Exit.GOOD
    for monitor in (*settings.monitors, *monitors_of(settings)):
        if monitor.raw_counter:
            advice = f"{monitor.raw_counter} is a counter, which only grows: use rate({monitor.raw_counter}[5m])"
            print(f"gpuvigil: warning: {monitor.name}: {advice}", file=sys.stderr)
    reader = Reader(settings.prometheus)
    found: list[dict[str, str | int]] = []
    everything: list[Monitor | Capacity] = [
        *settings.monitors,
        *monitors_of(settings),
        *settings.capacity,
        *resources_of(settings),
    ]
    for watched in everything:
        limit = watched.series_limit or settings.prometheus.series_limit
        try:
            number = reader.count(watched.query, limit)
        except ReadError as error:
            found.append({"name": watched.name, "result": "bad", "error": str(error)})
            line = f"BAD   {watched.name}: {error}"
        else:
            found.append({"name": watched.name, "result": "good" if number else "empty", "series": number})
            line = f"{'good' if number else 'EMPTY'}  {watched.name}: {number} series"
        if not as_json:
            print(line)
    if as_json:
        print(json.dumps({"queries": found}))
    return Exit.BAD if any(one["result"] == "bad" for one in found) else Exit.GOOD


def _monitors(args: argparse.Namespace) -> int:
    import urllib3

    try:
        answer = urllib3.request("GET", f"{args.url.rstrip('/')}/api/v1/monitors", timeout=10.0, retries=False)
        document = json.loads(answer.data)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise CannotTell(f"{args.url}: {error}") from None
    if args.output == "json":
        print(json.dumps(document))
    else:
        for entry in document["monitors"]:
            print(f"{entry['state']:11} {entry['name']:30} {entry['series']:6} series  {entry['why']}")
    states = {entry["state"] for entry in document["monitors"]}
    return Exit.BAD if states & {"error", "stale"} else Exit.GOOD


def _presets(args: argparse.Namespace) -> int:
    from agent.base.catalogue import load_all
    from alerts.central.preset import series_of
    from alerts.central.preset_list import MONITORS, RESOURCES
    from alerts.central.unwatched import why_unwatched

    shown = ("name", "query", "model", "direction", "min_dev_abs", "min_dev_rel", "data_range")
    watched = [
        {"preset": name, **made.model_dump(mode="json", include=set(shown)), "series_a_node": series_of(made)}
        for name, make in MONITORS.items()
        for made in make()
    ]
    forecast = [
        {"preset": name, "name": made.name, "query": made.query} for name, make in RESOURCES.items() for made in make()
    ]
    reasons = {metric.name: why for metric in load_all().values() if (why := why_unwatched(metric))}
    if args.output == "json":
        print(json.dumps({"monitors": watched, "capacity": forecast, "unwatched": reasons}))
        return Exit.GOOD
    for one in watched:
        floors = f"{one['min_dev_abs']:g} and {one['min_dev_rel']:.0%}"
        print(f"{one['preset']:10} {one['name']:28} {one['model']:16} {one['direction']:6} {floors:16} {one['query']}")
    for one in forecast:
        print(f"{one['preset']:10} {one['name']:28} {'(runs out)':40} {one['query']}")
    for name, why in reasons.items():
        print(f"{'none':10} {name}: {why}")
    return Exit.GOOD
