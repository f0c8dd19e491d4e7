"""The one interface of all formats: a parser is fed lines and gives records."""

from __future__ import annotations

import contextlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import tzinfo
from typing import ClassVar

from agent.base.trainlog import stamps, text
from agent.base.trainlog.progress import Progress

_STEP_LIMIT = 1 << 62
_LAG = 8
"""Steps by which one rank's lines may be behind another's where all print and none says who it is."""
NEVER = re.compile(r"(?!)")
_OVER = re.compile(
    r"slurmstepd: error: \*\*\* (?:JOB|STEP)\b.*\bCANCELLED"
    r"|srun: (?:error: .*(?:Exited with exit code|Killed|Terminated)|Job step aborted)"
    r"|torch\.distributed\.elastic\.multiprocessing\.errors\.ChildFailedError"
    r"|\bexits with return code = -?\d"
    r"|`Trainer\.fit` stopped: `max_\w+=\S+ reached"
)
"""Words of launchers and of Lightning for the end of a job, whatever its format; steps after them are a new start."""


class Parser(ABC):
    """Turns the lines of one run's log into records. It keeps state: one parser reads one log, in order.

    A format declares `claims` (a line that says it is progress) and `parse`; a line that is claimed but
    gives nothing, or a damaged value, is counted in `unparsed`. `heeds` and `heed` pick up what the preamble announces
    (sequence length, total steps); `resumes` matches a line that says a checkpoint was loaded.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    claims: ClassVar[re.Pattern[str]]
    heeds: ClassVar[re.Pattern[str]] = NEVER
    resumes: ClassVar[re.Pattern[str]] = NEVER

    def __init__(self, tz: tzinfo | None = None) -> None:
        """`tz` is the zone of clocks that name none; the machine's own if None."""
        self.tz = tz
        self.parsed = 0
        self.unparsed = 0
        self._goes_on = False
        self._last: dict[int | None, int] = {}
        self._loss_step = -1
        """The step whose loss was told last, by whoever did not name its rank."""
        self._copies = 0
        """Losses told again for the same step: of ranks that do not name themselves."""
        self._shapes: dict[str, list[str]] = {}
        self._resumed = False

    @abstractmethod
    def parse(self, line: str) -> Progress | None:
        """The record of a claimed line, None if it is damaged."""

    def heed(self, found: re.Match[str]) -> None:  # noqa: B027 - most formats announce nothing
        """Take note of what a line that `heeds` matched announces."""

    def go_on(self) -> None:
        """The run had steps before this log: that a checkpoint was loaded is a restart from the first line on."""
        self._goes_on = True

    def ignores(self, line: str) -> bool:
        """A claimed line that is sound but tells nothing (another program's bar): not counted."""
        return False

    def feed(self, line: str) -> Progress | None:
        """The record that `line` completes, or None. Of a line with carriage returns the last record counts."""
        if "\r" in line:
            records = [self.feed(part) for part in line.split("\r")]
            return next((record for record in reversed(records) if record is not None), None)
        return self.feed_line(text.unwrap(line))

    def feed_line(self, line: text.Line) -> Progress | None:
        """As `feed`, for a line already unwrapped: several parsers share the work."""
        if not self.claims.search(line.text):
            return self._unclaimed(line)
        try:
            if self.ignores(line.text):
                return None
            record = self.parse(line.text)
        except (ValueError, ArithmeticError):  # a number beyond all measure
            record = None
        if record is None or (record.step or 0) >= _STEP_LIMIT:
            self.unparsed += 1
            return None
        if record.damaged:
            self.unparsed += 1
        else:
            self.parsed += 1
        return self._complete(record, line)

    def ends_early(self, kind: str, names: list[str]) -> bool:
        """Whether a line has only the first of the values that the last line of its kind had: it was cut off.

        For formats whose lines end in a bare number, so that the cut itself does not show: the last value that is
        left may have lost its end. Each line is the measure of the next only.
        """
        before, self._shapes[kind] = self._shapes.get(kind, []), names
        return len(names) < len(before) and before[: len(names)] == names

    def _unclaimed(self, line: text.Line) -> Progress | None:
        if found := self.heeds.search(line.text):
            with contextlib.suppress(ValueError):
                self.heed(found)
        if (self._last or self._goes_on) and self.resumes.search(line.text):
            self._resumed = True
        if not self._last:
            return None
        return self._complete(Progress(ended=True), line) if _OVER.search(line.text) else None

    def feed_all(self, lines: Iterable[str]) -> Iterator[Progress]:
        """The records of many lines; each may hold carriage returns."""
        for line in lines:
            for part in line.split("\r"):
                if (record := self.feed_line(text.unwrap(part))) is not None:
                    yield record

    def _complete(self, record: Progress, line: text.Line) -> Progress:
        time = record.time
        if time is None:
            time = line.time if line.time is not None else stamps.stamp(line.text, self.tz)
        rank = record.rank if record.rank is not None else text.rank(line.text)
        nonfinite = record.nonfinite
        if record.loss is not None and not math.isfinite(record.loss):
            nonfinite = max(nonfinite, 1)
        restart = record.restart
        if record.step is not None:
            last = self._last.get(rank)
            lagging = rank is None and last is not None and self._lags(last, record)
            back = last is not None and not lagging and self._went_back(last, record)
            restart = restart or self._resumed or back
            self._resumed = False
            if restart:
                self._last.clear()
            self._last[rank] = last if lagging and last is not None and not restart else record.step
        clock = stamps.time_of_day(line.text) if time is None else None
        return replace(record, time=time, time_of_day=clock, rank=rank, nonfinite=nonfinite, restart=restart)

    def _lags(self, last: int, record: Progress) -> bool:
        """Whether a step before the last is that of a slower rank, in a log where several tell the same."""
        if record.step is None:
            return False
        if record.loss is not None:
            self._copies += record.step == self._loss_step
            self._loss_step = record.step
        return self._copies > 1 and 0 < last - record.step <= _LAG

    def _went_back(self, last: int, record: Progress) -> bool:
        return record.step is not None and record.step < last
