"""A monitor's life on a made-up clock: warming up, scoring in order, catching up, and what outlives a restart."""

from concurrent.futures import Future

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.base.exposition import TEXT, render
from alerts.central.capacity import CapacityWatch
from alerts.central.fitting import Fits, standstill
from alerts.central.monitor import Watch
from alerts.central.settings import Capacity, Monitor, Training
from alerts.central.state import Store, pack, unpack
from alerts.central.training import TrainingWatch

A, B = (("engine", "a"), ("model", "served")), (("engine", "b"),)


class Inline:
    """Workers that run at once, and count."""

    def __init__(self):
        self.runs = self.replaced = 0
        self.failure = None

    def submit(self, work, *args):
        self.runs += 1
        future = Future()
        if self.failure is not None:
            future.set_exception(self.failure)
        else:
            future.set_result(work(*args))
        return future


def noisy(seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=5000)
    return lambda t: 50.0 + noise[int(t / 10) % 5000]


def make(prometheus, name="ewma", workers=None, **more):
    values = {"name": "m", "query": "x", "model": name, "step": "10s", "fit_window": "3000s", "fit_every": "600s"}
    values |= {"min_history": "1000s"} | more
    now = [20_000.0]
    monitor = Monitor.model_validate(values)
    watch = Watch(monitor, prometheus.reader(), Fits(monitor, workers or Inline()), clock=lambda: now[0])
    return watch, now


def turns(watch, now, number, step=10.0):
    for _ in range(number):
        now[0] += step
        watch.turn()


def samples(watch):
    page = render([watch.view.found], TEXT).decode()
    families = text_string_to_metric_families(page)
    return [sample for family in families for sample in family.samples]


def scores(watch):
    return {s.labels["engine"]: s.value for s in samples(watch) if s.name == "gpuvigil_anomaly_score"}


@pytest.mark.parametrize(
    ("name", "step", "times"),
    [
        ("ewma", 10, {}),
        ("prophet_batched", 10, {}),
        ("robust", 300, {"step": "5m", "fit_window": "2d", "min_history": "1h"}),
    ],
)
def test_a_monitor_warms_up_scores_and_sees_a_spike(prometheus, name, step, times):
    begin, spike = 20_000.0 - 10 * step, [np.inf]
    base = noisy()
    prometheus.series = {
        A: lambda t: None if t < begin else base(t) + (500 if t >= spike[0] else 0),
        B: lambda t: None if t < begin else base(t),
    }
    watch, now = make(prometheus, name, **times)
    watch.turn()
    assert watch.view.state == "warming_up"
    assert "s of history" in watch.view.why
    assert not watch.view.found
    turns(watch, now, 150 if step == 10 else 300, step)
    assert watch.view.state == "ok"
    assert set(scores(watch)) == {"a", "b"}
    assert max(scores(watch).values()) < 1.5
    sample = next(sample for sample in samples(watch) if sample.labels["engine"] == "a")
    assert sample.labels["model"] == name
    assert sample.labels["exported_model"] == "served"
    spike[0] = now[0] + 1
    turns(watch, now, 1, step)
    assert scores(watch)["a"] > 1
    assert scores(watch)["b"] < 1.5


def test_nothing_is_said_when_data_stops_and_it_is_not_an_anomaly(prometheus):
    end = [np.inf]
    base = noisy(1)
    prometheus.series = {A: lambda t: base(t) if t < end[0] else None}
    watch, now = make(prometheus)
    turns(watch, now, 3)
    assert watch.view.state == "ok"
    end[0] = now[0] + 1
    turns(watch, now, 3)
    assert watch.view.state == "no_data"
    assert not watch.view.found
    end[0] = np.inf
    turns(watch, now, 1)
    assert watch.view.state == "ok"


def test_prometheus_away_is_stale_and_afterwards_everything_is_scored_in_order(prometheus):
    base = noisy(2)
    prometheus.series = {A: base}
    steady, now = make(prometheus)
    gapped, later = make(prometheus)
    turns(steady, now, 5)
    turns(gapped, later, 5)
    prometheus.failure = (503, {"status": "error", "error": "down"})
    later[0] += 300
    gapped.turn()
    assert gapped.view.state == "stale"
    assert not gapped.view.found
    prometheus.failure = None
    gapped.turn()
    turns(steady, now, 30)
    assert now == later
    assert scores(gapped) == pytest.approx(scores(steady))


def test_a_fit_that_fails_is_an_error_and_is_tried_again(prometheus):
    prometheus.series = {A: noisy(3)}
    workers = Inline()
    workers.failure = RuntimeError("no such luck")
    watch, now = make(prometheus, workers=workers)
    turns(watch, now, 3)
    assert watch.view.state == "error"
    assert "no such luck" in watch.view.why
    workers.failure = None
    turns(watch, now, 12)
    assert watch.view.state == "ok"


