"""A growing log, read in pieces of bounded size, through rotation, truncation and re-use of its name.

The file is opened for each read only: a log held open keeps a deleted file's disk space and its mount busy.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HEAD = 512 * 1024
"""Bytes read from the beginning of a file met for the first time: preamble and first steps."""
LIMIT = 2 * 1024 * 1024
"""Bytes read in one go; a backlog larger than twice this is jumped over but for its end."""
LINE = 64 * 1024
"""Bytes kept of one line; the rest of a longer one is dropped."""
_MARK = 256
_COMPRESSED = frozenset({".gz", ".xz", ".zst", ".bz2", ".lz4", ".zip"})
_ENDS = re.compile(rb"[\r\n]+")
_CLOSED = re.compile(rb"[\]}]\s*(?:\x1b\[[0-9;?]*[A-Za-z]\s*)*$")
"""A line that shows by itself that it is whole: a bar, a dictionary, a JSON object."""
_VALUE = re.compile(rb"[\w./]{1,60}=[^\s=]{1,60}")
_BUFFER = 4096
"""The least buffer of a C or Python program: a file that is smaller was not cut off where a buffer was full."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines in order. `fresh`: the first of a file other than the one read before (or of a re-used one)."""

    lines: list[str]
    fresh: bool
    skipped: int
    """Bytes jumped over before these lines."""
    at_end: bool
    modified: float
    """The file's modification time, Unix seconds: when its last line was written."""


