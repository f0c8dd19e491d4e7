"""Labelled files as people have them: times, columns, labels, windows; and what is refused by name."""

import json
from contextlib import suppress
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.errors import ConfigError
from agent.cli import main
from alerts.detect.labelled import read_directory
from alerts.detect.stamps import parse_times

JULY = 1530626400.0  # 2018-07-03 14:00 UTC


def put(folder, text, name="x.csv", encoding="utf-8"):
    (folder / name).write_text(text, encoding=encoding)


@pytest.mark.parametrize(
    "stamp",
    [
        "2018.07.03 14:00:00", "2018/7/3 14:00:00.0", "2018-07-03 14", "2018-07-03 14:00:00 GMT", "2018-07-03T14:00Z",
        "20180703T140000Z", "201807031400", "2018-07-03 02:00 PM", "2018-07-03T09:00:00-0500", "2018-07-03 16:00+02",
        "03-Jul-2018 14:00:00", "03/Jul/2018:16:00:00 +0200", "3 July 2018 14:00", "Jul 03 2018 14:00:00",
        "July 3, 2018, 2:00 pm", "Tue Jul  3 14:00:00 2018", "Tue, 03 Jul 2018 14:00:00 GMT", "1.5306264e9",
    ],
)  # fmt: skip
def test_a_moment_is_the_same_however_it_is_written(stamp):
    assert parse_times([stamp], "x.csv").tolist() == [JULY]


def test_eight_digits_are_a_date_and_twelve_have_minutes_of_two():
    assert np.diff(parse_times(["20180731", "20180801"], "x.csv")).tolist() == [86400]
    assert np.diff(parse_times(["201807031415", "201807031420"], "x.csv")).tolist() == [300]


@pytest.mark.parametrize(
    "stamps",
    [["", "1"], ["ab"], ["1530626400", "nan"], ["1530626400", "inf"], ["1530626400", "1e300"],
     ["2018-07-03 13:00 PM"], ["2018-02-30"], ["2018-07-03 25:00"], ["07/23/2018", "n/a"], ["07/23/2018", "5/"]],
)  # fmt: skip
def test_what_is_no_time_is_named_with_its_line(stamps):
    with pytest.raises(ConfigError, match=r"x\.csv:\d: .* is no time; give --time-format"):
        parse_times(stamps, "x.csv")


def test_a_time_that_does_not_fit_the_layout_asked_for_is_named_with_it():
    with pytest.raises(ConfigError, match=r"x\.csv:2: '2018-07-03' does not fit --time-format '%d/%m/%Y'"):
        parse_times(["2018-07-03"], "x.csv", "%d/%m/%Y")


@pytest.mark.parametrize("stamp", ["18/07/03 14:00", "03/07/18", "30-07-18", "7/3/2018 14:00", "03.07.2018"])
def test_a_date_that_can_be_read_in_two_ways_is_refused(stamp):
    with pytest.raises(ConfigError, match="--time-format"):
        parse_times([stamp], "x.csv")


def test_a_date_of_two_digits_a_year_is_read_where_its_numbers_leave_one_way():
    assert parse_times(["07/23/18"], "x.csv").tolist() == [1532304000]
    assert parse_times(["23/07/99"], "x.csv").tolist() == [932688000]
    assert parse_times(["07/07/2018"], "x.csv").tolist() == [1530921600], "day and month are the same"


@given(st.text(max_size=24))
@settings(max_examples=300, deadline=None)
def test_a_time_is_read_or_refused_and_nothing_else(text):
    with suppress(ConfigError):
        assert np.isfinite(parse_times([text], "x")).all()


FORMS = ("%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%d %b %Y %H:%M:%S", "%b %d, %Y %I:%M:%S %p", "%Y%m%d%H%M%S")


@given(st.integers(86400 * 365, 4_000_000_000), st.sampled_from(FORMS))
@settings(max_examples=100, deadline=None)
def test_written_times_survive_a_round_trip(seconds, form):
    text = datetime.fromtimestamp(seconds, timezone.utc).strftime(form)
    assert parse_times([text], "x").tolist() == [seconds]


@pytest.mark.parametrize("label", ["1", "1.0", "-1", "true", "anomaly", "ANOMALY", "yes", "0.5"])
def test_a_label_that_says_anomaly_is_one(tmp_path, label):
    put(tmp_path, f"time,value,label\n1,2,{label}\n")
    assert read_directory(tmp_path)[0].labels.tolist() == [1]


@pytest.mark.parametrize("label", ["", "0", "0.0", "0.00", "false", "normal", "OK", "None", "nan", "-"])
def test_a_label_that_says_nothing_or_normal_is_none(tmp_path, label):
    put(tmp_path, f"time,value,label\n1,2,{label}\n")
    assert read_directory(tmp_path)[0].labels.tolist() == [0]


@pytest.mark.parametrize(
    "header",
    ["time,value,ground_truth", "Timestamp (UTC),VALUE,Anomaly Label", "timestamp_ms,host cpu,label", "Date,cpu,class"],
)
def test_columns_are_found_by_what_their_names_mean(tmp_path, header):
    put(tmp_path, header + "\n100,2,1\n200,3,0\n")
    (found,) = read_directory(tmp_path)
    assert found.values.tolist() == [2, 3]
    assert found.labels.tolist() == [1, 0]


