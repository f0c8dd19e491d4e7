"""Hugging Face's trainer_state.json: a whole file, rewritten at each checkpoint, without any clock."""

from __future__ import annotations

from typing import Any

from agent.base.trainlog.progress import Progress
from agent.base.trainlog.reading import Reading
from agent.base.trainlog.text import parse_json

FILE_NAME = "trainer_state.json"


def records(text: str) -> list[Progress]:
    """The records of a trainer_state.json, oldest first; the last has the file's `global_step`.

    No record has a time: the file's own modification time belongs to the last one.

    Raises:
        ValueError: the text is not a trainer state (half written, another JSON file).
    """
    state = parse_json(text)
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise ValueError("not a trainer_state.json: it has no log_history")
    planned = state.get("max_steps")
    total = planned if isinstance(planned, int) and planned > 0 else None
    found = [record for entry in state["log_history"] if isinstance(entry, dict) and (record := _record(entry, total))]
    step = state.get("global_step")
    if isinstance(step, int) and not isinstance(step, bool) and (not found or (found[-1].step or 0) < step):
        found.append(Progress(step=step, total_steps=total))
    return found


def _record(entry: dict[str, Any], total: int | None) -> Progress | None:
    step = entry.get("step")
    if not isinstance(step, int) or isinstance(step, bool):
        return None
    values = Reading({name: str(value) for name, value in entry.items()})
    return Progress(
        step=step,
        total_steps=total,
        loss=values.number("loss", "loss"),
        validation_loss=values.number("validation_loss", "eval_loss"),
        grad_norm=values.number("grad_norm", "grad_norm"),
        learning_rate=values.number("learning_rate", "learning_rate"),
        epoch=values.number("epoch", "epoch"),
        consumed_tokens=values.number("consumed_tokens", "num_input_tokens_seen"),
        damaged=values.damaged,
    )
