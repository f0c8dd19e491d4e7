"""One JSON object a line: what a job may write for us, and what many trainers write (LLaMA-Factory's trainer_log).

`{"step": 10, "total_steps": 1000, "loss": 2.31, "time": 1767225600.0, "tokens_per_second": 51200}`; only `step`
is required. The same object is accepted by the agent's socket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, Final

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.reading import NOTHING
from agent.base.trainlog.stamps import stamp
from agent.base.trainlog.text import interval, number, parse_json, whole

NAMES: Final[dict[str, tuple[str, ...]]] = {
    "step": ("step", "global_step", "current_steps", "iteration", "iter", "num_updates", "_step"),
    "total_steps": ("total_steps", "max_steps", "steps_planned", "train_iters"),
    "time": ("time", "timestamp", "ts", "wall_time", "_timestamp"),
    "elapsed": ("elapsed", "elapsed_seconds", "elapsed_time", "train_time"),
    "step_seconds": ("step_seconds", "step_time", "iter_time", "seconds_per_step"),
    "loss": ("loss", "train_loss_step", "train_loss", "train/loss", "lm_loss"),
    "validation_loss": ("validation_loss", "val_loss", "val/loss", "eval_loss", "eval/loss"),
    "grad_norm": ("grad_norm",),
    "learning_rate": ("learning_rate", "lr"),
    "epoch": ("epoch",),
    "tokens_per_second": ("tokens_per_second", "tokens_per_sec", "throughput"),
    "mfu": ("mfu",),
    "communication_ratio": ("communication_ratio",),
    "consumed_tokens": ("consumed_tokens", "tokens", "total_tokens", "num_tokens"),
    "consumed_samples": ("consumed_samples",),
    "batch_size": ("batch_size", "global_batch_size"),
    "sequence_length": ("sequence_length", "seq_length"),
    "rank": ("rank", "local_rank"),
}
"""Names a field may have, the first that is present counts."""

_WHOLE = frozenset({"step", "total_steps", "batch_size", "sequence_length", "rank"})


class JsonLines(Parser):
    name = "json"
    summary = "one JSON object a line with a step"
    claims = re.compile(r'^[^{]{0,80}\{\s*(?=").*"(?:' + "|".join(NAMES["step"]) + r')"\s*:')

    def parse(self, line: str) -> Progress | None:
        try:
            values = parse_json(line[line.index("{") :])
        except ValueError:
            return None
        return record(values, self.tz) if isinstance(values, dict) else None


def record(values: Mapping[str, Any], tz: tzinfo | None = None) -> Progress | None:
    """The record in a JSON object; None where there is no whole, non-negative step."""
    found: dict[str, Any] = {}
    damaged: set[str] = set()
    for field, names in NAMES.items():
        given = next((values[name] for name in names if name in values), None)
        if given is None or (isinstance(given, str) and given.strip().lower() in NOTHING):
            continue
        value = _value(field, given, tz)
        found[field] = whole(value) if field in _WHOLE else value
        if found[field] is None:
            damaged.add(field)
    step = found.get("step")
    if step is None or step < 0:
        return None
    return Progress(**found, ended=values.get("ended") is True, damaged=frozenset(damaged))


def _value(field: str, given: Any, tz: tzinfo | None) -> float | None:
    if isinstance(given, bool):
        return None
    if isinstance(given, (int, float)):
        try:
            value = float(given)
        except OverflowError:
            return None
        return value / 1000 if field == "time" and value > 1e11 else value  # milliseconds since 1970
    if not isinstance(given, str):
        return None
    if field == "time":
        return stamp(given, tz)
    return interval(given) if field == "elapsed" else number(given)
