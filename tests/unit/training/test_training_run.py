"""A run's state from its records: ends, stalls, restarts, re-used files, clocks that reset."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.trainlog import Progress, open_format
from agent.training.clock import LogClock
from agent.training.run import RANKS, Run

T0 = 1_700_000_000.0


def made(run: Run, steps: range, pace: float = 12.0, start: float = T0, **more: float) -> float:
    """Feed a record a step; returns the time of the last."""
    at = start
    for step in steps:
        run.take(Progress(step=step, total_steps=1000, **more), at)  # type: ignore[arg-type]
        at += pace
    return at - pace


def test_facts_of_a_plain_run() -> None:
    run = Run()
    last = made(run, range(1, 101))
    assert (run.step, run.total, run.started, run.last_time) == (100, 1000, T0, last)
    assert run.interval == 12.0
    assert run.values["step_seconds"] == 12.0
    assert run.running(last + 60)


def test_a_hung_run_is_running_without_pace_and_ends_after_the_silence() -> None:
    run = Run(silence=1800)
    last = made(run, range(1, 101))
    assert run.on_pace(last + 100)
    assert not run.on_pace(last + 130)
    assert run.running(last + 1700)
    assert not run.running(last + 1900)


def test_ten_slow_intervals_are_waited_for() -> None:
    run = Run(silence=1800)
    last = made(run, range(1, 20), pace=600.0)
    assert run.running(last + 5900)
    assert not run.running(last + 6100)


def test_a_sparse_log_is_waited_for_from_its_second_line_on() -> None:
    """A line each 100 steps of 30 seconds: 50 minutes of silence are usual, and known to be."""
    run = Run(silence=1800)
    for step in (100, 200):
        run.take(Progress(step=step, step_seconds=30.0), T0 + 30 * step)
    assert run.interval is None
    last = T0 + 6000
    assert run.running(last + 29_000)
    assert run.on_pace(last + 29_000)
    assert not run.running(last + 31_000)


def test_one_line_of_a_long_run_and_a_part_passed_over_tell_no_interval() -> None:
    """Else a job that died at its first line after a resume, or long ago, were running for years."""
    resumed = Run(silence=1800)
    resumed.take(Progress(step=500_000, step_seconds=30.0), T0)
    assert not resumed.running(T0 + 2000)
    backlog = Run(silence=1800)
    for step in (1, 2, 400_000):
        backlog.take(Progress(step=step, step_seconds=30.0), None)
    backlog.settle(T0)
    assert not backlog.running(T0 + 2000)


def test_what_is_usual_is_known_after_a_restart_of_the_agent() -> None:
    run = Run(silence=1800)
    last = made(run, range(1, 20), pace=3000.0)
    again = Run(silence=1800)
    again.restore(run.state())
    assert again.interval == 3000.0
    assert again.running(last + 29_000)


def test_all_steps_made_is_the_end() -> None:
    run = Run()
    last = made(run, range(990, 1001))
    assert not run.running(last)


def test_planned_steps_of_the_configuration_count_before_the_log() -> None:
    run = Run(planned_steps=50)
    last = made(run, range(1, 51))
    assert run.steps_planned == 50
    assert not run.running(last)


def test_a_restart_keeps_the_start_and_drops_the_pause_from_the_pace() -> None:
    run = Run()
    last = made(run, range(1, 101))
    run.take(Progress(step=81, restart=True), last + 600)
    run.take(Progress(step=82), last + 612)
    assert run.restarts == 1
    assert run.started == T0
    assert run.step == 82
    assert run.values["step_seconds"] == 12.0
    assert run.interval == 12.0


def test_a_reused_file_that_begins_anew_is_another_run() -> None:
    run = Run()
    last = made(run, range(1, 101), loss=2.0)
    run.new_file()
    run.take(Progress(step=1, total_steps=500), last + 100)
    assert (run.step, run.total, run.started) == (1, 500, last + 100)
    assert run.restarts == 0
    assert run.loss is None, "the old run's loss is not this one's"


def test_a_new_file_that_goes_on_is_the_same_run() -> None:
    run = Run()
    last = made(run, range(1, 101))
    run.new_file()
    run.take(Progress(step=101), last + 12)
    assert (run.started, run.restarts, run.step) == (T0, 0, 101)


def test_a_new_file_from_a_checkpoint_is_a_restart() -> None:
    run = Run()
    last = made(run, range(1, 101))
    run.new_file()
    run.take(Progress(step=81), last + 300)
    assert (run.started, run.restarts, run.step) == (T0, 1, 81)


def test_after_the_end_a_first_step_is_another_run() -> None:
    run = Run()
    last = made(run, range(1, 1001))
    run.take(Progress(step=1, total_steps=1000, restart=True), last + 60)
    assert run.started == last + 60
    assert run.restarts == 0
    assert run.running(last + 60)


def bars(run: Run, steps: range, at: float) -> None:
    """Bars as one turn reads them: without clocks, and never called a restart."""
    for step in steps:
        run.take(Progress(step=step, total_steps=16, elapsed=step * 60.0), None)
    run.settle(at)


def test_other_ranks_bars_after_the_end_are_copies() -> None:
    run = Run()
    bars(run, range(17), T0)
    bars(run, range(17), T0 + 1)
    assert (run.step, run.started, run.restarts) == (16, T0 - 16 * 60, 0)
    assert not run.running(T0 + 2)


def test_bars_that_take_their_time_after_the_end_are_another_run() -> None:
    run = Run()
    bars(run, range(17), T0)
    for step in range(4):
        bars(run, range(step, step + 1), T0 + 1000 + 60 * step)
    assert run.step == 3
    assert run.started == T0 + 1000
    assert run.running(T0 + 1200)
    assert run.restarts == 0


def test_nan_loss_is_counted_and_no_loss_is_claimed() -> None:
    run = Run()
    made(run, range(1, 10), loss=2.0)
    run.take(Progress(step=10, loss=math.nan, nonfinite=1), T0 + 200)
    assert run.loss is None
    assert run.nonfinite == 1
    run.take(Progress(step=11, loss=1.5), T0 + 212)
    assert run.loss == 1.5


def test_an_old_log_without_clock_is_dated_by_the_runs_own_clock() -> None:
    """Read at once after the fact: the file's modification time dates the last record, the rest by `elapsed`."""
    run = Run()
    for step, elapsed in ((1, 24.0), (10, 25.0), (11, 0.1), (20, 1.5)):  # the clock resets after step 10
        run.take(Progress(step=step, elapsed=elapsed), None)
    run.settle(T0)
    assert run.last_time == T0
    assert run.started == pytest.approx(T0 - (1.0 + 0.1 + 1.4))


