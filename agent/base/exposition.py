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
from agent.base.packing import Packer, Trailer, member, stored


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


@dataclass(frozen=True, slots=True)
class Family:
    """The samples of one metric, in the order in which they came, in a form that is compared in no time.

    Attributes:
        starts: line prefixes, all different; the same object as in the last run where they are the same.
        doubles: as many values, as native bytes.
    """

    metric: Metric
    starts: tuple[str, ...] = ()
    doubles: bytes = b""

    @classmethod
    def of(cls, metric: Metric, lines: Mapping[str, float], before: Family | None = None) -> Family:
        """From line prefix -> value; `before` is the last run's."""
        starts = tuple(lines)
        if before is not None and before.starts == starts:
            starts = before.starts
        return cls(metric, starts, array("d", lines.values()).tobytes())

    @property
    def values(self) -> memoryview[float]:
        return memoryview(self.doubles).cast("d")

    @property
    def lines(self) -> dict[str, float]:
        """Line prefix -> value."""
        return dict(zip(self.starts, self.values, strict=True))


Families = Mapping[str, Family]
"""Families by stem: what one collector has to say."""


_STILL: Final = 8
"""Runs without a change after which a family's values are taken to stay."""


class _Block:
    """One family as it was last told: headers and lines, as text and, once that was wished, as deflate.

    Lines are compressed at first; values that have changed are taken for ones that will change again, and stored: to
    compress them for one page would cost more than all the rest of it.
    """

    def __init__(self, metric: Metric, openmetrics: bool) -> None:
        self._family = Family(metric)
        self.text = self._head = _encode(header(metric, openmetrics))
        self._packed = b""
        self._ends: list[str] = []
        self._moves = False
        self._still = 0

    def update(self, family: Family) -> bool:
        """Take the family as it is now; whether the block is another for it, as text or packed."""
        before, self._family = self._family, family
        same = family is before or family.starts is before.starts or family.starts == before.starts
        if family is before or (same and family.doubles == before.doubles):
            self._still += 1
            if self._still == _STILL and self._moves:
                self._moves, self._packed = False, b""
                return True
            return False
        self._still, self._moves = 0, same
        values = family.values
        # repr is format_value for everything but infinities and NaN, at a third of its cost
        if not all(map(isfinite, values)):
            self._ends = [f"{format_value(value)}\n" for value in values]
        elif same:
            rows = zip(before.values, self._ends, values, strict=True)
            self._ends = [end if old == new else f"{new!r}\n" for old, end, new in rows]
        else:
            self._ends = [f"{value!r}\n" for value in values]
        self.text = self._head + _encode("".join(chain.from_iterable(zip(family.starts, self._ends, strict=True))))
        self._packed = b""
        return True

    def packed(self, packer: Packer) -> bytes:
        """The text as a part of a gzip file."""
        if not self._packed:
            self._packed = stored(self.text) if self._moves else packer.pack(self.text)
        return self._packed


def _encode(text: str) -> bytes:
    """UTF-8; what cannot be written in it becomes "?"."""
    return text.encode("utf-8", "replace")


class _Part:
    """What one source says, in the order of names, joined; looked at again only when it says something else."""

    def __init__(self, openmetrics: bool) -> None:
        self._openmetrics = openmetrics
        self._families: Families = {}
        self._blocks: dict[str, _Block] = {}
        self.text = b""
        self._packed = b""

    def update(self, families: Families) -> None:
        """Take what the source says now."""
        if families is self._families:
            return
        self._families = families
        known, changed = self._blocks, families.keys() != self._blocks.keys()
        if changed:
            self._blocks = {
                stem: known.get(stem) or _Block(families[stem].metric, self._openmetrics) for stem in sorted(families)
            }
        for stem, block in self._blocks.items():
            changed |= block.update(families[stem])
        if changed:
            self.text = b"".join([block.text for block in self._blocks.values()])
            self._packed = b""

    def packed(self, packer: Packer) -> bytes:
        """The text as a part of a gzip file."""
        if not self._packed:
            self._packed = b"".join([block.packed(packer) for block in self._blocks.values()])
        return self._packed


class Renderer:
    """Makes pages, and keeps of each source what stays the same from one page to the next.

    On a GPU node most of the lines (limits, identities, error counters) do not change, and of twenty sources one or
    two have run since the last second. Used by one thread.
    """

    def __init__(self) -> None:
        self._parts: dict[tuple[str, bool], _Part] = {}
        self._trailers = {False: Trailer(), True: Trailer()}
        self._packer: Packer | None = None
        self._sources: Mapping[str, Families] = {}
        self._overlaps = False

    def _overlap(self, sources: Mapping[str, Families]) -> bool:
        """Whether two sources speak of one metric."""
        before, self._sources = self._sources, sources
        if before.keys() != sources.keys() or any(
            families is not before[name] and families.keys() != before[name].keys()
            for name, families in sources.items()
        ):
            stems = [stem for families in sources.values() for stem in families]
            self._overlaps = len(set(stems)) < len(stems)
        return self._overlaps

    def render(self, sources: Mapping[str, Families], form: Format, *, gzip: bool = False) -> bytes:
        """One page: source by source, each in the order of names; `sources` by a name that stays.

        What a source says must not change afterwards. Where two speak of one metric all are put together, so that it
        stands once; a series that two sources give is taken from the first.
        """
        if self._overlap(sources):
            sources = {"": _together(sources.values())}
        if len(self._parts) > 4 * len(sources) + 64:  # sources that are no more
            self._parts.clear()
        parts = []
        for name, families in sources.items():
            part = self._parts.get((name, form.openmetrics))
            if part is None:
                part = self._parts[name, form.openmetrics] = _Part(form.openmetrics)
            part.update(families)
            parts.append(part)
        texts = [part.text for part in parts]
        if form.openmetrics:
            texts.append(_EOF)
        if not gzip:
            return b"".join(texts)
        packer = self._packer = self._packer or Packer()
        packed = [part.packed(packer) for part in parts]
        if form.openmetrics:
            packed.append(stored(_EOF))
        return member(packed, self._trailers[form.openmetrics].of(texts))


def _together(sources: Iterable[Families]) -> Families:
    """What all sources say of each metric; a fleet's anomaly scores come from a hundred of them."""
    groups: dict[str, list[Family]] = {}
    for families in sources:
        for stem, family in families.items():
            groups.setdefault(stem, []).append(family)
    return {stem: found[0] if len(found) == 1 else _one(found) for stem, found in groups.items()}


def _one(found: list[Family]) -> Family:
    lines: dict[str, float] = {}
    for family in reversed(found):
        lines.update(family.lines)
    return Family.of(found[-1].metric, lines)


def render(sources: Iterable[Families], form: Format) -> bytes:
    """One page in the order of names, for those who make only one: see `Renderer.render`."""
    return Renderer().render({"": _together(sources)}, form)


def compress(page: bytes) -> bytes:
    """The page as gzip, at the level that costs least for its size (level 9 takes three times as long)."""
    return gzip.compress(page, compresslevel=1, mtime=0)
