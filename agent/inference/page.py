"""A fast reader of Prometheus text pages: only the wanted names, whole families only.

Format: the Prometheus text exposition format 0.0.4. A page is read in chunks of bytes, so that one of
20 MB costs the memory of a chunk and of the wanted samples. What stands in a family that may be cut
(the page ended inside it, or a line of it did not parse) is left out: absent, never half a sum.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field

LINE_LIMIT = 65536
"""Longest line kept, in bytes; a longer one is an error and is skipped."""
SAMPLE_LIMIT = 5000
"""Most samples kept of one page, about 1 kB each; the rest of the page counts as cut off. A page of eight engines with
all their histograms has 2,000; whatever lets it grow beyond is a fault whose cost must not be the agent's."""

_NAME = re.compile(rb"[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)")
_LABEL = re.compile(rb'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*(,|(?=\}))')
_VALUE = re.compile(rb"[ \t]*([^ \t]+)(?:[ \t]+(-?[0-9]+))?[ \t]*$")
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|[Ii]nf|NaN|nan)$")
_ESCAPED = re.compile(r'\\([\\"n])')
_PARTS = (b"_bucket", b"_count", b"_sum")

Labels = dict[str, str]


class _BadLine(ValueError):
    pass


@dataclass(slots=True)
class Page:
    """What was read: `samples[name]` is a list of (labels, value) in the page's order.

    `cut` tells that the page did not end as pages end, or was longer than the limit; `errors` counts
    unreadable lines of wanted families; `size` is in bytes.
    """

    samples: dict[str, list[tuple[Labels, float]]] = field(default_factory=dict)
    cut: bool = False
    errors: int = 0
    size: int = 0


def read_page(chunks: Iterable[bytes], wanted: Container[bytes], limit: int = 32 << 20) -> Page:
    """Read a page; never raises for what the page contains.

    Args:
        chunks: the body. An `EOFError` raised by the iterator means the transfer broke off.
        wanted: sample names to keep, as bytes.
        limit: most bytes to read; beyond it the page counts as cut.
    """
    reader = _Reader(wanted)
    rest = b""
    skipping = False
    try:
        for chunk in chunks:
            reader.page.size += len(chunk)
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            if skipping and lines:
                del lines[0]
                skipping = False
            reader.feed(lines)
            if len(rest) > LINE_LIMIT:
                if not skipping:
                    reader.bad_line(rest)
                rest, skipping = b"", True
            if reader.page.size > limit or reader.full:
                reader.page.cut = True
                break
    except EOFError:
        reader.page.cut = True
    if rest or skipping or not reader.page.size:
        reader.page.cut = True
    reader.finish()
    return reader.page


class _Reader:
    def __init__(self, wanted: Container[bytes]) -> None:
        self.page = Page()
        self.full = False
        self._wanted = wanted
        self._family = b""
        self._names: list[str] = []  # wanted sample names of the family being read
        self._kept = 0
        self._broken: set[str] = set()

    def feed(self, lines: list[bytes]) -> None:
        wanted, match = self._wanted, _NAME.match
        for line in lines:
            if not line:
                continue
            if line[0] == 35:  # "#"
                self._comment(line)
                continue
            found = match(line)
            if not found:
                continue
            name = found[1]
            if name in wanted:
                self._sample(name, line)
            elif self._names:
                self._enter(name)

    def bad_line(self, line: bytes) -> None:
        """Count a line that cannot be read, and give up the family it stands in."""
        found = _NAME.match(line)
        if found and found[1] in self._wanted:
            self._enter(found[1])
            self._broken.add(found[1].decode())
            self.page.errors += 1

    def finish(self) -> None:
        if self.page.cut:
            for name in self._names:
                self._broken.add(name)
        for name in self._broken:
            self.page.samples.pop(name, None)

    def _comment(self, line: bytes) -> None:
        words = line.split(None, 3)
        if len(words) > 2 and words[0] == b"#" and words[1] in (b"HELP", b"TYPE"):
            self._enter(words[2])

    def _enter(self, name: bytes) -> None:
        """A family is whole once a name that is not part of it follows."""
        if self._family and (name == self._family or _stem(name) == _stem(self._family)):
            return
        self._family = name
        self._names = []

    def _sample(self, name: bytes, line: bytes) -> None:
        self._enter(name)
        text = name.decode()
        if text not in self._names:
            self._names.append(text)
        try:
            labels, value = parse_sample(line)
        except _BadLine:
            self.page.errors += 1
            self._broken.add(text)
            return
        if self._kept >= SAMPLE_LIMIT:
            self.full = True
            return
        self._kept += 1
        self.page.samples.setdefault(text, []).append((labels, value))


def _stem(name: bytes) -> bytes:
    for part in _PARTS:
        if name.endswith(part):
            return name[: -len(part)]
    return name


def parse_sample(line: bytes) -> tuple[Labels, float]:
    """The labels and value of one sample line; its timestamp, if any, is dropped.

    Raises:
        ValueError: not a sample line of the text format.
    """
    found = _NAME.match(line)
    if not found:
        raise _BadLine
    at = found.end()
    while line[at : at + 1] in (b" ", b"\t"):
        at += 1
    labels: Labels = {}
    if line[at : at + 1] == b"{":
        at += 1
        while True:
            item = _LABEL.match(line, at)
            if not item:
                break
            key, value = item[1].decode(), item[2]
            if key in labels:
                raise _BadLine
            try:
                plain = value.decode()
            except UnicodeDecodeError:
                raise _BadLine from None
            labels[key] = _ESCAPED.sub(_unescape, plain) if "\\" in plain else plain
            at = item.end()
        while line[at : at + 1] in (b" ", b"\t"):
            at += 1
        if line[at : at + 1] != b"}":
            raise _BadLine
        at += 1
    elif at == found.end():
        raise _BadLine
    tail = _VALUE.match(line.rstrip(b"\r"), at)
    if not tail or not _NUMBER.match(tail[1]):
        raise _BadLine
    return labels, float(tail[1])


def _unescape(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]
