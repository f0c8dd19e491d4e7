"""DeepSpeed's own lines: throughput timer, step report, pipeline engine. None names a total."""

from __future__ import annotations

import re
from typing import Final

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import CUT, Progress
from agent.base.trainlog.reading import Reading
from agent.base.trainlog.text import fields

_TIMER = re.compile(r".*micro_step=\d+/global_step=(\d+),(.*)", re.A)
_OLD_TIMER = re.compile(r".*\b\d+/(\d+),( SamplesPerSec=.*)", re.A)
_PAIR = re.compile(r"(\w+)=(.*?)(?=,\s*\w+=|,?\s*$)")
_REPORT = re.compile(r".*step=(\d+), skipped=\d+, lr=\[([^\]]*)(\]?)", re.A)
_PIPELINE = re.compile(r".*steps: (\d+) (loss: .*)", re.A)
_PIPELINE_PAIR = re.compile(r"(loss|iter time \(s\)|samples/sec): +((?!iter\b|samples/)\S*)")
TIMES: Final = "time (ms) | "
_TIMES = re.compile(r".*time \(ms\) \| ((?:fwd|forward): .*)")
_TOP_LEVEL = (("fwd", "forward"), ("bwd", "backward"), ("step",))
_REDUCE = ("bwd_allreduce", "backward_allreduce")
"""New and old names; those of a micro-step (`fwd_microstep`) are lines of their own."""


class DeepSpeed(Parser):
    name = "deepspeed"
    summary = "DeepSpeed throughput timer and step report"
    claims = re.compile(r"SamplesPerSec=|\bstep=\d+, skipped=|\bsteps: \d+ loss: |\btime \(ms\) \| (?:fwd|forward): ")
    heeds = re.compile(r"\]\s+train_batch_size \.{3,}\s*(\d+)")
    resumes = re.compile(r"rank: ?\d+ loading checkpoint|\bloading \d+ zero partition checkpoints", re.I)

    _batch_size: int | None = None
    _reports = False

    def heed(self, found: re.Match[str]) -> None:
        self._batch_size = int(found[1])

    @staticmethod
    def tells_times(line: str) -> bool:
        """Whether a line has the times of a step: its share of communication, whatever program told the step."""
        return _TIMES.match(line) is not None

    def ignores(self, line: str) -> bool:
        """The report of step 0 is printed when the optimizer is set up, before any step."""
        return bool((found := _REPORT.match(line)) and int(found[1]) == 0)

    def parse(self, line: str) -> Progress | None:
        if found := _TIMER.match(line):
            return self._paced(int(found[1]), found[2], "CurrSamplesPerSec")
        if found := _REPORT.match(line):
            self._reports = True
            rates = Reading()
            first, _, others = found[2].partition(", ")
            return Progress(
                step=int(found[1]),
                learning_rate=rates.take("learning_rate", first if found[3] or others else ""),
                batch_size=self._batch_size,
                damaged=rates.damaged,
            )
        if found := _OLD_TIMER.match(line):
            # Old timers may count micro-steps: where the step is reported beside them, they give the pace only.
            return self._paced(None if self._reports else int(found[1]), found[2], "SamplesPerSec")
        if found := _PIPELINE.match(line):
            return self._pipeline(int(found[1]), found[2])
        if found := _TIMES.match(line):
            return self._times(found[1])
        return None

    def _paced(self, step: int | None, rest: str, name: str) -> Progress:
        named = dict(_PAIR.findall(rest))
        if self.ends_early(name, list(named)) or name not in named:
            named[name] = ""  # the line ends before it, or in it
        values = Reading(named)
        rate = values.number("samples_per_second", name)
        if rate is None:
            values.derive("step_seconds", ("samples_per_second",))
        return Progress(
            step=step,
            samples_per_second=rate,
            step_seconds=self._batch_size / rate if self._batch_size and rate else None,
            batch_size=self._batch_size,
            damaged=values.damaged,
        )

    def _pipeline(self, step: int, rest: str) -> Progress:
        named = dict(_PIPELINE_PAIR.findall(rest))
        whole = "samples/sec" in named
        if not whole:
            named[next(reversed(named), "loss")] = ""  # the line always ends in the samples: it was cut off
        values = Reading(named)
        values.spoil(*[CUT] * (not whole))
        return Progress(
            step=step,
            loss=values.number("loss", "loss"),
            step_seconds=values.number("step_seconds", "iter time (s)"),
            samples_per_second=values.number("samples_per_second", "samples/sec"),
            batch_size=self._batch_size,
            damaged=values.damaged,
        )

    @staticmethod
    def _times(rest: str) -> Progress:
        values = Reading(fields(rest))
        step = [values.number("communication_ratio", *names) for names in _TOP_LEVEL]
        reduce = values.number("communication_ratio", *_REDUCE)
        total = sum(value for value in step if value is not None)
        if reduce is None or None in step or not total:
            values.spoil("communication_ratio")
            return Progress(damaged=values.damaged)
        return Progress(communication_ratio=min(reduce / total, 1.0))
