"""`gpuvigil alerts rules|routing ...`: build, list, check and test."""

from __future__ import annotations

import argparse
import importlib

COMMANDS = {
    "rules": ("alerts.rules.rules_cli", "recording and alerting rules for Prometheus"),
    "routing": ("alerts.routing.routing_cli", "routes and receivers for Alertmanager"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands of `gpuvigil alerts`."""
    nouns = parser.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    for name, (module, summary) in COMMANDS.items():
        sub = nouns.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:] + ".")
        importlib.import_module(module).configure(sub)
