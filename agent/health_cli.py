"""`gpuvigil agent health` and `gpuvigil agent baseline`: verdicts, "set healthy", the signed-off inventory."""

from __future__ import annotations

import argparse
import http.client
import json
import time
import urllib.request
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from agent.base.errors import CannotTell, Exit, VigilError
from agent.base.window import user

if TYPE_CHECKING:
    from agent.settings import AgentConfig

_ASK_SECONDS = 10.0
_FRESH_SECONDS = 120.0


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the two verbs to `gpuvigil agent`."""
    health = verbs.add_parser("health", help="what is wrong with this node's GPUs, and what to do")
    _add_common(health)
    health.set_defaults(run=_show)
    inner = health.add_subparsers(dest="act", metavar="ACT")
    settle = inner.add_parser("set-healthy", help="declare a GPU or the node healthy: earlier Xids no longer count")
    which = settle.add_mutually_exclusive_group(required=True)
    which.add_argument("--gpu", metavar="GPU", help="its number or UUID")
    which.add_argument("--node", action="store_true", help="everything on this node")
    settle.add_argument("--why", required=True, help="the reason, for those who ask later")
    _add_common(settle)
    settle.set_defaults(run=_settle)

    signed = verbs.add_parser("baseline", help="sign off what this node is made of, and show what has changed")
    acts = signed.add_subparsers(dest="act", metavar="ACT", required=True)
    write = acts.add_parser("write", help="sign off what the running agent sees now")
    write.set_defaults(run=_baseline_write)
    diff = acts.add_parser("diff", help="what is not as signed off: 0 nothing, 1 something, 3 cannot tell")
    diff.set_defaults(run=_baseline_diff)
    for each in (write, diff):
        _add_common(each)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="agent.yaml; without one every setting has its default")
    parser.add_argument("-o", dest="output", choices=("text", "json"), default="text", help="form of the answer")


def _config(args: argparse.Namespace) -> AgentConfig:
    from agent.settings import load_config

    return load_config(args.config)


def fetch(config: AgentConfig) -> dict[str, Any]:
    """The health document: from the running agent, else the last one it kept, while that is fresh.

    Raises:
        CannotTell: no agent has judged this node within the last two minutes.
    """
    from agent.agent_cli import _own_url

    url = _own_url(config).removesuffix("/metrics") + "/api/v1/health"
    try:
        with urllib.request.urlopen(url, timeout=_ASK_SECONDS) as answer:
            found = _document(json.load(answer))
            if found is not None:
                return found
    except (OSError, http.client.HTTPException, ValueError):
        pass  # not running, or it keeps its answers from us: its last word is on disk
    return kept(config)


def _document(found: Any) -> dict[str, Any] | None:
    """What was answered or kept, if it is a health document."""
    whole = isinstance(found, dict) and found.keys() >= {"node", "taken", "state", "gpus", "verdicts", "inventory"}
    return found if whole else None


def kept(config: AgentConfig) -> dict[str, Any]:
    """The agent's last word on disk.

    Raises:
        CannotTell: there is none, or none of the last two minutes.
    """
    from agent.base import statefile
    from agent.health.document import path_of

    found: dict[float, dict[str, Any]] = {}
    for synthetic in (False, True):
        document = _document(statefile.load(path_of(config.state_dir, synthetic)).get("document"))
        if document is not None and (taken := statefile.number(document["taken"])) is not None:
            found[taken] = document
    if not found:
        raise CannotTell(f"no agent has judged this node yet (nothing in {config.state_dir}); is it running?")
    newest = found[max(found)]
    age = time.time() - max(found)
    if age > _FRESH_SECONDS:
        raise CannotTell(f"the last verdict is {age / 60:.0f} min old; is the agent running?")
    return newest


def _show(args: argparse.Namespace) -> int:
    from agent.health.document import state_of
    from agent.health.verdict import State

    document = fetch(_config(args))
    if args.output == "json":
        print(json.dumps(document, indent=2))
    else:
        _print(document)
    state = state_of(document)
    return int({State.HEALTHY: Exit.GOOD, State.UNKNOWN: Exit.UNKNOWN}.get(state, Exit.BAD))


def _print(document: dict[str, Any]) -> None:
    simulated = "  SIMULATED: these GPUs come from a simulator" if document.get("simulated") else ""
    print(f"{document['node']}: {document['state']}{simulated}")
    for verdict in document["verdicts"]:
        if verdict["state"] == "healthy":
            continue
        who = f"GPU {verdict['gpu'] or verdict['uuid']}" if verdict["uuid"] else "node"
        action = f" -> {verdict['action']}" if verdict["action"] else ""
        print(f"  {verdict['state']:<9} {who} {verdict['component']}: {verdict['reason']}{action}")
        print(f"            since {_utc(verdict['since'])}")
        for line in verdict["evidence"].get("kernel", ()):
            print(f"            {_utc(line['time'])} Xid {line['xid']}: {line['text']}")
        for line in verdict["evidence"].get("trouble", ()):
            print(f"            {_utc(line['time'])} {line['kind']}: {line['text']}")


def _utc(when: float) -> str:
    return datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _settle(args: argparse.Namespace) -> int:
    from agent.health.document import add_settled
    from agent.health.engine import Settled

    config = _config(args)
    uuid = "" if args.node else _uuid(fetch(config), args.gpu)
    entry = Settled(uuid, time.time(), user(), args.why.strip())
    if not entry.why:
        problem = VigilError("set-healthy needs a reason: --why 'replaced the cable'")
        problem.code = Exit.USAGE
        raise problem
    if not add_settled(config.state_dir, entry):
        raise VigilError(f"{config.state_dir}: cannot be written; run this as the agent's user or root")
    if args.output == "json":
        print(json.dumps({"uuid": uuid, "at": entry.at, "by": entry.by, "why": entry.why}))
    else:
        print(f"{f'GPU {args.gpu}' if uuid else 'node'} declared healthy by {entry.by}: {entry.why}")
    return int(Exit.GOOD)


def _uuid(document: dict[str, Any], given: str) -> str:
    for gpu in document["gpus"]:
        if given in (gpu["gpu"], gpu["uuid"]):
            return str(gpu["uuid"])
    known = ", ".join(gpu["gpu"] or gpu["uuid"] for gpu in document["gpus"]) or "none"
    problem = VigilError(f"--gpu {given}: no such GPU on this node; there are: {known}")
    problem.code = Exit.USAGE
    raise problem


def _baseline_write(args: argparse.Namespace) -> int:
    from agent.health.baseline import NAME, Baseline, write

    config = _config(args)
    document = fetch(config)
    inventory = document["inventory"]
    if not inventory["gpus"]:
        raise CannotTell("no GPU answers now: an inventory without GPUs is not signed off")
    backend = "simulator" if document["simulated"] else "nvml"
    if not write(config.state_dir, Baseline(time.time(), user(), backend, inventory)):
        raise VigilError(f"{config.state_dir}/{NAME}: cannot be written; run this as the agent's user or root")
    if args.output == "json":
        print(json.dumps(inventory, indent=2))
    else:
        print(f"signed off: {len(inventory['gpus'])} GPUs, {len(inventory['hcas'])} host adapters, ", end="")
        print(f"driver {inventory['driver']}{' (SIMULATED)' if document['simulated'] else ''}")
    return int(Exit.GOOD)


def _baseline_diff(args: argparse.Namespace) -> int:
    from agent.health.baseline import compare, read

    config = _config(args)
    try:
        signed = read(config.state_dir)
    except ValueError as error:
        raise CannotTell(str(error)) from None
    if signed is None:
        raise CannotTell("nothing was signed off yet: gpuvigil agent baseline write")
    document = fetch(config)
    if signed.backend != ("simulator" if document["simulated"] else "nvml"):
        raise CannotTell(f"the baseline is of the {signed.backend} backend, the agent runs on the other")
    if not document["inventory"]["driver"]:
        raise CannotTell("the driver does not answer: nobody can tell what is there")
    found = list(compare(signed.inventory, document["inventory"]))
    if args.output == "json":
        print(json.dumps([{"what": each.what, "was": each.was, "now": each.now} for each in found], indent=2))
    else:
        for each in found:
            print(each)
        print(f"{len(found)} differences from what {signed.by} signed off on {_utc(signed.written)}")
    return int(Exit.BAD if found else Exit.GOOD)
