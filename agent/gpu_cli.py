"""`gpuvigil agent gpu`: let go of the NVIDIA driver so that it can be reloaded, and take it up again."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from agent.base.errors import CannotTell, Exit, VigilError

if TYPE_CHECKING:
    from agent.base.window import Window
    from agent.settings import AgentConfig

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 30.0
"""Longer than the gpu collector's period and the end of a child."""


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to `gpuvigil agent`."""
    gpu = verbs.add_parser("gpu", help="let go of the NVIDIA driver so that it can be reloaded; take it up again")
    acts = gpu.add_subparsers(dest="act", metavar="ACT", required=True)
    release = acts.add_parser("release", help="hold no handle of the driver: 0 let go, 1 others hold it, 3 cannot tell")
    release.add_argument("--for", dest="span", default="1h", metavar="DURATION", help="at the longest (default 1h)")
    release.add_argument("--why", required=True, help="the reason, for those who ask later")
    release.set_defaults(run=_release)
    take = acts.add_parser("take", help="read GPUs again, by whichever driver is loaded then")
    take.set_defaults(run=_take)
    for each in (release, take):
        each.add_argument("--config", metavar="FILE", help="agent.yaml; without one every setting has its default")
        each.add_argument("-o", dest="output", choices=("text", "json"), default="text", help="form of the answer")


def _config(args: argparse.Namespace) -> AgentConfig:
    from agent.settings import load_config

    return load_config(args.config)


def _release(args: argparse.Namespace) -> int:
    from agent.base.config import parse_duration
    from agent.gpu.release import RELEASE, holders

    config = _config(args)
    try:
        seconds = parse_duration(args.span)
    except ValueError as error:
        problem = VigilError(f"--for {error}")
        problem.code = Exit.USAGE
        raise problem from None
    window = RELEASE.switch_on(config.state_dir, seconds, args.why, time.time())
    _await(config, released=True)
    left = holders()
    said: dict[str, Any] = {"released": True, "until": window.until, "by": window.by, "why": window.why}
    if args.output == "json":
        print(json.dumps({**said, "held_by": [each._asdict() for each in left]}))
    else:
        _say(window, [f"{each.name} (pid {each.pid})" for each in left])
    return int(Exit.BAD if left else Exit.GOOD)


def _say(window: Window, others: list[str]) -> None:
    until = time.strftime("%H:%M:%S", time.localtime(window.until))
    print(f"the agent holds the driver no more; it takes it up at {until}, or by: gpuvigil agent gpu take")
    if others:
        print(f"still held by others: {', '.join(others)}")


def _take(args: argparse.Namespace) -> int:
    from agent.gpu.release import RELEASE

    config = _config(args)
    was = RELEASE.switch_off(config.state_dir)
    if was:
        _await(config, released=False)
    if args.output == "json":
        print(json.dumps({"released": False, "was_released": was}))
    else:
        print("the driver is taken up again" if was else "the driver was not let go")
    return int(Exit.GOOD)


def _await(config: AgentConfig, *, released: bool) -> None:
    """Until the running agent says so. An agent that does not run holds nothing.

    Raises:
        CannotTell: it does not say so in time.
    """
    from agent.gpu.release import state

    deadline = time.monotonic() + _PATIENCE_SECONDS
    while state(config.state_dir) not in (None, released):
        if time.monotonic() > deadline:
            act = "let go of" if released else "taken up"
            raise CannotTell(f"the agent has not {act} the driver within {_PATIENCE_SECONDS:.0f} s: see its health")
        time.sleep(_POLL_SECONDS)
