"""Freshness: a collector that is late, hangs, fails or goes is seen as that, and nothing is frozen."""

from __future__ import annotations

import threading
import time

import pytest

from agent.base.catalogue import self as own
from agent.base.collector import PartialFailure, Settings
from agent.base.usage import Usage, children
from agent.runner import Runner


def settings(period="50ms", deadline="300ms", **more):
    return Settings(period=period, deadline=deadline, **more)


def values(snapshot, metric, **labels):
    """Values by line of one metric, of all collectors."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return [
        value
        for families in snapshot.blocks.values()
        for line, value in (families[metric.stem].lines.items() if metric.stem in families else ())
        if all(each in line for each in wanted)
    ]


@pytest.fixture
def running(puppet, context, until):
    """Start a runner on puppets: `running({"name": script}, ...)`; stopped at the end."""
    runners = []

    def start(scripts, config=None, **options):
        made = {name: puppet(name, script) for name, script in scripts.items()}
        runner = Runner({name: kind for name, (kind, _) in made.items()}, context, **options)
        runner.configure({name: (config or {}).get(name, settings()) for name in scripts})
        runners.append(runner)
        return runner, {name: held for name, (_, held) in made.items()}

    yield start
    for runner in runners:
        runner.stop(timeout=1.0)


def test_samples_reach_the_page_with_what_the_runner_says_of_them(metric, running, until):
    runner, _ = running({"good": lambda: [metric.plain.sample(4)]})
    snapshot = until(lambda: (s := runner.snapshot()) and not s.waiting and s)
    assert values(snapshot, metric.plain) == [4.0]
    assert values(snapshot, own.SUCCESS, collector="good") == [1.0]
    assert values(snapshot, own.STUCK, collector="good") == [0.0]
    assert values(snapshot, own.ERRORS, collector="good", reason="late") == [0.0]
    assert abs(values(snapshot, own.LAST_SUCCESS, collector="good")[0] - time.time()) < 60
    every = [line for families in snapshot.blocks.values() for f in families.values() for line in f.lines]
    assert values(snapshot, own.SERIES) == [float(len(every))]


def test_before_the_first_run_ends_success_is_absent_not_a_guess(metric, running):
    gate = threading.Event()
    runner, _ = running({"slow": lambda: gate.wait(20) and []}, {"slow": settings(deadline="60s")})
    snapshot = runner.snapshot()
    gate.set()
    assert snapshot.waiting == ["slow"]
    assert values(snapshot, own.SUCCESS) == []


def test_a_hung_collector_loses_its_series_and_nobody_elses(metric, running, until):
    gate, hang = threading.Event(), threading.Event()

    def hanging():
        yield metric.plain.sample(1)
        if hang.is_set():
            gate.wait(60)

    runner, puppets = running({"bad": hanging, "good": lambda: [metric.counter.sample(5, "x")]})
    until(lambda: values(runner.snapshot(), metric.plain) == [1.0])
    hang.set()
    snapshot = until(lambda: (s := runner.snapshot()) and values(s, own.STUCK, collector="bad")[0] > 0.5 and s)
    assert values(snapshot, metric.plain) == [], "absent, not frozen"
    assert values(snapshot, own.SUCCESS, collector="bad") == [0.0]
    assert values(snapshot, own.ERRORS, collector="bad", reason="late") == [1.0], "counted while it hangs"
    assert values(snapshot, metric.counter) == [5.0]
    assert values(snapshot, own.SUCCESS, collector="good") == [1.0]
    assert next(status for status in snapshot.statuses if status.name == "bad").state == "late"
    hang.clear()
    gate.set()
    snapshot = until(lambda: (s := runner.snapshot()) and values(s, metric.plain) and s)
    assert puppets["bad"].most_running == 1, "never started twice"
    assert values(snapshot, own.ERRORS, collector="bad", reason="late") == [1.0], "and counted once"
    assert values(snapshot, own.STUCK, collector="bad") == [0.0]


def test_the_samples_of_a_late_run_are_thrown_away(metric, running, until):
    runner, puppets = running({"late": lambda: (time.sleep(0.4), [metric.plain.sample(1)])[1]})
    until(lambda: puppets["late"].runs >= 3)
    snapshot = runner.snapshot()
    assert values(snapshot, metric.plain) == []
    assert values(snapshot, own.SUCCESS, collector="late") == [0.0]
    assert values(snapshot, own.ERRORS, collector="late", reason="late")[0] >= 2


def test_a_failure_is_named_and_its_series_go(metric, running, until):
    broken = threading.Event()

    def script():
        if broken.is_set():
            raise FileNotFoundError("/sys/nothing")
        return [metric.plain.sample(1)]

    runner, _ = running({"x": script})
    until(lambda: values(runner.snapshot(), metric.plain) == [1.0])
    broken.set()
    snapshot = until(lambda: (s := runner.snapshot()) and values(s, own.SUCCESS) == [0.0] and s)
    assert values(snapshot, metric.plain) == []
    assert values(snapshot, own.ERRORS, reason="os")[0] >= 1
    assert "/sys/nothing" in snapshot.statuses[0].error
    broken.clear()
    until(lambda: values(runner.snapshot(), own.SUCCESS) == [1.0])


def test_a_partial_failure_keeps_what_is_known(metric, running, until):
    def script():
        yield metric.plain.sample(1)
        raise PartialFailure("engine_down", "engine b does not answer")

    runner, _ = running({"x": script})
    snapshot = until(lambda: (s := runner.snapshot()) and not s.waiting and s)
    assert values(snapshot, metric.plain) == [1.0]
    assert values(snapshot, own.SUCCESS) == [0.0]
    assert values(snapshot, own.ERRORS, reason="engine_down")[0] >= 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError(), RecursionError()])
def test_nothing_a_collector_raises_ends_its_thread(metric, running, until, error):
    def script():
        raise error

    runner, puppets = running({"x": script})
    until(lambda: puppets["x"].runs >= 3)
    assert runner.workers["x"].thread.is_alive()


def test_reasons_cannot_explode(metric, running, until):
    count = iter(range(10**6))

    def script():
        raise PartialFailure(f"reason {next(count)}")

    runner, puppets = running({"x": script}, {"x": settings(period="1ms")})
    until(lambda: puppets["x"].runs >= 60)
    snapshot = until(lambda: (s := runner.snapshot()) and values(s, own.ERRORS, reason="other") and s)
    assert len(values(snapshot, own.ERRORS, collector="x")) <= 26


def test_over_the_nodes_budget_the_largest_family_pays(metric, running, until):
    runner, _ = running(
        {
            "small": lambda: [metric.counter.sample(1, str(n)) for n in range(40)],
            "large": lambda: [metric.plain.sample(1), *(metric.gauge.sample(1, str(n), "x") for n in range(90))],
        },
        series_budget=100,
    )
    snapshot = until(lambda: (s := runner.snapshot()) and not s.waiting and s)
    assert len(values(snapshot, metric.counter)) == 40
    assert values(snapshot, metric.plain) == [1.0]
    assert values(snapshot, metric.gauge) == [], "whole or not at all"
    assert values(snapshot, own.DROPPED, collector="large", reason="node_budget")[0] >= 90
    before = values(runner.snapshot(), own.DROPPED, reason="node_budget")[0]
    assert before % 90 == 0, "once a result, not once a tick"


def test_what_alerts_go_by_is_left_out_last(metric, running, until):
    """A node of sixteen GPUs has more series than agreed, and its Xids are to page all the same."""
    runner, _ = running(
        {
            "small": lambda: [metric.counter.sample(1, str(n)) for n in range(40)],
            "vital": lambda: [metric.vital.sample(1, str(n)) for n in range(90)],
        },
        series_budget=125,
    )
    snapshot = until(lambda: (s := runner.snapshot()) and not s.waiting and s)
    assert len(values(snapshot, metric.vital)) == 90
    assert values(snapshot, metric.counter) == []
    runner.budget.series = 100
    assert values(runner.snapshot(), metric.vital) == [], "the budget holds whatever is vital"


def test_what_alerts_go_by_pays_where_it_is_what_exploded(metric, running, until):
    runner, _ = running(
        {
            "small": lambda: [metric.counter.sample(1, str(n)) for n in range(40)],
            "vital": lambda: [metric.vital.sample(1, str(n)) for n in range(400)],
        },
        series_budget=300,
    )
    snapshot = until(lambda: (s := runner.snapshot()) and not s.waiting and s)
    assert values(snapshot, metric.vital) == []
    assert len(values(snapshot, metric.counter)) == 40


def test_two_collectors_that_give_one_series_give_it_once(metric, running, until):
    runner, _ = running({"a": lambda: [metric.plain.sample(1)], "b": lambda: [metric.plain.sample(2)]})
    snapshot = until(lambda: (s := runner.snapshot()) and not s.waiting and s)
    assert values(snapshot, metric.plain) == [1.0]
    assert values(snapshot, own.DROPPED, collector="b", reason="duplicate")[0] >= 1


def test_strict_fails_a_run_instead_of_dropping(metric, running, until):
    runner, _ = running({"x": lambda: [metric.plain.sample(float("nan"))]}, strict=True)
    snapshot = until(lambda: (s := runner.snapshot()) and not s.waiting and s)
    assert values(snapshot, own.ERRORS, reason="catalogue")[0] >= 1


def test_a_new_configuration_leaves_unchanged_collectors_alone(metric, running, until):
    runner, puppets = running({"same": lambda: [metric.plain.sample(1)], "gone": lambda: []})
    until(lambda: not runner.snapshot().waiting)
    thread = runner.workers["same"].thread
    gone = runner.workers["gone"].thread
    runner.configure({"same": settings()})
    gone.join(20)
    assert runner.workers["same"].thread is thread
    assert puppets["gone"].closed == 1
    assert [status.name for status in runner.snapshot().statuses] == ["same"]


def test_a_changed_collector_waits_for_its_hanging_predecessor(metric, running, until):
    gate = threading.Event()

    def script():
        gate.wait(60)
        return [metric.plain.sample(1)]

    runner, puppets = running({"x": script})
    until(lambda: puppets["x"].running)
    runner.configure({"x": settings(period="60ms")})
    until(lambda: values(runner.snapshot(), own.STUCK, collector="x")[0] > 0)
    assert puppets["x"].runs == 1
    gate.set()
    until(lambda: values(runner.snapshot(), metric.plain) == [1.0])
    assert puppets["x"].most_running == 1


def test_stop_leaves_hanging_threads_behind_and_closes_their_collectors(metric, running, until):
    gate = threading.Event()
    runner, puppets = running({"bad": lambda: gate.wait(60) and [], "good": lambda: []})
    until(lambda: puppets["bad"].running and puppets["good"].runs)
    began = time.monotonic()
    assert runner.stop(timeout=0.3) == ["bad"]
    assert time.monotonic() - began < 10
    until(lambda: puppets["bad"].closed == 1 and puppets["good"].closed == 1)
    gate.set()


def test_a_collector_that_is_well_again_is_seen_at_the_next_tick(metric, puppet, context):
    trouble = [PartialFailure("half")]

    def script():
        yield metric.plain.sample(1)
        if trouble:
            raise trouble[0]

    kind, _ = puppet("x", script)
    runner = Runner({"x": kind}, context, monotonic=lambda: 0.0)
    runner.configure({"x": settings(period="15s", deadline="10s")}, start=False)
    for _ in range(2):  # the second brings the same series
        runner.workers["x"].step()
        assert values(runner.tick(), own.SUCCESS) == [0.0]
    trouble.clear()
    runner.workers["x"].step()
    shot = runner.tick()
    assert values(shot, metric.plain) == values(shot, own.SUCCESS) == [1.0]


def test_a_clock_that_is_set_back_an_hour_changes_no_freshness(metric, puppet, context):
    wall, monotonic = [1e9], [0.0]
    kind, _ = puppet("x", lambda: [metric.plain.sample(1)])
    runner = Runner({"x": kind}, context, monotonic=lambda: monotonic[0], wall=lambda: wall[0])
    runner.configure({"x": settings(period="15s", deadline="10s")}, start=False)
    runner.workers["x"].step()
    for step in (-3600, 7200):
        wall[0] += step
        snapshot = runner.snapshot()
        assert values(snapshot, metric.plain) == [1.0]
        assert values(snapshot, own.SUCCESS) == [1.0]
        assert values(snapshot, own.TICK_TIME) == [wall[0]]
    monotonic[0] = 25.1
    assert values(runner.snapshot(), metric.plain) == [], "older than period and deadline allow"
    assert runner.snapshot().statuses[0].state == "late"


def test_what_the_agent_costs_includes_its_children():
    import subprocess
    import sys

    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); input()"
    before, _ = Usage().read()
    child = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    assert child.pid in children()
    alive, rss = Usage().read()
    assert alive - before >= 0.25
    child.communicate(b"\n")
    reaped, rss_after = Usage().read()
    assert reaped >= alive - 0.02, "an ended child still counts: the counter does not fall"
    assert rss > 1_000_000 < rss_after
