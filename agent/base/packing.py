"""gzip of a page most of which stays: a part is compressed once, by itself, and put together with the others.

A deflate stream may be cut at byte borders at which nothing looks back (RFC 1951, 3.2.4, and zlib's full flush). So the
parts of a page that did not change since the last one are copied as they were compressed then, and those that change
each time go as they are: most of a page costs no compression at all.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

_LEVEL: Final = 1
"""What costs least for its size: 9 takes three times as long."""
_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
"""RFC 1952: deflate, no name, no time stamp, fastest, made by an unknown system."""
_END: Final = b"\x03\x00"
"""An empty last block."""
_LARGEST: Final = 0xFFFF
"""Bytes a stored block holds."""


class Packer:
    """Compresses parts, each so that it may stand behind any other."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)

    def pack(self, text: bytes) -> bytes:
        return self._deflate.compress(text) + self._deflate.flush(zlib.Z_FULL_FLUSH)


def stored(text: bytes) -> bytes:
    """A part that is not compressed: stored blocks (RFC 1951, 3.2.4), each with its length and the complement."""
    blocks = [text[start : start + _LARGEST] for start in range(0, len(text), _LARGEST)]
    return b"".join([b"\0" + struct.pack("<HH", len(each), len(each) ^ _LARGEST) + each for each in blocks])


class Trailer:
    """How a gzip file ends: CRC-32 and length of its text (RFC 1952, 2.3.1), which is given in parts.

    As far as the parts are the same objects as the last time they are not read again.
    """

    def __init__(self) -> None:
        self._known: list[tuple[bytes, int, int]] = []

    def of(self, texts: Sequence[bytes]) -> bytes:
        known, check, length = self._known, 0, 0
        for place, text in enumerate(texts):
            if place < len(known) and known[place][0] is text:
                _, check, length = known[place]
                continue
            del known[place:]
            check, length = zlib.crc32(text, check), length + len(text)
            known.append((text, check, length))
        return struct.pack("<II", check, length & 0xFFFFFFFF)


def member(packed: Iterable[bytes], trailer: bytes) -> bytes:
    """The gzip file of a text, from its packed parts."""
    return b"".join((_HEAD, *packed, _END, trailer))
