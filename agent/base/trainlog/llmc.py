"""llm.c's console and main.log, and scripts that print alike (build-nanogpt, nanochat).

Console: `step    1/19560 | loss 11.010252 (+nanz)| norm 15.1374 (+nanz)| lr 8.57e-07 | 4688.25 ms | ...`,
counted from 1. main.log: `s:250 tel:6.46` (validation), `s:250 trl:6.48 lr:0.0006 norm:0.31`, counted from 0.
"""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import CUT, Progress
from agent.base.trainlog.reading import Reading

_CONSOLE = re.compile(r".*step\s+(\d+)(?:/(\d+))?\s*(\([\d.]+%\)\s*)?\|(?=.{0,300}\bloss\b)(.*)", re.A)
_MAIN = re.compile(r".*s:(\d+) (?=t[er]l:)(.*)", re.A)
_PAIR = re.compile(r"(\w+):(\S*)")
_CELL = re.compile(r"\||, ")
_WORDS = r"(?:\s*\(.*|\s+[A-Za-z]{2}.*)?"
"""What may stand behind a value: a z-score in brackets, other words."""
_PARTS = {
    "loss": re.compile(r"(?:train )?loss:? *(.*?)" + _WORDS),
    "grad_norm": re.compile(r"(?:grad )?norm:? *(.*?)" + _WORDS),
    "learning_rate": re.compile(r"lr\b:? *(.*?)" + _WORDS),
    "step_seconds": re.compile(r"(?:dt:? *)?(.*?) ?ms"),
    "mfu": re.compile(r"(?:(.*)% .* MFU|(?:bf16_)?mfu: (.*?)%?)"),
    "tokens_per_second": re.compile(r"(?:(.*?) ?tok/s|tok/sec:? *(.*))"),
}


class LlmC(Parser):
    name = "llm.c"
    summary = "llm.c console and main.log"
    claims = re.compile(
        r"^(?!.*\biter +\d+ step ).*\bstep\s+\d+(?:/\d+)?\s*(?:\([\d.]+%\)\s*)?\|.{0,300}\bloss\b|^s:\d+ t[er]l:"
    )
    resumes = re.compile(r"^Resuming from ")

    def parse(self, line: str) -> Progress | None:
        if found := _CONSOLE.match(line):
            return self._console(found)
        if found := _MAIN.match(line):
            return self._main(int(found[1]), found[2])
        return None

    def _main(self, step: int, rest: str) -> Progress | None:
        named = dict(_PAIR.findall(rest))
        validation = "tel" in named
        cut = self.ends_early("tel" if validation else "trl", list(named))
        if cut:
            named[next(reversed(named))] = ""
        values = Reading(named)
        values.spoil(*[CUT] * cut)
        return Progress(
            step=step if validation else step + 1,
            validation_loss=values.number("validation_loss", "tel"),
            loss=values.number("loss", "trl"),
            learning_rate=values.number("learning_rate", "lr"),
            grad_norm=values.number("grad_norm", "norm"),
            damaged=values.damaged,
        )

    def _console(self, found: re.Match[str]) -> Progress | None:
        named = _cells(found[4])
        cut = self.ends_early("console", list(named))
        if cut:
            named[next(reversed(named), CUT)] = ""
        values = Reading(named)
        values.spoil(*[CUT] * cut)
        milliseconds, percent = values.number("step_seconds", "step_seconds"), values.number("mfu", "mfu")
        # Steps are numbered from 0 by scripts without a total (build-nanogpt), and by nanochat, which tells the share.
        step = int(found[1]) + (0 if found[2] and not found[3] else 1)
        return Progress(
            step=step,
            total_steps=int(found[2]) if found[2] else None,
            loss=values.number("loss", "loss"),
            grad_norm=values.number("grad_norm", "grad_norm"),
            learning_rate=values.number("learning_rate", "learning_rate"),
            step_seconds=milliseconds / 1000 if milliseconds is not None else None,
            mfu=percent / 100 if percent is not None and percent >= 0 else None,
            tokens_per_second=values.number("tokens_per_second", "tokens_per_second"),
            damaged=values.damaged,
        )


def _cells(rest: str) -> dict[str, str]:
    """The text of each value by its field, in the order of the line."""
    named: dict[str, str] = {}
    for cell in _CELL.split(rest):
        for field, pattern in _PARTS.items():
            if found := pattern.fullmatch(cell.strip(" ()")):
                named[field] = next((group for group in found.groups() if group is not None), "")
                break
    return named
