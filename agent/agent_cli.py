"""`gpuvigil agent`: run the node agent, look once, check it, set maintenance."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import ssl
import sys
import time
import urllib.request
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from agent import gpu_cli, health_cli, maintenance
from agent.base.config import parse_duration
from agent.base.errors import CannotTell, Exit, VigilError
from agent.base.exposition import OPENMETRICS, TEXT
from agent.base.window import Window

if TYPE_CHECKING:
    from agent.check import Finding
    from agent.settings import AgentConfig

_ASK_SECONDS = 10.0


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

    check = verbs.add_parser("check", help="is this node fit to work? asks the running agent, else looks itself")
    _add_config(check)
    check.add_argument("--url", help="page to judge instead of this node's own agent")
    check.add_argument("--once", action="store_true", help="look for ourselves, even if an agent runs")
    check.add_argument("--fail-on", choices=("warn", "crit"), default="warn", help="least finding that is a failure")
    form = check.add_mutually_exclusive_group()
    form.add_argument("--nagios", action="store_true", help="one line, and exit codes 0/1/2/3 = OK/WARN/CRIT/UNKNOWN")
    form.add_argument("-o", dest="output", choices=("text", "json"), default="text", help="form of the answer")
    check.set_defaults(run=_check)

    health_cli.configure(verbs)
    gpu_cli.configure(verbs)

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


def _check(args: argparse.Namespace) -> int:
    from agent.check import Level, worst

    known, source = _findings(args)
    findings = known or []
    level = Level.UNKNOWN if known is None else worst(findings)
    if args.nagios:
        word, code = {
            Level.CRIT: ("CRITICAL", 2),
            Level.WARN: ("WARNING", 1),
            Level.UNKNOWN: ("UNKNOWN", 3),
            Level.NOTE: ("OK", 0),
        }[level]
        said = "; ".join(f"{finding.what}: {finding.text}" for finding in findings) or source
        said = " ".join(said.replace("|", "/").split())  # one line; what follows a bar is performance data
        print(f"GPUVIGIL {word} - {said}")
        return code
    if args.output == "json":
        listed = [{"level": f.level.name.lower(), "what": f.what, "text": f.text} for f in findings]
        verdict = "good" if level is Level.NOTE else level.name.lower()
        print(json.dumps({"verdict": verdict, "source": source, "findings": listed}, indent=2))
    else:
        for finding in findings:
            print(f"{finding.level.name.lower():<7} {finding.what}: {finding.text}")
        print(f"{'good' if level is Level.NOTE else level.name.lower()} ({source})")
    bad = level is Level.CRIT or (level is Level.WARN and args.fail_on == "warn")
    unknown = any(finding.level is Level.UNKNOWN for finding in findings) or known is None
    return int(Exit.BAD if bad else Exit.UNKNOWN if unknown else Exit.GOOD)


def _findings(args: argparse.Namespace) -> tuple[list[Finding] | None, str]:
    """What speaks against this node, and by which source; None and the reason if nobody can tell."""
    from agent.check import Page, judge, judge_kept
    from agent.oneshot import collect_once
    from agent.settings import load_config

    config = load_config(args.config)
    why = "no agent was asked"
    if not args.once:
        url = args.url or _own_url(config)
        try:
            with urllib.request.urlopen(url, timeout=_ASK_SECONDS) as answer:
                return judge(Page(answer.read().decode("utf-8", "replace"))), url
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = f"{url}: {getattr(error, 'reason', error)}"
            closed = _is_closed(error)
            # no agent, or one that keeps its page from us; one that is too slow or in trouble is a finding
            if args.url or not (closed or isinstance(getattr(error, "reason", error), ConnectionRefusedError)):
                return None, why
        if closed:
            with contextlib.suppress(CannotTell, ValueError):
                return judge_kept(health_cli.kept(config)), f"the agent's last verdicts in {config.state_dir}; {why}"
    return judge(Page(collect_once(config).page(TEXT).decode())), f"one collection; {why}"


def _is_closed(error: Exception) -> bool:
    """Whether the page is there, but not for us: certificates, a password, the rate limit."""
    reason = getattr(error, "reason", error)
    return isinstance(reason, (ssl.SSLError, ConnectionResetError)) or getattr(error, "code", 0) in (401, 403, 429)


def _own_url(config: AgentConfig) -> str:
    """Where this node's agent shows its page."""
    from agent.base.web import format_address, parse_address
    from agent.base.web.webconfig import load_web_config

    host, port = parse_address(config.listen)
    secure = config.web_config_file is not None and load_web_config(config.web_config_file).tls_server_config
    return f"{'https' if secure else 'http'}://{format_address(host or '127.0.0.1', port)}/metrics"


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


def _say_window(window: Window | None, output: str) -> int:
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
