"""`gpuvigil alerts rules list|build|check|test|docs`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from agent.base import config
from agent.base.errors import ConfigError, Exit
from alerts.rules import docs, promtool, registry, render
from alerts.rules.thresholds import PLACEHOLDER, PROFILES, Thresholds, duration


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `gpuvigil alerts rules`."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, summary: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:] + ".")
        sub.add_argument("--profile", choices=sorted(PROFILES), default="default", help="hold times and windows")
        sub.add_argument("--config", metavar="FILE", help="YAML that overrides values of the profile")
        return sub

    listing = verb("list", "list the alerts with severity, scope, action and hold time")
    listing.add_argument("-o", dest="output", choices=("table", "json"), default="table", help="output format")
    listing.set_defaults(run=run_list)
    build = verb("build", "write the rule files that Prometheus reads")
    build.add_argument("-o", dest="folder", metavar="DIR", required=True, help="where to write them")
    build.set_defaults(run=run_build)
    check = verb("check", "have promtool check the rules")
    check.add_argument("--promtool", metavar="PATH", help="which promtool (else the one on PATH)")
    check.set_defaults(run=run_check)
    test = verbs.add_parser("test", help="have promtool run every declared case (at the default profile)")
    test.add_argument("--promtool", metavar="PATH", help="which promtool (else the one on PATH)")
    test.add_argument("--only", metavar="ALERT", default="", help="cases of one alert only")
    test.set_defaults(run=run_test)
    pages = verbs.add_parser("docs", help="write alerts.md and the runbooks")
    pages.add_argument("-o", dest="folder", metavar="DIR", required=True, help="where to write them")
    pages.set_defaults(run=run_docs)


def thresholds(args: argparse.Namespace) -> Thresholds:
    """The profile, with the values of `--config` laid over it.

    Raises:
        ConfigError: the file names an unknown key or a bad value.
    """
    profile = PROFILES[args.profile]
    if args.config is None:
        return profile
    given = config.load(Thresholds, args.config)
    return overlay(profile, given)


def overlay(profile: Thresholds, given: Thresholds) -> Thresholds:
    """`profile` with every value that `given` sets itself."""

    def merged(base: object, over: object) -> object:
        if not isinstance(over, config.Model) or not isinstance(base, config.Model):
            return over
        update = {name: merged(getattr(base, name), getattr(over, name)) for name in over.model_fields_set}
        return base.model_copy(update=update)

    made = merged(profile, given)
    assert isinstance(made, Thresholds)
    return made


def run_list(args: argparse.Namespace) -> int:
    t = thresholds(args)
    rows = [
        {
            "alert": alert.name,
            "severity": alert.severity,
            "scope": alert.scope,
            "fault": alert.fault,
            "action": alert.action,
            "for_seconds": alert.timing.hold,
            "keep_firing_for_seconds": alert.timing.keep,
            "cases": len(alert.cases),
            "summary": alert.summary,
        }
        for alert in registry.alerts(t)
    ]
    if args.output == "json":
        print(json.dumps(rows, indent=2))
        return Exit.GOOD
    print(f"{'ALERT':<20} {'SEVERITY':<8} {'SCOPE':<10} {'ACTION':<18} {'FOR':<6} {'KEEP':<6} CASES")
    for alert in registry.alerts(t):
        hold, keep = (duration(seconds) for seconds in (alert.timing.hold, alert.timing.keep))
        print(
            f"{alert.name:<20} {alert.severity:<8} {alert.scope:<10} {alert.action or '(by label)':<18} "
            f"{hold:<6} {keep:<6} {len(alert.cases)}"
        )
    return Exit.GOOD


def run_build(args: argparse.Namespace) -> int:
    t = thresholds(args)
    for path in render.write(Path(args.folder), render.rule_files(t)):
        print(path)
    if t.links.runbooks == PLACEHOLDER:
        print(
            f"note: runbook addresses begin with the placeholder {PLACEHOLDER}; set links.runbooks by --config",
            file=sys.stderr,
        )
    return Exit.GOOD


def run_check(args: argparse.Namespace) -> int:
    return _report(promtool.check(thresholds(args), args.promtool))


def run_test(args: argparse.Namespace) -> int:
    """The times of the cases are those of the default profile."""
    names = sorted({alert.name for alert in registry.alerts(PROFILES["default"])})
    if args.only and args.only not in names:
        raise ConfigError(f"--only {args.only}: no such alert; there are: {', '.join(names)}")
    outcome = promtool.run_cases(PROFILES["default"], args.promtool, args.only)
    print(f"{outcome.cases} cases")
    return _report(outcome)


def run_docs(args: argparse.Namespace) -> int:
    for path in docs.write(Path(args.folder)):
        print(path)
    return Exit.GOOD


def _report(outcome: promtool.Outcome) -> int:
    print(outcome.text.strip())
    return Exit.GOOD if outcome.good else Exit.BAD
