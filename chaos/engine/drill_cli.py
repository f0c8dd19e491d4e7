"""`gpuvigil chaos list|plan|run|abort|recover`: drills from the command line."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from agent.base.config import load
from agent.base.errors import ConfigError, Exit
from chaos import report
from chaos.engine import drill as drills
from chaos.engine import fault, permit, undo
from chaos.engine.journal import Journal
from chaos.engine.supervisor import Supervisor, planned
from chaos.engine.target import Target

DEMO = Path("build/demo/target.yaml")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the drill verbs to the `chaos` noun's sub-commands."""
    verb = verbs.add_parser("list", help="the drills and faults there are")
    _json(verb)
    verb.set_defaults(run=run_list)
    for name, help_, run in (
        ("plan", "say what a drill would do; touch nothing", run_plan),
        ("run", "run a drill, measure it, take it back", run_run),
    ):
        verb = verbs.add_parser(name, help=help_)
        verb.add_argument("drill", metavar="DRILL", help="name of a shipped drill, or a YAML file")
        _target(verb)
        _json(verb)
        verb.set_defaults(run=run)
    verb.add_argument("--report", type=Path, default=Path("build"), help="directory of the report (default: build)")
    for name, help_, run in (
        ("abort", "end the running drill early; it takes everything back", run_abort),
        ("recover", "take back what a killed drill left, from its undo journal", run_recover),
    ):
        verb = verbs.add_parser(name, help=help_)
        _target(verb)
        verb.set_defaults(run=run)


def _json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("-o", "--output", choices=("text", "json"), default="text")


def _target(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--target", type=Path, default=DEMO, help=f"YAML file that names node and witnesses (default: {DEMO}, the demo)"
    )


def _read_target(path: Path) -> Target:
    if path == DEMO and not path.exists():
        raise ConfigError(f"{path}: not there; start the demo (./dev run), or name a target with --target FILE")
    return load(Target, path, environ={})


def run_list(args: argparse.Namespace) -> int:
    found = {name: drills.read(name)[1] for name in drills.shipped()}
    faults = fault.load()
    if args.output == "json":
        listed = [{"drill": name, "title": drill.title, "fault": drill.fault} for name, drill in found.items()]
        print(json.dumps({"drills": listed, "faults": {name: kind.summary for name, kind in faults.items()}}))
        return Exit.GOOD
    for name, drill in found.items():
        print(f"{name:20} {drill.title} (fault {drill.fault}: {faults[drill.fault].summary})")
    return Exit.GOOD


def run_plan(args: argparse.Namespace) -> int:
    name, drill = drills.read(args.drill)
    _, plan = planned(drill, _read_target(args.target))
    if args.output == "json":
        print(json.dumps({"drill": name, **asdict(plan)}))
        return Exit.GOOD
    print(f"{name}: {drill.title}")
    for step in plan.steps:
        print(f"  - {step}")
    print("  touches: " + ", ".join(f"{item.scope} {item.target}" for item in plan.touches))
    print(f"  expects {drill.expect.alert} at {drill.expect.receiver}, nothing at {', '.join(drill.expect.silent)}")
    return Exit.GOOD


def run_run(args: argparse.Namespace) -> int:
    name, drill = drills.read(args.drill)
    target = _read_target(args.target)
    asked: list[str] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.append(f"interrupted by {signal.Signals(number).name}")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        result = Supervisor(name, drill, target, say, lambda: asked[0] if asked else None).run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    page = report.write(result, args.report)
    if args.output == "json":
        print(json.dumps(asdict(result)))
    else:
        print(report.text(result))
    say(f"report: {page}")
    return result.code


def run_abort(args: argparse.Namespace) -> int:
    target = _read_target(args.target)
    if not permit.running(target.state_dir):
        say("no drill is running")
        return Exit.BAD
    say(f"asking {permit.holder(target.state_dir)} to stop")
    permit.ask_to_stop(target.state_dir, "aborted from the command line")
    while permit.running(target.state_dir):
        time.sleep(0.1)
    say("it has taken everything back and ended")
    return Exit.GOOD


def run_recover(args: argparse.Namespace) -> int:
    target = _read_target(args.target)
    with permit.lock(target, "recover"):
        count = undo.recover(Journal(target.state_dir), say)
    say(f"{count} unfinished drills taken back" if count else "nothing to recover")
    return Exit.GOOD
