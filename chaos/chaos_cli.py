"""`gpuvigil chaos`: the GPU simulator, faults and drills. Each verb's module is imported here, if it is there."""

from __future__ import annotations

import argparse
import importlib
import importlib.util

_VERBS = ("chaos.simulator.sim_cli", "chaos.engine.drill_cli")


def configure(parser: argparse.ArgumentParser) -> None:
    """Let each module add its verbs: it offers `configure(subparsers)`."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in _VERBS:
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module).configure(verbs)