def test_offline_models_are_fitted_when_due_and_not_more_often(prometheus):
    prometheus.series = {A: noisy(4)}
    workers = Inline()
    watch, now = make(prometheus, "prophet_batched", workers)
    turns(watch, now, 180)
    assert 2 <= workers.runs <= 4  # 1,800 s at a fit every 600 s, the first one scattered


@pytest.mark.parametrize("name", ["prophet_batched", "ewma", "robust", "auto"])
def test_a_restart_goes_on_without_a_refit(prometheus, tmp_path, name):
    prometheus.series = {A: noisy(5), B: noisy(6)}
    first, now = make(prometheus, name)
    turns(first, now, 10)
    store = Store(tmp_path)
    store.save("m", "settings", first.dump())
    workers = Inline()
    second, later = make(prometheus, name, workers)
    second.restore(Store(tmp_path).load("m", "settings"))
    later[0] = now[0]
    prometheus.asked.clear()
    turns(second, later, 1)
    turns(first, now, 1)
    assert workers.runs == 0
    assert scores(second) == pytest.approx(scores(first))
    assert second.view.fitted_at == first.view.fitted_at
    ranges = [form for path, form in prometheus.asked if path.endswith("query_range")]
    assert all(float(form["end"]) - float(form["start"]) < 100 for form in ranges), "history is not read again"


def test_kept_state_of_other_settings_or_damaged_is_dropped_and_counted(prometheus, tmp_path):
    store = Store(tmp_path)
    store.save("m", "settings", {"a": np.arange(3.0)})
    assert store.load("m", "other settings") is None
    assert store.dropped == 0
    store._connection.execute("UPDATE watch SET data = x'00010203'")
    store._connection.commit()
    assert store.load("m", "settings") is None
    assert store.dropped == 1
    store.close()
    (tmp_path / "central.db").write_bytes(b"this is no database, but it is long enough to be looked at" * 50)
    for leftover in tmp_path.glob("central.db-*"):
        leftover.unlink()
    fresh = Store(tmp_path)
    assert fresh.dropped == 1
    assert fresh.load("m", "settings") is None
    fresh.save("m", "settings", {"b": 1})
    assert fresh.load("m", "settings") == {"b": 1}
    assert list(tmp_path.glob("*damaged*"))
    fresh.close()


def test_a_file_that_was_damaged_in_its_middle_is_put_aside_when_it_shows(tmp_path):
    store = Store(tmp_path)
    for number in range(40):
        store.save(f"m{number}", "settings", {"a": np.random.default_rng(number).normal(size=2000)})
    store.close()
    path = tmp_path / "central.db"
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)  # the header is whole, all else is not
    path.write_bytes(data)
    again = Store(tmp_path)
    again.keep_only(["m1"])
    assert again.load("m1", "settings") is None
    assert again.dropped == 1
    again.save("m1", "settings", {"b": 2})
    assert again.load("m1", "settings") == {"b": 2}
    assert list(tmp_path.glob("*damaged*"))
    again.close()


def test_a_state_directory_that_cannot_be_written_keeps_nothing_and_harms_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "below")
    assert not store.usable
    store.save("m", "s", {})
    assert store.load("m", "s") is None
    store.close()


def test_documents_survive_packing():
    document = {"x": [1, None, {"y": np.array([[1.0, np.nan]])}], "z": "text"}
    again = unpack(pack(document))
    assert again["z"] == "text"
    np.testing.assert_array_equal(again["x"][2]["y"], document["x"][2]["y"])
    with pytest.raises(ValueError, match="checksum"):
        unpack(pack(document)[:-1] + b"\x00")


def test_capacity_says_when_and_shows_nothing_where_there_is_no_end(prometheus):
    prometheus.series = {
        A: lambda t: 0.5 + t / 86400 / 40 + 0.001 * (int(t / 3600) % 7),
        B: lambda t: 0.6 + 0.001 * (int(t / 3600) % 7),
    }
    settings = Capacity(name="disk", query="x", step="1h", history="10d")
    watch = CapacityWatch(settings, prometheus.reader(), clock=lambda: 10 * 86400.0)
    watch.turn()
    assert watch.view.state == "ok"
    found = {(s.labels["engine"], s.labels["bound"]): s.value for s in samples(watch) if "bound" in s.labels}
    assert {engine for engine, _ in found} == {"a"}
    assert found["a", "expected"] == pytest.approx(10 * 86400, rel=0.1)
    assert found["a", "low"] <= found["a", "expected"]
    answers = {s.labels["engine"]: s.labels["state"] for s in samples(watch) if "state" in s.labels}
    assert answers == {"a": "ok", "b": "none"}
    errors = [s.value for s in samples(watch) if s.name == "gpuvigil_capacity_error_ratio"]
    assert len(errors) == 2
    assert max(errors) < 0.01


