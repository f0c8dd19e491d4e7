"""Charts: what is absent is not drawn."""

import re

import numpy as np

from alerts.detect.bands import Bands
from alerts.detect.chart import chart


def test_a_gap_has_neither_a_line_nor_a_band():
    times, values = 300.0 * np.arange(50), np.ones(50)
    values[20:30] = np.nan
    yhat = np.where(np.isnan(values), np.nan, 1.0)
    drawn = chart("x", times, values, Bands(yhat, yhat - 1, yhat + 1), np.zeros(50))
    bands = re.findall(r'class="band" points="([^"]*)"', drawn)
    assert [band.count(",") for band in bands] == [40, 40], "one polygon a stretch, two corners a point"
    assert re.search(r'class="value" d="([^"]*)"', drawn).group(1).count("M") == 2


def test_a_series_without_values_says_so():
    nothing = np.full(3, np.nan)
    assert "no values" in chart("<x>", np.arange(3.0), nothing, Bands(nothing, nothing, nothing), nothing)
