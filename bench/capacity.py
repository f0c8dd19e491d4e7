"""Capacity: recall, false alarms and dates on made-up resources, beside predict_linear, Theil-Sen and Prophet.

Two families of 30 days of hourly values, in per cent. `first` is the twelve kinds that the method was written with
(five fill within 14 days, seven do not), with fresh seeds. `second` varies what the first holds fixed: noise, the
size and number of drops and steps, gaps in the sampling, an extension of the disk, slow waves, plateaus; it was not
looked at when the method was written. A resource alerts when its expected exhaustion lies within 14 days.
Prints `name value unit` lines.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))  # a script's folder comes first: bench/agent.py would be `agent`

import numpy as np

from alerts.central.pool import one_thread
from alerts.detect.bands import Array
from alerts.detect.capacity import exhaustion
from alerts.detect.design import DAY
from alerts.detect.model import Options
from alerts.detect.prophet_batched import ProphetBatched

HISTORY = 30 * 24
T = np.arange(60 * 24) / 24.0
HORIZON = 14.0
Random = np.random.Generator


@dataclass(frozen=True)
class Case:
    """Hours known (days, values with noise and gaps) and when the limit is truly reached, in days from now."""

    kind: str
    times: Array
    values: Array
    true: float | None


def _saw(r: Random, low: float, high: float, days: float) -> Array:
    return np.asarray(low + (high - low) * ((T / days + r.random()) % 1))


def _rising(r: Random, saw: float, days: float) -> Array:
    slope, left = r.uniform(1.2, 2.5), r.uniform(5, 12)
    line = slope * (T - 30) + saw * ((T / days + r.random()) % 1)
    return np.asarray(line + 100 - np.maximum.accumulate(line)[round((30 + left) * 24)])


def _line(r: Random, slope: tuple[float, float] = (1.2, 2.5), left: tuple[float, float] = (5, 13)) -> Array:
    return np.asarray(100 - r.uniform(*slope) * (30 + r.uniform(*left) - T), dtype=np.float64)


FIRST: dict[str, Callable[[Random], Array]] = {
    "linear": _line,
    "new_growth": lambda r: np.maximum(0, T - 25) * (s := r.uniform(2, 4)) + 100 - s * (5 + r.uniform(4, 12)),
    "one_clean_up": lambda r: _line(r, (2, 3), (6, 13)) + 30 * (T < 25),
    "season_and_trend": lambda r: _line(r, (1.2, 2.5), (5, 12.5)) + 3 * np.sin(2 * np.pi * (T / 7 + r.random())),
    "saw_on_rising_floor": lambda r: _rising(r, 15, 7),
    "full_much_later": lambda r: _line(r, (0.4, 1.0), (20, 60)),
    "flat_85": lambda r: np.full(len(T), 85.0),
    "daily_saw": lambda r: _saw(r, 60, 75, 1),
    "weekly_saw": lambda r: _saw(r, 60, 90, 7),
    "ten_day_saw": lambda r: _saw(r, 50, 90, 10),
    "keep_last_k": lambda r: _saw(r, 55, 80, 3),
    "one_jump": lambda r: np.where(T > 28, 85.0, 60.0),
}


def _extended(r: Random) -> Array:
    """A disk made larger: the share in use falls, the growth goes on."""
    used, day, left = r.uniform(1.5, 2.5), r.uniform(12, 24), r.uniform(5, 12)
    share = 100 - used * (30 + left - T)
    return np.where(day > T, share * r.uniform(1.3, 1.6), share)


def _several_jumps(r: Random) -> Array:
    """Data sets that are copied in once: a few jumps, nothing between."""
    values = np.full(len(T), r.uniform(35, 45))
    for day in r.uniform(2, 28, 3):
        values = values + r.uniform(6, 14) * (day < T)
    return values


def _uneven_saw(r: Random) -> Array:
    """Clean-ups at uneven times, from uneven heights, to uneven depths."""
    values, level, slope = np.empty(len(T)), r.uniform(45, 60), r.uniform(2, 6)
    for hour in range(len(T)):
        level += slope / 24
        if level > r.uniform(78, 90):
            level = r.uniform(45, 60)
        values[hour] = level
    return values


SECOND: dict[str, Callable[[Random], Array]] = {
    "extended_then_fills": _extended,
    "exponential": lambda r: 100 * np.exp(-np.log(r.uniform(1.5, 2.5)) * (30 + r.uniform(4, 12) - T) / 30),
    "two_clean_ups_and_fills": lambda r: (
        _line(r, (2.0, 3.0), (5, 12)) + r.uniform(10, 20) * (r.uniform(18, 26) > T) + 12 * (r.uniform(4, 12) > T)
    ),
    "daily_cycle_and_trend": lambda r: _line(r) + r.uniform(2, 6) * np.sin(2 * np.pi * (T + r.random())),
    "small_saw_on_rising_floor": lambda r: _rising(r, r.uniform(5, 9), r.uniform(2, 4)),
    "workdays_only": lambda r: (
        100
        - (grow := np.cumsum((((T + 3) % 7) < 5) / 24 * r.uniform(2, 3)))[round((30 + r.uniform(5, 12)) * 24)]
        + grow
    ),
    "uneven_saw": _uneven_saw,
    "several_jumps": _several_jumps,
    "levelled_off": lambda r: 88 - 40 * np.exp(-T / r.uniform(3, 6)),
    "slow_wave": lambda r: 65 + 20 * np.sin(2 * np.pi * (T / r.uniform(12, 20) + r.random())),
    "cleaned_up_today": lambda r: _line(r, (2, 3), (2, 4)) - 45 * (30 - r.uniform(0.3, 1) < T) * (T < 60),
    "falling": lambda r: 90 - r.uniform(0.3, 1.2) * T,
    "random_walk_flat": lambda r: 75 + 4 * np.convolve(r.normal(size=len(T)), np.ones(48) / 7, "same"),
}


def cases(family: dict[str, Callable[[Random], Array]], seeds: range, varied: bool) -> list[Case]:
    found = []
    for kind, curve in family.items():
        for seed in seeds:
            r = np.random.default_rng([seed, sum(map(ord, kind))])
            truth = np.clip(curve(r), 0.0, None)
            noise = r.uniform(0.05, 1.0) if varied else 0.3
            known = np.clip(truth[:HISTORY] + noise * r.normal(size=HISTORY), 0.0, 100.0)
            if varied:
                known[r.random(HISTORY) < r.uniform(0, 0.1)] = np.nan
                gap = int(r.integers(0, HISTORY - 48))
                known[gap : gap + int(r.integers(0, 36))] = np.nan
            over = np.flatnonzero(truth[HISTORY:] >= 100.0)
            found.append(Case(kind, T[:HISTORY] * DAY, known, over[0] / 24.0 if len(over) else None))
    return found


# --- methods: days until exhaustion, None when none is in sight -----------------------------------------------------


def ours(case: Case) -> float | None:
    found = exhaustion(case.times, case.values, 100.0, HORIZON * DAY, check=False)
    return found.expected / DAY if found.expected is not None else None


def _crossing(now: float, slope: float) -> float | None:
    left = (100.0 - now) / slope if slope > 0 else np.inf
    return max(float(left), 0.0) if left <= HORIZON else None


def _linear(hours: int) -> Callable[[Case], float | None]:
    def method(case: Case) -> float | None:
        t, y = (part[-hours:] for part in (case.times / DAY, case.values))
        there = ~np.isnan(y)
        slope, level = np.polyfit(t[there] - t[-1], y[there], 1)
        return _crossing(float(level), float(slope))

    return method


def theil_sen(case: Case) -> float | None:
    t, y = case.times[-336:] / DAY, case.values[-336:]
    there = ~np.isnan(y)
    t, y = t[there], y[there]
    first, second = np.triu_indices(len(t), 1)
    slope = float(np.median((y[second] - y[first]) / (t[second] - t[first])))
    return _crossing(float(np.median(y - slope * (t - t[-1]))), slope)


def prophet(case: Case) -> float | None:
    ahead = case.times[-1] + 3600.0 * np.arange(1, HORIZON * 24 + 1)
    there = ~np.isnan(case.values)
    fitted = ProphetBatched().fit(case.times[there], case.values[there][:, None], Options(interval=0.8))
    over = np.flatnonzero(fitted.forecast(ahead).yhat[:, 0] >= 100.0)
    return float(over[0] + 1) / 24.0 if len(over) else None


METHODS: dict[str, Callable[[Case], float | None]] = {
    "ours": ours,
    "predict_linear_6h": _linear(6),
    "predict_linear_7d": _linear(168),
    "theil_sen_14d": theil_sen,
    "prophet": prophet,
}


def show(name: str, value: float, unit: str) -> None:
    print(f"{name} {value:.4g} {unit}", flush=True)


def judge(family: str, found: list[Case], method: str, kinds: bool) -> None:
    """Recall, false alarms and the error of the date of one method."""
    told = [METHODS[method](case) for case in found]
    # What fills within a day of the horizon's edge is neither right nor wrong.
    fills = [case.true is not None and case.true <= HORIZON - 1 for case in found]
    lasts = [case.true is None or case.true > HORIZON + 1 for case in found]
    hits = [t is not None for t, yes in zip(told, fills, strict=True) if yes]
    alarms = [t is not None for t, no in zip(told, lasts, strict=True) if no]
    off = [
        abs(t - case.true)
        for t, case, yes in zip(told, found, fills, strict=True)
        if yes and t is not None and case.true is not None
    ]
    show(f"{family}_{method}_recall", float(np.mean(hits)), f"of_{len(hits)}")
    show(f"{family}_{method}_false_alarms", float(np.mean(alarms)), f"of_{len(alarms)}")
    show(f"{family}_{method}_date_error_median", float(np.median(off)) if off else float("nan"), "days")
    for kind in dict.fromkeys(case.kind for case in found) if kinds else ():
        mine = [place for place, case in enumerate(found) if case.kind == kind]
        near = [abs(told[p] - found[p].true) for p in mine if fills[p] and told[p] is not None]  # type: ignore[operator]
        alerting = sum(told[p] is not None for p in mine)
        show(f"{family}_{method}_{kind}_alerting", alerting, f"of_{len(mine)}_{sum(fills[p] for p in mine)}_fill")
        if near:
            show(f"{family}_{method}_{kind}_date_error_median", float(np.median(near)), "days")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=50, help="resources of a kind (%(default)s)")
    parser.add_argument("--first-seed", type=int, default=9000)
    parser.add_argument("--kinds", action="store_true", help="every kind by itself as well")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    args = parser.parse_args()
    one_thread()
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    for family, kinds, varied in (("first", FIRST, False), ("second", SECOND, True)):
        found = cases(kinds, seeds, varied)
        for method in args.methods:
            judge(family, found, method, args.kinds)


if __name__ == "__main__":
    main()
