"""The page Prometheus reads: text 0.0.4 and OpenMetrics 1.0.0, from prepared line prefixes.

A line is its prefix (`name{labels} `, made once for each series) and its value; so a page of 2,000
series costs about a millisecond. Both formats share the lines and differ in the headers only.
"""

from __future__ import annotations

import gzip
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from math import inf, isfinite
from typing import Final

from agent.base.catalogue import Metric
from agent.base.catalogue.metric import Part
from agent.base.packing import Packer, member, stored


@dataclass(frozen=True, slots=True)
class Format:
    """A format of the page and the Content-Type by which it is announced."""

    media: str
    version: str
    openmetrics: bool

    @property
    def content_type(self) -> str:
        return f"{self.media}; version={self.version}; charset=utf-8"


TEXT: Final = Format("text/plain", "0.0.4", False)
OPENMETRICS: Final = Format("application/openmetrics-text", "1.0.0", True)
_TEXT_1 = Format("text/plain", "1.0.0", False)  # as 0.0.4 for a page whose names need no quoting
_OPENMETRICS_0 = Format("application/openmetrics-text", "0.0.1", True)
_EOF = b"# EOF\n"
FORMATS: Final = (OPENMETRICS, _OPENMETRICS_0, _TEXT_1, TEXT)


@lru_cache(maxsize=32)
def negotiate(accept: str) -> Format:
    """The format that an `Accept` header asks for most; text 0.0.4 if it names none of ours.

    A version that was not asked for is never answered; no version means the oldest of its kind.
    """
    best, best_quality = TEXT, 0.0
    for choice in accept.split(","):
        media, *rest = (part.strip() for part in choice.split(";"))
        parameters = {key.strip().lower(): value.strip(' "') for key, _, value in (p.partition("=") for p in rest)}
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            continue
        if media.lower() in ("*/*", "text/*"):
            found: Format | None = TEXT
        else:
            default = "0.0.1" if media.lower() == OPENMETRICS.media else "0.0.4"
            wanted = (media.lower(), parameters.get("version", default))
            found = next((f for f in FORMATS if (f.media, f.version) == wanted), None)
        if found is not None and quality > best_quality:
            best, best_quality = found, quality
    return best


@lru_cache(maxsize=32)
def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header allows gzip."""
    for choice in accept_encoding.lower().split(","):
        coding, _, parameters = choice.strip().partition(";")
        if coding.strip() in ("gzip", "x-gzip", "*"):
            return parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def format_value(value: float) -> str:
    """A value as Prometheus' own clients write it: `1.0`, `+Inf`, `NaN`."""
    if value == inf:
        return "+Inf"
    if value == -inf:
        return "-Inf"
    return repr(float(value)) if value == value else "NaN"


_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def prefix(metric: Metric, labels: tuple[str, ...], part: Part = "") -> str:
    """`name{label="value",...} ` of one series; labels with an empty value are left out.

    A bucket's edge (`le`, the last label value) is written as a float: `1.0`, `+Inf`.

    Raises:
        ValueError: a bucket's edge is not a number.
    """
    name = f"{metric.stem}_{part}" if part else metric.name
    pairs = [f'{key}="{value.translate(_ESCAPES)}"' for key, value in zip(metric.labels, labels, strict=False) if value]
    if part == "bucket":
        pairs.append(f'le="{format_value(float(labels[-1]))}"')
    return f"{name}{{{','.join(pairs)}}} " if pairs else f"{name} "


def header(metric: Metric, openmetrics: bool) -> str:
    """`# HELP`, `# TYPE` and, in OpenMetrics, `# UNIT` of a family."""
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        text = text.replace('"', r"\"")
        unit = f"# UNIT {metric.stem} {metric.unit}\n" if metric.unit else ""
        return f"# HELP {metric.stem} {text}\n# TYPE {metric.stem} {metric.kind}\n{unit}"
    name = metric.name
    kind = "gauge" if metric.kind == "info" else metric.kind
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


