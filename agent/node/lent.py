"""What collectors lend each other through `Context.shared`, by name; absent where the lender does not run."""

from __future__ import annotations

from typing import Final, NamedTuple

CHASSIS_POWER: Final = "chassis_power"
"""Power of the whole machine in watts, or None where no meter answers (chassis)."""
LLM_USAGE: Final = "llm_usage"
"""A callable that gives an `Usage` for each engine (inference)."""
TRAIN_PROGRESS: Final = "train_progress"
"""A callable that gives the `Reached` of each training job of this node, by job_id (training)."""

Usage = tuple[str, str, "float | None", frozenset[str]]
"""(engine, model, tokens generated since it started or None, UUIDs of the GPUs its processes hold)."""


class Reached(NamedTuple):
    """How far a training job has come: its last step, when that was made (Unix seconds), and whether it runs."""

    step: int
    time: float | None
    running: bool
