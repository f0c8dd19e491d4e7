"""What one line of a training log tells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

CUT: Final = "end of the line"


@dataclass(frozen=True, slots=True)
class Progress:
    """One record of a training log; a field the line does not carry is None.

    `step` counts steps **made** (a format that numbers its steps from 0 gives its number + 1). A record
    without a step carries values of the step before it (a timer line, a loss line beside a bar).

    `time` is wall clock in Unix seconds; `elapsed` is the run's own clock in seconds, which some programs
    reset after warm-up: neither is monotonic, and most formats have only one of them or none.
    """

    step: int | None = None
    total_steps: int | None = None
    """0 takes back what was said before: the log was in another format after all, and this one names no total."""
    time: float | None = None
    time_of_day: float | None = None
    """Seconds since midnight, of a line whose clock has no date."""
    elapsed: float | None = None
    step_seconds: float | None = None
    loss: float | None = None
    """Training loss; NaN and infinities are given as they are."""
    nonfinite: int = 0
    """Losses that were NaN or infinite in the interval this record closes."""
    validation_loss: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    epoch: float | None = None
    tokens_per_second: float | None = None
    """Of the whole job."""
    tokens_per_second_gpu: float | None = None
    """Of one GPU, where the program logs that instead."""
    samples_per_second: float | None = None
    flops_gpu: float | None = None
    """Model FLOP/s of one GPU."""
    mfu: float | None = None
    """Model-FLOPs utilisation as logged, a ratio."""
    communication_ratio: float | None = None
    """Share of a step spent in communication or waiting for a peer, where timers are logged."""
    consumed_tokens: float | None = None
    consumed_samples: float | None = None
    batch_size: int | None = None
    """Samples per step; a change of it or of `sequence_length` announces a new phase."""
    sequence_length: int | None = None
    rank: int | None = None
    restart: bool = False
    """The run went back to an earlier step, or said that it resumed from a checkpoint."""
    ended: bool = False
    """The log says that training is over."""
    damaged: frozenset[str] = frozenset()
    """Fields that the line names and gives no whole number for: they are None here, and the value of a line
    before no longer stands. `CUT` is among them if the line ends too early."""

    @property
    def loss_is_finite(self) -> bool:
        return self.loss is not None and math.isfinite(self.loss)
