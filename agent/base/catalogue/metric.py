"""What a metric is: its name, kind, unit, labels and help, declared once.

Standard library only, so that rules, panels, drills and documentation can import it anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from agent.base.errors import CatalogueError

Kind = Literal["counter", "gauge", "histogram", "info"]
Stability = Literal["stable", "experimental", "deprecated"]
Part = Literal["", "bucket", "count", "sum"]

UNITS: Final = {
    "": "short",
    "bytes": "bytes",
    "seconds": "s",
    "ratio": "percentunit",
    "celsius": "celsius",
    "watts": "watt",
    "joules": "joule",
    "hertz": "hertz",
    "bytes_per_second": "Bps",
    "grams": "massg",
}
"""Units a metric may have, each with the name by which Grafana draws it."""

SUFFIX: Final = {"counter": "_total", "info": "_info"}
TARGET_LABELS: Final = frozenset({"job", "instance", "cluster", "node"})
"""Labels that the scrape configuration adds to every series; no metric declares them."""

CATALOGUE: Final[dict[str, Metric]] = {}
"""Every declared metric by stem, in order of declaration."""


@dataclass(frozen=True, slots=True, eq=False)  # one object a metric
class Metric:
    """One metric of the vocabulary.

    Args:
        stem: the name without `_total` or `_info`, ending in its unit; begins with `gpuvigil_`.
        kind: counter, gauge, histogram or info (a gauge that is always 1).
        help: one sentence for `# HELP` and docs/metrics.md.
        unit: a key of `UNITS`; base units only.
        labels: label names in the order in which samples give their values.
        dynamic: the metric carries the labels of whatever series it speaks of (detection).
        budget: most series one collector may emit of it; more are dropped and counted.
        vital: alerts or verdicts go by it: where a node has more series than agreed, it is left out last.

    Raises:
        CatalogueError: wrong prefix, unit not in the name, unknown unit or duplicate stem.
    """

    stem: str
    kind: Kind
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    stability: Stability = "experimental"
    dynamic: bool = False
    budget: int = 512
    vital: bool = False
    name: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.stem.startswith("gpuvigil_"):
            raise CatalogueError(f"{self.stem}: a metric's name begins with gpuvigil_")
        if self.unit not in UNITS:
            raise CatalogueError(f"{self.stem}: unit {self.unit!r} is not one of {sorted(UNITS)}")
        if self.unit and not self.stem.endswith("_" + self.unit):
            raise CatalogueError(f"{self.stem}: the name must end in its unit, {self.unit}")
        if self.stem in CATALOGUE:
            raise CatalogueError(f"{self.stem}: declared twice")
        if bad := TARGET_LABELS.intersection(self.labels):
            raise CatalogueError(f"{self.stem}: {sorted(bad)} belong to the scrape configuration")
        object.__setattr__(self, "name", self.stem + SUFFIX.get(self.kind, ""))
        CATALOGUE[self.stem] = self

    def __str__(self) -> str:
        return self.name

    @property
    def series(self) -> tuple[str, ...]:
        """The sample names this metric puts on a page."""
        if self.kind == "histogram":
            return tuple(f"{self.stem}_{part}" for part in ("bucket", "count", "sum"))
        return (self.name,)

    @property
    def grafana_unit(self) -> str:
        return UNITS[self.unit]

    def __call__(self, part: Part = "", /, **matchers: str) -> str:
        """A PromQL selector: `POWER(gpu="0")`, `TTFT("bucket", engine="a")`.

        A value that begins with `=~`, `!~` or `!=` brings its own operator.

        Raises:
            CatalogueError: a matcher names a label that the metric does not have.
        """
        known = {*self.labels, *TARGET_LABELS, *(("le",) if part == "bucket" else ())}
        if not self.dynamic and (unknown := set(matchers) - known):
            raise CatalogueError(f"{self}: no label {sorted(unknown)}; it has {sorted(known)}")
        name = f"{self.stem}_{part}" if part else self.name
        if name not in self.series:
            raise CatalogueError(f"{self} is a {self.kind}: it has no part {part!r}")
        inside = ",".join(_matcher(key, value) for key, value in matchers.items())
        return f"{name}{{{inside}}}" if inside else name

    def sample(self, value: float, *labels: str) -> Sample:
        """A sample of this metric; `labels` are values in the order of `self.labels`.

        Raises:
            CatalogueError: the number of label values differs from the declaration.
        """
        if len(labels) != len(self.labels):
            raise CatalogueError(f"{self}: {len(labels)} label values for {self.labels}")
        return Sample(self, labels, value)


def _matcher(key: str, value: str) -> str:
    for op in ("=~", "!~", "!="):
        if value.startswith(op):
            return f"{key}{op}{json.dumps(value[2:])}"
    return f"{key}={json.dumps(value)}"


class Sample(NamedTuple):
    """One value on the page.

    `labels` are values in the order of `metric.labels`; an empty value means the label is absent,
    as in Prometheus. For a histogram `part` names the sample and a bucket has its upper edge
    (`"+Inf"` last) as one more value at the end.
    """

    metric: Metric
    labels: tuple[str, ...]
    value: float
    part: Part = ""


class Layout:
    """What the values of a `Table` are: metric and label values of each, in order. Made once, and given again."""

    def __init__(self, series: Iterable[tuple[Metric, tuple[str, ...]]]) -> None:
        self.series = tuple(series)


class Table(NamedTuple):
    """Many samples at once, from a source that tells the same series each time; NaN is "no value".

    What is known of the layout is not looked at again: on a GPU node this is most of the page.
    """

    layout: Layout
    values: Sequence[float]

    def samples(self) -> Iterator[Sample]:
        """One by one, without those that have no value."""
        for (metric, labels), value in zip(self.layout.series, self.values, strict=True):
            if value == value:
                yield Sample(metric, labels, value)
