"""`./dev run`: the whole chain on this machine, on real parts, and one drill that proves it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from agent.base.config import load
from agent.base.errors import CannotTell, Exit, VigilError
from chaos import measure, report
from chaos.demo import chain, ports
from chaos.demo.console import Console, paint, table
from chaos.demo.layout import Layout, occupied
from chaos.demo.stack import Stack
from chaos.engine import drill as drills
from chaos.engine.result import MARKS, Result
from chaos.engine.supervisor import Supervisor
from chaos.engine.target import Target

DRILL = "gpu-lost"
WITNESSES = ("simulator", "agent", "prometheus", "alertmanager", "sink")
"""Parts without which the drill proves nothing."""


@dataclass(slots=True)
class Outcome:
    """What came of it; `problem` says why there was no drill."""

    chain: dict[str, bool] = field(default_factory=dict)
    series: int | None = None
    drill: Result | None = None
    report: Path | None = None
    problem: str = ""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev run",
        description="Bring the whole chain up on 127.0.0.1, run one drill (a GPU is lost), and stay up until Ctrl-C.",
        epilog="exit codes: 0 good, 1 the drill failed or a part is not up, 2 usage, 4 the drill's undo failed, "
        "130 stopped before the drill had ended",
    )
    parser.add_argument("--once", action="store_true", help="end after the drill instead of staying up")
    parser.add_argument(
        "--real", action="store_true", help="the node's own NVIDIA driver instead of the simulator; no drill"
    )
    parser.add_argument("--ports", metavar="WHICH", help='"auto", a base such as 20000, or name=port,...')
    parser.add_argument("--keep-data", action="store_true", help="go on with the data of the last run")
    parser.add_argument(
        "--build", metavar="DIR", type=Path, default=Path("build"), help="where data and reports go (build)"
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="form of the result on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        chosen = ports.choose(args.ports)
        ports.check_free(chosen)
        with occupied(args.build / "demo", args.keep_data) as layout:
            return int(run(args, layout, chosen))
    except VigilError as error:
        print(f"./dev run: {error}", file=sys.stderr)
        return int(error.code)


def run(args: argparse.Namespace, layout: Layout, chosen: dict[str, int]) -> Exit:
    """Up, chain, drill, result; then stay up or end."""
    console = Console()
    asked: list[str] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.append(signal.Signals(number).name)
        if len(asked) == 1:
            console.say_from_handler(f"{asked[0]}: ending")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)

    def stopped() -> str | None:
        return f"stopped by {asked[0]}" if asked else None

    stack = Stack(layout, chosen, args.real, console.say, stopped)
    outcome = Outcome()
    try:
        stack.up()
        if not stopped():
            prove(args, stack, outcome)
        finished = not stopped()
        print(json.dumps(document(stack, outcome)) if args.output == "json" else summary(stack, outcome), flush=True)
        if not args.once and finished:
            console.say("staying up; Ctrl-C ends it")
            while not stopped():
                time.sleep(0.2)
    finally:
        stack.down()
        console.say("all parts have stopped")
    code = verdict(args, stack, outcome)
    return code if finished or code == Exit.UNDO_FAILED else Exit.INTERRUPTED


def prove(args: argparse.Namespace, stack: Stack, outcome: Outcome) -> None:
    """Ask the chain, then run the drill if everything it needs is up."""
    stack.say("waiting until readings have gone the whole way")
    up = {part.name for part in stack.parts} - stack.lost.keys()
    try:
        outcome.chain = chain.check(
            stack.ports, up, stack.library is not None, stack.stopped, lambda name, _: stack.say(f"seen: {name}")
        )
    except measure.Stopped:
        return
    for name in (name for name, seen in outcome.chain.items() if not seen):
        stack.say(f"NOT SEEN: {name}")
    if "agent" in up:
        try:
            outcome.series = measure.Agent(stack.urls()["agent"].removesuffix("/metrics")).series()
        except CannotTell as error:
            stack.say(str(error))
    if args.real:
        outcome.problem = "no drill: --real takes the node's own driver, and this drill breaks simulated GPUs only"
    elif lacking := [f"{name} ({stack.lost[name]})" for name in WITNESSES if name in stack.lost]:
        outcome.problem = f"no drill: it needs {', '.join(lacking)}"
    if outcome.problem:
        stack.say(outcome.problem)
        return
    name, drill = drills.read(DRILL)
    target = load(Target, stack.layout.target, environ={})
    outcome.drill = Supervisor(name, drill, target, stack.say, stack.stopped).run()
    outcome.report = report.write(outcome.drill, args.build)


def verdict(args: argparse.Namespace, stack: Stack, outcome: Outcome) -> Exit:
    """Good if the drill passed (or --real left it out) and every part came up."""
    if outcome.drill is not None and outcome.drill.code != Exit.GOOD:
        return outcome.drill.code
    proved = outcome.drill is not None or args.real
    return Exit.GOOD if proved and not stack.lost and all(outcome.chain.values()) else Exit.BAD


def document(stack: Stack, outcome: Outcome) -> dict[str, Any]:
    """The result as one JSON object."""
    drill = outcome.drill
    return {
        "simulated": stack.library is not None,
        "urls": stack.urls(),
        "pids": stack.pids(),
        "not_up": stack.lost,
        "chain": outcome.chain,
        "series": outcome.series,
        "drill": None
        if drill is None
        else {
            "id": drill.id,
            "verdict": drill.verdict,
            "reasons": drill.reasons,
            "timeline": drill.timeline,
            "details": drill.details,
            "received": drill.received,
            "report": str(outcome.report),
        },
        "problem": outcome.problem,
        "page": {kind: drill.page.get(kind, {}) for kind in ("labels", "annotations")} if drill else None,
    }


def summary(stack: Stack, outcome: Outcome) -> str:
    """The result for people: timeline, page, addresses."""
    terminal = sys.stdout.isatty()
    lines = [""]
    if stack.library is not None:
        lines.append(paint("SIMULATED GPUs: everything else on this page is real", "loud", terminal))
    if (drill := outcome.drill) is not None:
        colour = "good" if drill.verdict == "pass" else "bad"
        lines += [f"\nDrill {drill.id}: {paint(drill.verdict.upper(), colour, terminal)}"]
        lines += [table([(name, f"{at:7.2f} s", MARKS[name]) for name, at in drill.timeline.items()])]
        lines += [f"  - {reason}" for reason in drill.reasons]
        if drill.page:
            labels, notes = drill.page["labels"], drill.page["annotations"]
            rows = [(name, labels.get(name, "-")) for name in ("node", "gpu", "uuid", "severity", "action")]
            rows += [(name, notes.get(name, "-")) for name in ("summary", "action", "runbook_url", "dashboard_url")]
            lines += ["\nThe page", table(rows)]
    elif outcome.problem:
        lines.append(outcome.problem)
    addresses = [*stack.urls().items(), *([("report", str(outcome.report))] if outcome.report else [])]
    lines += ["\nWhere to look", table([*addresses, ("logs", str(stack.layout.log("agent").parent))])]
    lines += ["  processes: " + ", ".join(f"{name} {pid}" for name, pid in stack.pids().items())]
    if outcome.series is not None:
        lines.append(f"  the agent's page has {outcome.series} samples")
    if stack.lost:
        lines += ["\nNot up", table(list(stack.lost.items()))]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
