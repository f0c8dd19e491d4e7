"""Quality: every model on made-up series with known anomalies and on labelled ones, by kind of series.

Prints `name value unit` lines and tables as comments. Two independent sets: made-up series, of seeds that nothing was
made on, and a directory of real ones (`--data`); what helps one alone is no gain.

The few constants of taste (`departure.Sense`) are cross-validated over kinds of series: each kind in turn is left out,
the others choose among the settings, and what that choice scores on the kind left out is counted. The figures `tuned`
let every kind take part in the choice, so they flatter; `left_out` is what to expect of a kind never seen. In the
choice each kind of a set counts the same, and so does each set. The settings are the defaults and, one at a time, other
values.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

if str(Path(__file__).parent) in sys.path:  # a script's folder comes first: `quality` would be this file
    sys.path.remove(str(Path(__file__).parent))
    sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness.detection import cpu, note, progress  # isort: skip

import numpy as np

from alerts.detect.bands import Array, Floors
from alerts.detect.departure import Sense
from alerts.detect.quality import Quality, confidence
from alerts.detect.robust import Robust
from alerts.detect.stream import How, online, replay
from bench.harness.labelled_crowds import Crowd, One, crowds, labelled, made_up

MODELS = ("auto", "robust", "ewma", "rolling_quantile", "seasonal_quantile", "prophet_batched", "z_score")
FLOOR = Floors(relative=0.1)
"""What a monitor would give the models that have no floor of their own."""
PLAIN_Z = 4.0
SEEDS = range(100, 101)
OTHERS = (
    {"width": 6.0},
    {"width": 7.0},
    {"margin": 1.2},
    {"rare": 0.15},
    {"settles": 0.25},
)
"""Settings beside the defaults."""

Rows = list[tuple[str, Quality]]
"""Kind and quality of each series."""
Scorer = Callable[[Crowd], Array]


def z_score(crowd: Crowd) -> Array:
    """The plain baseline: distance from the mean of all that came before, in its standard deviations."""
    there = ~np.isnan(crowd.values)
    known = np.nan_to_num(crowd.values)
    count = np.cumsum(there, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.cumsum(known, axis=0) / count
        deviation = np.sqrt(np.maximum(np.cumsum(known**2, axis=0) / count - mean**2, 1e-12))
        scores = np.full(known.shape, np.nan)
        scores[1:] = np.abs(known[1:] - mean[:-1]) / (PLAIN_Z * deviation[:-1])
    return np.where(there & (count > 100), scores, np.nan)


def named(name: str) -> Scorer:
    """The model of that name with its default settings."""
    if name == "z_score":
        return z_score
    how = How(name, floors=Floors() if name in ("auto", "robust") else FLOOR)
    return lambda crowd: replay(crowd.times, crowd.values, how).scores


def sensed(sense: Sense) -> Scorer:
    """The robust model with these settings."""
    return lambda crowd: online(Robust(sense), crowd.times, crowd.values, How("robust")).scores


def rows_of(scorer: Scorer, these: Sequence[Crowd]) -> Rows:
    """Kind and quality of every series."""
    return [
        (one.kind, quality)
        for crowd in these
        for one, quality in zip(crowd.members, crowd.judged(scorer(crowd)), strict=True)
    ]


def by_kind(rows: Rows) -> dict[str, Quality]:
    found: dict[str, Quality] = defaultdict(Quality)
    for kind, quality in rows:
        found[kind] += quality
    return dict(found)


def measure(title: str, series: list[One], models: Sequence[str]) -> None:
    """A row a model, and the winner of each kind of series by event-based F1."""
    these, kinds = crowds(series), {}
    print(f"# {title}: {len(series)} series, {sum(len(one.times) for one in series)} points")
    for name in models:
        progress(f"{title}: {name}")
        begin = cpu()
        rows = rows_of(named(name), these)
        spent, each = cpu() - begin, [quality for _, quality in rows]
        total, kinds[name] = sum(each, Quality()), by_kind(rows)
        for wanted, value in (("event_f1", total.event_f1), ("f1", total.f1)):
            low, high = confidence(each, wanted)
            print(f"quality_{title}_{name}_{wanted} {value:.3f} [{low:.3f}, {high:.3f}]", flush=True)
        print(
            f"# {title} {name}: point P {total.precision:.3f} R {total.recall:.3f}, "
            f"event P {total.event_precision:.3f} R {total.event_recall:.3f}, "
            f"false a day {total.false_per_day:.3f}, delay {total.delay or 0:.0f} s, CPU {spent:.0f} s in crowds",
            flush=True,
        )
    for kind in kinds_of(series):
        best = max(models, key=lambda name: kinds[name][kind].event_f1)
        row = ", ".join(f"{name} {kinds[name][kind].event_f1:.2f}/{kinds[name][kind].f1:.2f}" for name in models)
        print(f"# {title} {kind}: winner {best}; event/point F1: {row}", flush=True)


def cross_validate(sets: dict[str, list[One]]) -> None:
    """What the constants of taste score on kinds that had no say in them."""
    these = crowds([one for series in sets.values() for one in series])
    settings = [Sense(), *(replace(Sense(), **other) for other in OTHERS)]
    tried: list[dict[str, Quality]] = []
    for sense, changed in zip(settings, ({}, *OTHERS), strict=True):
        progress(f"cross-validation: {changed or 'defaults'}")
        tried.append(by_kind(rows_of(sensed(sense), these)))
        print(f"# setting {told(changed)}: {'; '.join(summary(tried[-1], sets))}", flush=True)
    groups = [[kind for kind in kinds_of(series) if tried[0][kind].events] for series in sets.values()]
    best = choice(tried, groups)
    note("quality_cv_settings", len(settings), "settings")
    print(f"# chosen by all kinds: {told(({}, *OTHERS)[best])}")
    left = dict(tried[best])
    for kind in tried[best]:
        without = choice(tried, [[other for other in group if other != kind] for group in groups])
        left[kind] = tried[without][kind]
        if without != best:
            print(f"# without {kind}: {told(({}, *OTHERS)[without])}")
    for title, series in sets.items():
        for name, picked in (("tuned", tried[best]), ("left_out", left)):
            total = sum((picked[kind] for kind in kinds_of(series)), Quality())
            note(f"quality_cv_{title}_{name}_event_f1", total.event_f1, "")
            note(f"quality_cv_{title}_{name}_point_f1", total.f1, "")
            note(f"quality_cv_{title}_{name}_false_a_day", total.false_per_day, "")


def choice(tried: list[dict[str, Quality]], groups: list[list[str]]) -> int:
    """The setting with the best event and point F1, as a mean of the groups' means over their kinds."""
    return int(np.argmax([sum(sum(means(each, group)) for group in groups if group) for each in tried]))


