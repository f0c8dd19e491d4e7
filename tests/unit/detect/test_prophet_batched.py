"""The batched fit against Prophet itself: the same posterior, never a worse optimum, the same forecast."""

import numpy as np
import pytest

from alerts.detect.agreement import Point, draws, log_posterior, ours, predict, stan_from, theirs
from alerts.detect.design import Event, Regressor, build, cycles
from alerts.detect.model import Options, model
from alerts.detect.problems import by_rows, shared
from alerts.detect.prophet_batched import ProphetBatched, recipe
from alerts.detect.prophet_reference import fit_one
from alerts.detect.samples import GAPS, HARD, KINDS, missing, sample
from alerts.detect.trend_noise import half_width

START = 1_700_006_400.0
BOTH = Options(daily=True, weekly=True)


def grid(points, step=300.0):
    return START + step * np.arange(points)


def gain(times, values, options=BOTH):
    """Log-posterior of our fit less that of Prophet's, on the values that are there."""
    there = ~np.isnan(values)
    known = times[there], values[there], options
    found = ours(ProphetBatched().fit(times, values[:, None], options), 0)
    return log_posterior(*known, found) - log_posterior(*known, theirs(fit_one(*known)))


def apart(times, values, points, options=BOTH):
    """Median difference to Prophet's forecast of the times past the first `points`, as a share of the range."""
    there = np.flatnonzero(~np.isnan(values[:points]))
    oracle = fit_one(times[there], values[there], options)
    bands = ProphetBatched().fit(times[:points], values[:points, None], options).forecast(times[points:])
    return np.median(np.abs(predict(oracle, times[points:], options) - bands.yhat[:, 0])) / np.ptp(values[there])


@pytest.mark.parametrize("kind", KINDS + HARD)
def test_never_a_worse_optimum_than_prophet(kind):
    assert gain(grid(700), sample(kind, 700, seed=3)) >= -0.01


@pytest.mark.parametrize("gap", GAPS)
def test_never_a_worse_optimum_on_the_rows_that_are_there(gap):
    values = sample("weekly", 1500, seed=8)
    values[missing(gap, 1500, seed=8)] = np.nan
    assert gain(grid(1500), values) >= -0.01


@pytest.mark.slow
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("kind", KINDS + HARD)
def test_never_a_worse_optimum_for_any_kind_with_any_gap(kind, gap):
    values = sample(kind, 1500, seed=4)
    values[missing(gap, 1500, seed=4)] = np.nan
    there = values[~np.isnan(values)]
    if np.ptp(there) == 0:
        pytest.skip("what is left of it is constant")
    assert gain(grid(1500), values) >= -0.01


def test_flat_growth_agrees_with_prophet():
    options = Options(daily=True, weekly=True, growth="flat")
    assert gain(grid(1500), sample("weekly", 1500, seed=8), options) >= -0.01


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e9, 1e12])
def test_large_offsets_keep_their_digits(offset):
    assert gain(grid(600), sample("daily", 600, seed=2) + offset) >= -0.01


def test_one_hour_ahead_agrees_with_prophet():
    points = 14 * 288
    found = [apart(grid(points + 12), sample(kind, points, seed=5), points) for kind in KINDS]
    assert np.median(found) < 0.001


def test_where_they_differ_prophet_has_stopped_early():
    """Stan stays at our optimum, and lies below it from its own start."""
    times, values = grid(1500), sample("jobs", 1500, seed=5)
    mine = ours(ProphetBatched().fit(times, values[:, None], BOTH), 0)
    height = log_posterior(times, values, BOTH, mine)
    assert abs(log_posterior(times, values, BOTH, stan_from(times, values, BOTH, mine)) - height) < 0.01
    assert log_posterior(times, values, BOTH, theirs(fit_one(times, values, BOTH))) < height


@pytest.mark.parametrize("kind", ["level_shift", "random_walk"])
def test_interval_agrees_with_many_draws_of_prophet(kind):
    times, values = grid(1500 + 96), sample(kind, 1500, seed=4)
    options = Options(daily=True, weekly=True, interval=0.99)
    oracle = fit_one(times[:1500], values, options)
    found = theirs(oracle)
    low, high = np.quantile(draws(oracle, times[1500:], options, 20_000), (0.005, 0.995), axis=1)
    size = np.array([np.mean(np.abs(found.theta[2:27])) + 1e-8])
    ahead = np.arange(1.0, 97.0)[:, None]
    half = half_width(np.array([found.sigma]), size, 25, np.array([1 / 1499]), ahead, 0.99)[:, 0]
    relative = 2 * half * oracle.y_scale / (high - low)
    # 20,000 draws and the table's 4,000 know a 0.5 % quantile to some per cent
    assert np.all(np.abs(relative - 1) < 0.10)
    assert abs(np.mean(relative) - 1) < 0.05


def test_series_that_have_the_same_rows_are_grouped():
    there = np.ones((50, 6), dtype=bool)
    there[10:20, [1, 4]] = False
    there[:, 5] = False
    found = {tuple(columns): len(rows) for columns, rows in by_rows(there)}
    assert found == {(0, 2, 3): 50, (1, 4): 40, (5,): 0}


