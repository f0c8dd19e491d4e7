"""The progress records of a training log, or of a CSV of progress."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator

from agent.base.trainlog import Progress, open_format

_STEP = ("step", "iteration", "global_step", "iter")
_STAMPS = ("timestamp", "unix_time", "wall time", "wall_time")
_CLOCKS = {
    "train_time_ms": 1e-3,
    "elapsed_ms": 1e-3,
    "time_ms": 1e-3,
    "elapsed": 1.0,
    "train_time": 1.0,
    "seconds": 1.0,
}
_TOTAL = ("total_steps", "max_steps", "total_iterations", "steps_planned")


def read(lines: Iterable[str], log_format: str = "auto") -> Iterator[Progress]:
    """The records of a log in order, each as soon as its line is there.

    A CSV is known by its header: `step`, a clock (`train_time_ms`, `elapsed`, `timestamp`, ...), `total_steps`, `loss`.

    Args:
        lines: the log; a line may hold carriage returns, as progress bars do.
        log_format: a format of `agent.base.trainlog`.

    Raises:
        ConfigError: no such format.
    """
    parser, source = open_format(log_format), iter(lines)
    head = next(source, "")
    names = [name.strip().lower() for name in head.lstrip("\ufeff").split(",")]
    if log_format == "auto" and any(name in names for name in _STEP) and len(names) > 1:
        yield from _from_csv(names, source)
        return
    yield from parser.feed_all([head])
    yield from parser.feed_all(source)


def _from_csv(names: list[str], lines: Iterator[str]) -> Iterator[Progress]:
    step = next(name for name in _STEP if name in names)
    clock = next((name for name in _CLOCKS if name in names), "")
    stamp = next((name for name in _STAMPS if name in names), "")
    total = next((name for name in _TOTAL if name in names), "")
    for row in csv.DictReader(lines, fieldnames=names):
        made, seconds, planned = _number(row.get(step)), _finite(row.get(clock)), _finite(row.get(total))
        if made is None or not math.isfinite(made):
            continue
        loss = _number(row.get("loss"))
        validation = (row.get("kind") or "").startswith("val")
        yield Progress(
            step=int(made),
            total_steps=int(planned) if planned is not None else None,
            time=_finite(row.get(stamp)),
            elapsed=seconds * _CLOCKS[clock] if seconds is not None else None,
            loss=None if validation else loss,
            validation_loss=loss if validation else _number(row.get("val_loss")),
            nonfinite=int(not validation and loss is not None and not math.isfinite(loss)),
        )


def _number(text: str | None) -> float | None:
    """A number, NaN and infinities included; None where there is none."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _finite(text: str | None) -> float | None:
    value = _number(text)
    return value if value is not None and math.isfinite(value) else None
