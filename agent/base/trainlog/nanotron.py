"""nanotron: `iteration: 10 / 1200 | consumed_tokens: 10.5M | elapsed_time_per_iteration_ms: 357 | ...`.

Numbers are shortened to three digits: `4.71K`, `10.5M`, `1.2G` are read as what they stand for.
"""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import CUT, Progress
from agent.base.trainlog.reading import Reading
from agent.base.trainlog.text import fields

_ITERATION = re.compile(r".*iteration: (\d+) / (\d+) \|(.*)", re.A)
_SHORT = re.compile(r"(\d+(?:\.\d+)?)([KMBGT])", re.A)
_POWERS = {"K": 3, "M": 6, "B": 9, "G": 9, "T": 12}


class Nanotron(Parser):
    name = "nanotron"
    summary = "nanotron console"
    claims = re.compile(r"\biteration: \d+ / \d+ \|.*?\b(?:consumed_tokens|elapsed_time_per_iteration_ms|lm_loss):")
    resumes = re.compile(r"Loading checkpoint from ")

    def parse(self, line: str) -> Progress | None:
        found = _ITERATION.match(line)
        if not found:
            return None
        named = {key: _whole(value) for key, value in fields(found[3]).items()}
        cut = self.ends_early("iteration", list(named))
        if cut:
            named[next(reversed(named))] = ""
        values = Reading(named)
        values.spoil(*[CUT] * cut)
        milliseconds = values.number("step_seconds", "elapsed_time_per_iteration_ms")
        teraflops = values.number("flops_gpu", "model_tflops_per_gpu")
        return Progress(
            step=int(found[1]),
            total_steps=int(found[2]),
            step_seconds=milliseconds / 1000 if milliseconds is not None else None,
            loss=values.number("loss", "lm_loss"),
            grad_norm=values.number("grad_norm", "grad_norm"),
            learning_rate=values.number("learning_rate", "lr"),
            tokens_per_second=values.number("tokens_per_second", "tokens_per_sec"),
            tokens_per_second_gpu=values.number("tokens_per_second_gpu", "tokens_per_sec_per_gpu"),
            flops_gpu=teraflops * 1e12 if teraflops is not None else None,
            consumed_tokens=values.number("consumed_tokens", "consumed_tokens"),
            batch_size=values.integer("batch_size", "global_batch_size"),
            damaged=values.damaged,
        )


def _whole(given: str) -> str:
    found = _SHORT.fullmatch(given)
    return f"{found[1]}e{_POWERS[found[2]]}" if found else given
