"""NeMo 2 (`Training epoch 0, iteration 120/149 | ...`) and NeMo 1 (a tqdm bar with the values in its tail).

NeMo counts from 0: iteration 149/149 is the 150th step of 150. Lightning's bar, which NeMo 1 has, counts the batches of
an epoch; only NeMo writes the step of the run (`global_step`) beside it, and only then the bar's total is the run's.
From 1,000 on it is rounded to three digits (`3.41e+4`): the batches tell it exactly, where they agree with it.
Scripts that write `Epoch 1/3` count epochs from 1 and tell how many there are. The clock of such bars begins anew with
each epoch: those of the epochs before are added.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import tzinfo

from agent.base.trainlog import bars
from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import CUT, Progress
from agent.base.trainlog.reading import Reading
from agent.base.trainlog.text import fields

_ITERATION = re.compile(r".*Training epoch (\d+), iteration (\d+)/(\d+)\s*\|(.*)", re.A)
_STEP_SECONDS = "train_step_timing in s"
_ROUNDED = 0.005
"""The greatest part of a number that is lost where it is rounded to three digits."""
_EPOCH = re.compile(r"\b(?:Epoch|Episode) \[?(\d+)(?:/(\d+))?\]?:")


class Nemo(Parser):
    name = "nemo"
    summary = "NeMo 2 console"
    claims = re.compile(r"Training epoch \d+, iteration ")
    resumes = re.compile(r"Restored all states from the checkpoint|Restoring states from the checkpoint")

    def parse(self, line: str) -> Progress | None:
        found = _ITERATION.match(line)
        if not found:
            return None
        named = fields(found[4])
        cut = self.ends_early("iteration", list(named))
        if cut and named:
            named[next(reversed(named))] = ""
        values = Reading(named)
        values.spoil(*[CUT] * cut)
        iteration = int(found[2])
        counted = values.integer("step", "global_step")
        if "step" in values.damaged:
            return None
        step = iteration if counted is None else counted
        return _record(values, step + 1, int(found[3]) + 1 if step == iteration else None)


class NemoBar(Parser):
    name = "nemo1"
    summary = "NeMo 1, Lightning progress bar"
    claims = re.compile(r"\b(?:Epoch|Episode) (?:\d+|\[?\d+/\d+\]?):.{0,200}\|\s*\d+/(?:\d+|\?) \[")
    resumes = Nemo.resumes

    _epoch = 0
    _before = 0
    """Batches of the epochs before this one, where the bar knows no total."""
    _batch = 0

    def __init__(self, tz: tzinfo | None = None) -> None:
        super().__init__(tz)
        self._clock = bars.EpochsClock()

    def parse(self, line: str) -> Progress | None:
        bar = bars.read(line)
        epoch = _EPOCH.search(line)
        if bar is None or epoch is None:
            return None
        named = {
            key.strip(" ,").lower(): value.strip()
            for key, equals, value in (part.partition("=") for part in bar.rest.split(", "))
            if equals
        }
        values = Reading(named)
        values.spoil(*bar.damaged)
        counted = values.integer("step", "global_step")
        if "step" in values.damaged:
            return None
        if counted is not None and "e" in named["global_step"]:
            batches = self._batches(int(epoch[1]), bar)
            counted = batches - 1 if abs(batches - 1 - counted) <= _ROUNDED * counted else counted
        if counted is None:
            every = int(epoch[2]) * bar.total if epoch[2] and bar.total else None
            record = _record(values, self._batches(int(epoch[1]) - bool(epoch[2]), bar), every)
        else:
            record = _record(values, counted + 1, bar.total if abs(counted + 1 - bar.step) <= 1 else None)
        seconds = record.step_seconds
        if seconds is None and "step_seconds" not in record.damaged:
            seconds = bar.step_seconds
        return replace(record, elapsed=self._clock.since_start(int(epoch[1]), bar), step_seconds=seconds)

    def _batches(self, epoch: int, bar: bars.Bar) -> int:
        """Batches since the run's beginning: the bar starts anew with every epoch."""
        if bar.total is not None:
            return epoch * bar.total + bar.step
        if epoch != self._epoch:
            self._before = self._before + self._batch if epoch > self._epoch else 0
            self._epoch = epoch
        self._batch = bar.step
        return self._before + bar.step


def _record(values: Reading, step: int, total: int | None) -> Progress:
    teraflops = values.number("flops_gpu", "tflops_per_gpu")
    return Progress(
        step=step,
        total_steps=total,
        step_seconds=values.number("step_seconds", _STEP_SECONDS),
        loss=values.number("loss", "reduced_train_loss", "train_loss_step", "train_loss", "train/loss", "loss"),
        validation_loss=values.number("validation_loss", "val_loss", "val/loss"),
        grad_norm=values.number("grad_norm", "grad_norm"),
        learning_rate=values.number("learning_rate", "lr"),
        flops_gpu=teraflops * 1e12 if teraflops is not None else None,
        consumed_samples=values.number("consumed_samples", "consumed_samples"),
        batch_size=values.integer("batch_size", "global_batch_size"),
        damaged=values.damaged,
    )