@dataclass(slots=True)
class Family:
    """The samples of one metric: line prefix -> value, in the order in which they came.

    Attributes:
        starts, values: the same, once settled: prefixes, and doubles as bytes.
    """

    metric: Metric
    lines: dict[str, float]
    starts: tuple[str, ...] = ()
    values: bytes = b""

    def settle(self, before: Family | None = None) -> Family:
        """Put the lines, which change no more, in a form that is compared in no time; `before` is the last run's.

        Done right after a run, while its values are in the processor's caches: a scrape that comes seconds later
        would have to fetch every one of them, only to find that most are what they were.
        """
        starts = tuple(self.lines)
        self.starts = before.starts if before is not None and before.starts == starts else starts
        self.values = array("d", self.lines.values()).tobytes()
        return self


Families = Mapping[str, Family]
"""Families by stem: what one collector has to say."""


_STILL: Final = 8
"""Pages without a change after which a family's values are taken to stay."""


class _Block:
    """One family as it stood on the last page: headers and lines, as text and, once that was wished, as deflate.

    Lines are compressed at first; values that have changed are taken for ones that will change again, and stored: to
    compress them for one page would cost more than all the rest of it.
    """

    def __init__(self, metric: Metric, openmetrics: bool) -> None:
        self._family = Family(metric, {})
        self.text = self._head = _encode(header(metric, openmetrics))
        self._packed = b""
        self._ends: list[str] = []
        self._moves = False
        self._still = 0

    def update(self, family: Family) -> None:
        """Take the lines of a new page."""
        if not family.starts:
            family.settle()
        before, self._family = self._family, family
        same = family.starts is before.starts or family.starts == before.starts
        if same and family.values == before.values:
            self._still += 1
            if self._still == _STILL and self._moves:
                self._moves, self._packed = False, b""
            return
        self._still, self._moves = 0, same
        values = family.lines.values()
        # repr is format_value for everything but infinities and NaN, at a third of its cost
        if not all(map(isfinite, values)):
            self._ends = [f"{format_value(value)}\n" for value in values]
        elif same:
            rows = zip(before.lines.values(), self._ends, values, strict=True)
            self._ends = [end if old == new else f"{new!r}\n" for old, end, new in rows]
        else:
            self._ends = [f"{value!r}\n" for value in values]
        self.text = self._head + _encode("".join(chain.from_iterable(zip(family.starts, self._ends, strict=True))))
        self._packed = b""

    def packed(self, packer: Packer) -> bytes:
        """The text as a part of a gzip file."""
        if not self._packed:
            self._packed = stored(self.text) if self._moves else packer.pack(self.text)
        return self._packed


def _encode(text: str) -> bytes:
    """UTF-8; what cannot be written in it becomes "?"."""
    return text.encode("utf-8", "replace")


class Renderer:
    """Makes pages, and keeps of each family what stays the same from one page to the next.

    On a GPU node most of the lines (limits, identities, error counters) do not change. Used by one thread.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, bool], _Block] = {}
        self._packer: Packer | None = None

    def render(self, sources: Iterable[Families], form: Format, *, gzip: bool = False) -> bytes:
        """One page from several sources; each family stands once, in the order of names.

        A series that two sources give is taken from the first.
        """
        groups: dict[str, Family] = {}
        for families in sources:
            for stem, family in families.items():
                first = groups.get(stem)
                groups[stem] = family if first is None else Family(family.metric, family.lines | first.lines)
        if len(self._blocks) > 4 * len(groups) + 64:  # families that are no more
            self._blocks.clear()
        blocks = [self._block(groups[stem], form.openmetrics) for stem in sorted(groups)]
        end = [_EOF] if form.openmetrics else []
        page = b"".join([block.text for block in blocks] + end)
        if not gzip:
            return page
        packer = self._packer = self._packer or Packer()
        return member(page, [block.packed(packer) for block in blocks] + list(map(stored, end)))

    def _block(self, family: Family, openmetrics: bool) -> _Block:
        key = (family.metric.stem, openmetrics)
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = _Block(family.metric, openmetrics)
        block.update(family)
        return block


def render(sources: Iterable[Families], form: Format) -> bytes:
    """One page, for those who make only one: see `Renderer.render`."""
    return Renderer().render(sources, form)


def compress(page: bytes) -> bytes:
    """The page as gzip, at the level that costs least for its size (level 9 takes three times as long)."""
    return gzip.compress(page, compresslevel=1, mtime=0)
