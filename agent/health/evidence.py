"""What was seen in the minute before a verdict: readings, throttling, Xids. Kept with the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from agent.gpu.wire import Frame
from agent.health.ledger import Event

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


class Minute:
    """The sweeps of the last minute, read once for all GPUs."""

    def __init__(self, frames: Iterable[tuple[Mapping[str, Any], Frame]]) -> None:
        self._series: dict[str, dict[str, list[float]]] = {}
        self._span: dict[str, tuple[float, float]] = {}
        for described, frame in frames:
            offset = 0
            for gpu in described["gpus"]:
                uuid, keys = str(gpu["uuid"]), gpu["keys"]
                self._take(uuid, keys, frame, offset)
                offset += len(keys)

    def _take(self, uuid: str, keys: list[str], frame: Frame, offset: int) -> None:
        series = self._series.setdefault(uuid, {})
        first, _ = self._span.get(uuid, (frame.wall, 0.0))
        self._span[uuid] = (first, frame.wall)
        for number, key in enumerate(keys, start=offset):
            if (key in READINGS or key.startswith(_THROTTLE)) and number < len(frame.values):
                value = frame.values[number]
                if value == value:
                    series.setdefault(key, []).append(value)

    def throttled(self, uuid: str) -> dict[str, float]:
        """Share of the minute's sweeps in which each reason held the GPU's clocks down."""
        return {
            key.removeprefix(_THROTTLE): sum(values) / len(values)
            for key, values in self._series.get(uuid, {}).items()
            if key.startswith(_THROTTLE)
        }

    def summary(self, uuid: str) -> dict[str, Any]:
        """First, last, least and most of the readings that explain a fault, and what held clocks down."""
        if uuid not in self._span:
            return {}
        series = self._series[uuid]
        return {
            "from": self._span[uuid][0],
            "to": self._span[uuid][1],
            "readings": {
                key: {"first": values[0], "last": values[-1], "min": min(values), "max": max(values)}
                for key, values in series.items()
                if key in READINGS
            },
            "throttled": {
                reason: share for reason, share in self.throttled(uuid).items() if share > 0 and reason != _IDLE
            },
        }


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
