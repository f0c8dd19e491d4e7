"""Sources that are not lines: Hugging Face's trainer_state.json and TensorBoard's event files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from agent.base.trainlog import Progress, trainer_state
from agent.base.trainlog.events import DamagedFrame, EventReader
from agent.training.clock import believed
from agent.training.run import Run
from agent.training.tail import LIMIT, newest, opened

_STATE_LIMIT = 64 * 1024 * 1024
_PIECES = 3


def _found(pattern: str, current: Path | None) -> Path:
    path = newest(pattern, current)
    if path is None:
        raise FileNotFoundError(errno.ENOENT, "no file matches", pattern)
    return path


class StateFileSource:
    """Hugging Face's trainer_state.json; of a pattern the newest (one lies in each checkpoint).

    `unparsed` counts files that cannot be read and entries of which a value is damaged.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._path: Path | None = None
        self._version: tuple[int, int, int] | None = None
        self.unparsed = 0

    def poll(self, run: Run, now: float) -> None:
        path = _found(self._pattern, None)
        status = path.stat()
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if path == self._path and version == self._version:
            return
        if status.st_size > _STATE_LIMIT:
            raise OSError(errno.EFBIG, f"is larger than {_STATE_LIMIT} bytes", str(path))
        try:
            records = trainer_state.records(path.read_text(encoding="utf-8-sig", errors="replace"))
        except ValueError:
            self.unparsed += 1  # half written: read again when it has changed
            records = []
        self._path, self._version = path, version
        self._take(run, records, min(status.st_mtime, now))

    def _take(self, run: Run, records: list[Progress], modified: float) -> None:
        if not records:
            return
        last = records[-1].step or 0
        if run.step is not None and last < run.step:
            run.new_file()
        known = run.step if run.step is not None and last >= run.step else -1
        fresh = [record for record in records if (record.step or 0) > known]
        for record in fresh:
            self.unparsed += bool(record.damaged)
            run.take(record, None)
        run.settle(modified)

    def state(self) -> dict[str, Any]:
        return {"unparsed": self.unparsed}

    def restore(self, state: dict[str, Any]) -> None:
        self.unparsed = int(state.get("unparsed", 0))


class EventsSource:
    """TensorBoard event files; a run that resumes writes a file of its own beside the old one."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._path: Path | None = None
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._reader: EventReader | None = None
        self.unparsed = 0

    def poll(self, run: Run, now: float) -> None:
        path = _found(self._pattern, self._path)
        with opened(path) as (descriptor, status):
            identity = (status.st_dev, status.st_ino)
            if identity != self._file or status.st_size < self._offset:
                run.new_file()
                self._path, self._file, self._offset, self._reader = path, identity, 0, EventReader()
            for _ in range(_PIECES):
                data = os.pread(descriptor, LIMIT, self._offset)
                self._offset += len(data)
                self._take(run, data, now)
                if len(data) < LIMIT:
                    break
        run.settle(min(status.st_mtime, now))

    def _take(self, run: Run, data: bytes, now: float) -> None:
        if self._reader is None:
            return
        try:
            damaged = self._reader.damaged
            records = self._reader.feed(data)
            records += self._reader.flush() if len(data) < LIMIT else []
            self.unparsed += self._reader.damaged - damaged
        except DamagedFrame:
            self.unparsed += 1
            self._reader = None  # the framing is lost until there is another file
            return
        for record in records:
            run.take(record, believed(record.time, now))

    def state(self) -> dict[str, Any]:
        """The cursor, at the end of a frame; none where the framing is lost or a frame is being passed over."""
        if self._reader is None or self._file is None or self._reader.behind < 0:
            return {"unparsed": self.unparsed}
        device, inode = self._file
        offset = self._offset - self._reader.behind
        return {
            "path": str(self._path),
            "device": device,
            "inode": inode,
            "offset": offset,
            "unparsed": self.unparsed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another life of the agent stopped.

        Raises:
            ValueError, KeyError, TypeError: not a state of this source.
        """
        self.unparsed = int(state.get("unparsed", 0))
        if "path" in state:
            self._path, self._offset = Path(state["path"]), int(state["offset"])
            self._file, self._reader = (int(state["device"]), int(state["inode"])), EventReader()
