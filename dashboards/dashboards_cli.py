"""`gpuvigil dashboards`: build the boards, list them, and prove them on a live Prometheus."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from agent.base.errors import ConfigError, Exit
from dashboards.boards import load_all
from dashboards.lib import dump
from dashboards.query_check import check


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    build = verbs.add_parser("build", help="write the boards as JSON for Grafana's provisioning")
    build.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write into")
    build.set_defaults(run=_build)

    listed = verbs.add_parser("list", help="list the boards")
    listed.add_argument("-o", "--output", choices=("table", "json"), default="table")
    listed.set_defaults(run=_list)

    checked = verbs.add_parser("check", help="run every expression on a Prometheus; 1 if a panel would be empty")
    checked.add_argument("--prometheus", metavar="URL", default="http://127.0.0.1:9090")
    checked.add_argument("--board", metavar="UID", help="only this board")
    checked.add_argument("-o", "--output", choices=("table", "json"), default="table")
    checked.set_defaults(run=_check)


def _build(args: argparse.Namespace) -> int:
    args.output.mkdir(parents=True, exist_ok=True)
    for uid, (_, dashboard) in load_all().items():
        path = args.output / f"{uid}.json"
        path.write_text(dump(dashboard), encoding="utf-8")
        print(f"wrote {path}", file=sys.stderr)
    return Exit.GOOD


def _list(args: argparse.Namespace) -> int:
    rows = [
        {"uid": uid, "title": board.title, "panels": len(dashboard["panels"]), "description": board.description}
        for uid, (board, dashboard) in load_all().items()
    ]
    if args.output == "json":
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(f"{row['uid']:<20} {row['panels']:>3} panels  {row['description']}")
    return Exit.GOOD


def _check(args: argparse.Namespace) -> int:
    boards = load_all()
    if args.board:
        if args.board not in boards:
            raise ConfigError(f"--board {args.board}: no such board; there are {', '.join(boards)}")
        boards = {args.board: boards[args.board]}
    findings = [finding for board, dashboard in boards.values() for finding in check(args.prometheus, board, dashboard)]
    bad = [finding for finding in findings if finding.problem]
    if args.output == "json":
        rows = [
            {
                "board": finding.expression.board,
                "place": finding.expression.place,
                "expr": finding.expression.expr,
                "series": finding.series,
                "may_be_empty": finding.expression.may_be_empty,
                "problem": finding.problem,
            }
            for finding in findings
        ]
        print(json.dumps(rows, indent=2))
    else:
        for finding in bad:
            where = finding.expression
            print(f"{where.board}: {where.place}: {finding.problem}: {where.expr}")
    silent = sum(1 for finding in findings if not finding.series and not finding.problem)
    print(f"{len(findings)} expressions, {silent} empty with a reason, {len(bad)} failed", file=sys.stderr)
    return Exit.BAD if bad else Exit.GOOD
