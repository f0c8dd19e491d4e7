"""Which kernel log is read: /dev/kmsg itself, or the journal where the device is closed to this user."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from agent.health.journal import JournalLog
from agent.health.kmsg import KernelLog, Record

Source = Literal["auto", "kmsg", "journal"]
JOURNAL_FIX: Final = (
    "`journalctl -k` must show messages to the agent's user (group systemd-journal); else install the drop-in kmsg.conf"
)
KMSG_FIX: Final = "give the unit CAP_SYSLOG (drop-in kmsg.conf), or set collectors.xid.source: journal"


class Log(Protocol):
    """A kernel log that is read piece by piece and never waited for."""

    records: int
    lost: int

    def read(self, most: int) -> list[Record]: ...

    def state(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


def choose(source: Source, kmsg: Path) -> tuple[Literal["kmsg", "journal"], str]:
    """The source in force, and why it is not the first choice ("" where it is).

    auto is `kmsg` where that can be opened, else the journal where journalctl is here, else `kmsg`,
    whose failure is then told with its fix at every read.
    """
    if source != "auto":
        return source, ""
    try:
        os.close(os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        why = f"{kmsg}: {error.strerror}"
        return ("journal", why) if shutil.which("journalctl") else ("kmsg", why)
    return "kmsg", ""


def open_log(chosen: Literal["kmsg", "journal"], kmsg: Path, boot_id: str, cursor: dict[str, Any] | None) -> Log:
    """The reader of the chosen source, from where either of them stopped."""
    return KernelLog(kmsg, boot_id, cursor) if chosen == "kmsg" else JournalLog(boot_id, cursor)
