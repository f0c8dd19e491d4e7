"""The batched fit beside Prophet itself: the same series in the same run, how fast, how near, and who is right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from alerts.detect.agreement import Point, draws, log_posterior, ours, predict, stan_from, theirs
from alerts.detect.labelled import read_directory
from alerts.detect.prophet_batched import ProphetBatched
from alerts.detect.prophet_reference import fit_one
from alerts.detect.samples import GAPS, HARD, KINDS, missing, sample
from bench.harness.detection import BOTH, FUTURE, HOUR, PAST, POINTS, STEP, TIMES, cpu, kinds, note, progress

Array = npt.NDArray[np.float64]
DRAWS = 5000


class Row(NamedTuple):
    """One series: log-posterior ours - Prophet's, how far apart the forecasts are (% of its range), our optimum."""

    kind: str
    gain: float
    hour: float
    day: float
    values: Array
    ours: Point


def beside_prophet(whole: int, picked: int, hard: int, asked: int, data: Path | None) -> None:
    """Speed on 50 and 1,000 series, and agreement on all that Prophet was fitted to.

    Args:
        whole: Prophet fits this many of the 50.
        picked: and this many of the 1,000, drawn at random.
        hard: and this many of the hard kinds and of the kinds of gaps.
        asked: of how many of those whose forecasts differ Stan is asked who is right; its Newton takes long.
        data: real series to put on the grid as well.
    """
    series = kinds(1000)[:POINTS]
    ProphetBatched().fit(PAST[:600], series[:600, :5], BOTH)  # what is made once is made now
    fit_one(PAST[:600], series[:600, 0], BOTH)
    spent = {number: _median_cpu(series[:, :number], 5) for number in (50, 1000)}
    sample_of = np.random.default_rng(1).choice(1000, picked, replace=False)
    wanted = sorted({*range(whole), *sample_of.tolist()})
    seconds: dict[int, float] = {}
    rows = []
    fitted = ProphetBatched().fit(PAST, series, BOTH)
    bands = fitted.forecast(FUTURE).yhat
    for place, i in enumerate(wanted):
        progress(f"Prophet: {place + 1} of {len(wanted)} series")
        begin = cpu()
        oracle = fit_one(PAST, series[:, i], BOTH)
        seconds[i] = cpu() - begin
        rows.append(_row(KINDS[i % len(KINDS)], series[:, i], oracle, ours(fitted, i), bands[:, i]))
    first = np.array([seconds[i] for i in range(whole)])
    drawn = np.array([seconds[i] for i in sample_of])
    note("prophet_fit_cpu_s_per_series", float(np.mean(list(seconds.values()))), "s")
    note("fit_cpu_s_50", spent[50], "s")
    note("fit_cpu_s_1000", spent[1000], "s")
    note("fit_ratio_50", float(first.mean()) * 50 / spent[50], f"x, Prophet fitted to {whole} of them")
    note("fit_ratio_1000", float(drawn.mean()) * 1000 / spent[1000], f"x, Prophet fitted to {picked} of them")
    if picked < 1000:
        again = np.random.default_rng(2).choice(drawn, (2000, picked)).mean(axis=1)
        low, high = np.quantile(again, (0.025, 0.975)) * 1000 / spent[1000]
        note("fit_ratio_1000_low", float(low), "x, 95 % interval of the sample")
        note("fit_ratio_1000_high", float(high), "x")
    rows += list(_others(_hard_series(hard)))
    if data is not None:
        rows += list(_others(_real_series(data)))
    _agreement(rows)
    _who_is_right(rows, asked)


def _median_cpu(values: Array, tries: int) -> float:
    """CPU of a fit, the median of some."""
    found = []
    for _ in range(tries):
        begin = cpu()
        ProphetBatched().fit(PAST, values, BOTH)
        found.append(cpu() - begin)
    return sorted(found)[tries // 2]


def _hard_series(number: int) -> Iterable[tuple[str, Array]]:
    for kind in HARD[:number]:
        yield kind, sample(kind, POINTS, STEP, seed=3)
    for i, gap in enumerate(GAPS[1 : number + 1]):
        values = sample(KINDS[i % len(KINDS)], POINTS, STEP, seed=4)
        values[missing(gap, POINTS, STEP, seed=4)] = np.nan
        yield f"gaps: {gap}", values


def _real_series(data: Path) -> Iterable[tuple[str, Array]]:
    """Series of real machines, dated anew to the common grid."""
    for file in sorted(read_directory(data), key=lambda f: f.path.name):
        values = np.full(POINTS, np.nan)
        known = file.values[:POINTS]
        values[: len(known)] = known
        if np.count_nonzero(np.isfinite(values)) > 288 and np.nanmax(values) > np.nanmin(values):
            yield "real machines", values


def _others(named: Iterable[tuple[str, Array]]) -> Iterable[Row]:
    """Series that are not part of the timing, fitted together; Prophet fits each to the rows it has."""
    listed = list(named)
    if not listed:
        return
    values = np.stack([y for _, y in listed], axis=1)
    fitted = ProphetBatched().fit(PAST, values, BOTH)
    bands = fitted.forecast(FUTURE).yhat
    for i, (kind, y) in enumerate(listed):
        progress(f"Prophet: {kind}, {i + 1} of {len(listed)}")
        there = np.isfinite(y)
        try:
            oracle = fit_one(PAST[there], y[there], BOTH)
        except RuntimeError as error:  # CmdStan gives up
            print(f"# {kind}: Prophet failed: {str(error).splitlines()[0]}")
            continue
        yield _row(kind, y, oracle, ours(fitted, i), bands[:, i])


def _row(kind: str, y: Array, oracle: Any, mine: Point, yhat: Array) -> Row:
    there = np.isfinite(y)
    times, known = PAST[there], y[there]
    gain = log_posterior(times, known, BOTH, mine) - log_posterior(times, known, BOTH, theirs(oracle))
    off = 100.0 * np.abs(predict(oracle, FUTURE, BOTH) - yhat) / np.ptp(known)
    return Row(kind, gain, float(np.median(off[:HOUR])), float(np.median(off)), y, mine)


def _who_is_right(rows: list[Row], asked: int) -> None:
    """Where forecasts differ most: where Stan ends that starts at our optimum, and where its Newton ends."""
    worst: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: -row.hour):
        worst.setdefault(row.kind, row)
    for row in list(worst.values())[:asked]:
        progress(f"who is right: {row.kind}")
        there = np.isfinite(row.values)
        times, known = PAST[there], row.values[there]
        best = log_posterior(times, known, BOTH, row.ours)
        started = log_posterior(times, known, BOTH, stan_from(times, known, BOTH, row.ours)) - best
        newton = log_posterior(times, known, BOTH, theirs(fit_one(times, known, BOTH, algorithm="Newton"))) - best
        print(
            f"# who is right: {row.kind}, forecasts {row.hour:.3f} % apart: log-posterior less ours: Stan as it is "
            f"{-row.gain:+.4f}, its Newton {newton:+.4f}, started at our optimum {started:+.4f}",
            flush=True,
        )


