"""Scoring directories of series: reading, no look-ahead, quality, what is written."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.errors import ConfigError
from agent.cli import main
from alerts.detect.bands import Floors
from alerts.detect.labelled import read_directory
from alerts.detect.model import Options, model
from alerts.detect.prophet_batched import ProphetBatched
from alerts.detect.quality import judge, runs
from alerts.detect.samples import KINDS, sample
from alerts.detect.stamps import parse_times
from alerts.detect.stream import How, replay, score_series

DAY = 86400
HOURS = 1_530_000_000.0 // 3600 * 3600 + 3600.0 * np.arange(24 * 14)


def write(path, rows, header="timestamp,value,label"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["auto", "robust", "ewma", "prophet_batched"])
def test_the_score_at_a_time_uses_nothing_after_it(name):
    values = sample("daily", len(HOURS), 3600.0, seed=1)
    values[200:204] += 100
    whole = score_series(HOURS, values, How(name)).scores
    for cut in (60, 199, 202, 300):
        other = values.copy()
        other[cut:] = np.random.default_rng(cut).normal(size=len(values) - cut) * 1e6
        np.testing.assert_array_equal(score_series(HOURS, other, How(name)).scores[:cut], whole[:cut])
    assert np.isnan(whole[:20]).all(), "warming up is not a score"
    assert np.nanmax(whole[200:204]) > 1


@given(st.sampled_from(KINDS), st.sampled_from([60.0, 300.0, 7200.0]), st.integers(60, 290), st.integers(0, 99))
@settings(deadline=None, max_examples=6)
def test_no_score_knows_what_comes_after_it_whatever_the_series(kind, step, cut, seed):
    times = 1_530_000_000.0 + step * np.arange(300)
    values = sample(kind, 300, step, seed=seed)
    other = values.copy()
    other[cut:] = np.random.default_rng(seed).permutation(values)[cut:] * 3 + 1
    whole, changed = (score_series(times, each, How("robust")).scores for each in (values, other))
    np.testing.assert_array_equal(changed[:cut], whole[:cut])


@pytest.mark.parametrize("name", ["auto", "robust"])
def test_scores_of_the_first_rows_of_a_file_are_those_of_the_whole_where_the_step_changes(name):
    times = 1_530_000_000.0 + np.cumsum(np.concatenate([np.full(150, 3600.0), np.full(250, 300.0)]))
    values = sample("daily", 400, 3600.0, seed=3)
    whole = score_series(times, values, How(name)).scores
    for cut in (30, 100, 149, 200, 350):
        np.testing.assert_array_equal(score_series(times[:cut], values[:cut], How(name)).scores, whole[:cut])


def test_auto_looks_not_ahead_where_the_other_model_is_in_use():
    times = 1_530_000_000.0 // DAY * DAY + 7200.0 * np.arange(12 * 12)
    values = 1000 + 2.0 * np.arange(len(times)) + np.random.default_rng(1).normal(size=len(times)) * 0.2
    whole = score_series(times, values, How("auto"))
    assert whole.why.startswith("prophet_batched")
    for cut in (100, 130):
        other = np.where(np.arange(len(times)) < cut, values, -values)
        np.testing.assert_array_equal(score_series(times, other, How("auto")).scores[:cut], whole.scores[:cut])


def test_rows_may_come_in_any_order_and_twice():
    values = sample("daily", len(HOURS), 3600.0, seed=2)
    order = np.random.default_rng(0).permutation(len(HOURS))
    straight = score_series(HOURS, values, How("robust")).scores
    mixed = score_series(HOURS[order], values[order], How("robust")).scores
    np.testing.assert_allclose(mixed, straight[order])
    twice = score_series(np.repeat(HOURS, 2), np.repeat(values, 2), How("robust")).scores
    assert np.isfinite(twice[-10:]).all()


def test_a_constant_series_and_one_of_zeros_are_silent():
    for level in (0.0, 7.0, -3e9):
        scores = score_series(HOURS, np.full(len(HOURS), level), How()).scores
        assert not (scores > 1).any()


def test_a_missing_value_has_no_score_and_a_gap_is_no_anomaly():
    values = sample("daily", len(HOURS), 3600.0, seed=3)
    values[150:170] = np.nan
    scores = score_series(HOURS, values, How()).scores
    assert np.isnan(scores[150:170]).all()
    assert not (scores[170:] > 1).any()


def test_a_level_that_lasts_becomes_the_new_normal():
    values = sample("noise", len(HOURS), 3600.0, seed=4)
    values[168:] += 100
    scores = score_series(HOURS, values, How("robust")).scores
    assert (scores[168:174] > 1).all()
    assert not (scores[240:] > 1).any()


@pytest.mark.parametrize("step", [10.0, 300.0, 4 * 3600.0, DAY, 3 * DAY])
def test_any_step_is_scored_once_it_is_warm(step):
    times = 1_500_000_000.0 // DAY * DAY + step * np.arange(600)
    values = 50 + np.random.default_rng(7).normal(size=600)
    values[500:503] += 60
    scores = score_series(times, values, How("robust")).scores
    assert (scores[500:503] > 1).all()
    assert np.mean(scores[310:500] > 1) < 0.02


@pytest.mark.parametrize("step", [0.1, 1.0, 20.0])
def test_an_incident_during_warm_up_hides_others_for_no_whole_day_where_samples_are_fine(step):
    values = 50 + np.random.default_rng(21).normal(size=1400)
    for row in (150, 700):
        values[row : row + 4] += 60
    flagged = score_series(1_530_000_000.0 + step * np.arange(1400), values, How("robust")).scores > 1
    assert flagged[700:704].all()
    assert np.count_nonzero(flagged) < 12


@pytest.mark.parametrize("offset", [1e4, 1e6, 1e9])
def test_beside_a_large_offset_what_is_far_from_usual_is_still_seen(offset):
    values = offset + np.random.default_rng(18).normal(size=2000)
    values[1500:1520] += 60
    flagged = score_series(1_530_000_000.0 + 300.0 * np.arange(2000), values, How("robust")).scores > 1
    assert flagged[1500:1520].all()
    assert not flagged[:1500].any()


def test_an_anomaly_is_flagged_until_it_ends_and_a_moderate_one_is_seen_by_its_lasting():
    rng = np.random.default_rng(8)
    values = 100 + rng.normal(size=(1500, 2))
    values[1000:1060, 0] += 30
    values[1000:1060, 1] += 4
    scores = replay(1_530_000_000.0 + 300.0 * np.arange(1500), values, How("robust")).scores > 1
    assert scores[1000:1060, 0].all()
    assert scores[1020:1060, 1].all()
    assert not scores[400:1000].any()
    assert not scores[1070:].any()


def test_a_series_that_comes_alive_and_has_a_daily_cycle_is_not_flagged_again_at_its_first_peak():
    rows = np.arange(288 * 9)
    noise = np.random.default_rng(14).normal(scale=2500, size=len(rows))
    values = np.where(rows < 288 * 6, 0.0, 30000 + 8000 * np.sin(2 * np.pi * rows / 288) + noise)
    flagged = score_series(1_530_000_000.0 // DAY * DAY + 300.0 * rows, values, How("robust")).scores > 1
    assert flagged[288 * 6 : 288 * 6 + 100].all(), "what lasts is not learnt as noise, so it stays one anomaly"
    assert len(runs(flagged)) <= 2


def test_spikes_that_come_every_day_are_no_anomaly_and_a_larger_one_is():
    rng = np.random.default_rng(9)
    values = 10 + rng.normal(size=4000)
    values[rng.choice(4000, 60, replace=False)] += 40
    values[3900] = 150
    scores = score_series(1_530_000_000.0 + 300.0 * np.arange(4000), values, How("robust")).scores
    assert scores[3900] > 1
    assert np.count_nonzero(scores[2000:3890] > 1) < 5


def test_a_series_that_was_nothing_and_comes_alive_is_flagged_and_then_known():
    rng = np.random.default_rng(12)
    values = np.where(np.arange(6000) < 3000, 0.0, 20000 + 3000 * rng.normal(size=6000))
    scores = score_series(1_530_000_000.0 + 300.0 * np.arange(6000), values, How("robust")).scores
    assert (scores[3000:3060] > 1).all()
    assert np.mean(scores[3300:] > 1) < 0.01


def test_the_direction_and_the_floors_hold_for_every_view():
    values = 50 + np.random.default_rng(10).normal(size=(800, 1))
    values[700:740] -= 20
    times = 1_530_000_000.0 + 300.0 * np.arange(800)
    for how, seen in (
        (How("robust"), True),
        (How("robust", direction="below"), True),
        (How("robust", direction="above"), False),
        (How("robust", floors=Floors(absolute=30)), False),
        (How("robust", floors=Floors(relative=0.3)), True),
        (How("robust", floors=Floors(absolute=30), data_range=(40, 100)), True),
    ):
        assert (replay(times, values, how).scores[700:740] > 1).any() == seen


def test_a_value_that_stands_still_is_seen_by_auto():
    values = np.round(50 + np.random.default_rng(11).normal(size=900), 3)
    values[700:800] = values[700]
    scores = score_series(1_530_000_000.0 + 300.0 * np.arange(900), values, How("auto")).scores
    assert (scores[715:800] > 1).all()
    assert not (scores[:700] > 1).any()


def test_auto_says_why_it_chose():
    values = 1000 + 2.0 * np.arange(len(HOURS)) + np.random.default_rng(0).normal(size=len(HOURS)) * 0.2
    why = score_series(HOURS, values, How("auto")).why
    assert why.startswith("prophet_batched: mean error of robust"), "a steady slope is what robust lags behind"
    assert score_series(HOURS, sample("noise", len(HOURS), 3600.0), How("auto")).why.startswith("robust: ")


def test_auto_fits_the_other_model_once_a_week_where_it_is_not_chosen(monkeypatch):
    fits, fit = [], ProphetBatched.fit

    def counted(self, times, rows, options):
        fits.append(rows.shape[1])
        return fit(self, times, rows, options)

    monkeypatch.setattr(ProphetBatched, "fit", counted)
    times = 1_530_000_000.0 // DAY * DAY + 7200.0 * np.arange(12 * 24)
    noise = sample("noise", len(times), 7200.0)
    slope = 1000 + 2.0 * np.arange(len(times)) + np.random.default_rng(0).normal(size=len(times)) * 0.2
    why = replay(times, np.stack([noise, slope], axis=1), How("auto")).why
    assert [text.split(":")[0] for text in why] == ["robust", "prophet_batched"]
    assert fits[:3] == [2, 2, 2]
    assert 15 < len(fits) <= 24
    assert fits.count(2) <= 6


def test_robust_forgets_nothing_between_dump_and_load_of_many_series():
    values = np.stack([sample("daily", len(HOURS), 3600.0, seed=i) for i in range(5)], axis=1)
    crowd = model("robust").fit(HOURS, values, Options()).forecast(HOURS[-1:] + 3600)
    alone = model("robust").fit(HOURS, values[:, [3]], Options()).forecast(HOURS[-1:] + 3600)
    np.testing.assert_allclose(alone.upper[:, 0], crowd.upper[:, 3])


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        (["2018-07-03 14:00:00", "2018-07-03 15:00:00"], [1530626400, 1530630000]),
        (["2018-07-03T14:00:00Z", "2018-07-03T16:00:00+01:00"], [1530626400, 1530630000]),
        (["1530626400", "1530630000.0"], [1530626400, 1530630000]),
        (["1530626400000", "1530630000000"], [1530626400, 1530630000]),
        (["2018/07/03 14:00", "2018/07/03 15:00"], [1530626400, 1530630000]),
        (["07/03/2018 14:00", "07/23/2018 14:00"], [1530626400, 1532354400]),
        (["3/7/2018 14:00:00", "23/7/2018 14:00:00"], [1530626400, 1532354400]),
        (["23.07.2018 14:00", "03.07.2018 14:00"], [1532354400, 1530626400]),
        (["20180703140000", "20180703150000"], [1530626400, 1530630000]),
        (["Tue, 03 Jul 2018 14:00:00 GMT"], [1530626400]),
        (["1530626400000000"], [1530626400]),
        (["1530626400000000000"], [1530626400]),
        (["2018-07-03 14:00:00.5", "2018-07-03T14:00:00.123456789Z"], [1530626400.5, 1530626400.123456789]),
        (["2018-07-03 14:00:00 UTC", "2018-07-03T16:00:00+0200"], [1530626400, 1530626400]),
        (["2018-07-03", "2018-07-03 14:00"], [1530576000, 1530626400]),
    ],
)
def test_times_are_read_where_they_can_be_read_in_one_way(stamps, expected):
    np.testing.assert_allclose(parse_times(stamps, "x.csv"), expected)


def test_a_day_that_may_be_a_month_is_refused_and_a_format_helps():
    stamps = ["03/07/2018 14:00", "04/07/2018 14:00"]
    with pytest.raises(ConfigError, match="--time-format"):
        parse_times(stamps, "x.csv")
    assert parse_times(stamps, "x.csv", "%d/%m/%Y %H:%M")[0] == 1530626400


@given(st.lists(st.integers(0, 4_000_000_000), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
def test_iso_times_survive_a_round_trip(seconds):
    from datetime import datetime, timezone

    stamps = [datetime.fromtimestamp(s, timezone.utc).isoformat() for s in seconds]
    np.testing.assert_allclose(parse_times(stamps, "x"), seconds)


def test_windows_beat_labels_and_columns_are_found_in_any_case(tmp_path):
    write(tmp_path / "a" / "b.csv", [(t, 1, 1) for t in (0, 100, 200, 300)], "TimeStamp,VALUE,Is_Anomaly")
    assert read_directory(tmp_path)[0].labels.tolist() == [1, 1, 1, 1]
    (tmp_path / "windows.json").write_text(json.dumps({"a/b.csv": [["100", "200"]]}))
    assert read_directory(tmp_path)[0].labels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "no rows"), ("a,b\n1,2\n", "needs a time"), ("time,value\nyesterday,1\n", "is no time")],
)
def test_a_file_that_is_no_series_is_named(tmp_path, capsys, text, reason):
    (tmp_path / "x.csv").write_text(text)
    assert main(["detect", "score", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "x.csv" in err
    assert reason in err


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", ["\ufeffTime Stamp{0} Value {0}LABEL", "timestamp{0}cpu busy{0}is anomaly"])
def test_columns_are_found_however_they_are_divided_and_named(tmp_path, mark, header):
    rows = [("1530626400", "1.5", "0"), ("1530626460", "NaN", "1"), ("1530626520", "inf", ""), ("1530626580", "", "no")]
    text = "\n".join([header.format(mark), *(mark.join(row) for row in rows)])
    (tmp_path / "x.CSV").write_text(text, encoding="utf-8")
    (found,) = read_directory(tmp_path)
    np.testing.assert_array_equal(found.values, [1.5, np.nan, np.nan, np.nan])
    assert found.labels.tolist() == [0, 1, 0, 0]
    assert found.texts == ("1.5", "NaN", "inf", "")


def test_a_decimal_comma_is_read_where_columns_are_divided_by_something_else(tmp_path):
    (tmp_path / "x.csv").write_text("time;value\n2018-07-03 14:00:00;1,5\n")
    assert read_directory(tmp_path)[0].values.tolist() == [1.5]


def test_thousands_may_be_divided_by_a_comma(tmp_path):
    (tmp_path / "x.csv").write_text('time,value\n100,"1,234.5"\n200,"-1,234,567"\n300,"1,23"\n')
    np.testing.assert_array_equal(read_directory(tmp_path)[0].values, [1234.5, -1234567.0, np.nan])


@pytest.mark.parametrize("name", ["deep/x.csv", "./deep/x.csv", "x.csv", "in/deep/x.csv"])
def test_windows_find_their_file_by_its_path_or_the_end_of_it(tmp_path, name):
    write(tmp_path / "in" / "deep" / "x.csv", [(t, 1) for t in (0, 100, 200)], "time,value")
    write(tmp_path / "in" / "other.csv", [(0, 1, 1)])
    (tmp_path / "windows.json").write_text(json.dumps({name: [["100", "100"]], "gone.csv": []}))
    first, second = read_directory(tmp_path)
    assert first.labels.tolist() == [0, 1, 0]
    assert second.labels.tolist() == [1]


def test_windows_that_fit_two_files_are_refused(tmp_path):
    for folder in "ab":
        write(tmp_path / folder / "x.csv", [(0, 1, 0)])
    (tmp_path / "windows.json").write_text('{"x.csv": [["0", "1"]]}')
    with pytest.raises(ConfigError, match=r"x\.csv"):
        read_directory(tmp_path)


def test_what_cannot_be_read_is_named_and_the_rest_is_scored(tmp_path, capsys):
    write(tmp_path / "in" / "good.csv", [(100 * i, i % 7, 0) for i in range(50)])
    write(tmp_path / "in" / "unclear.csv", [("03/04/2018", 1)], "date,value")
    (tmp_path / "in" / "no_rows.csv").write_text("time,value\n")
    (tmp_path / "in" / "readme.txt").write_text("no series")
    code = main(["detect", "score", str(tmp_path / "in"), "--scores", str(tmp_path / "out"), "-o", "json"])
    told = capsys.readouterr()
    assert code == 1
    assert "unclear.csv" in told.err
    assert "--time-format" in told.err
    assert [file["file"] for file in json.loads(told.out)["files"]] == ["good.csv", "no_rows.csv"]
    assert (tmp_path / "out" / "no_rows.csv").read_text() == "timestamp,value,anomaly_score\n"
    assert len((tmp_path / "out" / "good.csv").read_text().splitlines()) == 51


def test_series_without_labels_are_scored_and_not_judged(tmp_path, capsys):
    write(tmp_path / "x.csv", [(100 * i, i % 7) for i in range(50)], "time,value")
    assert main(["detect", "score", str(tmp_path), "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["total"] is None
    assert set(document["files"][0]) == {"file", "why"}


def test_windows_of_an_unknown_file_are_refused(tmp_path):
    write(tmp_path / "x.csv", [(0, 1, 0)])
    (tmp_path / "windows.json").write_text('{"y.csv": []}')
    with pytest.raises(ConfigError, match=r"y\.csv"):
        read_directory(tmp_path)


def test_quality_counts_points_events_and_delay():
    times = 60.0 * np.arange(10)
    labels = np.array([0, 0, 1, 1, 1, 0, 0, 1, 0, 0])
    scores = np.array([np.nan, 0, 0.5, 2, 2, 2, 0, 0, 0, 3])
    quality = judge(times, scores, labels)
    assert (quality.hits, quality.false, quality.missed) == (2, 2, 2)
    assert (quality.events, quality.found, quality.false_events) == (2, 1, 1)
    assert quality.delay == 60
    assert quality.f1 == pytest.approx(0.5)
    assert quality.event_f1 == pytest.approx(0.5)
    assert (quality + quality).events == 4


@given(st.lists(st.booleans(), max_size=40))
def test_runs_cover_exactly_what_is_set(flags):
    covered = np.zeros(len(flags), dtype=bool)
    for begin, end in runs(np.array(flags, dtype=bool)):
        assert begin < end
        covered[begin:end] = True
    assert covered.tolist() == flags


def test_scores_are_written_row_by_row_at_the_same_paths(tmp_path, capsys):
    values = sample("daily", len(HOURS), 3600.0, seed=5)
    values[250:256] += 150
    labels = np.zeros(len(HOURS), dtype=int)
    labels[250:256] = 1
    rows = [(f"{t:.0f}", f"{v:.3f}", label) for t, v, label in zip(HOURS, values, labels, strict=True)]
    rows[100] = (rows[100][0], "", 0)
    write(tmp_path / "in" / "deep" / "x.csv", rows)
    code = main(["detect", "score", str(tmp_path / "in"), "--scores", str(tmp_path / "out"), "-o", "json"])
    assert code == 0
    document = json.loads(capsys.readouterr().out)
    total, told = document["total"], ", ".join(document["definitions"])
    assert all(name in told for name in total if name not in ("days", "precision", "recall")), "every figure is defined"
    assert total["event_recall"] == 1.0
    assert total["false_alerts_per_day"] == 0.0
    with (tmp_path / "out" / "deep" / "x.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["timestamp"] for row in written] == [row[0] for row in rows]
    assert [row["value"] for row in written] == [row[1] for row in rows]
    assert written[0]["anomaly_score"] == ""
    assert written[100]["anomaly_score"] == ""
    assert float(written[251]["anomaly_score"]) > 1
    assert float(written[300]["anomaly_score"]) < 1