def means(found: dict[str, Quality], kinds: Sequence[str]) -> tuple[float, float]:
    """Mean event and point F1 of the kinds."""
    picked = [found[kind] for kind in kinds]
    return float(np.mean([one.event_f1 for one in picked])), float(np.mean([one.f1 for one in picked]))


def kinds_of(series: Sequence[One]) -> list[str]:
    return sorted({one.kind for one in series})


def told(changed: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in changed.items()) or "defaults"


def summary(found: dict[str, Quality], sets: dict[str, list[One]]) -> list[str]:
    lines = []
    for title, series in sets.items():
        kinds = kinds_of(series)
        total = sum((found[kind] for kind in kinds), Quality())
        event, point = means(found, [kind for kind in kinds if found[kind].events])
        lines.append(
            f"{title} event {total.event_f1:.3f} point {total.f1:.3f} false {total.false_per_day:.3f}, "
            f"mean of kinds {event:.3f} {point:.3f}"
        )
    return lines


def quality(folder: Path | None, models: Sequence[str] = MODELS, seeds: range = SEEDS, cross: bool = True) -> None:
    """All of it."""
    sets = {"made_up": made_up(seeds)} | ({"labelled": labelled(folder)} if folder else {})
    if cross:
        cross_validate(sets)
    for title, series in sets.items():
        measure(title, series, models)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory of labelled series")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="made-up series a shape and grid (%(default)s)")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, metavar="MODEL")
    parser.add_argument("--no-cross", action="store_true", help="leave the cross-validation out, which takes longest")
    args = parser.parse_args()
    quality(args.data, args.models, range(SEEDS.start, SEEDS.start + args.seeds), not args.no_cross)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
