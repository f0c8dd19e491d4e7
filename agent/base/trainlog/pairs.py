"""Names and values as many scripts print them: `step=10 loss=2.31`, `Step 10/1000 | loss: 2.31 | lr: 1e-4`.

Nothing but names that mean one thing everywhere is read. A line counts if it begins with the step, behind clock,
level, rank and epoch, and has a training loss; or if it writes `step=10` or `global_step: 10` among other such values.
The step is taken as numbered. In `Epoch [2/3], Step [100/938]` the step is that of the epoch, and so it is where it
falls back when an epoch begins, and in `Epoch 2/3, step 100/938` until an epoch goes by without that; whether it is in
`Epoch 2, step 100/938` cannot be told: such a line is left alone. MaxText's `completed step: 9` is the tenth.

A file that a job writes anew each time may have a line for each value: `step=10`, then `loss=2.31`.
"""

from __future__ import annotations

import re
from typing import Any, Final

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import CUT, Progress
from agent.base.trainlog.reading import Reading
from agent.base.trainlog.text import integer, scalars, whole

_LEAD: Final = re.compile(
    r"\s*(?:\[(?![^\]]*(?i:step|iter|epoch))(?!\W*(?i:val|eval|test|valid\w*|evaluation)\W*\])[^\]]*\](?:<\w+>)?:?|<\d+>|\([^()]*\bpid=\d[^()]*\)|^[\w.-]*\d\s+\||-\s\w+(?=\s-)|[-+\d:.,/TZ]+(?=\s)|(?:INFO|DEBUG|root|train(?:ing)?)\b:?(?=\s)|[-|:>]+"
    r"|[DIWEF]\d{4}(?=\s)|[AP]M\b|[A-Z][a-z]{2}(?=\s+\d)|[\w.-]+(?=\s[\w-]+\[\d+\]:)|[\w-]+\[\d+\]:"
    r"|(?!(?:global|train|training)_step)\w*[._][\w.]*(?::(?:\w+|<\w+>)){0,2}[:\]]?(?=\s)|[A-Z]{4,8}:[\w.]+:"
    r"|(?i:(?!epoch|step|iter|val|eval|test)[a-z][\w.-]*\d[\w.-]*(?::\d+)?|stdout|stderr):(?=\s))\s*"
)
"""One word of what stands before the values: a clock, a level, a logger, a rank in brackets, a host."""
_LEADS: Final = 12
_COUNT = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_NUMBER = rf"\[?\s*(?P<step>{_COUNT})(?:\s*/\s*(?P<total>{_COUNT}))?\]?(?=[\s,|;:)\]]|$)"
_FIRST: Final = re.compile(
    r"\s*(?:epoch\s*[:=]?\s*(?P<bracket>\[)?\s*(?P<epoch>\d+)(?:\s*/\s*(?P<epochs>\d+))?\]?[\s,|;:-]*)?"
    r"\[?(?:global[_ ]step|train(?:ing)?[_ ]step|completed step|step|iteration|iter(?:\(train\))?)\s*[:=#]?\s*"
    + _NUMBER,
    re.I | re.A,
)
_NAMED: Final = re.compile(
    r"(?:^|[\s,|;])(?:(?:global_step|num_updates)[:=]\s*|(?:step|iteration|iter)=|iter: (?=\d+\s+total_loss:))"
    + _NUMBER,
    re.A,
)
_NAMES: Final = {
    "loss": r"(?:(?<![a-z] )|(?<!val )(?<!valid )(?<!validation )(?<!eval )(?<!test )(?=[a-z_/]*loss=))"
    r"(?:train(?:ing)?[_/ ])?(?:(?:lm|total|avg|mean)[_ ])?loss",
    "validation_loss": r"(?:val|valid|validation|eval)[_/ ]loss",
    "learning_rate": r"lr|learning[_ ]rate",
    "grad_norm": r"grad[_ ]norm|gnorm",
    "tokens_per_second": r"tokens_per_second|tokens_per_sec|tokens/s(?:ec)?|tok/s(?:ec)?",
    "step_seconds": r"step[_ ]time|iter[_ ]time|step_seconds|seconds",
    "mfu": r"mfu",
    "total_steps": r"total_steps|max_steps",
}
_PAIR: Final = re.compile(
    r"(?<![\w/.-])(?:" + "|".join(f"(?P<{name}>{words})" for name, words in _NAMES.items()) + r")"
    r"(?:\s*[:=]\s*|\s+(?=[-+.\d]|nan\b|inf\b))(?P<value>(?:[^\s|,;)\]}]|,(?=\d))*)",
    re.I | re.A,
)
_STEPS: Final = re.compile(
    r"(?<![a-z_])(?:global_|train_)?(?:step|iteration|iter)(?:\(train\))?\s*[:=#]?\s*\[?\s*\d", re.I
)
_ALONE: Final = re.compile(
    rf"\s*(?:(?:global_)?step=(?P<step>{_COUNT})|(?:" + "|".join(_NAMES.values()) + r")=\S*)\s*", re.I | re.A
)
_UNITS: Final = {"mfu": {"%": 0.01}, "step_seconds": {"ms": 0.001, "s": 1.0}}


