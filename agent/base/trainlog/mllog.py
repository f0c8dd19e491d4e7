"""MLPerf's `:::MLLOG {json}` events.

Position is metadata: `step_num`, `step`, `samples_count` or `epoch_num` (which several benchmarks use for
samples). A log keeps to the first of them that appears, so that the count has one unit; samples become steps
where the global batch size was logged before.
"""

from __future__ import annotations

import re
from datetime import tzinfo
from typing import Any, TypeGuard

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.text import parse_json, whole

_MARK = ":::MLLOG "
_POSITIONS = ("step_num", "samples_count", "step", "epoch_num")
_TOTALS = ("max_steps", "opt_learning_rate_training_steps", "train_samples")
"""What the log says the run will make at most, the surest first: the last is the size of the data, one pass over it."""
_EVENTS = frozenset({"tracked_stats", "train_loss", "eval_accuracy", "eval_loss", "block_stop", "run_stop"})


class MlLog(Parser):
    name = "mllog"
    summary = "MLPerf :::MLLOG events"
    claims = re.compile(r":::MLLOG ")

    _position: str | None = None
    _batch_size: int | None = None
    _started: float | None = None
    _running = False
    """Positions have been told."""

    def __init__(self, tz: tzinfo | None = None) -> None:
        super().__init__(tz)
        self._announced: dict[str, int] = {}

    def ignores(self, line: str) -> bool:
        """Events that are sound and are not progress; the batch size and the start are taken note of."""
        event = _event(line)
        if event is None or event.get("key") in _EVENTS:
            return False
        key, value, metadata = event.get("key"), event.get("value"), event.get("metadata")
        if self._position is None and isinstance(metadata, dict) and _is_number(metadata.get("samples_count")):
            self._position = "samples_count"  # beside it NVIDIA's logs call the same number `step`
        if key == "global_batch_size" and isinstance(value, int):
            self._batch_size = value
        elif key in _TOTALS and _is_number(value) and not self._running:  # at the end it tells what was made
            self._announced[key] = int(value)
        elif key == "run_start":
            self._started = _seconds(event)
        return True

    def parse(self, line: str) -> Progress | None:
        event = _event(line)
        if event is None:
            return None
        metadata = event.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        value = event.get("value")
        values = value if isinstance(value, dict) else {str(event["key"]): value}
        time = _seconds(event)
        running = self._started is not None and time is not None
        damaged: set[str] = set()

        def number(field: str, given: dict[str, Any], *names: str) -> float | None:
            value = next((given[name] for name in names if given.get(name) is not None), None)
            if value is None or _is_number(value):
                return None if value is None else float(value)
            damaged.add(field)
            return None

        step = self._step(metadata)
        self._running = self._running or step is not None
        if step is None and self._position is not None and metadata.get(self._position) is not None:
            return None
        return Progress(
            step=step,
            total_steps=self._total(),
            time=time,
            elapsed=time - self._started if running and time is not None and self._started is not None else None,
            loss=number("loss", values, "train_loss", "reduced_train_loss", "loss"),
            validation_loss=number("validation_loss", values, "eval_loss", "val_loss"),
            learning_rate=number("learning_rate", {**metadata, **values}, "lr", "learning_rate"),
            step_seconds=number("step_seconds", values, "train_step_time", "train_step_timing"),
            samples_per_second=number("samples_per_second", values, "throughput"),
            batch_size=self._batch_size,
            ended=event.get("key") == "run_stop",
            damaged=frozenset(damaged),
        )

    def _step(self, metadata: dict[str, Any]) -> int | None:
        if self._position is None:
            self._position = next((key for key in _POSITIONS if _is_number(metadata.get(key))), None)
        at = metadata.get(self._position) if self._position else None
        if not _is_number(at):
            return None
        if self._position == "samples_count" and self._batch_size:
            return int(at) // self._batch_size
        return int(at) if self._position == "epoch_num" else whole(float(at))

    def _total(self) -> int | None:
        """The total in the unit of the steps, if it was announced in one that can be told from it."""
        samples = self._position == "samples_count"
        if self._position == "epoch_num" or (samples and not self._batch_size):
            return None
        key = next((key for key in _TOTALS if key in self._announced), None)
        if key == "train_samples":
            return self._announced[key] // self._batch_size if samples and self._batch_size else None
        return self._announced[key] if key else None


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = parse_json(line[line.index(_MARK) + len(_MARK) :])
    except ValueError:
        return None
    return event if isinstance(event, dict) and "key" in event else None


def _seconds(event: dict[str, Any]) -> float | None:
    milliseconds = event.get("time_ms")
    return milliseconds / 1000 if _is_number(milliseconds) else None


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
