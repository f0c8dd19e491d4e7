"""torchtitan: `step: 200  loss:  6.1384  memory: 49.66GiB(52.28%)  tps: 5,856  tflops: 339.16  mfu: 34.29%`.

`tps` (`wps` in 2024) is of one GPU. The total stands in the line that announces the training, if anywhere.
"""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import CUT, Progress
from agent.base.trainlog.reading import Reading

_STEP = re.compile(r".*step:\s*(\d+)\s+(.*\bloss:.*)", re.A)
_PAIR = re.compile(r"([a-z_]\w*):\s*((?![a-z_]\w*:)\S*)")
_READ = frozenset({"loss", "grad_norm", "lr", "wps", "tps", "tflops"})
_VALIDATION = re.compile(r".*\bvalidate step:\s*(\d+)\s+loss:\s*(\S+)\s", re.A)


class TorchTitan(Parser):
    name = "torchtitan"
    summary = "torchtitan console"
    claims = re.compile(r"\bstep:\s*\S+\s+loss:")
    heeds = re.compile(
        r"Training starts at step (?P<step>\d+)(?:.*?global batch size (?P<batch>\d+))?"
        r"(?:.*?sequence length (?P<length>\d+))?(?:.*?total steps (?P<total>\d+))?"
    )
    resumes = re.compile(r"Finished loading the checkpoint|Loading the checkpoint (?:at|from)")

    _total: int | None = None
    _batch: int | None = None
    _length: int | None = None

    def heed(self, found: re.Match[str]) -> None:
        self._total, self._batch, self._length = (
            int(found[name]) if found[name] else None for name in ("total", "batch", "length")
        )

    def parse(self, line: str) -> Progress | None:
        if found := _VALIDATION.match(line):
            values = Reading()
            loss = values.take("validation_loss", found[2])
            return Progress(step=int(found[1]), validation_loss=loss, damaged=values.damaged)
        found = _STEP.match(line)
        if not found:
            return None
        named = dict(_PAIR.findall(found[2]))
        last = next(reversed(named))
        # Values are closed by blanks, the utilisation that ends the line by its sign.
        cut = last in _READ and found[2].endswith(named[last]) and last != "mfu"
        if cut:
            named[last] = ""
        values = Reading(named)
        values.spoil(*[CUT] * cut)
        teraflops = values.number("flops_gpu", "tflops")
        percent = values.take("mfu", named["mfu"], "%") if "mfu" in named else None
        return Progress(
            step=int(found[1]),
            total_steps=self._total,
            loss=values.number("loss", "loss"),
            grad_norm=values.number("grad_norm", "grad_norm"),
            learning_rate=values.number("learning_rate", "lr"),
            tokens_per_second_gpu=values.number("tokens_per_second_gpu", "tps", "wps"),
            flops_gpu=teraflops * 1e12 if teraflops is not None else None,
            mfu=percent / 100 if percent is not None else None,
            batch_size=self._batch,
            sequence_length=self._length,
            damaged=values.damaged,
        )
