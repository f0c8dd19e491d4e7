"""What holds for the batched fit whatever the series: each is fitted as if it were alone, on what it has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.detect.design import build, cycles
from alerts.detect.map_fit import solve
from alerts.detect.model import Options
from alerts.detect.problems import own, shared
from alerts.detect.prophet_batched import ProphetBatched, recipe
from alerts.detect.samples import GAPS, HARD, KINDS, missing, sample

POINTS = 900
TIMES = 1_700_006_400.0 + 300.0 * np.arange(POINTS + 6)
BOTH = Options(daily=True, weekly=True)
SERIES = st.tuples(st.sampled_from(KINDS + HARD), st.sampled_from(GAPS), st.integers(0, 50))
# Their noise is at the last digits of a double, so the last digits decide.
PERFECT = ("line", "line_with_noise", "sine", "bent_line", "near_constant", "single_precision", "huge_offset",
           "one_change", "exponential")  # fmt: skip
BATCH = np.stack([sample(KINDS[i % len(KINDS)], POINTS, seed=i) for i in range(40)], axis=1)


def draw(kind, gap, seed):
    values = sample(kind, POINTS, seed=seed)
    values[missing(gap, POINTS, seed=seed)] = np.nan
    return values


def forecast(values, options=BOTH):
    return ProphetBatched().fit(TIMES[:POINTS], values, options).forecast(TIMES[POINTS:])


def close(left, right, reach):
    """Bands that differ by less than a small share of the range of what they were learnt from."""
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=reach)


def reach(values, kind):
    """A millionth of the range, or what doubles can tell apart at that offset and hold over an extrapolation."""
    there = values[np.isfinite(values)]
    if kind in PERFECT:
        return 1e-2 * np.ptp(there) + 1e-9 * np.abs(there).max()
    return 1e-5 * np.ptp(there)


@settings(max_examples=60, deadline=None)
@given(SERIES)
def test_alone_or_in_a_crowd_it_is_the_same(series):
    values = draw(*series)
    crowd = forecast(np.column_stack([BATCH[:, :20], values, BATCH[:, 20:]]))
    alone = forecast(values[:, None])
    close([band[:, 20:21] for band in crowd], alone, reach(values, series[0]))


@settings(max_examples=40, deadline=None)
@given(SERIES, st.sampled_from([np.inf, -np.inf, np.nan, 1e300, -1e300, 5e-324]), st.integers(0, POINTS - 1))
def test_nothing_in_one_series_reaches_another(series, poison, where):
    values = draw(*series)
    before = forecast(np.column_stack([BATCH, values]))
    values[where::7] = poison
    after = forecast(np.column_stack([BATCH, values]))
    for one, other in zip(before, after, strict=True):
        assert np.isfinite(other[:, :40]).all()
        np.testing.assert_allclose(one[:, :40], other[:, :40], rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(SERIES, st.integers(-30, 30))
def test_another_unit_is_another_unit(series, power):
    values = draw(*series)
    factor = 2.0**power
    plain, scaled = forecast(values[:, None]), forecast(factor * values[:, None])
    close([band / factor for band in scaled], plain, reach(values, series[0]))


@settings(max_examples=30, deadline=None)
@given(SERIES)
def test_turned_upside_down_it_is_upside_down(series):
    values = draw(*series)
    plain, turned = forecast(values[:, None]), forecast(-values[:, None])
    close((-turned.yhat, -turned.upper, -turned.lower), plain, reach(values, series[0]))


@settings(max_examples=30, deadline=None)
@given(st.lists(SERIES, min_size=1, max_size=6))
def test_the_same_data_gives_the_same_bits(many):
    values = np.column_stack([draw(*series) for series in many])
    for one, other in zip(forecast(values), forecast(values), strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=40, deadline=None)
@given(st.lists(SERIES, min_size=1, max_size=8))
def test_every_fit_is_at_the_optimum(many):
    values = np.column_stack([draw(*series) for series in many])
    fitted = ProphetBatched().fit(TIMES[:POINTS], values, BOTH)
    assert all(group.exact.all() for group in fitted.groups)
    seen = np.concatenate([group.columns for group in fitted.groups] + [np.flatnonzero(~np.isnan(fitted.level))])
    assert sorted(seen) == list(range(len(many))), "each series is fitted or constant, once"


@settings(max_examples=40, deadline=None)
@given(SERIES, st.sampled_from(["linear", "flat"]))
def test_sums_over_the_rows_that_are_there_are_those_of_a_matrix_of_them(series, growth):
    values = draw(*series)
    there = ~np.isnan(values)
    options = Options(daily=True, weekly=True, growth=growth)
    rows, how = np.flatnonzero(there), recipe(TIMES[:POINTS], options)
    waves = cycles(how, TIMES[:POINTS])
    filled = np.where(there, values, 0.0)[:, None]
    if np.ptp(values[there]) == 0:
        return
    (task,) = own(np.array([0]), how, TIMES[:POINTS], waves, filled, there[:, None])
    design = build(how, TIMES[rows], waves[rows])
    other = shared(np.array([0]), design, values[rows, None], np.abs(values[rows]).max(keepdims=True))
    np.testing.assert_allclose(task.frame.at, other.frame.at, atol=1e-15)
    np.testing.assert_allclose(task.problem.gram[0], other.problem.gram, atol=1e-10 * len(rows))
    size = np.sqrt(other.problem.square[0] * len(rows))
    np.testing.assert_allclose(task.problem.cross, other.problem.cross, atol=1e-10 * size + 1e-15 * len(rows))
    assert task.problem.square == pytest.approx(other.problem.square, rel=1e-9)
    np.testing.assert_array_equal(task.problem.precision, other.problem.precision)
    assert solve(task.problem).exact.all()


def test_series_with_rows_of_their_own_start_and_end_where_they_do():
    values = np.column_stack([sample("daily", POINTS, seed=i) for i in range(30)])
    for i in range(30):
        values[: 5 * i, i] = np.nan
        values[POINTS - i :, i] = np.nan
    bands = forecast(values)
    assert np.isfinite(bands.yhat).all()
    for i in (0, 13, 29):
        close([band[:, i : i + 1] for band in bands], forecast(values[:, [i]]), 1e-5 * 60)
        begin, end = 5 * i, POINTS - i
        short = ProphetBatched().fit(TIMES[begin:end], values[begin:end, [i]], BOTH).forecast(TIMES[POINTS:])
        close([band[:, i : i + 1] for band in bands], short, 1e-5 * 60)
