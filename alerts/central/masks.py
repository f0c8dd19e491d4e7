"""What must be neither learnt nor scored: drills, maintenance and simulated readings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agent.base.catalogue.drill import ACTIVE
from agent.base.catalogue.node import MAINTENANCE_UNTIL
from alerts.central.promread import Labels, Reader
from alerts.central.ring import Ring

KEYS = ("cluster", "node", "uuid", "engine", "job_id")
"""Labels by which a drill or a maintenance names what it touches."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Rows `first..last` of a grid during which a target is not itself; `target` holds labels of `KEYS`."""

    target: Mapping[str, str]
    first: int
    last: int

    def touches(self, labels: Labels) -> bool:
        """Whether a series may have felt it: no label that both have says otherwise.

        A GPU's drill so touches its engine's latency (no uuid there), not another GPU's power.
        """
        have = dict(labels)
        return all(have[key] == value for key, value in self.target.items() if key in have)


def silences(reader: Reader, first: int, last: int, step: float, tail: float) -> list[Silence]:
    """Drills and maintenance that reach into rows `first..last`, each prolonged by `tail` seconds.

    Raises:
        ReadError: Prometheus did not answer; then nothing may be scored, for a drill cannot be ruled out.
    """
    span = f"{max(math.ceil(step), 1)}s"
    by = ", ".join(KEYS)
    queries = (
        # What is scraped less often than the step is still in force between two scrapes.
        f"max by ({by}) (max_over_time({ACTIVE.name}[{span}]) or {ACTIVE.name})",
        f"max by (cluster, node) (last_over_time({MAINTENANCE_UNTIL.name}[1d])) > time()",
    )
    more = math.ceil(tail / step)
    found = []
    for query in queries:
        for chunk in reader.range(query, first - more, last, step, 100):  # one that has just ended still reaches in
            for series in chunk:
                target = {key: value for key, value in series.labels if key in KEYS}
                for begin, end in _runs(series.rows[~np.isnan(series.values)]):
                    found.append(Silence(target, begin, end + more))
    return found


def apply(ring: Ring, found: list[Silence]) -> int:
    """Blank what the silences touch; returns the number of pairs of silence and series."""
    touched = 0
    for silence in found:
        columns = [column for column, key in enumerate(ring.keys) if silence.touches(key)]
        ring.blank(silence.first, silence.last, columns)
        touched += len(columns)
    return touched


def is_synthetic(labels: Labels) -> bool:
    """Whether a series comes from a simulator."""
    return ("synthetic", "true") in labels


def _runs(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[tuple[int, int]]:
    """Runs of consecutive rows as (first, last)."""
    if not len(rows):
        return []
    cuts = np.flatnonzero(np.diff(rows) > 1)
    starts = [int(rows[0]), *(int(rows[cut + 1]) for cut in cuts)]
    ends = [*(int(rows[cut]) for cut in cuts), int(rows[-1])]
    return list(zip(starts, ends, strict=True))