class Pairs(Parser):
    name = "pairs"
    summary = "step=N loss=X, Step N/M | loss: X, and the like"
    claims = re.compile(
        r"(?i:\b(?:global_|training_|train_)?(?:step|iteration|iter|num_updates)\b.{0,12}\d|^\s*[a-z_/]+=\S*\s*$)"
    )

    _before = 0
    """Steps of the epochs before this one, where they are numbered anew in each."""
    _epoch = 0
    _number = 0
    _through = False
    """Steps run through the epochs, although they are told beside them."""

    def ignores(self, line: str) -> bool:
        """Anything that speaks of a step, unless it is certain which, and a value comes with it."""
        if _ALONE.fullmatch(line):
            return False
        found, named = _position(line), _named(line)
        if found is None or not named or (found.re is _FIRST and "loss" not in named):
            return True
        return found.re is _FIRST and bool(
            found["epoch"] and found["total"] and not (found["bracket"] or found["epochs"])
        )

    def parse(self, line: str) -> Progress | None:
        if alone := _ALONE.fullmatch(line):
            return self._alone(line, alone["step"])
        found = _position(line)
        if found is None or len(_STEPS.findall(line)) > 1:  # two lines in one: a writer was killed in the first
            return None
        named = _named(line)
        cut = self.ends_early("pairs", list(named))
        if cut:
            named[next(reversed(named))] = ""
        values = Reading()
        values.spoil(*[CUT] * cut)
        told: dict[str, Any] = {name: _scaled(values, name, given) for name, given in named.items()}
        step, total = self._placed(found, whole(told.pop("total_steps", None)))
        return Progress(step=step, total_steps=total, damaged=values.damaged, **told)

    @staticmethod
    def _alone(line: str, step: str | None) -> Progress:
        if step is not None:
            return Progress(step=integer(step))
        values, told = Reading(), _named(line)
        found: dict[str, Any] = {name: _scaled(values, name, given) for name, given in told.items()}
        if "total_steps" in found:
            found["total_steps"] = whole(found["total_steps"])
        return Progress(damaged=values.damaged, **found)

    def _placed(self, found: re.Match[str], announced: int | None) -> tuple[int, int | None]:
        """The step of the run, and its steps in all."""
        step, total = integer(found["step"]) or 0, integer(found["total"]) if found["total"] else announced
        if found.re is _NAMED or not found["epoch"]:
            return step + found[0].lower().startswith("completed"), total
        epoch = int(found["epoch"])
        if total and (found["bracket"] or found["epochs"]):
            self._through = self._through or (epoch == self._epoch + 1 > 1 and step > self._number > 0)
            self._epoch, self._number = epoch, step
            if self._through:
                return step, total
            every = total * int(found["epochs"]) if found["epochs"] else None
            return step + max(epoch - 1, 0) * total, every
        if epoch > self._epoch and step < self._number:
            self._before += self._number
        elif epoch < self._epoch:
            self._before = 0
        self._epoch, self._number = epoch, step
        return self._before + step, total


def _position(line: str) -> re.Match[str] | None:
    place = 0
    for _ in range(_LEADS):
        lead = _LEAD.match(line, place)
        if lead is None:
            break
        place = lead.end()
    return _FIRST.match(line, place) or _NAMED.search(line)


def _named(line: str) -> dict[str, str]:
    """The text of each value by its field, in the order of the line; the first of a field counts."""
    found: dict[str, str] = {}
    for pair in _PAIR.finditer(scalars(line)):
        found.setdefault(next(name for name in _NAMES if pair[name] is not None), pair["value"])
    return found


def _scaled(values: Reading, name: str, given: str) -> float | None:
    for unit, factor in _UNITS.get(name, {}).items():
        if given.endswith(unit):
            value = values.take(name, given, unit)
            return value * factor if value is not None else None
    return values.take(name, given)