def test_a_value_of_any_name_is_the_only_column_of_numbers(tmp_path):
    put(tmp_path, "time,host,cpu\n100,a1,2\n200,a1,3\n")
    assert read_directory(tmp_path)[0].values.tolist() == [2, 3]
    put(tmp_path, "time,open,close\n100,1,2\n200,1,3\n")
    with pytest.raises(ConfigError, match=r"needs a time .* has time, open, close"):
        read_directory(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8-sig"])
def test_letters_of_another_encoding_are_no_hindrance(tmp_path, encoding):
    put(tmp_path, "time;note;value\r\n100;groß;2,5\r\n\r\n200;;3%\r\n;;\r\n", encoding=encoding)
    (found,) = read_directory(tmp_path)
    assert found.values.tolist() == [2.5, 3]
    assert found.texts == ("2,5", "3%")


def test_values_of_which_none_is_a_number_are_refused_and_missing_ones_are_not(tmp_path):
    put(tmp_path, "time,value\n100,12 ms\n200,\n")
    with pytest.raises(ConfigError, match=r"no value in column 'value' is a number; the first is '12 ms'"):
        read_directory(tmp_path)
    put(tmp_path, "time,value\n100,NaN\n200,\n300,null\n")
    assert np.isnan(read_directory(tmp_path)[0].values).all()


@pytest.mark.parametrize(
    ("stamps", "window", "time_format"),
    [
        (("2018-07-03 14:00:00", "2018-07-03 15:00:00"), ("2018-07-03 14:30:00.000000", "2018-07-03T15:00:00Z"), None),
        (("2018-07-03 14:00", "2018-07-03 15:00"), ("2018-07-03 14:30:00.000", "2018-07-03 15:30"), "%Y-%m-%d %H:%M"),
        (("03/07/2018 14:00", "03/07/2018 15:00"), ("2018-07-03 14:30:00", "2018-07-03 15:00:00"), "%d/%m/%Y %H:%M"),
        (("23/07/2018 14:00", "24/07/2018 15:00"), ("24/07/2018 14:00", "24/07/2018 15:00"), None),
        (("03/07/2018 14:00", "23/07/2018 15:00"), ("05/07/2018 14:00", "23/07/2018 15:00"), None),
        (("1530626400", "1530630000"), ("2018-07-03 14:30:00", "1530630000000"), None),
        (("1530626400000", "1530630000000"), (1530626401, 1530630000.0), None),
    ],
)
def test_windows_may_be_written_as_the_file_is_or_otherwise(tmp_path, stamps, window, time_format):
    put(tmp_path, "time,value\n" + "".join(f"{stamp},1\n" for stamp in stamps))
    put(tmp_path, json.dumps({"x.csv": [window]}), "windows.json")
    assert read_directory(tmp_path, time_format)[0].labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        (("2018-07-04", "2018-07-03"), "is after"),
        (("soon", "later"), "is no time"),
        (("1/2/2018", "3/2/2018"), "--time-"),
    ],
)
def test_a_window_that_is_none_is_named(tmp_path, window, reason):
    put(tmp_path, "time,value\n100,1\n")
    put(tmp_path, json.dumps({"x.csv": [window]}), "windows.json")
    with pytest.raises(ConfigError, match=rf"windows\.json \(x\.csv\).*{reason}"):
        read_directory(tmp_path)


def test_windows_of_files_that_are_not_here_are_told_and_the_others_used(tmp_path, capsys):
    put(tmp_path, "time,value\n100,1\n200,1\n")
    put(tmp_path, json.dumps({"x.csv": [[100, 100]], "far/gone.csv": [[1, 2]]}), "windows.json")
    assert main(["detect", "score", str(tmp_path), "-o", "json"]) == 0
    told = capsys.readouterr()
    assert "1 names fit no file here, or several: far/gone.csv" in told.err
    assert json.loads(told.out)["total"]["events"] == 1


def test_scores_never_overwrite_the_series_nor_are_scored_themselves(tmp_path, capsys):
    put(tmp_path, "time,value\n100,1\n")
    assert main(["detect", "score", str(tmp_path), "--scores", str(tmp_path)]) == 2
    assert "would write over the series" in capsys.readouterr().err
    for _ in range(2):
        assert main(["detect", "score", str(tmp_path), "--scores", str(tmp_path / "out"), "-o", "json"]) == 0
        assert [file["file"] for file in json.loads(capsys.readouterr().out)["files"]] == ["x.csv"]
    assert main(["detect", "score", str(tmp_path), "--scores", str(tmp_path / "x.csv")]) == 2
    assert "is no directory" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named(tmp_path, capsys):
    put(tmp_path, "time,value\n100,1\n")
    assert main(["detect", "score", str(tmp_path), "--scores", "/proc/none/here"]) == 2
    assert "--scores /proc/none/here: cannot be made" in capsys.readouterr().err
    (tmp_path / "out" / "x.csv").mkdir(parents=True)
    assert main(["detect", "score", str(tmp_path), "--scores", str(tmp_path / "out")]) == 2
    assert "x.csv: cannot be written" in capsys.readouterr().err
    assert main(["detect", "backtest", "--monitor", "gpu-power", "--html", str(tmp_path / "no" / "x.html")]) == 2
    assert "there is no directory" in capsys.readouterr().err
