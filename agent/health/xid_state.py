"""What the Xids of the last days say of a GPU: a walk in the order of time, with reboots between.

The strongest event decides, of equals the later one; a weaker one does not take it back. A reboot
clears what a reboot, a reset or a restarted application cures. The same Xid that wanted the node
restarted or the GPU reset, again after two reboots, means that somebody should look at the board.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from agent.health.ledger import Event
from agent.health.verdict import INSPECT, State
from agent.health.xid_catalogue import look_up

LOOK_BACK_S: Final = 3 * 86400.0
REBOOTS: Final = 2
REBOOTS_OF: Final = {94: 1000}
"""Contained errors are the application's: they may come back as often as they like."""
CURED: Final = frozenset({"RESTART_BM", "RESET_GPU", "RESTART_APP"})
ASKS_RESTART: Final = frozenset({"RESTART_BM", "RESET_GPU"})
REMAPPED: Final = frozenset({63, 64})
"""Left out where the GPU remaps rows: the state of the remapping decides there."""
SEVERAL_APPS: Final = 3
DAY_S: Final = 86400.0


class XidState(NamedTuple):
    """State, reason and action; `event` is the one that decided, None where there is none."""

    state: State
    reason: str = ""
    action: str = ""
    event: Event | None = None


def judge_xids(events: Iterable[Event], now: float, boot_id: str, settled: float, remaps: bool) -> XidState:
    """The state of one GPU.

    Args:
        events: its Xids, in any order.
        now: Unix time.
        boot_id: of this boot.
        settled: Unix time at which somebody declared it healthy; earlier events do not count.
        remaps: the GPU remaps rows by itself.
    """
    walk = sorted(
        (
            event
            for event in events
            if now - LOOK_BACK_S < event.time and event.time > settled and not (remaps and event.xid in REMAPPED)
        ),
        key=lambda event: event.time,
    )
    found = XidState(State.HEALTHY)
    boots_of: dict[int, set[str]] = {}
    boot = walk[0].boot_id if walk else boot_id
    for event in walk:
        if event.boot_id != boot:
            boot, found = event.boot_id, _after_reboot(found)
        state = _state_of(event)
        if state is State.HEALTHY:
            continue
        if event.action in ASKS_RESTART:
            boots_of.setdefault(event.xid, set()).add(event.boot_id)
        action = event.action
        if len(boots_of.get(event.xid, ())) > REBOOTS_OF.get(event.xid, REBOOTS):
            state, action = State.UNHEALTHY, INSPECT
        if state >= found.state:
            again = f", again after {len(boots_of[event.xid]) - 1} reboots" if action == INSPECT else ""
            found = XidState(state, f"Xid {event.shown} ({look_up(event.xid).name}){again}", action, event)
    if boot != boot_id:
        found = _after_reboot(found)
    return found if found.state is not State.HEALTHY else _several_apps(walk, now)


def _state_of(event: Event) -> State:
    gravity = look_up(event.xid).gravity
    if event.action in ("IGNORE", "RESTART_APP"):
        return State.HEALTHY
    if event.fatal or gravity == "fatal":
        return State.UNHEALTHY
    if gravity == "critical" or event.recovery is not None:
        return State.UNHEALTHY if event.action in ASKS_RESTART else State.DEGRADED
    return State.HEALTHY


def _after_reboot(found: XidState) -> XidState:
    return XidState(State.HEALTHY) if found.action in CURED else found


def _several_apps(walk: list[Event], now: float) -> XidState:
    """The same application error under several applications points at the GPU they share."""
    apps: dict[int, set[int]] = {}
    for event in walk:
        if event.action == "RESTART_APP" and event.pid is not None and now - event.time < DAY_S:
            apps.setdefault(event.xid, set()).add(event.pid)
            if len(apps[event.xid]) >= SEVERAL_APPS:
                reason = f"Xid {event.xid} ({look_up(event.xid).name}) under {len(apps[event.xid])} processes in a day"
                return XidState(State.DEGRADED, reason, INSPECT, event)
    return XidState(State.HEALTHY)
