"""Field values: many readings by one driver call, in an array that is filled in once and kept.

An entry has its own return code and type: the call succeeds while entries fail, and a failed entry
holds 0, which must never be read as a value.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from agent.gpu import codes
from agent.gpu.readings import Field

NAME: Final = "nvmlDeviceGetFieldValues"
_ENTRY: Final = "IIqqIIQ"  # fieldId, scopeId, timestamp, latencyUsec, valueType, nvmlReturn, value
_SIZE: Final = struct.calcsize("<" + _ENTRY)


Told = tuple[int, int, int]
"""valueType, return code and the value's eight bytes of one entry."""


class FieldArray:
    """One prepared call of nvmlDeviceGetFieldValues: `fn(*args)`, then `results()`."""

    def __init__(self, fn: Callable[..., int], handle: ctypes.c_void_p, entries: Sequence[Field]) -> None:
        self.fn, self.entries = fn, tuple(entries)
        self._buffer: Any = (ctypes.c_char * (_SIZE * len(self.entries)))()
        for number, entry in enumerate(self.entries):
            struct.pack_into("<II", self._buffer, number * _SIZE, entry.id, entry.scope)
        self.args = (handle, ctypes.c_int(len(self.entries)), ctypes.byref(self._buffer))
        self._unpack = struct.Struct("<" + _ENTRY * len(self.entries)).unpack_from

    def told(self) -> list[Told]:
        """What stands in the array, not yet looked at."""
        flat = self._unpack(self._buffer)
        return list(zip(flat[4::7], flat[5::7], flat[6::7], strict=True))

    def results(self) -> Iterator[tuple[Field, int, float]]:
        """(entry, its return code, value in base units); NaN where the code is not 0 or there is no value."""
        for entry, told in zip(self.entries, self.told(), strict=True):
            yield entry, told[1], value_of(entry, told)


def value_of(entry: Field, told: Told) -> float:
    """In base units; NaN where the code is not 0 or there is no value."""
    kind, code, raw = told
    return decode(kind, raw) * entry.scale if code == codes.SUCCESS else math.nan


def decode(kind: int, raw: int) -> float:
    """The number in a field value's eight bytes, by its valueType; all ones is "not available"."""
    if kind in (2, 3):
        return raw if raw != 0xFFFFFFFFFFFFFFFF else math.nan
    if kind == 1:
        low = raw & 0xFFFFFFFF
        return low if low != 0xFFFFFFFF else math.nan
    if kind == 0:
        return float(struct.unpack("<d", struct.pack("<Q", raw))[0])
    if kind == 4:
        return raw - (1 << 64) if raw >> 63 else raw
    if kind == 5:
        low = raw & 0xFFFFFFFF
        return low - (1 << 32) if low >> 31 else low
    return raw & 0xFFFF if kind == 6 else math.nan
