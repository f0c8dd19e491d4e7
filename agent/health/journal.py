"""The kernel log as systemd's journal keeps it, for an agent that may not open /dev/kmsg.

`journalctl` is a child process that is never waited for. It runs once up to the end of the journal,
which proves that it works and may read, and then follows. A child that dies or stays silent for
long gives way to a new one, which starts at the last record's cursor: nothing is lost or read twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final

from agent.health.kmsg import Record

MISSED: Final = "e9bf28e6e834481bb6f48f548ad13606"
"""MESSAGE_ID of journald's "Missed N kernel messages": the kernel's ring overtook it."""
MATCHES: Final = ("_TRANSPORT=kernel", "+", "_TRANSPORT=driver", f"MESSAGE_ID={MISSED}")
"""What `--dmesg` selects, and what journald says of records that it missed."""
FIELDS: Final = "MESSAGE,MESSAGE_ID,PRIORITY,SYSLOG_FACILITY,SYSLOG_IDENTIFIER,SYSLOG_PID,_SOURCE_MONOTONIC_TIMESTAMP"
PIPE_BYTES: Final = 1 << 20
CHUNK: Final = 1 << 16
LINE_MAX: Final = 1 << 18
"""A line longer than this is no kernel record: it is dropped and counted as lost."""
BURST_S: Final = 1.0
"""Longest time in one call, as long as records keep coming."""
REFILL_S: Final = 0.05
DEADLINE_S: Final = 20.0
"""A run up to the end that is silent for this long hangs."""
QUIET_S: Final = 60.0
"""A follower that is silent for this long gives way to a new run: silence and a hang look the same."""
BACK_OFF_S: Final = (1.0, 60.0)
PROOF_S: Final = 1.0
"""A follower that has lived for this long is taken to work."""
REAP_S: Final = 0.2
STUCK_MOST: Final = 3
SAID_MOST: Final = 2000


class JournalError(OSError):
    """The journal cannot be read; the text says why."""


class JournalLog:
    """Reads what is new, without ever waiting for journalctl. The interface is `KernelLog`'s.

    Args:
        boot_id: of this boot.
        cursor: where an earlier reader stopped (also one of /dev/kmsg, by the record's kernel time);
            None is the oldest record of this boot.
        command: journalctl and options that say which journal.

    Attributes:
        records: read so far. `lost`: missed by journald, or unreadable.
    """

    def __init__(
        self, boot_id: str, cursor: dict[str, Any] | None = None, command: Sequence[str] = ("journalctl",)
    ) -> None:
        stored = cursor if isinstance(cursor, dict) and cursor.get("boot_id") == boot_id else {}
        usec = stored.get("usec", -1)
        self._boot_id, self._command = boot_id, tuple(command)
        self._cursor = str(stored.get("journal") or "")
        self._usec = usec if isinstance(usec, int) else -1
        self._floor = -1 if self._cursor else self._usec
        self._child: subprocess.Popen[bytes] | None = None
        self._stuck: list[subprocess.Popen[bytes]] = []
        self._following = False
        self._rest = b""
        self._said = ""
        self._started = self._heard = self._retry_at = 0.0
        self._back_off = BACK_OFF_S[0]
        self._failure: JournalError | None = None
        self.records = self.lost = 0

    def read(self, most: int) -> list[Record]:
        """The records since the last call, at most about `most`; the rest comes with the next call.

        Raises:
            JournalError: journalctl is missing, died, hangs or may not read; it is started again later.
        """
        found = list(self._read(most))
        self.records += len(found)
        if self._failure is not None and not found:
            raise self._failure
        return found

    def _read(self, most: int) -> Iterator[Record]:
        now = time.monotonic()
        if self._child is None:
            if now < self._retry_at:
                return
            self._start(follow=False)
        end, count = now + BURST_S, 0
        while (child := self._child) is not None and count < most and time.monotonic() < end:
            data = self._take(child)
            if data:
                self._heard = time.monotonic()
                for line in self._lines(data):
                    if (record := self._record(line)) is not None:
                        count += 1
                        yield record
            elif data is not None:
                self._ended(child)
            elif self._heard < now or not _more(child):
                break
        self._watch()

    def _start(self, *, follow: bool) -> None:
        self._stuck = [child for child in self._stuck if child.poll() is None]
        if len(self._stuck) >= STUCK_MOST:
            return self._fail(f"{len(self._stuck)} journalctl processes hang and cannot be ended")
        program = shutil.which(self._command[0])
        if program is None:
            return self._fail(f"{self._command[0]} is not here")
        options = ["--boot", "--output=json", "--all", "--no-pager", f"--output-fields={FIELDS}"]
        options += ["--follow", "--no-tail"] if follow else []
        options += [f"--cursor={self._cursor}"] if self._cursor else []
        try:
            child = subprocess.Popen(
                [program, *self._command[1:], *options, *MATCHES],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
            )  # fmt: skip
        except OSError as error:
            return self._fail(f"{program}: {error.strerror}")
        for stream in _pipes(child):
            os.set_blocking(stream.fileno(), False)
        with contextlib.suppress(OSError):  # a smaller pipe only means more calls
            fcntl.fcntl(_pipes(child)[0], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._child, self._following, self._rest, self._said = child, follow, b"", ""
        self._started = self._heard = time.monotonic()
        return None

    def _take(self, child: subprocess.Popen[bytes]) -> bytes | None:
        """What the child wrote: b"" once it has closed its end, None where there is nothing yet."""
        try:
            return os.read(_pipes(child)[0].fileno(), CHUNK)
        except BlockingIOError:
            return None

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        """Keep the end of what the child says on standard error."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(_pipes(child)[1].fileno(), CHUNK):
                self._said = (self._said + data.decode(errors="replace"))[-SAID_MOST:]

    def _ended(self, child: subprocess.Popen[bytes]) -> None:
        """The child closed its output: a run up to the end is followed by a child that stays."""
        try:
            status = child.wait(REAP_S)
        except subprocess.TimeoutExpired:
            status = None
        self._listen(child)
        said = " ".join(line.strip() for line in self._said.splitlines() if not line.lstrip().startswith("Pass -q"))
        if self._cursor and not self._following and "seek to cursor" in said:  # a damaged state file
            self._cursor, self._floor = "", self._usec
            self._drop()
            self._start(follow=False)
        elif self._following or status != 0:
            how = "closed its output" if status is None else f"ended with {status}"
            self._fail(f"journalctl {how}" + (f": {said}" if said else ""))
        elif not self._cursor:
            self._fail("the journal holds no kernel message of this boot" + (f": {said}" if said else ""))
        else:
            self._drop()
            self._start(follow=True)

    def _watch(self) -> None:
        """Give up a child that hangs, and renew one that has long been silent."""
        if self._child is None:
            return
        self._listen(self._child)
        now = time.monotonic()
        age, silent = now - self._started, now - self._heard
        if self._following and age >= PROOF_S:
            self._failure = None
        if self._following and age >= BACK_OFF_S[1]:
            self._back_off = BACK_OFF_S[0]
        if self._following and silent > QUIET_S:
            self._drop()
            self._start(follow=False)
        elif not self._following and silent > DEADLINE_S:
            self._fail(f"journalctl hangs: nothing in {DEADLINE_S:.0f} s")

    def _fail(self, why: str) -> None:
        self._drop()
        self._failure = JournalError(why)
        self._retry_at = time.monotonic() + self._back_off
        self._back_off = min(2 * self._back_off, BACK_OFF_S[1])

    def _drop(self) -> None:
        """End the child without waiting: one stuck in the kernel is looked after later."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for stream in _pipes(child):
            stream.close()
        try:
            child.wait(REAP_S)
        except subprocess.TimeoutExpired:
            self._stuck.append(child)

    def _lines(self, data: bytes) -> Iterator[bytes]:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LINE_MAX:
            self._rest = b""
            self.lost += 1
        return iter(lines)

    def _record(self, line: bytes) -> Record | None:
        if not line.startswith(b"{"):  # blank, or "-- No entries --"
            return None
        try:
            entry = json.loads(line)
            cursor, message = str(entry["__CURSOR"]), _text(entry.get("MESSAGE"))
            moment = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
            uptime = int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6  # journald's; the kernel's own clock drifts from it
            usec = int(_text(entry.get("_SOURCE_MONOTONIC_TIMESTAMP")) or -1)
            facility = int(_text(entry.get("SYSLOG_FACILITY")) or 0)
            level = int(_text(entry.get("PRIORITY")) or 6)
        except (ValueError, KeyError, TypeError):
            self.lost += 1
            return None
        seen = _same(cursor, self._cursor) or 0 <= usec <= self._floor
        self._cursor, self._usec = cursor, max(usec, self._usec)
        if seen:
            return None
        if _text(entry.get("MESSAGE_ID")) == MISSED:
            self.lost += next((int(word) for word in message.split() if word.isdecimal()), 1)
            return None
        name, pid = _text(entry.get("SYSLOG_IDENTIFIER")), _text(entry.get("SYSLOG_PID"))
        if facility and name:  # journald takes the head off lines that are not the kernel's own
            message = f"{name}[{pid}]: {message}" if pid else f"{name}: {message}"
        return Record(_number(cursor), moment, uptime, facility != 0, level, message)

    def close(self) -> None:
        self._drop()

    def state(self) -> dict[str, Any]:
        return {"boot_id": self._boot_id, "journal": self._cursor, "usec": self._usec}


def _pipes(child: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Its standard output and standard error."""
    assert child.stdout is not None
    assert child.stderr is not None
    return child.stdout, child.stderr


def _more(child: subprocess.Popen[bytes]) -> bool:
    """Whether a child that is just writing goes on; it is given a moment to fill the pipe again."""
    waiting = select.poll()
    waiting.register(_pipes(child)[0], select.POLLIN)
    return bool(waiting.poll(REFILL_S * 1000))


def _text(value: object) -> str:
    """A field as text: journalctl writes bytes that are no text as numbers, repeated fields as a list."""
    if isinstance(value, list):
        if value and all(isinstance(byte, int) and 0 <= byte < 256 for byte in value):
            return bytes(value).decode(errors="replace")
        return _text(value[0]) if value else ""
    return value if isinstance(value, str) else ""


def _parts(cursor: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in cursor.split(";") if "=" in part)


def _same(one: str, other: str) -> bool:
    """Whether two cursors mean one record; file and number (s, i) change when journald moves it to disk."""
    a, b = _parts(one), _parts(other)
    return bool(a) and bool(b) and all(a.get(key) == b.get(key) for key in "bmtx")


def _number(cursor: str) -> int:
    try:
        return int(_parts(cursor).get("i", ""), 16)
    except ValueError:
        return -1
