"""GPM: activity and bandwidth from the GPU's own counters (Hopper and newer), no profiler lock.

Two samples per GPU are allocated once and swapped each turn, so the window is the time between two
sweeps and nothing ever sleeps. All GPM calls come from one thread: in parallel they crash the driver.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from time import monotonic_ns
from typing import Any, Final

from agent.gpu import codes
from agent.gpu.nvml import Library, judge
from agent.gpu.readings import GPM, Field

WINDOW_NS: Final = (100_000_000, 30_000_000_000)
"""NVML wants more than 100 ms between two samples; a window that grew too long is begun afresh."""
STRUCT_SIZE: Final = 19104
"""nvmlGpmMetricsGet_t of the newest header; older drivers touch less of it."""
_HEAD = struct.Struct("<IIQQ")
_ENTRY = struct.Struct("<IIdQQQ")


class Support(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint), ("supported", ctypes.c_uint))


class Gpm:
    """The GPM readings of one GPU, or of one of its MIG instances."""

    def __init__(
        self, library: Library, handle: ctypes.c_void_p, index: int, instance: int | None, entries: tuple[Field, ...]
    ) -> None:
        self._library, self._handle, self._index, self._instance = library, handle, index, instance
        self._previous, self._latest = ctypes.c_void_p(), ctypes.c_void_p()
        self._taken = 0
        self._buffer: Any = (ctypes.c_char * STRUCT_SIZE)()
        self._ask(entries)

    def _ask(self, entries: tuple[Field, ...]) -> None:
        self.entries = entries
        self._questions = b"".join(_ENTRY.pack(entry.id, 0, 0.0, 0, 0, 0) for entry in entries)
        self._unpack = struct.Struct("<" + "IIdQQQ" * len(entries)).unpack_from

    @classmethod
    def open(
        cls,
        library: Library,
        handle: ctypes.c_void_p,
        index: int,
        instance: int | None = None,
        entries: tuple[Field, ...] = GPM,
    ) -> Gpm | None:
        """The GPU's GPM with the metrics it supports, or None where there is none.

        Raises:
            Gone, Down: by the policy of agent.gpu.codes.
        """
        support = Support(version=1)
        code = library.call("nvmlGpmQueryDeviceSupport", handle, ctypes.byref(support), index=index)
        judge(code)
        if code or not support.supported:
            return None
        gpm = cls(library, handle, index, instance, entries)
        for sample in (gpm._previous, gpm._latest):
            if library.call("nvmlGpmSampleAlloc", ctypes.byref(sample), index=index):
                return None
        return gpm

    def close(self) -> None:
        """Give the samples back."""
        for sample in (self._previous, self._latest):
            self._library.call("nvmlGpmSampleFree", sample, index=self._index)

    def leave_out(self, entry: Field) -> None:
        """Ask no more for a metric that this GPU or driver lacks."""
        self._ask(tuple(other for other in self.entries if other is not entry))

    def read(self) -> int:
        """Take a sample and compute over the window since the last; NOT_READY where there is none yet."""
        self._previous, self._latest = self._latest, self._previous
        if self._instance is None:
            code = self._library.call("nvmlGpmSampleGet", self._handle, self._latest, index=self._index)
        else:
            instance = ctypes.c_uint(self._instance)
            code = self._library.call("nvmlGpmMigSampleGet", self._handle, instance, self._latest, index=self._index)
        if code:
            self._taken = 0
            return code
        now = monotonic_ns()
        window, self._taken = now - self._taken, now
        if not WINDOW_NS[0] < window < WINDOW_NS[1]:
            return codes.NOT_READY
        head = _HEAD.pack(1, len(self.entries), self._previous.value or 0, self._latest.value or 0)
        ctypes.memmove(self._buffer, head + self._questions, len(head) + len(self._questions))
        return self._library.call("nvmlGpmMetricsGet", ctypes.byref(self._buffer), index=self._index)

    def results(self) -> Iterator[tuple[Field, int, float]]:
        """(metric, its own return code, value) of the last window."""
        flat = self._unpack(self._buffer, _HEAD.size)
        yield from zip(self.entries, flat[1::6], flat[2::6], strict=True)