def _agreement(rows: list[Row]) -> None:
    print(
        f"# {'series':20} {'n':>4}  log-posterior ours - Prophet: least, median"
        "   1 h ahead apart, % of range: median, most"
    )
    for kind in dict.fromkeys(row.kind for row in rows):
        mine = [row for row in rows if row.kind == kind]
        gains, hours = [row.gain for row in mine], [row.hour for row in mine]
        print(
            f"# {kind:20} {len(mine):4} {min(gains):20.4f} {np.median(gains):20.4f} "
            f"{np.median(hours):24.4f} {max(hours):12.4f}"
        )
    gains = [row.gain for row in rows]
    note("agreement_series", len(rows), "series")
    note("agreement_worst_logpost", min(gains), "nats")
    note("agreement_below", sum(gain < -0.01 for gain in gains), "series more than 0.01 below Prophet")
    note("agreement_median_logpost", float(np.median(gains)), "nats")
    note("agreement_median_range_percent", float(np.median([row.hour for row in rows])), "%, 1 h ahead")
    note("agreement_worst_range_percent", max(row.hour for row in rows), "%, 1 h ahead")
    note("agreement_day_median_range_percent", float(np.median([row.day for row in rows])), "%, 24 h ahead")


def intervals(number: int) -> None:
    """Our predictive interval against many draws of Prophet's own: what share it holds, and how wide it is."""
    options = replace(BOTH, interval=0.99)
    widths, held = [], []
    for kind in KINDS[:number]:
        progress(f"intervals: {kind}")
        y = sample(kind, POINTS, STEP, seed=6)
        bands = ProphetBatched().fit(PAST, y[:, None], options).forecast(FUTURE)
        drawn = draws(fit_one(PAST, y, options), FUTURE, options, DRAWS)
        low, high = np.quantile(drawn, (0.005, 0.995), axis=1)
        own = (bands.upper - bands.lower)[:, 0]
        widths.append(own / (high - low))
        # Around its own middle: where the two middles differ is told by the agreement.
        off = np.abs(drawn - np.median(drawn, axis=1, keepdims=True))
        held.append((off <= own[:, None] / 2).mean(axis=1))
    for name, rows in (("hour", slice(0, HOUR)), ("day", slice(0, None))):
        note(f"interval_{name}_width_ratio", float(np.median([w[rows] for w in widths])), "of Prophet's 99 % interval")
        note(f"interval_{name}_held_percent", 100 * float(np.mean([h[rows] for h in held])), "% of Prophet's draws")


def multiplicative(number: int) -> None:
    """Multiplicative cycles: the forecast alone is held against Prophet's, for the optimum need not be the same."""
    options = replace(BOTH, multiplicative=True)
    days = (TIMES - TIMES[0]) / 86400.0
    rng, off = np.random.default_rng(1), []
    for i in range(number):
        progress(f"multiplicative cycles: {i + 1} of {number}")
        trend = 50 + rng.uniform(-1, 5) * days
        y = trend * (1 + rng.uniform(0.1, 0.4) * np.sin(2 * np.pi * days)) + rng.normal(size=len(days))
        mine = ProphetBatched().fit(PAST, y[:POINTS, None], options).forecast(FUTURE[:HOUR]).yhat[:, 0]
        other = predict(fit_one(PAST, y[:POINTS], options), FUTURE[:HOUR], options)
        off.append(100 * float(np.median(np.abs(mine - other))) / np.ptp(y))
    note("multiplicative_median_range_percent", float(np.median(off)), "%, 1 h ahead")


def masks(number: int) -> None:
    """What it costs that every series has gaps of its own, as with lost packets: times the fit without gaps."""
    values = kinds(number)[:POINTS]
    plain = _median_cpu(values, 3)
    rng = np.random.default_rng(1)
    for name, share in (("rare", 0.002), ("lossy", 0.05)):
        holed = np.where(rng.random(values.shape) < share, np.nan, values)
        note(f"own_gaps_{name}_slowdown", _median_cpu(holed, 3) / plain, f"x the fit of {number} series without gaps")