def test_a_resource_whose_data_stopped_has_no_forecast(prometheus):
    def disk(end):
        return lambda t: 0.5 + t / 86400 / 40 + 0.001 * (int(t / 3600) % 7) if t < end else None

    prometheus.series = {A: disk(np.inf), B: disk(10.5 * 86400)}
    now = [10 * 86400.0]
    settings = Capacity(name="disk", query="x", step="1h", history="10d")
    watch = CapacityWatch(settings, prometheus.reader(), clock=lambda: now[0])
    watch.turn()
    assert {s.labels["engine"] for s in samples(watch)} == {"a", "b"}
    now[0] = 10.75 * 86400
    watch.turn()
    assert {s.labels["engine"] for s in samples(watch)} == {"a"}
    assert watch.view.why == "1 of 2 series judged; 1 without new points"
    prometheus.series = {}
    now[0] = 11 * 86400.0
    watch.turn()
    assert (watch.view.state, watch.view.found) == ("no_data", {})
    prometheus.series = {B: disk(np.inf)}
    watch.turn()
    assert {s.labels["engine"] for s in samples(watch)} == {"b"}


def test_a_step_shorter_than_the_scrape_interval_is_warned_of(prometheus, caplog):
    seen = noisy()
    prometheus.series = {A: lambda t: seen(t // 40 * 40)}
    watch, now = make(prometheus)
    turns(watch, now, 3)
    assert watch.view.state == "ok"
    assert "the values change every 40 s only, step is 10 s" in watch.view.why
    assert "shorter than the scrape interval" in caplog.text
    fine, later = make(prometheus, step="40s")
    turns(fine, later, 3, 40.0)
    assert "change every" not in fine.view.why


def test_a_value_that_seldom_changes_is_no_short_step():
    rng = np.random.default_rng(1)
    assert standstill(np.cumsum(rng.random((400, 3)) < 0.2, axis=0).astype(float)) == 1
    assert standstill(np.zeros((400, 3))) == 1
    assert standstill(np.full((400, 3), np.nan)) == 1
    assert standstill(np.empty((0, 0))) == 1


def test_a_resource_that_is_too_young_says_so(prometheus):
    prometheus.series = {A: lambda t: 0.5 if t > 9.5 * 86400 else float("nan")}
    watch = CapacityWatch(
        Capacity(name="disk", query="x", step="1h", history="10d"), prometheus.reader(), clock=lambda: 10 * 86400.0
    )
    watch.turn()
    assert watch.view.state == "warming_up"
    assert [s.labels["state"] for s in samples(watch)] == ["warming_up"]


def test_training_without_a_total_or_a_job_says_so(prometheus):
    watch = TrainingWatch(Training(), prometheus.reader(), clock=lambda: 10_000.0)
    watch.turn()
    assert watch.view.state == "no_data"
    assert "no job" in watch.view.why


def test_a_learnt_plan_outlives_a_restart_and_what_was_missed_is_read(prometheus, tmp_path):
    """A job of 2,000 steps of 15 s learns its plan and slows down; the plan is older than the history read."""
    key = (("job_id", "j"),)

    def step(t):
        return None if t < 5000 else float(int((t - 5000) / 15) if t < 15_005 else 667 + int((t - 15_005) / 30))

    prometheus.by_name = {
        "gpuvigil_train_step{}": {key: step},
        "gpuvigil_train_last_step_timestamp_seconds{}": {key: lambda t: None if t < 5000 else t},
        "gpuvigil_train_steps_planned{}": {key: lambda t: 2000.0},
        "gpuvigil_train_started_timestamp_seconds{}": {key: lambda t: 5000.0},
    }
    now = [5000.0]
    settings = Training(step="15s", history="1h")

    def deviation(watch):
        return {s.labels["bound"]: s.value for s in samples(watch) if "plan" in s.labels}

    first, steady = (TrainingWatch(settings, prometheus.reader(), clock=lambda: now[0]) for _ in range(2))
    for _ in range(400):
        now[0] += 30
        first.turn()
        steady.turn()
    Store(tmp_path).save("training-eta", "s", first.dump())
    now[0] += 1800  # away for half an hour
    second = TrainingWatch(settings, prometheus.reader(), clock=lambda: now[0])
    second.restore(Store(tmp_path).load("training-eta", "s"))
    second.turn()
    steady.turn()
    assert deviation(second)["expected"] == pytest.approx(2 / 3, abs=0.03)
    assert deviation(second) == pytest.approx(deviation(steady))
    prometheus.by_name["gpuvigil_train_started_timestamp_seconds{}"] = {key: lambda t: now[0] - 50}
    now[0] += 60
    second.turn()
    assert not deviation(second), "another run of that name has its own plan"
