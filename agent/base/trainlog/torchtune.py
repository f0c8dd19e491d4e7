"""torchtune: a bar (`1|10|Loss: 1.58: 10%|...`) and its disk logger (`Step 10 | loss:1.58 lr:2e-05 ...`).

The bar's title has the epoch and the step of the run; its total and its clock are the epoch's alone.
"""

from __future__ import annotations

import re
from datetime import tzinfo

from agent.base.trainlog import bars
from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import CUT, Progress
from agent.base.trainlog.reading import Reading

_TITLE = re.compile(r".*(?<!\d)(\d+)\|(\d+)\|Loss: (\S*?):? +\d{1,3}%\|", re.A)
_LOGGED = re.compile(r".*Step (\d+) \|((?: [a-z]\w*:\S*)*)", re.A)
_PAIR = re.compile(r" ([a-z]\w*):(\S*)")


class TorchTune(Parser):
    name = "torchtune"
    summary = "torchtune bar and disk logger"
    claims = re.compile(r"\d\|\d+\|Loss: |\bStep \d+ \| [a-z]\w*:(?:\S| [a-z])")

    def __init__(self, tz: tzinfo | None = None) -> None:
        super().__init__(tz)
        self._clock = bars.EpochsClock()

    def parse(self, line: str) -> Progress | None:
        if found := _TITLE.match(line):
            return self._drawn(line, int(found[1]), int(found[2]), found[3])
        if found := _LOGGED.match(line):
            return self._logged(int(found[1]), dict(_PAIR.findall(found[2])))
        return None

    def _drawn(self, line: str, epoch: int, step: int, loss: str) -> Progress:
        bar = bars.read(line)
        values = Reading()
        return Progress(
            step=step,
            loss=values.take("loss", loss),
            elapsed=self._clock.since_start(epoch, bar) if bar else None,
            step_seconds=bar.step_seconds if bar else None,
            damaged=values.damaged | (bar.damaged if bar else frozenset({CUT})),
        )

    def _logged(self, step: int, named: dict[str, str]) -> Progress | None:
        cut = self.ends_early("logged", list(named))
        if cut and named:
            named[next(reversed(named))] = ""
        values = Reading(named)
        values.spoil(*[CUT] * cut)
        return Progress(
            step=step,
            loss=values.number("loss", "loss"),
            validation_loss=values.number("validation_loss", "val_loss"),
            learning_rate=values.number("learning_rate", "lr"),
            grad_norm=values.number("grad_norm", "grad_norm"),
            tokens_per_second_gpu=values.number("tokens_per_second_gpu", "tokens_per_second_per_gpu"),
            damaged=values.damaged,
        )