def test_multiplicative_cycles_agree_with_prophet_in_the_forecast():
    points = 14 * 288
    times = grid(points + 12)
    days = (times - START) / 86400
    options = Options(daily=True, weekly=True, multiplicative=True)
    rng, apart = np.random.default_rng(1), []
    for slope in (0.0, 2.0, 5.0):
        trend = 50 + slope * days
        values = trend * (1 + 0.3 * np.sin(2 * np.pi * days)) + rng.normal(size=len(days))
        known = values[:points, None]
        ours = ProphetBatched().fit(times[:points], known, options).forecast(times[points:]).yhat
        theirs = model("prophet").fit(times[:points], known, options).forecast(times[points:]).yhat
        apart.append(np.median(np.abs(ours - theirs)) / np.ptp(known))
    assert np.median(apart) < 0.001
    assert max(apart) < 0.005


def test_events_agree_with_prophets_holidays():
    points = 14 * 288
    times = grid(points + 288)
    day = (times // 86400).astype(int)
    event = Event("shutdown", (int(day[0]) + 4, int(day[0]) + 9, int(day[points])), after=1)
    options = Options(daily=True, weekly=False, events=(event,))
    values = sample("daily", len(times), seed=3)
    for start in event.days:
        values[(day == start) | (day == start + 1)] -= 30
    known = values[:points, None]
    ours = ProphetBatched().fit(times[:points], known, options).forecast(times[points:]).yhat[:, 0]
    theirs = model("prophet").fit(times[:points], known, options).forecast(times[points:]).yhat[:, 0]
    assert np.median(np.abs(ours - theirs)) / np.ptp(known) < 0.001
    assert np.median(np.abs(ours - values[points:])) < 5, "the event is foreseen"


def test_a_shared_regressor_agrees_with_prophets():
    points = 14 * 288
    times = grid(points + 24)
    rng = np.random.default_rng(2)
    load = Regressor("users", tuple(times[::72]), tuple(rng.uniform(100, 900, len(times[::72]))))
    on = Regressor("sale", (START, START + 3 * 86400, START + 5 * 86400, times[points]), (0.0, 1.0, 0.0, 1.0))
    options = Options(daily=True, weekly=True, regressors=(load, on))
    values = sample("daily", len(times), seed=3) + 0.05 * load.at(times) + 12 * on.at(times)
    assert gain(times[:points], values[:points], options) >= -0.01
    assert apart(times, values, points, options) < 0.001
    ahead = ProphetBatched().fit(times[:points], values[:points, None], options).forecast(times[points:]).yhat[:, 0]
    assert np.median(np.abs(ahead - values[points:])) < 5, "both are foreseen"


def test_one_series_gets_the_same_as_in_a_crowd():
    times = grid(800)
    values = np.stack([sample(KINDS[i % len(KINDS)], 800, seed=i) for i in range(60)], axis=1)
    crowd = ProphetBatched().fit(times, values, BOTH).forecast(times[-1] + 300.0 * np.arange(1, 13))
    for column in (0, 17, 41):
        alone = ProphetBatched().fit(times, values[:, [column]], BOTH).forecast(times[-1] + 300.0 * np.arange(1, 13))
        np.testing.assert_allclose(alone.yhat[:, 0], crowd.yhat[:, column], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(alone.upper[:, 0], crowd.upper[:, column], rtol=1e-4, atol=1e-6)


def test_every_series_of_a_crowd_meets_the_conditions_of_the_optimum():
    times = grid(800)
    values = np.stack([sample(KINDS[i % len(KINDS)], 800, seed=i) for i in range(120)], axis=1)
    for group in ProphetBatched().fit(times, values, BOTH).groups:
        assert group.exact.all()


def test_no_random_perturbation_improves_the_posterior():
    times, values = grid(600), sample("level_shift", 600, seed=6)
    theta, sigma = ours(ProphetBatched().fit(times, values[:, None], BOTH), 0)
    best = log_posterior(times, values, BOTH, Point(theta, sigma))
    rng = np.random.default_rng(0)
    for size in (1e-5, 1e-4, 1e-3):
        for _ in range(30):
            moved = Point(theta + size * rng.normal(size=len(theta)), sigma * np.exp(size * rng.normal()))
            assert log_posterior(times, values, BOTH, moved) <= best + 1e-6


def test_a_problem_uses_the_raw_scale_and_prophets_prior_on_the_offset():
    times, values = grid(100), 5.0 + np.zeros((100, 1))
    values[::2] = 7.0
    how = recipe(times, BOTH)
    task = shared(np.array([0]), build(how, times, cycles(how, times)), values, np.array([7.0]))
    assert task.mean == pytest.approx(6 / 7)
    assert task.problem.centre[0, 1] == pytest.approx(-6 / 7)


def test_model_is_known_by_name():
    assert model("prophet_batched").name == "prophet_batched"
