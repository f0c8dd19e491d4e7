"""NeMo 2 (`Training epoch 0, iteration 120/149 | ...`) and NeMo 1 (a tqdm bar with the values in its tail).

NeMo counts from 0: iteration 149/149 is the 150th step of 150.
"""

from __future__ import annotations

import re

from agent.base.trainlog import bars
from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.text import fields, integer, number

_ITERATION = re.compile(r"Training epoch (\d+), iteration (\d+)/(\d+)\s*\|(.*)")
_STEP_SECONDS = "train_step_timing in s"


class Nemo(Parser):
    name = "nemo"
    summary = "NeMo 2 console"
    claims = re.compile(r"Training epoch \d+, iteration ")
    resumes = re.compile(r"Restored all states from the checkpoint|Restoring states from the checkpoint")

    def parse(self, line: str) -> Progress | None:
        found = _ITERATION.search(line)
        if not found:
            return None
        values = fields(found[4])
        iteration = int(found[2])
        counted = integer(values.get("global_step"))
        step = iteration if counted is None else counted
        return _record(values, step + 1, int(found[3]) + 1 if step == iteration else None)


class NemoBar(Parser):
    name = "nemo1"
    summary = "NeMo 1, Lightning progress bar"
    claims = re.compile(r"\bEpoch \d+:.{0,200}\d%\|")
    resumes = Nemo.resumes

    def parse(self, line: str) -> Progress | None:
        bar = bars.read(line)
        if bar is None:
            return None
        values = {
            key.strip().lower(): value.strip()
            for key, equals, value in (part.partition("=") for part in bar.rest.split(","))
            if equals
        }
        counted = integer(values.get("global_step"))
        step = bar.step if counted is None else counted + 1
        record = _record(values, step, bar.total if abs(step - bar.step) <= 1 else None)
        return Progress(
            step=record.step,
            total_steps=record.total_steps,
            elapsed=bar.elapsed,
            step_seconds=record.step_seconds or bar.step_seconds,
            loss=record.loss,
            validation_loss=record.validation_loss,
            grad_norm=record.grad_norm,
            learning_rate=record.learning_rate,
            consumed_samples=record.consumed_samples,
            batch_size=record.batch_size,
        )


def _record(values: dict[str, str], step: int, total: int | None) -> Progress:
    teraflops = number(values.get("tflops_per_gpu"))
    return Progress(
        step=step,
        total_steps=total,
        step_seconds=number(values.get(_STEP_SECONDS)),
        loss=number(values.get("reduced_train_loss") or values.get("loss")),
        validation_loss=number(values.get("val_loss")),
        grad_norm=number(values.get("grad_norm")),
        learning_rate=number(values.get("lr")),
        flops_gpu=teraflops * 1e12 if teraflops is not None else None,
        consumed_samples=number(values.get("consumed_samples")),
        batch_size=integer(values.get("global_batch_size")),
    )
