"""Which floor a monitor's past suggests: one that leaves few short alerts and hides no incident."""

import numpy as np
import pytest

from agent.base.errors import CannotTell
from alerts.central.backtest import Past, suggested, tune
from alerts.central.settings import Monitor
from alerts.detect.bands import Bands

POINTS = 3 * 288
NOISE = 1.0


def past(values, half=3.0, yhat=50.0):
    """A monitor that expects `yhat` and calls what is `half` away an anomaly."""
    bands = Bands(*(np.full(values.shape, yhat + side * half) for side in (0, -1, 1)))
    scores = np.abs(values - yhat) / half
    monitor = Monitor(name="load", query="load", step="5m")
    keys = tuple((("engine", str(column)),) for column in range(values.shape[1]))
    return Past(monitor, keys, 300.0 * np.arange(len(values)), values, bands, scores, ("",) * values.shape[1])


def noisy(series=2, seed=1):
    return 50 + NOISE * np.random.default_rng(seed).standard_t(4, size=(POINTS, series))


def test_a_floor_is_found_among_usual_deviations():
    best = suggested(tune(past(noisy())))
    assert 3 < best.min_dev_abs < 15
    assert best.alerts <= 1


@pytest.mark.parametrize(("size", "points"), [(200.0, 6), (200.0, 60), (40.0, 100), (12.0, 30)])
def test_a_true_incident_in_the_history_is_neither_hidden_nor_the_measure(size, points):
    values = noisy()
    usual = suggested(tune(past(values))).min_dev_abs
    rng = np.random.default_rng(3)
    values[500 : 500 + points, 0] += size * rng.uniform(0.8, 1.2, points)
    rows = tune(past(values))
    best = suggested(rows)
    assert best.incidents == rows[0].incidents >= 1
    assert best.min_dev_abs == pytest.approx(usual, rel=0.5)


def test_a_floor_that_would_hide_a_small_incident_is_not_suggested():
    values = np.full((POINTS, 1), 50.0)
    values[100:140, 0] += 5.0
    values[200:860:20, 0] += np.linspace(10, 30, 33)
    best = suggested(tune(past(values)))
    assert best.incidents == 1
    assert best.min_dev_abs < 5


def test_higher_floors_leave_fewer_alerts():
    values = noisy(seed=4)
    values[300:400, 1] -= 30 * np.random.default_rng(5).uniform(0.2, 1.0, 100)
    rows = tune(past(values))
    for measure in ("alerts", "incidents", "alerts_per_day"):
        found = [getattr(row, measure) for row in rows]
        assert found == sorted(found, reverse=True)


def test_without_a_score_there_is_no_floor():
    with pytest.raises(CannotTell, match="too little history"):
        tune(past(np.full((POINTS, 1), np.nan)))
