"""nanoGPT (`iter 10: loss 3.1, time 135.1ms`) and its speed runs (`step:10/2160 train_time:515ms ...`, or `0.515s`).

The speed runs reset their clock some steps after the start, and print `nan` for the average until then.
"""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import CUT, Progress
from agent.base.trainlog.reading import Reading

_SPEED_RUN = re.compile(r".*step:(\d+)/(\d+)\s(.*)", re.A)
_PAIR = re.compile(r"([a-z_]+):(\S*)")
_ITERATION = re.compile(r".*iter (\d+): (loss .*)", re.A)
_EVALUATION = re.compile(r".*step (\d+): train loss [^,]*, val loss(.*)", re.A)


class NanoGpt(Parser):
    name = "nanogpt"
    summary = "nanoGPT and modded-nanogpt"
    claims = re.compile(
        r"\bstep:\S+/\S+\s.*(?:train_time|train_loss|val_loss):|\biter \d+: loss |\bstep \d+: train loss "
    )
    heeds = re.compile(r"(?:Overriding: |^)max_iters = (\d+)")
    resumes = re.compile(r"^Resuming training from ")

    _total: int | None = None
    _clock: tuple[int, float] | None = None

    def heed(self, found: re.Match[str]) -> None:
        self._total = int(found[1])

    def parse(self, line: str) -> Progress | None:
        if found := _SPEED_RUN.match(line):
            return self._speed_run(int(found[1]), int(found[2]), dict(_PAIR.findall(found[3])))
        if found := _ITERATION.match(line):
            return self._iteration(int(found[1]) + 1, found[2])
        if found := _EVALUATION.match(line):
            values = Reading()
            loss = values.take("validation_loss", found[2])
            return Progress(step=int(found[1]), total_steps=self._total, validation_loss=loss, damaged=values.damaged)
        return None

    def _iteration(self, step: int, rest: str) -> Progress:
        named = {key: value for key, _, value in (part.partition(" ") for part in rest.split(", "))}
        values = Reading()
        # The time closes the line where there is no utilisation: a loss that ends it has lost its end.
        loss = values.take("loss", named["loss"] if "time" in named else "")
        milliseconds = values.take("step_seconds", named["time"], "ms") if "time" in named else None
        percent = values.take("mfu", named["mfu"], "%") if "mfu" in named else None
        return Progress(
            step=step,
            total_steps=self._total,
            loss=loss,
            step_seconds=milliseconds / 1000 if milliseconds is not None else None,
            mfu=percent / 100 if percent is not None and percent >= 0 else None,
            damaged=values.damaged,
        )

    def _speed_run(self, step: int, total: int, named: dict[str, str]) -> Progress:
        values = Reading(named)
        clock = named.get("train_time", "")
        unit, in_a_second = ("ms", 1000) if clock.endswith("ms") else ("s", 1)
        told = values.take("elapsed", clock, unit)
        elapsed = seconds = None
        if told is None:
            values.spoil("step_seconds")
            self._clock = None
        else:
            elapsed = told / in_a_second
            if self._clock and step > self._clock[0] and elapsed > self._clock[1]:
                seconds = (elapsed - self._clock[1]) / (step - self._clock[0])
            self._clock = (step, elapsed)
        if "train_time" not in named:  # it comes behind the losses: the line was cut off in one of them
            values.spoil(CUT, "loss" if "train_loss" in named else "validation_loss")
            named.clear()
        return Progress(
            step=step,
            total_steps=total,
            elapsed=elapsed,
            step_seconds=seconds,
            loss=values.number("loss", "train_loss"),
            validation_loss=values.number("validation_loss", "val_loss"),
            damaged=values.damaged,
        )