def test_an_old_log_without_any_clock_has_no_start() -> None:
    run = Run()
    run.take(Progress(step=1), None)
    run.take(Progress(step=2), None)
    run.settle(T0)
    assert run.started is None
    assert run.last_time == T0


def test_other_ranks_tell_their_pace_only() -> None:
    run = Run()
    for step in range(1, 6):
        for rank in range(4):
            slow = 3.0 if rank == 2 else 1.0
            run.take(Progress(step=step, rank=rank, step_seconds=slow, loss=float(rank)), T0 + step * 12 + rank)
    assert run.ranks == {0: 1.0, 1: 1.0, 2: 3.0, 3: 1.0}
    assert run.loss == 0.0
    assert run.restarts == 0


def test_a_rank_that_speaks_no_more_is_followed_by_another() -> None:
    """Megatron's last rank logs: rank 7 of eight, rank 15 of sixteen after a restart with more nodes."""
    run = Run()
    for step in range(1, 101):
        run.take(Progress(step=step, rank=7), T0 + step)
    for step in range(90, 120):
        run.take(Progress(step=step, rank=15, restart=step == 90), T0 + 100 + step)
    assert (run.step, run.restarts) == (119, 1)
    run.new_file()
    run.take(Progress(step=120, rank=31), T0 + 300)
    assert run.step == 120


def test_ranks_in_any_order_are_one_run() -> None:
    run = Run()
    for step in range(1, 50):
        for rank in (3, 0, 2, 1):
            run.take(Progress(step=step, rank=rank, loss=float(rank)), T0 + step)
            assert run.loss in (3.0, 0.0) if step == 1 else run.loss == 0.0
    assert (run.step, run.restarts) == (49, 0)


@pytest.mark.parametrize(
    "line", ["Step {}/1000 | loss: 2.3", "iter {}: loss 2.3, time 12.00ms", '{{"step": {}, "loss": 2.3}}']
)
def test_ranks_that_do_not_name_themselves_are_no_restarts(line: str) -> None:
    """Eight of them, each up to a step behind the others; then all go back to a checkpoint."""
    parser, run = open_format("auto"), Run()
    moments = sorted((step + (5 * step + 3 * rank) % 8 / 4, step) for step in range(1, 101) for rank in range(8))
    for at, step in [*moments, *((at + 100, step - 20) for at, step in moments if step > 70)]:
        for record in parser.feed_all([line.format(step)]):
            run.take(record, T0 + at)
    assert run.restarts == 1
    assert run.step in (80, 81)


def test_ranks_that_never_end_cost_no_memory() -> None:
    run = Run()
    for rank in range(2 * RANKS):
        for step in (1, 2):
            run.take(Progress(step=step, rank=rank, step_seconds=1.0), T0 + step)
    assert len(run.ranks) == RANKS


def test_state_goes_through_a_restart_of_the_agent() -> None:
    run = Run()
    made(run, range(1, 101), loss=2.0)
    again = Run()
    again.restore(run.state())
    assert again.state() == run.state()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.one_of(st.none(), st.floats(T0, T0 + 1e6)))))
def test_counters_never_fall_and_restarts_need_a_reason(records: list[tuple[int, bool, float | None]]) -> None:
    run, before, backs, last = Run(), 0, 0, -1
    for step, restart, at in records:
        run.take(Progress(step=step, restart=restart), at)
        backs += restart or step < last
        last = step
        assert before <= run.restarts <= backs
        before = run.restarts


@pytest.mark.parametrize(("behind", "expected"), [(0.4, 0.0), (7200.5, 7200.0), (-19800 + 3, -19800.0), (700.0, 0.0)])
def test_zone_of_the_log_is_found_by_whole_half_hours(behind: float, expected: float) -> None:
    clock = LogClock()
    clock.learn(last_line=T0, modified=T0 + behind)
    assert clock.offset == expected
