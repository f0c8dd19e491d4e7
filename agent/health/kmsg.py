"""The kernel log as records: /dev/kmsg, or a regular file of such records (simulator, tests).

Nothing is lost or read twice over a restart: the place is kept as (boot id, sequence number), for
a regular file as (inode, offset). Records that the kernel overwrote before they were read are counted.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

RECORD_MAX: Final = 16384
"""A read shorter than the record would skip it (EINVAL)."""
CHUNK: Final = 1 << 16
_HEAD = re.compile(r"(\d+),(\d+),(-?\d+),[^;]*;")
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")
_STEP_S: Final = 3600.0


class Record(NamedTuple):
    """One record: `time` in Unix seconds, `uptime` on the monotonic clock; `user`: by a process, not the kernel."""

    seq: int
    time: float
    uptime: float
    user: bool
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the log was read; meaningless after another boot (device) or another file.

    `usec` is the kernel's time of the last record: the place in the journal too, should that be read next.
    """

    boot_id: str = ""
    seq: int = -1
    inode: int = 0
    offset: int = 0
    usec: int = -1

    @classmethod
    def of(cls, stored: object) -> Cursor | None:
        """The place as it was kept, of this log or of the journal; None where it is none."""
        if not isinstance(stored, dict):
            return None
        numbers = {key: value for key, value in stored.items() if key not in ("boot_id", "journal")}
        whole = all(isinstance(value, int) and 0 <= value + 1 < 1 << 63 for value in numbers.values())
        try:
            return cls(str(stored["boot_id"]), **numbers) if whole else None
        except (KeyError, TypeError):
            return None


def parse(record: str, boot_time: float) -> Record | None:
    """A record from its text (continuation lines are left out); None where it is none."""
    head, _, _ = record.partition("\n")
    found = _HEAD.match(head)
    if found is None:
        return None
    priority, seq, usec = (int(group) for group in found.groups())
    text = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), head[found.end() :])
    return Record(seq, boot_time + usec / 1e6, usec / 1e6, priority >> 3 != 0, priority & 7, text)


def _at(record: Record, uptime: float, boot_time: float) -> Record:
    return record._replace(time=boot_time + uptime, uptime=uptime)


class KernelLog:
    """Reads what is new, without ever waiting.

    The kernel stamps its records by a clock that nobody disciplines: in a month of uptime it is seconds away from the
    monotonic one. A record that was not there at the last look is taken to be written since.

    Args:
        path: /dev/kmsg or a regular file.
        boot_id: of this boot.
        cursor: where an earlier reader stopped; None is the oldest record kept.

    Attributes:
        records: read so far. `lost`: overwritten before they were read, or gone with a damaged line.
    """

    def __init__(self, path: str | Path, boot_id: str, cursor: dict[str, Any] | None = None) -> None:
        self._path, self._boot_id = Path(path), boot_id
        self._fd: int | None = None
        self._regular = False
        self._rest = b""
        self._drained = -math.inf
        self.records = self.lost = 0
        self.cursor = Cursor.of(cursor) or Cursor(boot_id)

    def read(self, most: int) -> list[Record]:
        """The records since the last call, at most about `most`; the rest comes with the next call.

        Raises:
            OSError: the log cannot be opened (PermissionError without CAP_SYSLOG) or read.
        """
        if self._fd is None:
            self._open()
        try:
            found = list(self._read_file(most) if self._regular else self._read_device(most))
        except OSError:
            self.close()
            raise
        self.records += len(found)
        return found

    def _open(self) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            self._regular = stat.S_ISREG(status.st_mode)
            if self._regular:
                if status.st_ino != self.cursor.inode or status.st_size < self.cursor.offset:
                    self.cursor = Cursor(self._boot_id, -1, status.st_ino, 0)
                os.lseek(fd, self.cursor.offset, os.SEEK_SET)
            else:
                if self.cursor.boot_id != self._boot_id:
                    self.cursor = Cursor(self._boot_id)
                os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._rest = fd, b""

    def _read_device(self, most: int) -> Iterator[Record]:
        assert self._fd is not None
        now, since = time.monotonic(), self._drained
        boot_time = time.time() - now
        for _ in range(most):
            try:
                data = os.read(self._fd, RECORD_MAX)
            except BlockingIOError:
                self._drained = now
                return
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten: reading goes on at the oldest kept
                    continue
                if error.errno == errno.EINVAL:  # longer than any record should be: skipped by the kernel
                    self.lost += 1
                    continue
                raise
            record = parse(data.decode(errors="replace"), boot_time)
            if record is None:
                self.lost += 1
            elif record.seq > self.cursor.seq:
                usec = int(data.split(b",", 3)[2])
                if self.cursor.seq >= 0:
                    self.lost += record.seq - self.cursor.seq - 1
                elif usec <= self.cursor.usec:  # the journal's reader had it
                    continue
                self.cursor = Cursor(self._boot_id, record.seq, usec=usec)
                yield _at(record, min(max(record.uptime, since), now), boot_time)

    def _read_file(self, most: int) -> Iterator[Record]:
        assert self._fd is not None
        now = time.monotonic()
        boot_time = time.time() - now
        self._follow()
        count = 0
        while count < most:
            data = os.read(self._fd, CHUNK)
            lines = (self._rest + data).split(b"\n")
            self._rest = lines.pop()  # a line still being written
            for line in lines:
                size = len(line) + 1
                self.cursor = Cursor(self._boot_id, -1, self.cursor.inode, self.cursor.offset + size)
                record = parse(line.decode(errors="replace"), boot_time)
                if record is not None:
                    count += 1
                    plausible = now - _STEP_S < record.uptime <= now + 1
                    yield record if plausible else _at(record, now, boot_time)
                elif line and not line.startswith(b" "):
                    self.lost += 1
            if not data:
                return

    def _follow(self) -> None:
        """A file that was replaced or cut short is read from its beginning."""
        assert self._fd is not None
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self._path)
            if status.st_ino != self.cursor.inode or status.st_size < self.cursor.offset:
                self.close()
                self._open()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def state(self) -> dict[str, Any]:
        return asdict(self.cursor)
