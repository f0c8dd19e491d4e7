"""The undo journal: what must be taken back is on disk before it is done.

One JSON line a change of state, synced. A drill whose last line is not `verified` or `refused` is
unfinished: its undo record tells any later process how to end it.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from agent.base.errors import VigilError

State = Literal["planned", "armed", "injected", "undone", "verified", "refused"]
NAME = "journal.jsonl"
ENDED = ("planned", "verified", "refused")


@dataclass(frozen=True, slots=True)
class Entry:
    """The state a drill reached; `undo` is given from `armed` on."""

    drill: str
    state: State
    fault: str
    time: float
    undo: dict[str, Any] | None = None


class Journal:
    """The journal in one directory.

    Args:
        folder: made if absent, with the parents.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME

    def write(self, drill: str, state: State, fault: str, undo: dict[str, Any] | None = None) -> None:
        """Append one entry and return only when it is on disk."""
        line = json.dumps(asdict(Entry(drill, state, fault, time.time(), undo))) + "\n"
        new = not self.path.exists()
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            _drop_torn_tail(handle)
            os.write(handle, line.encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        if new:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def entries(self) -> list[Entry]:
        """All entries, oldest first; a last line cut short by a crash is left out.

        Raises:
            VigilError: a line other than the last is not a journal entry (it names the line).
        """
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                break
            try:
                entry = Entry(**json.loads(line))
                if entry.state not in get_args(State):
                    raise ValueError(f"unknown state {entry.state!r}")
            except (TypeError, ValueError) as error:
                raise VigilError(f"{self.path}:{number}: not a journal entry: {error}") from None
            found.append(entry)
        return found

    def unfinished(self) -> list[Entry]:
        """Of each drill that may still be in force, the last entry with its undo record; newest first."""
        last: dict[str, Entry] = {}
        undo: dict[str, dict[str, Any]] = {}
        for entry in self.entries():
            last.pop(entry.drill, None)
            last[entry.drill] = entry
            if entry.undo is not None:
                undo[entry.drill] = entry.undo
        return [
            Entry(e.drill, e.state, e.fault, e.time, undo.get(e.drill))
            for e in reversed(list(last.values()))
            if e.state not in ENDED
        ]


def _drop_torn_tail(handle: int) -> None:
    """Cut off a last line without its end: it was never acknowledged, so nothing was done on its word."""
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        os.ftruncate(handle, os.pread(handle, size, 0).rfind(b"\n") + 1)
