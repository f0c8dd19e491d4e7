"""llm.c's console and main.log, and scripts that print alike.

Console: `step    1/19560 | loss 11.010252 (+nanz)| norm 15.1374 (+nanz)| lr 8.57e-07 | 4688.25 ms | ...`,
counted from 1. main.log: `s:250 tel:6.46` (validation), `s:250 trl:6.48 lr:0.0006 norm:0.31`, counted from 0.
"""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.text import number

_CONSOLE = re.compile(r"\bstep\s+(\d+)(?:/(\d+))?\s*\|(?=.{0,300}\bloss\b)(.*)")
_MAIN = re.compile(r"^s:(\d+) (tel|trl):(\S+)((?: \w+:\S+)*)\s*$")
# Bounded repetitions: a search from each of a thousand digits to their end would take its time.
_PARTS = {
    "loss": re.compile(r"(?:train )?loss:? *([-\w.+]+)"),
    "norm": re.compile(r"norm:? *([-\w.+]+)"),
    "lr": re.compile(r"\blr:? *([-\w.+]+)"),
    "ms": re.compile(r"([\d.]{1,24}) ?ms"),
    "mfu": re.compile(r"([-\d.]{1,24})% \w{1,9} MFU"),
    "tokens": re.compile(r"([\d.,]{1,24}) tok/s|tok/sec:? *([\d.,]{1,24})"),
}


class LlmC(Parser):
    name = "llm.c"
    summary = "llm.c console and main.log"
    claims = re.compile(r"\bstep\s+\d+(?:/\d+)?\s*\|.{0,300}\bloss\b|^s:\d+ t[er]l:")
    resumes = re.compile(r"^Resuming from ")

    def parse(self, line: str) -> Progress | None:
        if found := _MAIN.match(line):
            return self._main(int(found[1]), found[2], number(found[3]), found[4])
        if found := _CONSOLE.search(line):
            return self._console(found)
        return None

    @staticmethod
    def _main(step: int, kind: str, loss: float | None, rest: str) -> Progress | None:
        if loss is None:
            return None
        if kind == "tel":
            return Progress(step=step, validation_loss=loss)
        return Progress(step=step + 1, loss=loss, learning_rate=_part("lr", rest), grad_norm=_part("norm", rest))

    @staticmethod
    def _console(found: re.Match[str]) -> Progress | None:
        rest = found[3]
        milliseconds, percent = _part("ms", rest), _part("mfu", rest)
        # Scripts without a total (build-nanogpt) number their steps from 0.
        step = int(found[1]) + (0 if found[2] else 1)
        return Progress(
            step=step,
            total_steps=int(found[2]) if found[2] else None,
            loss=_part("loss", rest),
            grad_norm=_part("norm", rest),
            learning_rate=_part("lr", rest),
            step_seconds=milliseconds / 1000 if milliseconds is not None else None,
            mfu=percent / 100 if percent is not None and percent >= 0 else None,
            tokens_per_second=_part("tokens", rest),
        )


def _part(name: str, text: str) -> float | None:
    found = _PARTS[name].search(text)
    return number(next(group for group in found.groups() if group)) if found else None
