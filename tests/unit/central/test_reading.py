"""Reading Prometheus: within budgets, in order, once; and what is left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.central import masks
from alerts.central.history import Bounds, History
from alerts.central.masks import Silence
from alerts.central.promread import ReadError, Series
from alerts.central.ring import Ring
from alerts.central.settings import Monitor
from alerts.central.shard import Shard

A, B = (("engine", "a"),), (("engine", "b"),)


def monitor(**more):
    values = {"name": "m", "query": "x", "step": "10s", "fit_window": "1000s", "min_history": "0s"} | more
    return Monitor.model_validate(values)


def history(prometheus, bounds=None, **more):
    return History(monitor(**more), prometheus.reader(), bounds or Bounds())


def test_history_is_read_once_and_then_only_what_is_new(prometheus):
    prometheus.series = {A: lambda t: t, B: lambda t: -t}
    found = history(prometheus)
    assert found.update(10_000.0)
    times, values = found.ring.window()
    assert times[-1] == 10_000
    np.testing.assert_array_equal(values[:, 0], times)
    prometheus.asked.clear()
    found.update(10_030.0)
    first = next(form for path, form in prometheus.asked if path.endswith("query_range"))
    assert (float(first["start"]), float(first["end"])) == (9_990.0, 10_030.0)
    np.testing.assert_array_equal(found.ring.window()[1][:, 1], -found.ring.window()[0])


def test_long_histories_are_split_within_the_budget_of_points(prometheus):
    prometheus.series = {A: lambda t: 1.0}
    settings = monitor(fit_window="1000s")
    found = History(settings, prometheus.reader(points_per_query=30), Bounds())
    found.update(10_000.0)
    spans = [
        (float(form["end"]) - float(form["start"])) / 10 + 1
        for path, form in prometheus.asked
        if path.endswith("query_range") and form["query"] == "x"
    ]
    assert max(spans) <= 30
    assert sum(spans) == 100


def test_too_many_series_are_refused_with_the_number(prometheus):
    prometheus.series = {(("n", str(n)),): lambda t: 1.0 for n in range(7)}
    with pytest.raises(ReadError, match="7 series where at most 5") as caught:
        history(prometheus, Bounds(series_limit=5)).update(1000.0)
    assert caught.value.reason == "budget"


def test_a_hundred_thousand_series_nobody_expected_are_refused_by_default_without_reading_them(prometheus):
    prometheus.series = {A: lambda t: 1.0}
    prometheus.count = 100_000
    with pytest.raises(ReadError, match="100000 series where at most 25000"):
        history(prometheus).update(1000.0)
    assert not any(path.endswith("query_range") for path, _ in prometheus.asked)


def test_a_query_that_cannot_be_parsed_is_shown_as_it_was_written(prometheus):
    """Positions in the error are those of the user's query, not of the count around it."""
    reader = prometheus.reader()

    def parse(path, fields, kind):
        raise ReadError("bad_query", f"1:{fields['query'].index('}') + 1}: parse error ({fields['query']})")

    reader._answer = parse
    with pytest.raises(ReadError, match=r"1:2: parse error \(x}\)$"):
        reader.count("x}", 10)


def test_series_that_come_and_go_are_refused_though_few_are_there_at_one_time(prometheus):
    """A label that changes with every restart: one series now, twenty over the window."""

    def living(n):
        return lambda t: 1.0 if 9_000 + 50 * n <= t < 9_050 + 50 * n else None

    prometheus.series = {(("pod", str(n)),): living(n) for n in range(20)}
    found = history(prometheus, Bounds(series_limit=5))
    prometheus.count = 1
    with pytest.raises(ReadError, match=r"20 series within the window where at most 5") as caught:
        found.update(10_000.0)
    assert caught.value.reason == "budget"
    assert found.ring.series <= 5


def test_series_that_left_the_window_make_room(prometheus):
    def living(n):
        return lambda t: 1.0 if 9_000 + 1000 * n <= t < 10_000 + 1000 * n else None

    prometheus.series = {(("pod", str(n)),): living(n) for n in range(20)}
    prometheus.count = 1
    found = history(prometheus, Bounds(series_limit=3))
    for now in range(10_000, 20_000, 250):
        found.update(float(now))
    assert found.ring.series <= 3


def test_points_that_are_not_on_the_grid_asked_for_are_named(prometheus):
    prometheus.series = {A: lambda t: 1.0}
    prometheus.shift = 3.0
    with pytest.raises(ReadError, match="not on the grid of 10 s") as caught:
        history(prometheus).update(10_000.0)
    assert caught.value.reason == "bad_answer"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ((400, {"status": "error", "errorType": "bad_data", "error": "parse error"}), "bad_query"),
        ((503, {"status": "error", "error": "shutting down"}), "unavailable"),
        ((502, b"<html>bad gateway</html>"), "unavailable"),
        ((200, b'{"status":"success","data":{"resul'), "bad_answer"),
        ((200, {"status": "success", "data": {"resultType": "scalar", "result": [0, "1"]}}), "bad_query"),
        ((401, b""), "denied"),
        (3.0, "timeout"),
    ],
)
def test_every_failure_has_a_name(prometheus, failure, reason):
    prometheus.failure = failure
    found = History(monitor(), prometheus.reader(timeout="500ms"), Bounds())
    with pytest.raises(ReadError) as caught:
        found.update(1000.0)
    assert caught.value.reason == reason


