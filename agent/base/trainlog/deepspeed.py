"""DeepSpeed's own lines: throughput timer, step report, pipeline engine. None names a total."""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.text import fields, number

_TIMER = re.compile(
    r"micro_step=(\d+)/global_step=(\d+),\s*RunningAvgSamplesPerSec=(\S+?),\s*CurrSamplesPerSec=([^,\s]+)"
)
_OLD_TIMER = re.compile(r"\b\d+/(\d+), SamplesPerSec=([^,\s]+)")
_REPORT = re.compile(r"\bstep=(\d+), skipped=\d+, lr=\[([^\],]*)")
_PIPELINE = re.compile(r"\bsteps: (\d+) loss: (\S+) iter time \(s\): (\S+) samples/sec: (\S+)")
_TIMES = re.compile(r"time \(ms\) \| (.*)")
_TOP_LEVEL = ("forward", "backward", "step")


class DeepSpeed(Parser):
    name = "deepspeed"
    summary = "DeepSpeed throughput timer and step report"
    claims = re.compile(r"SamplesPerSec=|\bstep=\d+, skipped=|\bsteps: \d+ loss: |\brank=\d+ time \(ms\) \| forward: ")
    heeds = re.compile(r"\]\s+train_batch_size \.{3,}\s*(\d+)")
    resumes = re.compile(r"rank: ?\d+ loading checkpoint|\bloading \d+ zero partition checkpoints", re.I)

    _batch_size: int | None = None
    _reports = False

    def heed(self, found: re.Match[str]) -> None:
        self._batch_size = int(found[1])

    def ignores(self, line: str) -> bool:
        """The report of step 0 is printed when the optimizer is set up, before any step."""
        return bool((found := _REPORT.search(line)) and int(found[1]) == 0)

    def parse(self, line: str) -> Progress | None:
        if found := _TIMER.search(line):
            return self._paced(int(found[2]), number(found[4]))
        if found := _REPORT.search(line):
            self._reports = True
            return Progress(step=int(found[1]), learning_rate=number(found[2]), batch_size=self._batch_size)
        if found := _OLD_TIMER.search(line):
            # Old timers may count micro-steps: where the step is reported beside them, they give the pace only.
            return self._paced(None if self._reports else int(found[1]), number(found[2]))
        if found := _PIPELINE.search(line):
            return Progress(
                step=int(found[1]),
                loss=number(found[2]),
                step_seconds=number(found[3]),
                samples_per_second=number(found[4]),
                batch_size=self._batch_size,
            )
        if found := _TIMES.search(line):
            return self._times(found[1])
        return None

    def _paced(self, step: int | None, rate: float | None) -> Progress:
        seconds = self._batch_size / rate if self._batch_size and rate else None
        return Progress(step=step, samples_per_second=rate, step_seconds=seconds, batch_size=self._batch_size)

    @staticmethod
    def _times(rest: str) -> Progress | None:
        values = {key: number(value) for key, value in fields(rest).items()}
        step = [values.get(key) for key in _TOP_LEVEL]
        reduce = values.get("backward_allreduce")
        total = sum(value for value in step if value is not None)
        if reduce is None or None in step or not total:
            return None
        return Progress(communication_ratio=min(reduce / total, 1.0))
