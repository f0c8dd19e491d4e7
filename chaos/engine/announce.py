"""drill.json: the agent, and through it every rule, learns what a drill touches before it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent.base import drillfile
from chaos.engine.fault import Plan, Refused
from chaos.engine.target import Target


@dataclass(slots=True)
class Mute:
    """`over` is set when the target is healthy again; a mute that is not over stays until it expires."""

    over: bool = False


@contextmanager
def announced(target: Target, drill_id: str, page: str, plan: Plan, expires: float) -> Iterator[Mute]:
    """drill.json names what is touched; taken away when the target is healthy again or nothing was done."""
    boot = drillfile.boot_id()
    entries = [drillfile.Entry(drill_id, page, item.scope, item.target, expires, boot) for item in plan.touches]
    others = drillfile.read(target.run_dir, time.time(), boot)
    drillfile.write(target.run_dir, others + entries)
    mute = Mute()
    try:
        yield mute
    except Refused:
        mute.over = True
        raise
    finally:
        if mute.over:
            forget(target, drill_id)


def forget(target: Target, drill_id: str) -> None:
    """Take a drill's entries out of drill.json."""
    left = drillfile.read(target.run_dir, time.time(), drillfile.boot_id())
    drillfile.write(target.run_dir, [entry for entry in left if entry.drill != drill_id])
