"""`gpuvigil checkpoint`: is a checkpoint whole, which is the newest that is, verify them all in the background."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from agent.base.errors import CannotTell, ConfigError, Exit

SERVICE_PERIOD = 30.0


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    verify = verbs.add_parser(
        "verify",
        help="compare a checkpoint with its manifest",
        description="Compare a checkpoint with its manifest: the gate before a resume.",
        epilog="exit codes: 0 good, 1 corrupt or incomplete (the files are named), 3 cannot tell: there is no manifest "
        "and nothing shows that is wrong, or a file may not be read",
    )
    verify.add_argument(
        "path", metavar="PATH", type=Path, help="the checkpoint: a folder, or a file with a sum beside it"
    )
    verify.add_argument("--manifest", metavar="FILE", type=Path, help="manifest to go by instead of the one found")
    verify.add_argument("--sizes-only", action="store_true", help="do not read the files: sizes and presence only")
    verify.set_defaults(run=_verify)

    latest = verbs.add_parser(
        "latest",
        help="print the newest checkpoint that is whole",
        description="Print the newest checkpoint whose hashes hold; those that fail are named on the way.",
        epilog="exit codes: 0 printed, 1 there are checkpoints and none is whole, 3 there are none that "
        "can be verified: without a manifest, or without hashes in it",
    )
    latest.add_argument("directory", metavar="DIR", type=Path, help="folder in which the checkpoints lie")
    latest.add_argument("--sizes-only", action="store_true", help="do not read the files: sizes and presence only")
    latest.add_argument(
        "--state-dir", metavar="DIR", type=Path, help="the agent's state, to believe its verification service"
    )
    latest.set_defaults(run=_latest)
    for each in (verify, latest):
        each.add_argument("-o", dest="output", choices=("text", "json"), default="text", help="form of the answer")

    service = verbs.add_parser("verify-service", help="verify every new checkpoint at idle priority until SIGTERM")
    service.add_argument("--config", metavar="FILE", help="agent.yaml, section collectors.checkpoint")
    service.add_argument("--once", action="store_true", help="verify what there is and stop; 1 if anything is corrupt")
    service.set_defaults(run=_service)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _verify(args: argparse.Namespace) -> int:
    try:
        return _compare(args)
    except PermissionError as error:
        raise CannotTell(f"{error.filename}: cannot be read: {error.strerror}") from None


def _compare(args: argparse.Namespace) -> int:
    from agent.checkpoint import manifest, shards, verify
    from agent.checkpoint.progress import Progress

    path: Path = args.path
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path}: no such file or folder") from None
    listed = args.manifest or manifest.locate(path)
    if listed is None:
        if fault := shards.fault(path):  # no manifest is needed to see that
            _say(f"{path}: {fault}")
            _answer(args.output, {"path": str(path), "verdict": "bad", "findings": [{"detail": fault}]}, "")
            return int(Exit.BAD)
        names = ", ".join((manifest.JSON_NAME, *manifest.SUMS))
        _answer(args.output, {"path": str(path), "verdict": "no manifest"}, "")
        raise CannotTell(f"{path}: has no manifest ({names}): whether it is whole cannot be told")
    begun = time.monotonic()
    try:
        content = manifest.read(listed)
    except OSError as error:
        raise CannotTell(f"{listed}: cannot be read: {error.strerror}") from None
    except manifest.ManifestError as error:
        _answer(args.output, {"path": str(path), "verdict": "bad", "findings": [{"detail": str(error)}]}, "")
        raise
    if path.is_dir():
        content = manifest.Manifest(content.file, path, content.entries, content.step)
    total, sized = verify.check_sizes(content)
    if args.sizes_only:
        findings = sized
    else:
        with Progress(total) as progress:
            findings = list(verify.verify(content, progress))
    unhashed = [] if args.sizes_only else [entry.path for entry in content.entries if entry.digest is None]
    for finding in findings:
        _say(f"{path}: {finding}")
    for name in unhashed:
        _say(f"{path}: {name}: has no hash in the manifest, its size alone was compared")
    report: dict[str, Any] = {
        "path": str(path),
        "verdict": "bad" if findings else "good",
        "manifest": str(listed),
        "step": content.step,
        "files": len(content.entries),
        "bytes": total,
        "hashed": not args.sizes_only and not unhashed,
        "seconds": round(time.monotonic() - begun, 3),
        "findings": [{"path": one.path, "fault": one.fault, "detail": one.detail} for one in findings],
    }
    how = "by size" if args.sizes_only or len(unhashed) == len(content.entries) else "by hash"
    _answer(args.output, report, f"{path}: good, {len(content.entries)} files, {total} bytes, compared {how}")
    return int(Exit.BAD if findings else Exit.GOOD)


def _answer(output: str, report: dict[str, Any], text: str) -> None:
    if output == "json":
        print(json.dumps(report, indent=2))
    elif text and report["verdict"] == "good":
        print(text)


def _latest(args: argparse.Namespace) -> int:
    from agent.checkpoint import manifest, verify
    from agent.checkpoint.judge import Judge, State
    from agent.checkpoint.ledger import Ledger
    from agent.checkpoint.progress import Progress

    try:
        verdicts = Judge(args.directory).look(time.time())
    except OSError as error:
        raise ConfigError(f"{args.directory}: {error.strerror}") from None
    ledger = Ledger(args.state_dir / "checkpoint") if args.state_dir else None
    for one in verdicts:
        if one.state is State.UNREADABLE:
            _say(f"{one.candidate.path}: cannot be read: {one.reason}")
    known = [one for one in verdicts if one.state is not State.UNREADABLE]
    listed = [one for one in known if one.manifest is not None or manifest.locate(one.candidate.path)]
    if not listed:
        raise CannotTell(f"{args.directory}: holds no checkpoint with a manifest")
    corrupt = False
    for one in sorted(listed, key=lambda one: (one.step or 0, one.written), reverse=True):
        path = one.candidate.path
        if one.state is not State.COMPLETE or one.manifest is None:
            _say(f"{path}: {one.state.value}: {one.reason}")
            corrupt = True
            continue
        content = manifest.read(one.manifest)
        if not args.sizes_only and not content.hashed:
            _say(f"{path}: its manifest has no hash for some or all of its files: cannot be verified")
            continue
        entry = ledger.of(path, one.manifest) if ledger else None
        if entry is not None and entry.finished is not None and entry.holds(content.root):
            findings, basis = list(entry.findings), "verified before"
        elif args.sizes_only:
            findings, basis = [], "sizes"
        else:
            try:
                with Progress(one.size) as progress:
                    findings = [str(found) for found in verify.verify(content, progress)]
            except PermissionError as error:
                _say(f"{error.filename}: cannot be read: {error.strerror}")
                continue
            basis = "verified now"
        if not findings:
            if args.output == "json":
                report = {
                    "path": str(path),
                    "step": one.step,
                    "bytes": one.size,
                    "written": one.written,
                    "basis": basis,
                }
                print(json.dumps(report, indent=2))
            else:
                print(path)
            return int(Exit.GOOD)
        corrupt = True
        for finding in findings:
            _say(f"{path}: {finding}")
    if not corrupt:
        raise CannotTell(f"{args.directory}: holds no checkpoint that can be verified")
    _say(f"{args.directory}: no checkpoint is whole")
    return int(Exit.BAD)


def _service(args: argparse.Namespace) -> int:
    from agent.base import log
    from agent.checkpoint.ledger import Ledger
    from agent.checkpoint.service import Stopped, Verifier, be_idle
    from agent.settings import load_config

    config = load_config(args.config)
    settings = config.collectors.checkpoint
    if not settings.jobs:
        raise ConfigError(f"{args.config or 'defaults'}: collectors.checkpoint.jobs names no job to verify")
    log.setup(config.log.level, config.log.format)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    be_idle()
    ledger = Ledger(Path(config.state_dir) / "checkpoint")
    verifier = Verifier(settings, ledger, stop=stopped.is_set)
    try:
        while True:
            verifier.turn()
            if args.once:
                bad = [path for path, entry in ledger.entries.items() if entry.bad]
                for path in bad:
                    _say(f"{path}: {ledger.entries[path].findings[0]}")
                return int(Exit.BAD if bad else Exit.GOOD)
            if stopped.wait(SERVICE_PERIOD):
                return int(Exit.GOOD)
    except Stopped:
        return int(Exit.GOOD if not args.once else Exit.INTERRUPTED)
