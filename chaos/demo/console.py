"""What the demo says: progress with times on stderr, the result on stdout."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence

COLOURS = {"bad": "31;1", "good": "32;1", "loud": "33;1", "soft": "2"}


class Console:
    """Lines of progress, each with the seconds since start; safe from several threads."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """One message on stderr; those that begin in capitals are coloured on a terminal."""
        loud = next((kind for word, kind in _KINDS.items() if text.startswith(word)), "")
        # nobody listening any more is not a reason to leave a drill half done
        with self._lock, contextlib.suppress(OSError):
            stamp = paint(f"[{time.monotonic() - self._began:6.1f}s]", "soft", sys.stderr.isatty())
            print(f"{stamp} {paint(text, loud, sys.stderr.isatty())}", file=sys.stderr, flush=True)

    def say_from_handler(self, text: str) -> None:
        """The same from a signal handler, which may have interrupted `say` itself: no lock, no buffer."""
        with contextlib.suppress(OSError):
            os.write(2, f"[{time.monotonic() - self._began:6.1f}s] {text}\n".encode())


_KINDS = {"NOT UP": "bad", "NOT SEEN": "bad", "DIED": "bad", "SIMULATED": "loud", "REAL": "loud"}


def paint(text: str, kind: str, terminal: bool) -> str:
    """`text` in the colour of `kind`, where a terminal shows it and NO_COLOR is not set."""
    if not terminal or kind not in COLOURS or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{COLOURS[kind]}m{text}\x1b[0m"


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows in columns as wide as their widest cell; the last column is not padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)] if rows else []
    return "\n".join(
        indent + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    )
