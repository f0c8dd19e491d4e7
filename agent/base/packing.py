"""gzip of a page most of which stays: a part is compressed once, by itself, and put together with the others.

A deflate stream may be cut at byte borders at which nothing looks back (RFC 1951, 3.2.4 and zlib's flushes). So the
parts of a page that did not change since the last one are copied, and what changes in a line, its value, goes
uncompressed between the compressed rest: most of a page costs no compression at all.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

_LEVEL: Final = 1
"""What costs least for its size: 9 takes three times as long."""
_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
"""RFC 1952: deflate, no name, no time stamp, fastest, made by an unknown system."""
_END: Final = b"\x03\x00"
"""An empty last block."""


def stored(text: bytes) -> bytes:
    """A part that is not compressed; less than 64 KiB."""
    return b"\0" + struct.pack("<HH", len(text), len(text) ^ 0xFFFF) + text


_LENGTHS: Final = [stored(bytes(size))[1:5].decode("latin-1") for size in range(64)]
"""What stands before the bytes of a stored block of that many."""


class Packer:
    """Compresses parts, each so that it may stand behind any other."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)

    def pack(self, text: bytes) -> bytes:
        return self._deflate.compress(text) + self._deflate.flush(zlib.Z_FULL_FLUSH)


class Weave:
    """Lines whose starts stay and whose values change.

    Args:
        starts: the lines up to their values.
    """

    def __init__(self, starts: Sequence[str]) -> None:
        self._starts = [_Start(before, start) for before, start in zip(["", *starts], starts, strict=False)]

    def pack(self, ends: Sequence[str]) -> bytes:
        """The lines with these values, line feeds included; less than 64 ASCII characters each."""
        sizes = list(map(len, ends))
        starts = [start[gap] for start, gap in zip(self._starts, [0, *sizes], strict=False)]
        headers = [_LENGTHS[size] for size in sizes]
        return "".join(chain.from_iterable(zip(starts, headers, ends, strict=True))).encode("latin-1")


class _Start(dict[int, str]):
    """A line's start as deflate that copies from the line before, by the length of that line's end.

    It ends in the header of a stored block, whose length and bytes are to follow. As Latin-1, so that it joins texts.
    """

    __slots__ = ("_before", "_text")

    def __init__(self, before: str, text: str) -> None:
        self._before, self._text = before, text

    def __missing__(self, gap: int) -> str:
        # a window of 4 KiB is made ten times as fast as the largest; zeros are in no line, so nothing copies them
        before = encode(self._before) + bytes(gap)
        deflate = zlib.compressobj(9, zlib.DEFLATED, -12, 4, zdict=before)
        # a flush is a stored block of no bytes: its length, four bytes, gives way to ours
        packed = (deflate.compress(encode(self._text)) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        return self.setdefault(gap, packed.decode("latin-1"))


def encode(text: str) -> bytes:
    """UTF-8; what cannot be written in it becomes "?"."""
    return text.encode("utf-8", "replace")


def member(text: bytes, packed: Iterable[bytes]) -> bytes:
    """The gzip file of a text that is given in compressed parts, too."""
    check = struct.pack("<II", zlib.crc32(text), len(text) & 0xFFFFFFFF)
    return b"".join((_HEAD, *packed, _END, check))
