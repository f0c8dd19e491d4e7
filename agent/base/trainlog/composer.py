"""MosaicML Composer: `[batch=10/100]:`, then a line for each value (`Train loss/train/total: 10.97`).

The clock comes behind the step: seconds in `wall_clock/total`, hours in `time/total`, which took its place.
"""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.reading import Reading

_BATCH = re.compile(r"(?:\[epoch=(\d+)(?:/(\d+))?\])?\[batch=(\d+)/(\d+)\]:?(.*)", re.A)
_VALUE = re.compile(r"Train (loss/train/total|wall_clock/total|time/total): *(\S*)")


class Composer(Parser):
    name = "composer"
    summary = "MosaicML Composer console"
    claims = re.compile(r"^[^\[]{0,40}(?:\[epoch=\S+\])?\[batch=\S+\]|" + _VALUE.pattern)
    resumes = re.compile(r"Loading checkpoint from|Loaded checkpoint")

    _step: int | None = None
    _total: int | None = None

    def ignores(self, line: str) -> bool:
        """Values before the first step, or behind a damaged one."""
        return self._step is None and "[batch=" not in line

    def parse(self, line: str) -> Progress | None:
        found = _BATCH.search(line)
        if "[batch=" in line and (not found or ("[epoch=" in line and not found[1])):
            self._step = None
            return None
        if found:
            epoch, epochs, batch, batches, line = found.groups()
            self._step, self._total = int(batch), int(batches)
            if epoch:  # batches are counted anew in each
                self._step += max(int(epoch) - (1 if epochs else 0), 0) * int(batches)
                self._total = int(epochs) * int(batches) if epochs else None
        values = Reading(dict(_VALUE.findall(line)))
        seconds = values.number("elapsed", "wall_clock/total")
        if seconds is None and (hours := values.number("elapsed", "time/total")) is not None:
            seconds = 3600 * hours
        told = found or seconds is not None
        return Progress(
            step=self._step if told else None,
            total_steps=self._total if told else None,
            elapsed=seconds,
            loss=values.number("loss", "loss/train/total"),
            damaged=values.damaged,
        )
