"""The contract that every model keeps, whatever it is made of."""

import pickle

import numpy as np
import pytest

from agent.base.errors import ConfigError
from alerts.detect.bands import Floors, anomaly_score
from alerts.detect.model import NAMES, Options, model
from alerts.detect.samples import sample

STEP = 300.0
TIMES = 1_700_006_400.0 + STEP * np.arange(600)
AHEAD = TIMES[-1] + STEP * np.arange(1, 7)
# What these say depends on the moment itself, or on an hour of the week that has been seen before.
SPECIAL = ("peers", "seasonal_quantile")
FORECASTING = [name for name in NAMES if name not in SPECIAL]
FAST = [name for name in NAMES if name != "prophet"]
INTERVALS = [name for name in FAST if name not in ("stuck", "level_shift")]


def fit(name, values, options=None):
    return model(name).fit(TIMES[: len(values)], values, options or Options(daily=True, weekly=False))


@pytest.mark.parametrize("name", FORECASTING)
def test_shapes_and_order_of_the_bands(name):
    values = np.stack([sample("daily", 600, seed=1), sample("noise", 600, seed=2)], axis=1)
    bands = fit(name, values).forecast(AHEAD)
    assert bands.yhat.shape == bands.lower.shape == bands.upper.shape == (6, 2)
    assert (bands.lower <= bands.yhat).all()
    assert (bands.yhat <= bands.upper).all()
    assert np.all(np.abs(bands.yhat[:, 1] - 50) < 10)


@pytest.mark.parametrize("name", FORECASTING)
def test_a_constant_series_is_expected_to_stay_and_is_silent(name):
    bands = fit(name, np.full((600, 1), 42.0)).forecast(AHEAD)
    np.testing.assert_allclose(bands.yhat, 42.0, rtol=1e-6)
    scores = anomaly_score(np.full((6, 1), 42.0), bands, Floors(relative=0.05))
    assert np.all(scores < 1)


@pytest.mark.parametrize("name", FORECASTING)
def test_nothing_is_said_of_a_series_without_values(name):
    values = np.full((600, 2), np.nan)
    values[:, 0] = sample("noise", 600)
    bands = fit(name, values).forecast(AHEAD)
    assert np.isnan(bands.yhat[:, 1]).all()
    assert not np.isnan(bands.yhat[:, 0]).any()


@pytest.mark.parametrize("name", FORECASTING)
def test_gaps_do_not_break_a_model(name):
    values = sample("daily", 600, seed=3)[:, None].copy()
    values[100:200] = np.nan
    bands = fit(name, values).forecast(AHEAD)
    assert np.isfinite(bands.yhat).all()
    assert np.all(np.abs(bands.yhat - 60) < 40)


@pytest.mark.parametrize("name", INTERVALS)
def test_score_does_not_depend_on_unit_or_offset(name):
    values = sample("noise", 606, seed=4)[:, None]
    scores = []
    for factor, offset in ((1.0, 0.0), (1e9, 0.0), (1e-6, 0.0), (1.0, 50.0)):
        moved = factor * values + offset
        bands = fit(name, moved[:600]).forecast(AHEAD)
        scores.append(anomaly_score(moved[600:], bands, Floors()))
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-3)
    np.testing.assert_allclose(scores[2], scores[0], rtol=1e-3)
    np.testing.assert_allclose(scores[3], scores[0], rtol=0.15, atol=0.1)


@pytest.mark.parametrize("name", FAST)
def test_one_series_gets_the_same_as_in_a_crowd(name):
    values = np.stack([sample("daily", 600, seed=i) for i in range(40)], axis=1)
    crowd = fit(name, values).forecast(AHEAD)
    alone = fit(name, values[:, [11]]).forecast(AHEAD)
    np.testing.assert_allclose(alone.yhat[:, 0], crowd.yhat[:, 11], rtol=1e-6)
    np.testing.assert_allclose(alone.upper[:, 0], crowd.upper[:, 11], rtol=1e-4)


@pytest.mark.parametrize("name", FAST)
def test_a_fitted_model_survives_dump_and_load(name):
    fitted = fit(name, sample("daily", 600)[:, None])
    again = pickle.loads(pickle.dumps(fitted))
    for left, right in zip(fitted.forecast(AHEAD), again.forecast(AHEAD), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_data_gives_the_same_answer(name):
    values = sample("latency", 600)[:, None]
    first, second = (fit(name, values).forecast(AHEAD) for _ in range(2))
    np.testing.assert_allclose(first.yhat, second.yhat, rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in FAST if model(name).online])
def test_updating_point_by_point_is_fitting_on_all(name):
    values = np.stack([sample("daily", 600), sample("mostly_zero", 600)], axis=1)
    values[50:60, 0] = np.nan
    state = fit(name, values[:500])
    for row in range(500, 600):
        state = state.update(TIMES[row : row + 1], values[row : row + 1])
    for left, right in zip(state.forecast(AHEAD[:1]), fit(name, values).forecast(AHEAD[:1]), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9)


def test_an_unknown_model_names_those_there_are():
    with pytest.raises(ConfigError, match="prophet_batched"):
        model("profet")
