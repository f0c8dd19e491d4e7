"""tqdm's progress bars, which Hugging Face, NeMo 1 and Lightning print (carriage returns, no newline)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.base.trainlog.reading import Reading
from agent.base.trainlog.text import interval

BAR = re.compile(
    r"(?:\d{1,3}%)?\|[^|]*\|\s*(?P<step>\d+)/(?P<total>\d+|\?)\s*"
    r"\[(?P<elapsed>[^<\]\[]*)<(?P<left>[^,\]\[]*), +(?P<rate>[^\]\[]*?)(?P<unit>it/s|s/it)(?P<rest>[^\]\[]*)\]",
    re.A,
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One drawing of a bar: `title` is the text before it, `rest` what follows the rate; `total` may be unknown."""

    title: str
    step: int
    total: int | None
    elapsed: float | None
    step_seconds: float | None
    rest: str
    damaged: frozenset[str] = frozenset()
    """Fields of `Progress` that the bar names and gives no number for."""


def read(line: str) -> Bar | None:
    """The last bar drawn in `line`, or None."""
    drawn = list(BAR.finditer(line))
    if not drawn:
        return None
    last = drawn[-1]
    before = line[drawn[-2].end() if len(drawn) > 1 else 0 : last.start()].rstrip()
    values = Reading()
    rate = values.take("step_seconds", last["rate"]) if last["rate"] != "?" else None
    seconds = (rate if last["unit"] == "s/it" else 1 / rate) if rate else None
    elapsed = interval(last["elapsed"])
    if elapsed is None:
        values.spoil("elapsed")
    return Bar(
        title=before.rpartition("]")[2].strip(" :") if before.endswith(":") else "",
        step=int(last["step"]),
        total=int(last["total"]) if last["total"] != "?" else None,
        elapsed=elapsed,
        step_seconds=seconds,
        rest=last["rest"],
        damaged=values.damaged,
    )
