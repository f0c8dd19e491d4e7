"""What was seen in the minute before a verdict: readings, throttling, Xids. Kept with the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from agent.gpu.wire import Frame
from agent.health.ledger import Event, Trouble

READINGS: Final = (
    "temperature.core",
    "temperature.memory",
    "power",
    "utilization",
    "clock.sm",
    "ecc.corrected.volatile",
    "ecc.uncorrected.volatile",
    "pcie_replays",
    "nvlink_active",
    "recovery_action",
)
LINES: Final = 20
BEFORE_S: Final = 60.0
_THROTTLE: Final = "throttle."
_IDLE: Final = "gpu_idle"


Slots = dict[str, dict[str, int]]
"""Where each reading of each GPU stands in a frame: by uuid, by key."""


class Minute:
    """The sweeps of the last minute. Read only as far as somebody asks.

    Args:
        frames: (description, sweep) pairs, oldest first.
        layouts: a cache that the caller keeps from one minute to the next.
    """

    def __init__(
        self, frames: Sequence[tuple[Mapping[str, Any], Frame]], layouts: dict[int, Slots] | None = None
    ) -> None:
        layouts = {} if layouts is None else layouts
        needed = {frame.generation: described for described, frame in frames}
        for generation in [old for old in layouts if old not in needed]:
            del layouts[generation]
        for generation, described in needed.items():
            if generation not in layouts:
                layouts[generation] = _slots(described)
        self._frames = [(layouts[frame.generation], frame) for _, frame in frames]
        self._runs = [
            (layouts[key[0]], [frame.values for _, frame in run])
            for key, run in groupby(frames, key=lambda each: (each[1].generation, len(each[1].values)))
        ]
        """Sweeps of one layout and length after the other."""

    def _series(self, uuid: str, key: str) -> list[float]:
        """The key's values over the minute; sweeps without one are left out."""
        found: list[float] = []
        for slots, run in self._runs:
            slot = slots.get(uuid, {}).get(key)
            if slot is not None and slot < len(run[0]):
                found += [value for values in run if (value := values[slot]) == value]
        return found

    def throttled(self, uuid: str, reasons: Iterable[str]) -> dict[str, float]:
        """Share of the minute's sweeps in which each reason held the GPU's clocks down."""
        series = {reason: self._series(uuid, _THROTTLE + reason) for reason in reasons}
        return {reason: sum(values) / len(values) for reason, values in series.items() if values}

    def summary(self, uuid: str) -> dict[str, Any]:
        """First, last, least and most of the readings that explain a fault, and what held clocks down."""
        own = [(slots[uuid], frame) for slots, frame in self._frames if uuid in slots]
        if not own:
            return {}
        keys = {key for slots, _ in own for key in slots}
        series = {key: values for key in READINGS if (values := self._series(uuid, key))}
        reasons = sorted(key.removeprefix(_THROTTLE) for key in keys if key.startswith(_THROTTLE))
        return {
            "from": own[0][1].wall,
            "to": own[-1][1].wall,
            "readings": {
                key: {"first": values[0], "last": values[-1], "min": min(values), "max": max(values)}
                for key, values in series.items()
            },
            "throttled": {
                reason: share
                for reason, share in self.throttled(uuid, reasons).items()
                if share > 0 and reason != _IDLE
            },
        }


def _slots(described: Mapping[str, Any]) -> Slots:
    found: Slots = {}
    offset = 0
    for gpu in described["gpus"]:
        keys = gpu["keys"]
        found[str(gpu["uuid"])] = {
            key: offset + number for number, key in enumerate(keys) if key in READINGS or key.startswith(_THROTTLE)
        }
        offset += len(keys)
    return found


def lines(events: Iterable[Event], now: float) -> list[dict[str, Any]]:
    """The Xids of the last minute, as the kernel told them."""
    found = [event for event in events if now - BEFORE_S <= event.time <= now + 1]
    return [
        {
            "time": event.time,
            "xid": event.shown,
            "action": event.action,
            "text": event.text,
            "pid": event.pid,
            "process": event.name,
            "sources": list(event.sources),
        }
        for event in found[-LINES:]
    ]


def trouble(found: Iterable[Trouble], now: float) -> list[dict[str, Any]]:
    """The other kernel lines of the last minute that tell of trouble on this node (AER, OOM, I/O errors ...)."""
    young = [line for line in found if now - BEFORE_S <= line.time <= now + 1]
    return [line._asdict() for line in young[-LINES:]]
