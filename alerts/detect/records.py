"""The progress records of a training log, or of a CSV of progress."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from datetime import timezone

from agent.base.trainlog import AUTO, Progress, open_format, stamps, trainer_state

_STEP = ("step", "iteration", "global_step", "iter", "_step", "trainer/global_step")
_STAMPS = ("timestamp", "unix_time", "wall time", "wall_time", "_timestamp", "time", "datetime", "date")
_CLOCKS = {
    **dict.fromkeys(("train_time_ms", "elapsed_ms", "time_ms"), 1e-3),
    **dict.fromkeys(("elapsed", "elapsed_s", "elapsed_sec", "elapsed_seconds", "elapsed_time"), 1.0),
    **dict.fromkeys(("train_time", "train_time_s", "seconds", "runtime", "_runtime", "time"), 1.0),
}
"""Columns of a run's own clock, and their unit in seconds; `time` is a wall clock if it tells a date."""
_DATED = 1e8
"""Seconds from which on a number is a date."""
_TOTAL = ("total_steps", "max_steps", "total_iterations", "steps_planned")


def read(lines: Iterable[str], log_format: str = "auto") -> Iterator[Progress]:
    """The records of a log in order, each as soon as its line is there.

    A CSV (or its like with `;` or tabs) is known by its header: `step`, a clock (`train_time_ms`, `elapsed`,
    `timestamp`, ...), `total_steps`, `loss`. Clocks that name no zone are taken as UTC: only differences count here.
    A trainer_state.json is read too; its records have no time.

    Args:
        lines: the log; a line may hold carriage returns, as progress bars do.
        log_format: a format of `agent.base.trainlog`.

    Raises:
        ConfigError: no such format.
    """
    parser, source = open_format(log_format, timezone.utc), iter(lines)
    head = next(source, "")
    separator = max(",;\t", key=head.count)
    names = [name.strip(' "').lower() for name in head.strip("\ufeff\r\n").split(separator)]
    if log_format == AUTO and any(name in names for name in _STEP) and len(names) > 1:
        yield from _from_csv(names, separator, source)
        return
    document = _document(head, source)
    try:
        yield from trainer_state.records("".join(document) if log_format == AUTO else "")
    except ValueError:  # the settings with which many a log begins, or its first line
        yield from parser.feed_all(document)
    yield from parser.feed_all(source)


def _document(head: str, lines: Iterator[str]) -> list[str]:
    """The first line, and those up to its closing brace where it is the opening one of a JSON document."""
    document = [head]
    if head.rstrip() == "{":
        for line in lines:
            document.append(line)
            if line.rstrip() == "}":
                break
    return document


def _from_csv(names: list[str], separator: str, lines: Iterator[str]) -> Iterator[Progress]:
    step = next(name for name in _STEP if name in names)
    clock = next((name for name in _CLOCKS if name in names), "")
    stamp = next((name for name in _STAMPS if name in names), "")
    total = next((name for name in _TOTAL if name in names), "")
    for row in csv.DictReader(lines, fieldnames=names, delimiter=separator):
        made, seconds, planned = _number(row.get(step)), _finite(row.get(clock)), _finite(row.get(total))
        when = _when(row.get(stamp))
        if stamp == clock and (when is None or when < _DATED):
            when = None
        elif stamp == clock:
            seconds = None
        if made is None or not math.isfinite(made):
            continue
        loss = _number(row.get("loss"))
        validation = (row.get("kind") or "").startswith("val")
        yield Progress(
            step=int(made),
            total_steps=int(planned) if planned is not None else None,
            time=when,
            elapsed=seconds * _CLOCKS[clock] if seconds is not None else None,
            loss=None if validation else loss,
            validation_loss=loss if validation else _number(row.get("val_loss")),
            nonfinite=int(not validation and loss is not None and not math.isfinite(loss)),
        )


def _when(text: str | None) -> float | None:
    """Unix seconds of a number (milliseconds since 1970 among them) or of a date and time."""
    value = _finite(text)
    if value is None:
        return stamps.stamp(text, timezone.utc) if text else None
    return value / 1000 if value > 1e11 else value


def _number(text: str | None) -> float | None:
    """A number, NaN and infinities included; None where there is none."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _finite(text: str | None) -> float | None:
    value = _number(text)
    return value if value is not None and math.isfinite(value) else None
