"""What central puts on its page: samples with the labels of the series they speak of, and its own counters."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from agent.base.catalogue import Metric, Sample
from agent.base.exposition import Families, Family, prefix

EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bucket edges of durations, in seconds."""


class Line(NamedTuple):
    """A sample of a dynamic metric: its own labels win over those of the series it speaks of."""

    metric: Metric
    labels: Mapping[str, str]
    value: float


def labelled(series: Iterable[tuple[str, str]], own: Mapping[str, str]) -> dict[str, str]:
    """Labels of a series plus our own; a label of the series that has the same name becomes `exported_...`.

    So does Prometheus when a target's label meets one of the scrape configuration: an engine's `model` (the
    one it serves) and a monitor's `model` (the one that judges) both stay.
    """
    found = {f"exported_{key}" if key in own else key: value for key, value in series}
    return found | dict(own)


def dynamic_prefix(metric: Metric, labels: Mapping[str, str]) -> str:
    """`name{labels} ` of a series, labels sorted, empty ones left out."""
    flat = Metric.__new__(Metric)  # never enters the catalogue: only the spelling of its prefix is wanted
    names = tuple(sorted(labels))
    for field, value in (("stem", metric.stem), ("name", metric.name), ("labels", names)):
        object.__setattr__(flat, field, value)
    return prefix(flat, tuple(labels[name] for name in names))


def families(lines: Iterable[Line], samples: Iterable[Sample] = ()) -> Families:
    """Families by stem, as `agent.base.exposition.render` takes them; a series given twice stands once."""
    found: dict[Metric, dict[str, float]] = {}
    for line in lines:
        found.setdefault(line.metric, {})[dynamic_prefix(line.metric, line.labels)] = line.value
    for sample in samples:
        found.setdefault(sample.metric, {})[prefix(sample.metric, sample.labels, sample.part)] = sample.value
    return {metric.stem: Family.of(metric, rows) for metric, rows in found.items()}


class Counters:
    """Central's own counters, gauges and histograms; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[Metric, tuple[str, ...]], float] = {}
        self._histograms: dict[Metric, list[float]] = {}

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Add to a counter."""
        with self._lock:
            self._values[metric, labels] = self._values.get((metric, labels), 0.0) + by

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[metric, labels] = value

    def observe(self, metric: Metric, seconds: float) -> None:
        """Add to a histogram with the edges `EDGES`; the last two places are its sum and count."""
        with self._lock:
            cells = self._histograms.setdefault(metric, [0.0] * (len(EDGES) + 2))
            place = bisect_left(EDGES, seconds)
            if place < len(EDGES):
                cells[place] += 1
            cells[-2] += seconds
            cells[-1] += 1

    def samples(self) -> list[Sample]:
        """All of them, as they stand."""
        with self._lock:
            found = [metric.sample(value, *labels) for (metric, labels), value in self._values.items()]
            for metric, cells in self._histograms.items():
                running = 0.0
                for edge, cell in zip(EDGES, cells, strict=False):
                    running += cell
                    found.append(Sample(metric, (repr(edge),), running, "bucket"))
                found.append(Sample(metric, ("+Inf",), cells[-1], "bucket"))
                found.append(Sample(metric, (), cells[-2], "sum"))
                found.append(Sample(metric, (), cells[-1], "count"))
        return found