class Tail:
    """Reads what was added to `path` since the last call.

    A name that leads to another file (rotation), a file shorter than what was read (truncation) and one
    whose bytes before the cursor have changed (re-use) begin anew; the rest of a rotated file is read first.
    """

    def __init__(self, path: str | Path, *, head: int = HEAD, limit: int = LIMIT) -> None:
        self.path = Path(path)
        self._head = head
        self._limit = limit
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._mark = b""
        self._partial = b""
        self._given: bytes | None = None
        self._dropping = False

    def read(self) -> Iterator[Chunk]:
        """The new chunks, oldest first: one, or two after a rotation.

        Raises:
            OSError: the file is not there, not readable or not a regular file.
        """
        with opened(self.path) as (descriptor, status):
            identity = (status.st_dev, status.st_ino)
            fresh = identity != self._file or not self._continues(descriptor, status.st_size)
            if fresh:
                if self._file is not None and identity != self._file and (rest := self._rest()) is not None:
                    yield rest
                self._begin(identity)
            yield self._take(descriptor, status, fresh)

    def preamble(self) -> list[str]:
        """The lines of the file's head, for a parser that starts in its middle; moves no cursor.

        Raises:
            OSError: as `read`.
        """
        with opened(self.path) as (descriptor, _):
            return [_text(line) for line in _ENDS.split(_plain(os.pread(descriptor, self._head, 0)))[:-1]]

    def state(self) -> dict[str, Any]:
        """The cursor, to be kept over a restart of the agent."""
        device, inode = self._file or (0, 0)
        return {
            "device": device,
            "inode": inode,
            "offset": self._offset,
            "mark": self._mark.hex(),
            "partial": self._partial.hex(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a kept cursor; it is checked against the file at the next read.

        Raises:
            ValueError, KeyError, TypeError: not a cursor.
        """
        self._file = (int(state["device"]), int(state["inode"]))
        self._offset = int(state["offset"])
        self._mark = bytes.fromhex(state["mark"])
        self._partial = bytes.fromhex(state["partial"])

    def _begin(self, identity: tuple[int, int]) -> None:
        self._file = identity
        self._offset = 0
        self._mark = self._partial = b""
        self._given = None
        self._dropping = False

    def _continues(self, descriptor: int, size: int) -> bool:
        if size < self._offset:
            return False
        return os.pread(descriptor, len(self._mark), self._offset - len(self._mark)) == self._mark

    def _rest(self) -> Chunk | None:
        """What was added to the file read so far before it was moved aside, if it still lies beside the new one."""
        for sibling in self.path.parent.glob(_literal(self.path.name) + "?*"):
            try:
                with opened(sibling) as (descriptor, status):
                    identity = (status.st_dev, status.st_ino)
                    if identity == self._file and self._continues(descriptor, status.st_size):
                        chunk = self._take(descriptor, status, fresh=False)
                        return replace(chunk, lines=[*chunk.lines, *self._quiet(final=True)])
            except OSError:
                continue
        return None

    def _take(self, descriptor: int, status: os.stat_result, fresh: bool) -> Chunk:
        size = status.st_size
        skipped = self._jump(descriptor, size)
        budget = self._limit if self._offset else self._head
        data = os.pread(descriptor, min(budget, max(size - self._offset, 0)), self._offset)
        self._offset += len(data)
        self._mark = (self._mark + data)[-_MARK:]
        return Chunk(self._split(_plain(data)), fresh, skipped, self._offset >= size, status.st_mtime)

    def _jump(self, descriptor: int, size: int) -> int:
        """Leave out the middle of a large backlog; the head of a file is always read."""
        if not self._offset or size - self._offset <= 2 * self._limit:
            return 0
        to = size - self._limit
        skipped = to - self._offset
        self._offset = to
        self._partial, self._given = b"", None
        self._dropping = True  # the jump lands in the middle of a line
        self._mark = os.pread(descriptor, min(_MARK, to), to - min(_MARK, to))
        return skipped

    def _split(self, data: bytes) -> list[str]:
        if not data:
            return self._quiet()
        pieces = _ENDS.split(self._partial + data)
        rest = pieces.pop()
        if self._dropping and pieces:
            pieces.pop(0)
            self._dropping = False
        if pieces and self._given is not None and pieces[0] == self._given:
            pieces.pop(0)  # handed out already when it had been quiet for a while
        if pieces or rest != self._given:
            self._given = None
        if len(rest) > LINE:
            if not self._dropping:
                pieces.append(rest[:LINE])
            self._dropping, rest = True, b""
        elif self._dropping:
            rest = b""
        self._partial = rest
        return [_text(piece) for piece in pieces if piece]

    def _quiet(self, *, final: bool = False) -> list[str]:
        """Nothing came: a last line without an end counts if it is whole by itself (a progress bar) or `final`.

        All others wait: a program whose output is buffered stops in mid-line and goes on when the buffer is full.
        """
        if not self._partial or self._given == self._partial:
            return []
        status_file = self._offset < _BUFFER and _VALUE.fullmatch(self._partial)  # `printf "step=$step" > status`
        if not final and not status_file and not _CLOSED.search(self._partial[-256:]):
            return []
        self._given = self._partial
        return [_text(self._partial)]


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor to read from; a pipe or a device is refused, for its opening or reading might wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        yield descriptor, status
    finally:
        os.close(descriptor)


def _plain(data: bytes) -> bytes:
    """Without NULs: those of UTF-16, and the hole before a writer that goes on at its place in a truncated file."""
    return data.replace(b"\0", b"")


def _text(line: bytes) -> str:
    return line[:LINE].decode("utf-8", "replace")


def _literal(name: str) -> str:
    """`name` with the characters escaped that a glob would take for wildcards."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def newest(pattern: str, current: Path | None, margin: float = 60.0) -> Path | None:
    """The log a pattern such as `logs/slurm-*.out` stands for: the one written last.

    `current` is kept until another has been written `margin` seconds later than it. Of rotated logs those that were
    compressed are passed over. None where nothing matches.
    """
    if not any(character in pattern for character in "*?[") or os.path.exists(pattern):  # a name may hold brackets
        return Path(pattern)
    anchor = Path(pattern).anchor or "."
    found: dict[Path, float] = {}
    for path in Path(anchor).glob(str(Path(pattern).relative_to(anchor) if Path(pattern).anchor else pattern)):
        if path.suffix in _COMPRESSED:
            continue
        try:
            found[path] = path.stat().st_mtime
        except OSError:
            continue
    if not found:
        return None
    latest = max(found, key=lambda path: (found[path], path.name))
    return current if current in found and found[latest] < found[current] + margin else latest
