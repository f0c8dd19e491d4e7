"""Hugging Face Trainer's console: a tqdm bar for the step, a Python dictionary for the loss.

The dictionary has no step and no time, is not JSON, and may hold a bare `nan`. The bar of the training
is told from those of evaluation and of data preparation by its total: announced by the log, or that of the
bar between whose drawings losses appear, or the first bar without a title. A bar with a title is the training's if
that says so, or if it shows a loss; what stands in front of the dictionary as well (a host's name) is no title.
"""

from __future__ import annotations

import re
from dataclasses import replace

from agent.base.trainlog import bars
from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import CUT, Progress
from agent.base.trainlog.reading import Reading
from agent.base.trainlog.text import integer, interval, scalars

_DICTIONARY = re.compile(r"\{'[^{}]*(\}|$)")
_ITEM = re.compile(r"'([^']+)':\s*('[^']*'|[^'{}]*?)(?=\s*(?:,\s*'|\}|,?$))")

_TRAINING = re.compile(r"(?:.*\W)?(?:train(?:ing)?(?: progress| steps?)?|steps?)", re.I)
_OTHER = re.compile(r"epoch|episode|val|eval|test|predict|generat|infer", re.I)
"""Titles of bars that count something else, or the steps of an epoch."""
_LOSS = re.compile(r"loss *[=:]")
_TOKENS_GPU = ("tokens_per_second_per_gpu", "tokens/train_per_sec_per_gpu")
"""Axolotl's names, old and new."""


class HuggingFace(Parser):
    name = "huggingface"
    summary = "Hugging Face Trainer, TRL, Axolotl, ms-swift console"
    claims = re.compile(r"\d%\|[^|]*\|\s*\d+/\d+\s*\[|\{(?=')[^{}]*'(?:loss|eval_loss|train_runtime)':")
    heeds = re.compile(r"Total (?:optimization )?steps = ([\d,]+)")
    resumes = re.compile(r"Continuing training from global step|Continuing training from checkpoint")

    _total: int | None = None
    _certain = False
    _bar: bars.Bar | None = None
    _lead = ""

    def heed(self, found: re.Match[str]) -> None:
        self._total, self._certain = integer(found[1]), True

    def ignores(self, line: str) -> bool:
        if _dictionary(line):
            return False
        bar = bars.read(line)
        return bar is not None and not (self._may_train(bar) and self._is_training(bar))

    def _may_train(self, bar: bars.Bar) -> bool:
        if bar.title in ("", self._lead):
            return True
        return not _OTHER.search(bar.title) and bool(_TRAINING.fullmatch(bar.title) or _LOSS.search(bar.rest))

    def _is_training(self, bar: bars.Bar) -> bool:
        if self._total is None:
            self._total = bar.total
        if bar.total != self._total:
            if not self._certain:
                self._bar = bar
            return False
        return True

    def parse(self, line: str) -> Progress | None:
        bar, dictionary = bars.read(line), _dictionary(line)
        beside_loss = dictionary is not None and not self._certain and "'loss'" in dictionary[0]
        if bar is not None and self._may_train(bar) and (bar.total == self._total or beside_loss):
            self._bar = bar
        if dictionary:
            if bar is None:
                self._lead = line[: dictionary.start()].strip(" :")
            named = {key: value.strip() for key, value in _ITEM.findall(scalars(dictionary[0]))}
            cut = not dictionary[1]
            if cut and named:
                named[next(reversed(named))] = ""
            values = Reading(named)
            values.spoil(*[CUT] * cut)
            if "train_runtime" in named:
                return Progress(elapsed=values.number("elapsed", "train_runtime"), ended=True, damaged=values.damaged)
            record = self._values(named, values)
            if bar is not None and bar is self._bar:
                return _joined(record, bar)
            return record if record != Progress() else None
        return _of_bar(bar) if bar is not None else None

    def _values(self, named: dict[str, str], values: Reading) -> Progress:
        loss = values.number("loss", "loss")
        if loss is not None and self._bar is not None and not self._certain:
            self._total, self._certain = self._bar.total, True
        step, total = self._counted(named, values)
        elapsed = interval(named["elapsed_time"].strip("'")) if "elapsed_time" in named else None
        if elapsed is None and "elapsed_time" in named:
            values.spoil("elapsed")
        return Progress(
            step=step,
            total_steps=total,
            elapsed=elapsed,
            loss=loss,
            validation_loss=values.number("validation_loss", "eval_loss"),
            grad_norm=values.number("grad_norm", "grad_norm"),
            learning_rate=values.number("learning_rate", "learning_rate"),
            epoch=values.number("epoch", "epoch"),
            tokens_per_second_gpu=values.number("tokens_per_second_gpu", *_TOKENS_GPU),
            consumed_tokens=values.number("consumed_tokens", "num_tokens", "num_input_tokens_seen"),
            damaged=values.damaged,
        )

    @staticmethod
    def _counted(named: dict[str, str], values: Reading) -> tuple[int | None, int | None]:
        """ms-swift writes `'global_step/max_steps': '5/150'` among the values."""
        if "global_step/max_steps" not in named:
            return values.integer("step", "step"), None
        step, _, total = named["global_step/max_steps"].strip("'").partition("/")
        return values.take_integer("step", step), values.take_integer("total_steps", total)

    def _went_back(self, last: int, record: Progress) -> bool:
        """A bar drawn again after its end is another rank's copy of the same run, not a restart."""
        if record.total_steps is not None and self._finished(last, record):
            return False
        return super()._went_back(last, record)

    @staticmethod
    def _finished(last: int, record: Progress) -> bool:
        return last == record.total_steps


def _of_bar(bar: bars.Bar) -> Progress:
    return Progress(
        step=bar.step,
        total_steps=bar.total,
        elapsed=bar.elapsed,
        step_seconds=bar.step_seconds,
        damaged=bar.damaged,
    )


def _joined(record: Progress, bar: bars.Bar) -> Progress:
    """A dictionary that was written behind the bar on one line: the step is the bar's."""
    drawn = _of_bar(bar)
    return replace(
        record,
        step=drawn.step if record.step is None else record.step,
        total_steps=drawn.total_steps,
        elapsed=drawn.elapsed if record.elapsed is None else record.elapsed,
        step_seconds=drawn.step_seconds,
        damaged=record.damaged | drawn.damaged,
    )


def _dictionary(line: str) -> re.Match[str] | None:
    """The last dictionary of a line; its first group is empty if it has lost its end."""
    return _DICTIONARY.search(line, line.rfind("{'")) if "{'" in line else None
