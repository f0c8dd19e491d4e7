"""LitGPT: `Epoch 1 | iter 128 step 4 | loss train: 10.967, val: n/a | iter time: 421.22 ms (step) ...`.

`iter` counts micro-batches, `step` optimizer steps made; `iter time` is that of a micro-batch.
"""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.reading import Reading

_LINE = re.compile(r".*iter +\d+ step +(\d+) \| loss train: (\S*), val: (\S*) \|", re.A)


class LitGpt(Parser):
    name = "litgpt"
    summary = "LitGPT console"
    claims = re.compile(r"\biter +\d+ step +\S+ \| loss train: ")
    resumes = re.compile(r"^Resuming (?:training )?from ")

    def parse(self, line: str) -> Progress | None:
        found = _LINE.match(line)
        if not found:
            return None
        values = Reading()
        return Progress(
            step=int(found[1]),
            loss=values.take("loss", found[2]),
            validation_loss=values.take("validation_loss", found[3]),
            damaged=values.damaged,
        )
