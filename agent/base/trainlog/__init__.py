"""Training logs as records: a line goes in, a `Progress` comes out. No file is opened here.

parser = open_format("auto")          # or "megatron", "huggingface", ... (`FORMATS`)
for line in log:
    if record := parser.feed(line):
        ...
parser.unparsed                        # lines that claim to be progress and are damaged
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from datetime import tzinfo
from typing import Final

from agent.base.errors import ConfigError
from agent.base.trainlog import text
from agent.base.trainlog.composer import Composer
from agent.base.trainlog.deepspeed import TIMES, DeepSpeed
from agent.base.trainlog.huggingface import HuggingFace
from agent.base.trainlog.jsonlines import JsonLines
from agent.base.trainlog.litgpt import LitGpt
from agent.base.trainlog.llmc import LlmC
from agent.base.trainlog.megatron import Megatron
from agent.base.trainlog.mllog import MlLog
from agent.base.trainlog.nanogpt import NanoGpt
from agent.base.trainlog.nanotron import Nanotron
from agent.base.trainlog.nemo import Nemo, NemoBar
from agent.base.trainlog.pairs import Pairs
from agent.base.trainlog.parser import NEVER, Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.table import Table
from agent.base.trainlog.torchtitan import TorchTitan
from agent.base.trainlog.torchtune import TorchTune
from agent.base.trainlog.verl import Verl

__all__ = ["AUTO", "FORMATS", "Auto", "Parser", "Progress", "detect", "open_format"]

FORMATS: Final[dict[str, type[Parser]]] = {
    kind.name: kind
    for kind in (
        *(Megatron, Nanotron, Nemo, NemoBar, TorchTitan, TorchTune, MlLog, NanoGpt, LlmC, LitGpt, JsonLines),
        *(HuggingFace, DeepSpeed, Verl, Composer, Table, Pairs),
    )
}
"""Every format by name; the earlier one is preferred where two read a log equally well."""

AUTO: Final = "auto"
SETTLED_AFTER: Final = 12
"""Records with a step after which `Auto` keeps to the format that has told most."""


class Auto(Parser):
    """Reads with every format until one has proved itself, then with that one.

    A log may speak two formats (DeepSpeed's timer beside Megatron's line): the one that tells more wins,
    measured in fields of records that have a step. DeepSpeed's share of communication is taken beside any other.
    """

    name = AUTO
    summary = "recognise the format by the log's own lines"
    claims = NEVER

    def __init__(self, tz: tzinfo | None = None) -> None:
        super().__init__(tz)
        self._told = {kind(tz): 0 for kind in FORMATS.values()}
        self._steps = 0
        self._beside = DeepSpeed(tz)
        self.chosen: Parser | None = None
        """The format in use; None before the first record."""
        self.settled = False
        """The choice is final."""

    def parse(self, line: str) -> Progress | None:
        raise AssertionError("Auto claims no line of its own")

    def go_on(self) -> None:
        for parser in self._told:
            parser.go_on()

    def feed_line(self, line: text.Line) -> Progress | None:
        record = self.chosen.feed_line(line) if self.settled and self.chosen else self._compare(line)
        if record is None and self.chosen is not None and TIMES in line.text and self._beside.tells_times(line.text):
            record = self._beside.feed_line(line)
        if self.chosen is not None:
            self.parsed, self.unparsed = self.chosen.parsed, self.chosen.unparsed
        return record

    def _compare(self, line: text.Line) -> Progress | None:
        given: dict[Parser, Progress] = {}
        for parser in self._told:
            if (record := parser.feed_line(line)) is not None:
                given[parser] = record
                if record.step is not None:
                    self._told[parser] += _fields_told(record)
        if not given:
            return None
        best = max(self._told, key=lambda parser: self._told[parser])
        if self._told[best] == 0:
            return next(iter(given.values()))
        record = given.get(best)
        if record is not None and self.chosen not in (None, best) and record.total_steps is None:
            record = replace(record, total_steps=0)  # the total that the other format read was something else
        self.chosen = best
        if record is not None and record.step is not None:
            self._steps += 1
            self.settled = self._steps >= SETTLED_AFTER
        return record


def _fields_told(record: Progress) -> int:
    return sum(getattr(record, field.name) not in (None, 0, False) for field in dataclass_fields(record))


def open_format(name: str = AUTO, tz: tzinfo | None = None) -> Parser:
    """A fresh parser of the named format.

    Args:
        name: a key of `FORMATS`, or "auto".
        tz: zone of clocks in the log that name none; the machine's own if None.

    Raises:
        ConfigError: no such format; the text lists the known ones.
    """
    if name == AUTO:
        return Auto(tz)
    if name not in FORMATS:
        raise ConfigError(f"unknown training log format {name!r}; known: {', '.join([AUTO, *sorted(FORMATS)])}")
    return FORMATS[name](tz)


def detect(lines: Iterable[str], tz: tzinfo | None = None) -> Parser | None:
    """A fresh parser of the format that tells most of `lines`, or None where none tells a step."""
    auto = Auto(tz)
    for _ in auto.feed_all(lines):
        if auto.settled:
            break
    return FORMATS[auto.chosen.name](tz) if auto.chosen is not None else None
