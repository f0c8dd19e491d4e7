"""Verdicts on the machine around the GPUs: host memory, software RAID, drives, coolant.

Their collectors lend what they read last, so that nothing is read twice. What the machine has not got gets no verdict;
what a collector no longer tells is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, Settings
from agent.health.verdict import HOST_MEMORY, INSPECT, Facts, State, Verdict, worst

SHARED: Final = "machine"
TOLD_MOST: Final = 5
"""Reasons named in one verdict."""

Trouble = tuple[State, str]
"""(state, reason) of one part."""


class Lent(NamedTuple):
    """What a collector read last: good `until` then, on the monotonic clock; `components` are all it ever told of."""

    until: float
    samples: list[Sample]
    components: frozenset[str]


def lend(context: Context, name: str, settings: Settings, samples: Iterable[Sample]) -> Iterator[Sample]:
    """Pass a collector's samples on, and lend those that are judged here once its run is over."""
    until = time.monotonic() + settings.period + settings.deadline
    kept = []
    for sample in samples:
        if sample.metric in _JUDGED:
            kept.append(sample)
        yield sample
    lent, metrics = lent_by(context), {sample.metric for sample in kept}
    told = {component for component, (own, _) in _COMPONENTS.items() if own & metrics}
    lent[name] = Lent(until, kept, frozenset(told) | (lent[name].components if name in lent else frozenset()))


def take_back(context: Context, name: str) -> None:
    """The collector ends: what it has lent is no longer judged."""
    lent_by(context).pop(name, None)


def lent_by(context: Context) -> dict[str, Lent]:
    """What is lent, by collector."""
    lent: dict[str, Lent] = context.shared.setdefault(SHARED, {})
    return lent


def facts(lent: Mapping[str, Lent]) -> Facts:
    """The counters of the node that somebody may declare settled, as those of a GPU without UUID."""
    counts = [count for each in list(lent.values()) for count in _uncorrectable(each.samples)]
    return Facts("", "", True, readings={HOST_MEMORY: sum(counts)} if counts else {})


def judge(lent: Mapping[str, Lent], marks: Mapping[str, float], now: float) -> Iterator[Verdict]:
    """A verdict for every component of which a collector tells anything.

    Args:
        lent: by collector.
        marks: of the counters that were declared settled.
        now: on the monotonic clock.
    """
    for name, (until, samples, components) in list(lent.items()):
        for component in sorted(components):
            metrics, find = _COMPONENTS[component]
            own = [sample for sample in samples if sample.metric in metrics]
            if now > until or not own:  # a controller that fell silent takes a leak's series away, not the leak
                yield Verdict(component, State.UNKNOWN, f"collector {name} no longer tells of it")
                continue
            found = list(find(own, marks))
            reasons = [reason for _, reason in found[:TOLD_MOST]]
            if len(found) > TOLD_MOST:
                reasons.append(f"{len(found) - TOLD_MOST} more")
            state = worst([state for state, _ in found]) if found else State.HEALTHY
            yield Verdict(component, state, "; ".join(reasons), INSPECT if found else "")


def _uncorrectable(samples: Iterable[Sample]) -> Iterator[float]:
    for metric, labels, value, _ in samples:
        if metric is m.EDAC_ERRORS and labels[-1] == "uncorrectable":
            yield value


def _host_memory(samples: Sequence[Sample], marks: Mapping[str, float]) -> Iterator[Trouble]:
    total = sum(_uncorrectable(samples))
    grown = Facts("", "", True, readings={HOST_MEMORY: total}, marks=marks).grown(HOST_MEMORY)
    if grown > 0:
        where = ", ".join(labels[0] for _, labels, value, _ in samples if labels[-1] == "uncorrectable" and value)
        yield State.DEGRADED, f"{grown:.0f} uncorrectable errors of host memory ({where})"


def _raid(samples: Sequence[Sample], marks: Mapping[str, float]) -> Iterator[Trouble]:
    for metric, labels, value, _ in samples:
        device = labels[0]
        if metric is m.RAID_INFO and labels[2] in ("inactive", "broken"):
            yield State.UNHEALTHY, f"{device} is {labels[2]}"
        elif metric is m.RAID_MISSING and value:
            yield State.DEGRADED, f"{device} lacks {value:.0f} of its disks"
        elif metric is m.RAID_FAULTY and value:
            yield State.DEGRADED, f"{device} has {value:.0f} faulty disks"


def _drives(samples: Sequence[Sample], marks: Mapping[str, float]) -> Iterator[Trouble]:
    for metric, labels, value, _ in samples:
        if metric is m.NVME_INFO and labels[-1] not in ("", "live"):
            yield State.UNHEALTHY if labels[-1] == "dead" else State.DEGRADED, f"{labels[0]} is {labels[-1]}"
        elif metric is m.NVME_WARNING and value:
            state = State.UNHEALTHY if labels[1] == "read_only" else State.DEGRADED
            yield state, f"{labels[0]} warns of itself: {labels[1].replace('_', ' ')}"


def _coolant(samples: Sequence[Sample], marks: Mapping[str, float]) -> Iterator[Trouble]:
    for _, labels, value, _ in samples:
        if value:
            yield State.UNHEALTHY, f"{labels[1]} reports a leak ({labels[0]})"


_COMPONENTS: Final[
    Mapping[str, tuple[frozenset[Metric], Callable[[Sequence[Sample], Mapping[str, float]], Iterator[Trouble]]]]
] = {
    "host_memory": (frozenset({m.EDAC_ERRORS}), _host_memory),
    "raid": (frozenset({m.RAID_INFO, m.RAID_MISSING, m.RAID_FAULTY}), _raid),
    "drives": (frozenset({m.NVME_INFO, m.NVME_WARNING}), _drives),
    "coolant": (frozenset({m.COOLANT_LEAK}), _coolant),
}
_JUDGED: Final = frozenset().union(*(metrics for metrics, _ in _COMPONENTS.values()))
