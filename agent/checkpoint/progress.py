"""How far a long read has come, on a terminal; silent elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

_EVERY = 0.2


class Progress:
    """`with Progress(total) as progress: progress(count)`: one line on a terminal, wiped at the end."""

    def __init__(
        self, total: int, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._clock = clock
        self._begun = self._drawn = clock()
        self._done = 0

    def __call__(self, count: int) -> None:
        self._done += count
        now = self._clock()
        if self._shown and now - self._drawn >= _EVERY:
            self._drawn = now
            rate = self._done / max(now - self._begun, 1e-9)
            left = (self._total - self._done) / rate if rate else 0.0
            share = 100 * self._done / self._total if self._total else 100.0
            self._stream.write(f"\r{share:5.1f} %  {rate / 1e6:,.0f} MB/s  {left:,.0f} s left \x1b[K")
            self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
