"""`gpuvigil doctor`: say what is wrong on this node, and the fix."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict

from agent.base.errors import Exit

_MARK = {"good": "ok", "note": "note", "bad": "BAD", "unknown": "?"}
_COLOUR = {"good": "\033[32m", "note": "\033[33m", "bad": "\033[1;31m", "unknown": "\033[33m"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="agent.yaml; without one every setting has its default")
    parser.add_argument("-o", dest="output", choices=("text", "json"), default="text", help="form of the answer")
    parser.epilog = "exit codes: 0 nothing is wrong, 1 something is, 3 something could not be found out"
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from agent.doctor import examine
    from agent.settings import load_config

    findings = examine(load_config(args.config))
    if args.output == "json":
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for finding in findings:
            mark = f"{_MARK[finding.level]:<5}"
            print(f"{_COLOUR[finding.level]}{mark}\033[0m" if colour else mark, f"{finding.check}: {finding.text}")
            if finding.fix and finding.level != "good":
                print(f"      fix: {finding.fix}")
    levels = {finding.level for finding in findings}
    return int(Exit.BAD if "bad" in levels else Exit.UNKNOWN if "unknown" in levels else Exit.GOOD)
