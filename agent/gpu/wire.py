"""What passes between the NVML child and the agent: messages on a pipe, a heartbeat in shared memory.

A message is a length, a kind and a body. Descriptions and events are JSON, because they are rare
and a damaged one must be an error, never a crash (marshal and pickle trust their input). Values,
sent every second, are bare doubles in the order of the last description: NaN is "no value".

The heartbeat is one memory page that both processes map. Before each driver call the child writes
what it calls, on which GPU and since when; a call that never returns leaves its name standing.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from array import array
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

VERSION: Final = 3
"""Both ends are started from one installation; the number guards against an upgrade in between."""

HELLO, STATE, DESCRIBE, VALUES, XID, PROCESSES = range(1, 7)
"""Kinds of message: who speaks; the driver's state; GPUs and slots; values; one Xid; processes."""

_HEAD = struct.Struct("<IB")
_VALUES = struct.Struct("<IQd")
LIMIT: Final = 4 << 20
"""Largest body, bytes. Sixteen GPUs with every link need about 100 kB."""


class WireError(ValueError):
    """The stream is not what this version writes: the child is to be replaced."""


def pack(kind: int, body: Any) -> bytes:
    """One JSON message."""
    data = json.dumps(body, separators=(",", ":")).encode()
    return _HEAD.pack(len(data), kind) + data


def pack_values(generation: int, at_ns: int, wall: float, values: list[array[float]]) -> bytes:
    """Values of one sweep: `at_ns` on the monotonic clock, `wall` in Unix seconds."""
    data = _VALUES.pack(generation, at_ns, wall) + b"".join(part.tobytes() for part in values)
    return _HEAD.pack(len(data), VALUES) + data


def first_generation(pid: int) -> int:
    """The number of a child's first description: another child's are none of its own."""
    return (pid & 0xFFFF) << 16


def same_child(one: int, other: int) -> bool:
    """Whether two generations are of one child."""
    return one >> 16 == other >> 16


class Frame(NamedTuple):
    """Values of one sweep (doubles, not copied), in the order of the description with the same generation."""

    generation: int
    at_ns: int
    wall: float
    values: memoryview[float]


def unpack_values(body: bytes) -> Frame:
    """Decode a VALUES body.

    Raises:
        WireError: the body is cut short.
    """
    try:
        generation, at_ns, wall = _VALUES.unpack_from(body)
        values = memoryview(body)[_VALUES.size :].cast("d")
    except (struct.error, TypeError) as error:
        raise WireError(f"values: {error}") from None
    return Frame(generation, at_ns, wall, values)


def unpack(body: bytes) -> Any:
    """Decode a JSON body.

    Raises:
        WireError: not JSON.
    """
    try:
        return json.loads(body)
    except ValueError as error:
        raise WireError(f"message: {error}") from None


class Stream:
    """Cuts a byte stream into messages; bytes may come in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (kind, body) of every message that is now whole.

        Raises:
            WireError: a length or kind that no child writes.
        """
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._buffer)
            if length > LIMIT or not HELLO <= kind <= PROCESSES:
                raise WireError(f"message of kind {kind} and {length} bytes")
            end = _HEAD.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield kind, body


SWEEP, EVENTS, SLOW = range(3)
"""Lanes of the child, each with its own place on the heartbeat page."""
LANES: Final = 3
_CALL, _GPU, _START = range(3)


class Busy(NamedTuple):
    """A driver call in progress: its number, NVML index of the GPU (None: about none), start (monotonic ns)."""

    lane: int
    call: int
    gpu: int | None
    start_ns: int


class Heartbeat:
    """The shared page. The child takes `lane(n)` and writes; the parent reads `busy()`.

    Each lane is three 64-bit words: call number, NVML index + 1, start. A start of 0 is idle.
    """

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, mmap.PAGESIZE)
        self._words = memoryview(self._map).cast("Q")

    @staticmethod
    def create() -> int:
        """A file descriptor of a zeroed page in memory."""
        fd = os.memfd_create("gpuvigil-heartbeat")
        os.ftruncate(fd, mmap.PAGESIZE)
        return fd

    def lane(self, number: int) -> memoryview:
        return self._words[number * 3 : number * 3 + 3]

    def busy(self) -> list[Busy]:
        found = []
        for number in range(LANES):
            call, gpu, start = self.lane(number)
            if start:
                found.append(Busy(number, call, gpu - 1 if gpu else None, start))
        return found

    def close(self) -> None:
        self._words.release()
        self._map.close()


def begin(lane: memoryview, call: int, index: int | None, now_ns: int) -> None:
    """Say what is about to be called; `lane[2] = 0` ends it."""
    lane[_CALL] = call
    lane[_GPU] = 0 if index is None else index + 1
    lane[_START] = now_ns
