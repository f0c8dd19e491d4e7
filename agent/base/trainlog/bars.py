"""tqdm's progress bars, which Hugging Face, NeMo 1 and Lightning print (carriage returns, no newline)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.base.trainlog.reading import Reading
from agent.base.trainlog.text import interval

BAR = re.compile(
    r"(?:\d{1,3}%)?\|[^|]*\|\s*(?P<step>\d+)/(?P<total>\d+|\?)\s*"
    r"\[(?P<elapsed>[^<\]\[]*)<(?P<left>[^,\]\[]*)"
    r"(?:, +(?P<rate>[^\]\[=]*?)(?P<unit>[a-z]+/s|s/[a-z]+)(?P<rest>[^\]\[]*)|(?P<paceless>(?:, *[a-z_][^\]\[]*)?))\]",
    re.A,
)
"""NeMo 1 leaves the rate out: what follows the clock are its values."""


_LEAD = re.compile(r"(?:.*\s)?(?:\[[^\]]*\]|\([^)]*\))\s*(?=\S)(?!:)")
"""What a launcher or a logger puts in front of a line."""
_LAUNCHER = re.compile(r"\d{1,5}|\[(?:rank|default)[ -]?\d+\]|<\w+>|(?:.*\s)?[\w.-]+\[\d+\]", re.A)
"""The same, where it looks like a title: srun --label, torchrun, mpirun --tag-output, syslog."""


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


@dataclass(slots=True)
class EpochsClock:
    """The clock of a run whose bar begins anew with each epoch."""

    _before: float = 0.0
    """Seconds of the epochs before this one."""
    _epoch: int = 0
    _shown: float = 0.0

    def since_start(self, epoch: int, bar: Bar) -> float | None:
        """Seconds that this epoch's bar and those of the epochs before it tell; None where this one tells none."""
        if bar.elapsed is None:
            return None
        if epoch < self._epoch or (epoch == self._epoch and bar.elapsed < self._shown / 2):
            self._before = 0.0  # made again, on a clock of its own
        elif epoch > self._epoch and bar.elapsed < self._shown:
            self._before += self._shown
        self._epoch, self._shown = epoch, bar.elapsed
        return self._before + bar.elapsed


def read(line: str) -> Bar | None:
    """The last bar drawn in `line`, or None."""
    drawn = list(BAR.finditer(line))
    if not drawn:
        return None
    last = drawn[-1]
    before = line[drawn[-2].end() if len(drawn) > 1 else 0 : last.start()].rstrip()
    values = Reading()
    rate = values.take("step_seconds", last["rate"]) if last["rate"] not in (None, "?") else None
    seconds = (rate if last["unit"].startswith("s/") else 1 / rate) if rate else None
    elapsed = interval(last["elapsed"])
    if elapsed is None:
        values.spoil("elapsed")
    title = _LEAD.sub("", before).strip(" :") if before.endswith(":") else ""
    return Bar(
        title="" if _LAUNCHER.fullmatch(title) else title,
        step=int(last["step"]),
        total=int(last["total"]) if last["total"] != "?" else None,
        elapsed=elapsed,
        step_seconds=seconds,
        rest=last["rest"] or last["paceless"] or "",
        damaged=values.damaged,
    )
