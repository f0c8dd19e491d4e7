"""Logging to standard error: key=value or JSON lines, made for journald and for people.

Fields travel by `extra={"collector": "gpu"}`. Under journald (`JOURNAL_STREAM`) the time is left out
and a `<3>` priority goes in front. A failure that repeats is written on change and every ten minutes.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Literal

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ts": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "msg": record.getMessage(),
    }
    found.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        found["error"] = f"{type(error).__name__}: {error}"
    return found


def _logfmt(value: object) -> str:
    text = str(value)
    plain = text and not any(c in text for c in ' "=\\') and text.isprintable()
    return text if plain else json.dumps(text, ensure_ascii=False)


class Formatter(logging.Formatter):
    """One line a record; never more, whatever the message holds."""

    def __init__(self, style: Literal["logfmt", "json"], journald: bool) -> None:
        super().__init__()
        self._json = style == "json"
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        prefix = ""
        if self._journald:
            del fields["ts"]
            prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
        if self._json:
            return prefix + json.dumps(fields, ensure_ascii=False, default=str)
        return prefix + " ".join(f"{key}={_logfmt(value)}" for key, value in fields.items())


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # no subscript before Python 3.11
    """Loses a line that a full disk does not take, where the original writes a stack trace for each."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def setup(level: str = "info", style: Literal["logfmt", "json"] = "logfmt") -> None:
    """Send everything to standard error; replaces what was set before."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(Formatter(style, journald="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class OnChange:
    """Writes a state when it changes, and again every `every` seconds while it is bad.

    One instance for each thing watched; used by one thread.
    """

    def __init__(
        self, logger: logging.Logger, *, every: float = 600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._every = every
        self._clock = clock
        self._text = ""
        self._written = 0.0
        self._held = 0

    def bad(self, text: str, **fields: Any) -> None:
        """Say that the thing is bad now, because of `text`."""
        now = self._clock()
        if text == self._text and now - self._written < self._every:
            self._held += 1
            return
        if self._held:
            fields["repeated"] = self._held
        self._logger.warning("%s", text, extra=fields)
        self._text, self._written, self._held = text, now, 0

    def good(self, text: str, **fields: Any) -> None:
        """Say that the thing is good; written only if it was bad before."""
        if self._text:
            self._logger.info("%s", text, extra=fields)
            self._text, self._held = "", 0
