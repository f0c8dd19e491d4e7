"""Where records come from, and the first source: a growing log. A source brings a run up to date."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from agent.base.trainlog import AUTO, Auto, Parser, Progress, open_format
from agent.training.clock import LogClock, believed
from agent.training.run import Run
from agent.training.tail import Tail, newest

_CHUNKS = 3
"""Pieces of a log read in one turn at most: the work of a turn is bounded."""
_RECENT_LINES = 10
"""A progress line this near to the end of the log was written when the file was written last."""


class Source(Protocol):
    @property
    def unparsed(self) -> int:
        """Lines (or files) that claim to be progress and are damaged, so far."""

    def poll(self, run: Run, now: float) -> None:
        """Take what is new into `run`; `now` is Unix time.

        Raises:
            OSError: the source is not there or not readable.
        """

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


class LogSource:
    """A log file, or the newest of a pattern."""

    def __init__(self, pattern: str, format_name: str = AUTO, timezone: str | None = None) -> None:
        self._pattern = pattern
        self._format = format_name
        self._zone = ZoneInfo(timezone) if timezone else None
        self._clock = LogClock()
        self._tail: Tail | None = None
        self._parser = self._new_parser()
        self._unparsed_before = 0
        self._begun: float | None = None
        """The run's start by the log's own clock."""
        self.skipped = 0
        """Bytes of the log that were not read because too many had come."""

    @property
    def unparsed(self) -> int:
        return self._unparsed_before + self._parser.unparsed

    def poll(self, run: Run, now: float) -> None:
        path = newest(self._pattern, self._tail.path if self._tail else None)
        if path is None:
            raise FileNotFoundError(errno.ENOENT, "no file matches", self._pattern)
        if self._tail is None or path != self._tail.path:
            self._tail = Tail(path)
        for _ in range(_CHUNKS):
            at_end = False
            for chunk in self._tail.read():
                if chunk.fresh:
                    self._renew()
                    if run.step is not None:
                        self._parser.go_on()
                    run.new_file()
                self.skipped += chunk.skipped
                at_end = chunk.at_end
                self._take(run, chunk.lines, chunk.modified if at_end else None, now)
            if at_end:
                run.settle(min(chunk.modified, now))
                break

    def _take(self, run: Run, lines: list[str], modified: float | None, now: float) -> None:
        """Feed lines; `modified` is when the last of them was written, None if more are to come."""
        records: list[Progress] = []
        recent: float | None = None
        for left, line in zip(range(len(lines), 0, -1), lines, strict=True):
            for record in self._parser.feed_all([line]):
                records.append(record)
                if left <= _RECENT_LINES and record.time is not None:
                    recent = record.time
        if modified is not None and recent is not None and self._zone is None:
            self._set_clock(run, recent, modified)
        for record in records:
            at = None if record.time is None else record.time + self._clock.offset
            begun = run.started
            run.take(record, believed(at, now))  # else the file's modification time dates it
            if run.started != begun:
                self._begun = record.time

    def _set_clock(self, run: Run, recent: float, modified: float) -> None:
        """Learn the zone of the log's clock; the start may have been read before it was known."""
        before, first = self._clock.offset, not self._clock.known
        self._clock.learn(recent, modified)
        if first and self._begun is not None and run.started == self._begun + before:
            run.started = self._begun + self._clock.offset

    def _new_parser(self) -> Parser:
        return open_format(self._format, self._zone)

    def _renew(self) -> None:
        self._unparsed_before = self.unparsed
        self._parser = self._new_parser()

    def state(self) -> dict[str, Any]:
        if self._tail is None:
            return {}
        parser = self._parser
        chosen = parser.chosen if isinstance(parser, Auto) else parser
        return {
            "path": str(self._tail.path),
            "tail": self._tail.state(),
            "format": chosen.name if chosen is not None else None,
            "unparsed": self.unparsed,
            "offset": self._clock.offset,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another life of the agent stopped, with what the log's head announces.

        Raises:
            ValueError, KeyError, TypeError: not a state of this source.
        """
        if not state or not state["format"] or self._format not in (AUTO, state["format"]):
            return
        tail = Tail(Path(state["path"]))
        tail.restore(state["tail"])
        try:
            preamble = tail.preamble()
        except OSError:
            return
        self._tail, self._clock.offset, self._clock.known = tail, float(state["offset"]), True
        self._parser = open_format(state["format"], self._zone)
        for _ in self._parser.feed_all(preamble):
            pass
        self._unparsed_before = int(state["unparsed"]) - self._parser.unparsed


def readable(error: OSError) -> str:
    """An error as a sentence that names the file."""
    return f"{os.fsdecode(error.filename) if error.filename else 'log'}: {error.strerror or error}"
