"""The lines of a log as it lies there: plain or gzipped, UTF-8 or UTF-16, a file or standard input."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterator

from agent.base.errors import CannotTell

_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""What PowerShell's `>` begins a file with."""


def read(path: str) -> Iterator[str]:
    """Each line of the log at `path` (`-`: standard input); bytes that are no text are replaced.

    A gzipped log that has lost its end, as one still being written has, is read as far as it goes.

    Raises:
        CannotTell: it cannot be read.
    """
    try:
        with open(sys.stdin.fileno() if path == "-" else path, "rb", closefd=path != "-") as file:
            source: io.BufferedReader = file
            if source.peek(2).startswith(_GZIP):
                source = io.BufferedReader(gzip.GzipFile(fileobj=file))
            encoding = "utf-16" if source.peek(2).startswith(_UTF16) else "utf-8"
            with io.TextIOWrapper(source, encoding, errors="replace") as lines:
                yield from lines
    except EOFError:  # the end of the gzipped log is missing
        return
    except (OSError, zlib.error) as error:
        raise CannotTell(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
