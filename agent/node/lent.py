"""What collectors lend each other through `Context.shared`, by name; absent where the lender does not run."""

from __future__ import annotations

from typing import Final

CHASSIS_POWER: Final = "chassis_power"
"""Power of the whole machine in watts, or None where no meter answers (chassis)."""
LLM_USAGE: Final = "llm_usage"
"""A callable that gives an `Usage` for each engine (inference)."""
TRAIN_STEPS: Final = "train_steps"
"""A callable that gives the last step of each training job of this node, by job_id (training)."""

Usage = tuple[str, str, "float | None", frozenset[str]]
"""(engine, model, tokens generated since it started or None, UUIDs of the GPUs its processes hold)."""
