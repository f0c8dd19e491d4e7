"""verl (reinforcement learning): `step:12 - actor/pg_loss:-0.01 - timing_s/step:48.7 - perf/throughput:3283.4 - ...`.

The total stands in a line before the first step, or in the bar between steps. There is no loss to follow;
`perf/throughput` is tokens a second of one GPU, prompts included.
"""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import CUT, Progress
from agent.base.trainlog.reading import Reading

_STEP = re.compile(r"step:(\d+) - ", re.A)
_WRAPPED = re.compile(r"np\.\w+\((.*)\)")


class Verl(Parser):
    name = "verl"
    summary = "verl console"
    claims = re.compile(r"\bstep:\d+ - [\w/@.-]+:")
    heeds = re.compile(r"Total training steps: (\d+)|Training Progress: .{0,200}\| \d+/(\d+) \[")
    resumes = re.compile(r"Resuming from (?:checkpoint|\S*global_step_\d+)")

    _total: int | None = None

    def heed(self, found: re.Match[str]) -> None:
        self._total = int(found[1] or found[2])

    def parse(self, line: str) -> Progress | None:
        steps = set(_STEP.findall(line))
        if len(steps) != 1:  # two: of another writer's line, which was cut off, the beginning stands before this one
            return None
        named = {
            key: _WRAPPED.sub(r"\1", value)
            for key, colon, value in (part.partition(":") for part in line.split(" - "))
            if colon
        }
        cut = self.ends_early("step", list(named))
        if cut and named:
            named[next(reversed(named))] = ""
        values = Reading(named)
        values.spoil(*[CUT] * cut)
        return Progress(
            step=int(steps.pop()),
            total_steps=self._total,
            step_seconds=values.number("step_seconds", "timing_s/step", "perf/time_per_step"),
            grad_norm=values.number("grad_norm", "actor/grad_norm"),
            learning_rate=values.number("learning_rate", "actor/lr"),
            epoch=values.number("epoch", "training/epoch"),
            tokens_per_second_gpu=values.number("tokens_per_second_gpu", "perf/throughput"),
            mfu=values.number("mfu", "perf/mfu/actor"),
            damaged=values.damaged,
        )
