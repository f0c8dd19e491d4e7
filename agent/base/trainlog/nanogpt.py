"""nanoGPT (`iter 10: loss 3.1, time 135.1ms, mfu 15.2%`) and its speed runs (`step:10/2160 train_time:515ms ...`).

The speed runs reset their clock some steps after the start, and print `nan` for the average until then.
"""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.text import number

_SPEED_RUN = re.compile(r"\bstep:(\d+)/(\d+)\s(.*)")
_PAIR = re.compile(r"([a-z_]+):(\S+)")
_ITERATION = re.compile(r"\biter (\d+): loss (\S+?), time ([\d.]+)ms(?:, mfu (\S+?)%)?")
_EVALUATION = re.compile(r"\bstep (\d+): train loss (\S+?), val loss (\S+)")


class NanoGpt(Parser):
    name = "nanogpt"
    summary = "nanoGPT and modded-nanogpt"
    claims = re.compile(r"\bstep:\S+/\S+\s.*train_time:|\biter \d+: loss |\bstep \d+: train loss ")
    heeds = re.compile(r"(?:Overriding: |^)max_iters = (\d+)")
    resumes = re.compile(r"^Resuming training from ")

    _total: int | None = None
    _clock: tuple[int, float] | None = None

    def heed(self, found: re.Match[str]) -> None:
        self._total = int(found[1])

    def parse(self, line: str) -> Progress | None:
        if found := _SPEED_RUN.search(line):
            return self._speed_run(int(found[1]), int(found[2]), dict(_PAIR.findall(found[3])))
        if found := _ITERATION.search(line):
            milliseconds, percent = number(found[3]), number(found[4])
            return Progress(
                step=int(found[1]) + 1,
                total_steps=self._total,
                loss=number(found[2]),
                step_seconds=milliseconds / 1000 if milliseconds is not None else None,
                mfu=percent / 100 if percent is not None and percent >= 0 else None,
            )
        if found := _EVALUATION.search(line):
            return Progress(step=int(found[1]), total_steps=self._total, validation_loss=number(found[3]))
        return None

    def _speed_run(self, step: int, total: int, values: dict[str, str]) -> Progress | None:
        milliseconds = number(values.get("train_time"))
        if milliseconds is None:
            return None
        elapsed = milliseconds / 1000
        seconds = None
        if self._clock and step > self._clock[0] and elapsed > self._clock[1]:
            seconds = (elapsed - self._clock[1]) / (step - self._clock[0])
        self._clock = (step, elapsed)
        return Progress(
            step=step,
            total_steps=total,
            elapsed=elapsed,
            step_seconds=seconds,
            loss=number(values.get("train_loss")),
            validation_loss=number(values.get("val_loss")),
        )
