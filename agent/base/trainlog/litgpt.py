"""LitGPT: `Epoch 1 | iter 128 step 4 | loss train: 10.967, val: n/a | iter time: 421.22 ms (step) ...`.

`iter` counts micro-batches, `step` optimizer steps made; `iter time` is that of a micro-batch. The time of a step is
that of its micro-batches as far as they are told.
"""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.reading import Reading

_LINE = re.compile(r".*iter +(\d+) step +(\d+) \| loss train: (\S*), val: (\S*) \|(?: iter time: ([\d.,]+) ms)?", re.A)


class LitGpt(Parser):
    name = "litgpt"
    summary = "LitGPT console"
    claims = re.compile(r"\biter +\d+ step +\S+ \| loss train: ")
    resumes = re.compile(r"^Resuming (?:training )?from ")

    _batches = 0
    _step = 0
    _spent = 0.0
    """Seconds of the micro-batches since the last step."""

    def parse(self, line: str) -> Progress | None:
        found = _LINE.match(line)
        if not found:
            return None
        values = Reading()
        batches, step = int(found[1]), int(found[2])
        milliseconds = values.take("step_seconds", found[5]) if found[5] else None
        return Progress(
            step=step,
            step_seconds=self._seconds(batches, step, milliseconds),
            loss=values.take("loss", found[3]),
            validation_loss=values.take("validation_loss", found[4]),
            damaged=values.damaged,
        )

    def _seconds(self, batches: int, step: int, milliseconds: float | None) -> float | None:
        """Seconds of a step, once one more is made."""
        if batches <= self._batches or step < self._step:  # made again
            self._step, self._spent = step, 0.0
        elif milliseconds is not None:
            self._spent += milliseconds / 1000 * (batches - self._batches)
        self._batches = batches
        if step <= self._step or not self._spent:
            return None
        each = self._spent / (step - self._step)
        self._step, self._spent = step, 0.0
        return each
