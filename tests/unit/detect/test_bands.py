"""What a score means."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.detect.bands import Bands, Floors, anomaly_score

numbers = st.floats(-1e6, 1e6)


def score(value, yhat, lower, upper, floors=Floors(), **kwargs):  # noqa: B008 - frozen
    parts = [np.array([[float(part)]]) for part in (yhat, lower, upper)]
    return float(anomaly_score(np.array([[float(value)]]), Bands(*parts), floors, **kwargs)[0, 0])


def test_zero_at_the_expectation_one_at_the_edges_more_outside():
    assert score(10, 10, 6, 12) == 0
    assert score(12, 10, 6, 12) == 1
    assert score(6, 10, 6, 12) == 1
    assert score(16, 10, 6, 12) == 3
    assert score(8, 10, 6, 12) == 0.5


def test_a_floor_widens_a_narrow_interval():
    assert score(10.5, 10, 9.9, 10.1) == pytest.approx(5)
    assert score(10.5, 10, 9.9, 10.1, Floors(absolute=1)) == pytest.approx(0.5)
    assert score(10.5, 10, 9.9, 10.1, Floors(relative=0.1)) == pytest.approx(0.5)
    assert score(10.5, 10, 8, 12, Floors(absolute=1)) == pytest.approx(0.25)


def test_only_the_wanted_direction_counts():
    assert score(20, 10, 9, 11, direction="below") == 0
    assert score(20, 10, 9, 11, direction="above") == pytest.approx(10)
    assert score(0, 10, 9, 11, direction="above") == 0


def test_outside_the_possible_is_an_anomaly_however_wide_the_interval():
    assert score(105, 100, 50, 150, data_range=(0, 100)) == 1.01
    assert score(95, 100, 50, 150, data_range=(0, 100)) == pytest.approx(0.1)


def test_a_missing_value_or_expectation_has_no_score():
    assert np.isnan(score(np.nan, 1, 0, 2))
    assert np.isnan(score(1, np.nan, np.nan, np.nan))


@given(numbers, numbers, st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e3), st.floats(0, 1))
def test_a_score_is_finite_and_not_negative(value, yhat, down, up, absolute, relative):
    found = score(value, yhat, yhat - down, yhat + up, Floors(absolute, relative))
    assert np.isfinite(found)
    assert found >= 0


@given(numbers, numbers, st.floats(0.1, 1e3), st.floats(1, 5))
def test_a_wider_floor_never_raises_a_score(value, yhat, half, factor):
    narrow = score(value, yhat, yhat - half, yhat + half, Floors(absolute=half))
    wide = score(value, yhat, yhat - half, yhat + half, Floors(absolute=half * factor))
    assert wide <= narrow
