"""The console script `gpuvigil`: a noun, then a verb. Each noun's module is imported only when used.

A noun's module offers `configure(parser)`, which adds arguments and sub-commands and sets the default
`run`, a function of the parsed arguments that returns an exit code.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Sequence

from agent import __version__
from agent.base.errors import Exit, VigilError

NOUNS: dict[str, tuple[str, str, str]] = {
    # noun: (module, extra that brings its dependencies, summary)
    "agent": ("agent.agent_cli", "", "run the node agent, check it, set maintenance"),
    "config": ("agent.config_cli", "", "check, show or describe a configuration"),
    "doctor": ("agent.doctor_cli", "", "say what is wrong on this node, and the fix"),
    "metrics": ("agent.metrics_cli", "", "list the metric catalogue"),
    "alerts": ("alerts.alerts_cli", "", "build and test alert rules and routing"),
    "central": ("alerts.central_cli", "central", "run the central detection service"),
    "detect": ("alerts.detect_cli", "central", "score series and training logs, without a service"),
    "dashboards": ("dashboards.dashboards_cli", "dashboards", "build the Grafana dashboards"),
    "chaos": ("chaos.chaos_cli", "", "the GPU simulator, faults and drills"),
    "checkpoint": ("agent.checkpoint_cli", "", "verify checkpoints, find the newest whole one"),
    "completion": ("agent.completion_cli", "", "print a completion script for bash or zsh"),
}


def build_parser(noun: str | None = None) -> argparse.ArgumentParser:
    """The parser; only `noun`'s own commands are loaded, or those of all nouns for `"*"`.

    Raises:
        VigilError: the noun's dependencies are not installed; the text names the extra.
    """
    parser = argparse.ArgumentParser(
        prog="gpuvigil",
        description="Observability and SRE agent for self-hosted LLM clusters on NVIDIA GPUs.",
        epilog="exit codes: 0 good, 1 bad finding or failure, 2 usage or configuration, 3 cannot tell, 4 undo failed",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"gpuvigil {__version__} (python {platform.python_version()}, {os.path.dirname(__file__)})",
    )
    nouns = parser.add_subparsers(dest="noun", metavar="COMMAND", required=True)
    for name, (module, extra, summary) in NOUNS.items():
        sub = nouns.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:] + ".")
        if noun in (name, "*"):
            try:
                importlib.import_module(module).configure(sub)
            except ModuleNotFoundError as error:
                if not extra or (error.name or "").partition(".")[0] in ("agent", "alerts", "chaos", "dashboards"):
                    raise
                if noun == "*":
                    continue
                problem = VigilError(f'needs the "{extra}" extra ({error.name}): pip install "gpuvigil[{extra}]"')
                problem.code = Exit.USAGE
                raise problem from None
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    noun = next((word for word in arguments if not word.startswith("-")), None)
    try:
        parser = build_parser(noun)
        args = parser.parse_args(arguments)
        return int(args.run(args))
    except VigilError as error:
        print(f"gpuvigil: {error}", file=sys.stderr)
        return int(error.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.GOOD)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)


if __name__ == "__main__":
    raise SystemExit(main())
