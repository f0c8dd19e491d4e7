"""A small cumulative histogram for what the agent itself measures."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from agent.base.catalogue import Metric, Sample
from agent.inference.normalise import edge

# vLLM's own edges, so that a probe's buckets stand beside a native engine's; seconds.
TTFT_EDGES = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
INTER_TOKEN_EDGES = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
E2E_EDGES = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip


class Histogram:
    """Counts observations below each upper edge; the caller guards it against other threads."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self._counts = [0] * (len(edges) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.edges, value)] += 1
        self._sum += value

    def samples(self, metric: Metric, *labels: str) -> Iterator[Sample]:
        total = 0
        for upper, count in zip((*self.edges, float("inf")), self._counts, strict=True):
            total += count
            yield Sample(metric, (*labels, edge(upper)), total, "bucket")
        yield Sample(metric, labels, self._sum, "sum")
        yield Sample(metric, labels, total, "count")