def test_a_read_that_failed_half_way_is_made_again(prometheus):
    prometheus.series = {A: lambda t: t}
    found = History(monitor(), prometheus.reader(points_per_query=30), Bounds())
    found.update(5_000.0)
    real, calls = found._reader._ask, []

    def failing(path, fields, kind):
        calls.append(path)
        if len(calls) == 4:
            raise ReadError("timeout", "in the middle")
        return real(path, fields, kind)

    found._reader._ask = failing
    with pytest.raises(ReadError):
        found.update(5_900.0)
    found.update(5_910.0)
    times, values = found.ring.window()
    np.testing.assert_array_equal(values[:, 0], times)


def test_a_clock_that_goes_back_is_named_and_one_that_jumps_ahead_forgets_nothing(prometheus):
    prometheus.series = {A: lambda t: t if t <= 10_000 else None}
    found = history(prometheus)
    found.update(10_000.0)
    with pytest.raises(ReadError, match="went back by 500 s"):
        found.update(9_500.0)
    assert not found.update(50_000.0)
    assert np.isfinite(found.ring.window()[1]).all()


def test_simulated_series_are_left_out_unless_wanted(prometheus):
    prometheus.series = {(("synthetic", "true"),): lambda t: 1.0, A: lambda t: 1.0}
    left, kept = history(prometheus), history(prometheus, synthetic="include")
    left.update(1000.0)
    kept.update(1000.0)
    assert left.ring.keys == [A]
    assert kept.ring.series == 2


def test_points_during_a_drill_and_a_little_after_are_neither_learnt_nor_scored(prometheus):
    prometheus.series = {A: lambda t: 1.0, B: lambda t: 1.0}
    prometheus.silences = {"max by ": {A: lambda t: 1.0 if 9_500 <= t <= 9_600 else None}}
    found = history(prometheus, Bounds(mask_tail=20))
    found.update(10_000.0)
    times, values = found.ring.window()
    blank = np.isnan(values[:, found.ring.keys.index(A)])
    assert times[blank].min() == 9_500
    assert times[blank].max() == 9_620
    assert not np.isnan(values[:, found.ring.keys.index(B)]).any()


def test_what_follows_a_drill_is_left_out_to_its_end_by_a_live_reader_too(prometheus):
    prometheus.series = {A: lambda t: 1.0}
    prometheus.silences = {"max by ": {A: lambda t: 1.0 if 9_500 <= t <= 9_600 else None}}
    found = history(prometheus, Bounds(mask_tail=100))
    for now in range(9_400, 9_801, 10):
        found.update(float(now))
    times, values = found.ring.window()
    blank = np.isnan(values[:, 0]) & (times >= 9_400)
    assert times[blank].tolist() == list(range(9_500, 9_701, 10))


@pytest.mark.parametrize(
    ("target", "series", "touches"),
    [
        ({"node": "n1", "uuid": "g3"}, {"node": "n1", "uuid": "g3"}, True),
        ({"node": "n1", "uuid": "g3"}, {"node": "n1", "uuid": "g4"}, False),
        ({"node": "n1", "uuid": "g3"}, {"node": "n1", "engine": "a"}, True),
        ({"node": "n1", "uuid": "g3"}, {"node": "n2", "engine": "a"}, False),
        ({"node": "n1"}, {"node": "n1", "uuid": "g4"}, True),
        ({"node": "n1", "engine": "a"}, {"engine": "b"}, False),
        ({"node": "n1", "engine": "a"}, {}, True),
    ],
)
def test_a_silence_touches_what_no_label_says_it_cannot(target, series, touches):
    assert Silence(target, 0, 1).touches(tuple(series.items())) is touches


def test_maintenance_and_drills_are_asked_for_on_the_same_grid(prometheus):
    masks.silences(prometheus.reader(), 100, 110, 10.0, 0.0)
    forms = [form for path, form in prometheus.asked]
    assert {(form["start"], form["end"], form["step"]) for form in forms} == {("1000.000", "1100.000", "10.000")}
    assert any("maintenance" in form["query"] for form in forms)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=60), st.integers(3, 12))
def test_a_ring_holds_the_newest_rows_of_every_series(puts, length):
    ring, truth, head = Ring(length, 1.0), {}, None
    for row, which in puts:
        head = row if head is None else max(head, row)
        ring.advance(row)
        key = (("s", str(which)),)
        ring.put(Series(key, np.array([row]), np.array([float(row * 10 + which)])))
        truth[row, key] = float(row * 10 + which)
    if head is None:
        return
    times, values = ring.window()
    assert times[-1] == head
    for column, key in enumerate(ring.keys):
        for place, time in enumerate(times):
            wanted = truth.get((int(time), key))
            if wanted is None:
                assert np.isnan(values[place, column])
            elif time > head - length:
                # a row that left the window and came back late is lost
                assert np.isnan(values[place, column]) or values[place, column] == wanted


def test_shards_cover_all_series_as_often_as_wanted():
    keys = [(("uuid", f"g{n}"),) for n in range(400)]
    for replication in (1, 2):
        shards = [Shard(member, 5, replication) for member in range(5)]
        owners = [sum(shard.mine(key) for shard in shards) for key in keys]
        assert set(owners) == {replication}
        loads = [sum(shard.mine(key) for key in keys) for shard in shards]
        assert min(loads) > 0.5 * max(loads)


def test_a_member_reads_its_own_series_only(prometheus):
    prometheus.series = {(("n", str(n)),): lambda t: 1.0 for n in range(40)}
    members = [history(prometheus, Bounds(shard=Shard(m, 2))) for m in range(2)]
    for member in members:
        member.update(1000.0)
    first, second = (set(member.ring.keys) for member in members)
    assert not first & second
    assert len(first | second) == 40
