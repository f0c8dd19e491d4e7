"""One configured job: its source, the run it tells of, and what is kept of both over a restart of the agent."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from agent.base import statefile
from agent.base.log import OnChange
from agent.training.files import EventsSource, StateFileSource
from agent.training.reports import ReportSource
from agent.training.run import Run
from agent.training.settings import STATE_FILE, TENSORBOARD, JobSettings
from agent.training.source import LogSource, Source, readable

_log = logging.getLogger("gpuvigil.training")
_SAVE_EVERY = 30.0


class Job:
    """Brings one job up to date each turn; never raises for what is wrong with the job's own files."""

    def __init__(self, settings: JobSettings, folder: Path | None = None) -> None:
        self.settings = settings
        self.run = Run(settings.ended_after, settings.steps_planned)
        self.source = _source(settings)
        self.missing = True
        """The log is not there now: nothing is known."""
        self.denied = ""
        """Why the log, though there, cannot be read; empty if it can."""
        self._file = folder / f"{_slug(settings.job_id)}.json" if folder else None
        self._saved_at = 0.0
        self._saved: dict[str, Any] = {}
        self._report = OnChange(_log)
        self._restore()

    def refresh(self, now: float) -> None:
        """Read what is new; `now` is Unix time."""
        try:
            self.source.poll(self.run, now)
        except (FileNotFoundError, NotADirectoryError):
            self.missing, self.denied = True, ""
        except OSError as error:
            self.missing, self.denied = True, readable(error)
            self._report.bad("training log cannot be read", job_id=self.settings.job_id, error=self.denied)
        else:
            self.missing, self.denied = False, ""
            self._report.good("training log is read", job_id=self.settings.job_id)
            if now - self._saved_at >= _SAVE_EVERY:
                self.save(now)

    def save(self, now: float) -> None:
        """Keep cursor and run on disk."""
        if self._file is None or self.missing:
            return
        state = {"log": self.settings.log, "source": self.source.state(), "run": self.run.state()}
        self._saved_at = now
        if state != self._saved and statefile.save(self._file, state, sync=False):
            self._saved = state

    def _restore(self) -> None:
        state = statefile.load(self._file) if self._file else {}
        if not state or state.get("log") != self.settings.log:
            return
        try:
            self.source.restore(state["source"])
            self.run.restore(state["run"])
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("kept training state is not used: %s", error, extra={"job_id": self.settings.job_id})
            self.run = Run(self.settings.ended_after, self.settings.steps_planned)
            self.source = _source(self.settings)


def _source(settings: JobSettings) -> Source:
    if settings.log is None:
        return ReportSource()
    if settings.kind == STATE_FILE:
        return StateFileSource(settings.log)
    if settings.kind == TENSORBOARD:
        return EventsSource(settings.log)
    return LogSource(settings.log, settings.format, settings.timezone)


def _slug(job_id: str) -> str:
    """A file name for any job id."""
    plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in job_id)[:60]
    return f"{plain}-{hashlib.sha256(job_id.encode()).hexdigest()[:8]}"
