"""Training ETA: on made-up runs whose end is known, and on a real log."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.errors import CannotTell
from agent.cli import main
from alerts.detect.eta import Schedule, Track
from alerts.detect.lateness import Lateness
from alerts.detect.pace import sort_out
from alerts.detect.replay import replay

STEPS = 6000


def run(seed=0, noise=0.04, slow_from=1.0, slow=1.0, checkpoint=90.0, evaluation=300.0):
    """Wall times (600,) of a record every 10 steps: 12 s a step, spikes, checkpoints, evaluations."""
    rng = np.random.default_rng(seed)
    each = 12.0 * np.exp(noise * rng.normal(size=STEPS))
    spikes = rng.random(STEPS) < 0.003
    each[spikes] *= rng.uniform(2, 6, spikes.sum())
    each[int(slow_from * STEPS) :] *= slow
    each[999::1000] += checkpoint
    each[1999::2000] += evaluation
    return np.cumsum(each)[9::10], np.arange(10, STEPS + 1, 10)


def follow(times, steps, plan=None, total=STEPS, schedule=None, phases=None):
    """The judgement after each record."""
    track, lateness = Track(total, schedule or Schedule()), Lateness(plan)
    track.begin(0.0)
    found = []
    for number, (at, step) in enumerate(zip(times, steps, strict=True)):
        track.add(float(at), float(step), phases[number] if phases else None)
        found.append(lateness.judge(track))
    return found


def first_alert(judgements):
    return next((place for place, judged in enumerate(judgements) if judged.alert), None)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.04, 0.15])
def test_a_healthy_run_is_estimated_well_and_never_late(seed, noise):
    times, steps = run(seed, noise)
    judgements = follow(times, steps, plan=times[-1])
    assert first_alert(judgements) is None
    for share, limit in ((0.25, 0.06), (0.5, 0.04), (0.75, 0.02)):
        assert judgements[int(share * 600)].eta.total == pytest.approx(times[-1], rel=limit)
    inside = [j.eta.low <= times[-1] <= j.eta.high for j in judgements[60:-1]]
    assert np.mean(inside) > 0.7


@pytest.mark.parametrize("seed", range(5))
def test_a_slowdown_that_makes_a_run_late_pages_soon(seed):
    healthy, steps = run(seed)
    times, _ = run(seed, slow_from=0.4, slow=1.5)
    place = first_alert(judged := follow(times, steps, plan=healthy[-1]))
    assert 240 < place < 300
    assert judged[place].alert in ("ticket", "page")
    assert judged[300].alert == "page"
    assert judged[300].eta.low > healthy[-1]


def test_a_slowdown_that_leaves_the_run_in_time_shows_in_the_pace_alone():
    healthy, steps = run(1)
    times, _ = run(1, slow_from=0.9, slow=1.5)
    judged = follow(times, steps, plan=healthy[-1])
    assert first_alert(judged) is None
    assert judged[-10].pace == pytest.approx(0.5, abs=0.1)


def test_a_learnt_plan_never_pages():
    times, steps = run(2, slow_from=0.3, slow=2.0)
    alerts = {judged.alert for judged in follow(times, steps)}
    assert alerts == {None, "ticket"}


def test_a_log_with_few_records_learns_its_plan_too():
    times, steps = run(2, slow_from=0.4, slow=1.5)
    judged = follow(times[5::6], steps[5::6])
    place = first_alert(judged)
    assert judged[place].alert == "ticket"
    assert 40 < place < 60


def test_a_plan_is_learnt_from_few_records_only_if_they_agree():
    steps = np.arange(1, 61)
    steady = follow(10.0 * steps, steps, total=60)
    assert [judged.deviation is None for judged in steady].index(False) == 7
    uneven = follow(np.cumsum(np.tile([2.0, 9.0, 4.0, 15.0], 15)), steps, total=60)
    assert 7 < [judged.deviation is None for judged in uneven].index(False) <= 19


def test_lateness_ends_when_the_time_is_made_up():
    times, steps = run(3)
    slow = times.copy()
    slow[100:] += np.minimum(np.arange(500), 60) * 0.9 * 120  # 60 records at almost twice the pace, then as before
    judged = follow(slow, steps, plan=times[-1] * 1.03)
    states = [j.alert is not None for j in judged]
    assert any(states)
    assert not states[-1]
    assert np.count_nonzero(np.diff(states)) == 2, "one episode, no flapping"


def test_a_restart_costs_its_time_and_nothing_else():
    times, steps = run(4)
    again = np.concatenate([steps[:200], steps[150:]])
    clock = np.concatenate([times[:200], times[199] + 600 + times[150:] - times[149]])
    judged = follow(clock, again, plan=times[-1] * 1.1)
    assert first_alert(judged) is None
    assert judged[400].eta.total == pytest.approx(clock[-1], rel=0.04)


def test_a_pause_counts_in_the_finish_and_not_in_the_pace():
    times, steps = run(5)
    paused = times + np.where(np.arange(600) >= 200, 4 * 3600.0, 0.0)
    judged = follow(paused, steps, plan=times[-1])
    assert judged[260].eta.total == pytest.approx(paused[-1], rel=0.05)
    assert abs(judged[260].pace) < 0.05


def test_a_known_schedule_makes_the_early_estimate_right():
    cost = np.where(np.arange(STEPS) < 2000, 1.0, 2.0)
    times, steps = np.cumsum(10 * cost)[9::10], np.arange(10, STEPS + 1, 10)
    known = follow(times, steps, schedule=Schedule(((0, 1), (2000, 2))))
    unknown = follow(times, steps)
    assert known[60].eta.total == pytest.approx(times[-1], rel=0.01)
    assert unknown[60].eta.total < 0.7 * times[-1]
    assert first_alert(known) is None


def test_an_announced_phase_voids_what_was_learnt():
    cost = np.where(np.arange(STEPS) < 2000, 1.0, 2.0)
    times, steps = np.cumsum(10 * cost)[9::10], np.arange(10, STEPS + 1, 10)
    phases = [32 if step <= 2000 else 64 for step in steps]
    assert first_alert(follow(times, steps, phases=phases)) is None
    assert first_alert(follow(times, steps)) is not None


def test_a_silent_run_moves_its_finish_with_the_clock():
    track = Track(STEPS)
    times, steps = run(6)
    for at, step in zip(times[:200], steps[:200], strict=True):
        track.add(at, step)
    fresh, later = track.estimate(times[199]), track.estimate(times[199] + 7200)
    assert later.total - fresh.total == pytest.approx(7200, abs=200)
    assert later.stalled
    assert not fresh.stalled


def test_a_slow_first_step_is_not_a_stall_to_come():
    times, steps = run(7)
    late = follow(times + 1800, steps)
    assert late[100].eta.total == pytest.approx(times[-1] + 1800, rel=0.07)


def test_an_announced_cost_that_is_not_quite_right_lies_within_the_interval():
    cost = np.where(np.arange(STEPS) < 2000, 1.0, 1.8)
    times, steps = np.cumsum(10 * cost)[9::10], np.arange(10, STEPS + 1, 10)
    judged = follow(times, steps, plan=times[-1], schedule=Schedule(((0, 1), (2000, 2))))
    assert judged[60].eta.low <= times[-1] <= judged[60].eta.high
    assert judged[260].eta.total == pytest.approx(times[-1], rel=0.01), "what a step costs then is measured"


def test_after_one_change_that_nobody_announced_the_interval_allows_for_another():
    cost = np.select([np.arange(STEPS) < 2000, np.arange(STEPS) < 4000], [1.0, 2.0], 3.0)
    times, steps = np.cumsum(10 * cost)[9::10], np.arange(10, STEPS + 1, 10)
    judged = follow(times, steps)
    assert judged[100].eta.high < times[-1], "nothing tells of the first"
    assert judged[300].eta.total < times[-1] < judged[300].eta.high


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    inside = []
    for seed in range(100, 110):
        times, steps = run(seed, 0.15)
        judged = follow(times, steps)
        inside += [judged[place].eta.low <= times[-1] <= judged[place].eta.high for place in (60, 150, 300, 450)]
    assert 0.7 <= np.mean(inside) <= 0.98


def test_what_comes_regularly_is_still_due_when_it_comes_last():
    """A checkpoint every 1,000 steps and an evaluation every 2,000, both at the very end too."""
    times, steps = run(6)
    judged = follow(times, steps)
    for share in (0.9, 0.95, 0.98):
        eta = judged[int(share * 600) - 1].eta
        assert eta.total == pytest.approx(times[-1], rel=0.002), share
        assert eta.low <= times[-1] <= eta.high


def test_interruptions_are_told_apart_by_what_they_cost_and_how_regularly_they_come():
    places = np.array([150.0, 199, 310, 399, 599, 799])
    seconds = np.array([20.0, 300, 35, 310, 290, 305])
    (each, *once), rest = sort_out(places, seconds, 2.0)
    assert [(one.gap, one.seconds, one.times) for one in once] == [(310, 35, 1), (150, 20, 1)]
    assert not len(rest)
    assert (each.gap, each.times) == (pytest.approx(200), 4)
    assert each.seconds == pytest.approx(301.25)
    assert [each.due(now, 1000) for now in (0, 150, 799, 900, 999)] == [5, 5, 1, 1, 0]
    assert each.at_the_end(1000)
    assert not each.at_the_end(1100)
    assert [each.stays_out(now) for now in (999, 1009)] == [False, True]
    (again,), _ = sort_out(np.append(places[seconds > 100], 599), np.append(seconds[seconds > 100], 300), 2.0)
    assert (again.gap, again.times) == (each.gap, 4), "made again after a restart"
    regular, rest = sort_out(np.array([130.0, 370, 420, 900]), np.full(4, 90.0), 2.0)
    assert not regular
    assert len(rest) == 4


@pytest.mark.parametrize("recent", [0.06, 0.075])
def test_the_first_evaluation_after_the_start_is_not_expected_all_the_time(recent):
    """It comes as far apart as it was from the start; it was taken to come as often as since 5 % of the steps."""
    steps = np.arange(10, STEPS + 1, 10)
    times = 12.0 * steps + 400.0 * (steps // (recent * STEPS))
    judged = follow(times, steps, plan=times[-1])
    assert first_alert(judged) is None
    assert judged[int(0.1 * 600)].eta.total == pytest.approx(times[-1], rel=0.01)


def test_a_pause_is_not_expected_to_come_again_and_a_hiccup_that_stays_out_less_and_less():
    steps = np.arange(10, STEPS + 1, 10)
    paused = 2.0 * steps + 1200.0 * (steps > 0.3 * STEPS)
    judged = follow(paused, steps, plan=12000.0)
    assert judged[250].eta.total == pytest.approx(paused[-1], rel=0.01)
    assert judged[250].eta.high > paused[-1] + 1000, "it may"
    hiccup = 12.0 * steps + 600.0 * (steps > 0.2 * STEPS)
    judged = follow(hiccup, steps)
    assert judged[160].eta.total == pytest.approx(hiccup[-1] + 4 * 600, rel=0.005)
    assert judged[500].eta.total == pytest.approx(hiccup[-1] + 120, rel=0.005)


def test_a_steady_run_is_judged_by_all_of_its_steps_and_not_by_the_last_few():
    errors = {"ours": [], "recent": []}
    for seed in range(12):
        times, steps = run(seed, noise=0.3, checkpoint=0.0, evaluation=0.0)
        found = follow(times[:300], steps[:300])[-1].eta
        errors["ours"].append(abs(found.total / times[-1] - 1))
        recent = (times[299] - times[287]) / (steps[299] - steps[287])
        errors["recent"].append(abs((times[299] + recent * (STEPS - steps[299])) / times[-1] - 1))
    assert np.mean(errors["ours"]) < 0.8 * np.mean(errors["recent"])


def test_a_promise_of_more_than_the_pace_says_widens_the_interval_and_nothing_else():
    times, steps = run(7)
    grown = np.cumsum(np.diff(times, prepend=0.0) * np.where(steps > 2400, 2.0, 1.0))  # nobody announced it
    bare, promised = follow(grown, steps), follow(grown, steps, plan=grown[-1])
    early = bare[100].eta
    assert early.high < grown[-1] == promised[100].eta.high
    assert (promised[100].eta.total, promised[100].eta.low) == (early.total, early.low)
    assert first_alert(promised) is None
    generous = follow(times, steps, plan=10 * times[-1])
    assert generous[300].eta.high < 2 * times[-1], "no schedule makes up for that"


def test_too_few_records_say_nothing_and_the_end_is_the_end():
    times, steps = run(8)
    judged = follow(times, steps)
    assert judged[3].eta is None
    assert judged[-1].eta.total == judged[-1].eta.low == judged[-1].eta.high == pytest.approx(times[-1])


@given(
    st.lists(st.tuples(st.floats(0, 1e5), st.integers(-50, 100)), min_size=1, max_size=80),
    st.integers(1, 5000),
)
@settings(deadline=None, max_examples=60)
def test_no_sequence_of_records_breaks_an_estimate(moves, total):
    track, lateness, at, step = Track(total), Lateness(1000.0), 0.0, 0
    for gap, gained in moves:
        at, step = at + gap, max(step + gained, 0)
        track.add(at, step)
        eta = lateness.judge(track).eta
        if eta is not None:
            assert np.isfinite([eta.total, eta.low, eta.high]).all()
            assert eta.low <= eta.total <= eta.high
            assert eta.total >= track.elapsed * (1 - 1e-9)


def detect_eta(capsys, *arguments):
    code = main(["detect", "eta", *map(str, arguments), "-o", "json"])
    out = capsys.readouterr()
    return code, [json.loads(line) for line in out.out.splitlines()], out.err


def test_a_real_log_whose_clock_is_reset_after_warm_up(capsys, request):
    log = request.config.rootpath / "tests/data/training/nanogpt_clock_reset.log"
    code, records, _ = detect_eta(capsys, log, "--plan", "300")
    assert code == 0
    assert set(records[0]) >= {"elapsed", "step", "eta_total", "low", "high", "deviation", "alert"}
    resets = [b for a, b in itertools.pairwise(records) if b["elapsed"] < a["elapsed"]]
    assert resets, "the clock of this log goes back once"
    assert all(record["alert"] is None for record in records)


def test_wall_stamps_are_the_clock_where_there_are_any(capsys, tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "".join(
            f" [2025-04-13 {10 + n // 60:02d}:{n % 60:02d}:00] iteration {n + 1:8d}/ 100 | "
            "elapsed time per iteration (ms): 60000.0 | lm loss: 2.5E+00 |\n"
            for n in range(100)
        )
    )
    code, records, _ = detect_eta(capsys, log)
    assert code == 0
    assert records[50]["eta_total"] == pytest.approx(99 * 60, rel=0.02)
    assert records[50]["elapsed"] == 50 * 60


@pytest.mark.parametrize(
    ("text", "arguments", "reason"),
    [
        ("nothing to see\n", (), "no line"),
        ("s:1 trl:3.2\ns:2 trl:3.1\n" * 20, (), "--total-steps"),
        ("s:1 trl:3.2\ns:2 trl:3.1\n" * 20, ("--total-steps", "10"), "neither wall stamps nor a clock"),
        ("step,loss\n1,2.0\n2,1.9\n", ("--total-steps", "10"), "neither wall stamps nor a clock"),
    ],
)
def test_a_log_without_time_or_total_cannot_be_told(capsys, tmp_path, text, arguments, reason):
    (tmp_path / "log").write_text(text)
    code, records, err = detect_eta(capsys, tmp_path / "log", *arguments)
    assert code == 3
    assert reason in err
    assert not records


@pytest.mark.parametrize("steps", ["0", "-5"])
def test_a_total_that_is_none_is_refused(capsys, tmp_path, steps):
    (tmp_path / "log").write_text("step,elapsed\n1,10\n2,20\n")
    code, records, err = detect_eta(capsys, tmp_path / "log", "--total-steps", steps)
    assert code == 2
    assert f"--total-steps {steps}" in err
    assert not records


@pytest.mark.parametrize("indent", [2, None])
def test_a_trainer_state_has_steps_but_no_times(capsys, tmp_path, indent):
    history = [{"epoch": 0.1 * n, "loss": 2.3, "step": 10 * n} for n in range(1, 11)]
    state = {"global_step": 100, "log_history": history, "max_steps": 100}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state, indent=indent))
    code, records, err = detect_eta(capsys, tmp_path / "trainer_state.json")
    assert code == 3
    assert "neither wall stamps nor a clock" in err
    assert not records


def test_a_log_may_begin_with_its_settings(capsys, tmp_path):
    settings = json.dumps({"model": "gpt2", "optimizer": {"lr": 1e-4}}, indent=2) + "\n"
    rows = "".join(f'{{"step": {n}, "total_steps": 200, "elapsed": {1.5 * n}}}\n' for n in range(1, 201))
    (tmp_path / "log").write_text(settings + rows)
    code, records, _ = detect_eta(capsys, tmp_path / "log")
    assert code == 0
    assert records[100]["eta_total"] == pytest.approx(300, rel=0.01)
    assert len(records) == 200


def test_a_csv_of_progress_is_a_log_too(capsys, tmp_path):
    rows = "".join(f"{step},200,{step * 1500.0}\n" for step in range(1, 201))
    (tmp_path / "log.csv").write_text("step,total_steps,train_time_ms\n" + rows)
    code, records, _ = detect_eta(capsys, tmp_path / "log.csv")
    assert code == 0
    assert records[100]["eta_total"] == pytest.approx(300, rel=0.01)


def as_dicts(text, **how):
    return [(m.elapsed, m.step, m.judgement) for m in replay(text.splitlines(keepends=True), **how)]


LOGS = ["nanogpt_clock_reset.log", "nanogpt_no_loss.log", "megatron_cancelled.log", "huggingface_bars.log"]


@pytest.fixture(scope="session")
def real_logs(request):
    folder = request.config.rootpath / "tests/data/training"
    texts = {name: (folder / name).read_text() for name in LOGS}
    return {name: (text, as_dicts(text, plan=200.0)) for name, text in texts.items()}


@pytest.mark.parametrize("name", LOGS)
@given(share=st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=4)
def test_a_log_cut_off_anywhere_says_the_same_up_to_there(real_logs, name, share):
    text, whole = real_logs[name]
    cut = int(share * len(text))
    try:
        part = as_dicts(text[:cut], plan=200.0)
    except CannotTell:
        return
    complete = part[:-1]  # the last line may have lost its end
    assert complete == whole[: len(complete)]


def test_a_log_that_names_its_total_late_is_judged_from_there_on():
    lines = [f"{step},,{step * 2.0}\n" for step in range(1, 50)]
    lines += [f"{step},100,{step * 2.0}\n" for step in range(50, 101)]
    moments = list(replay(["step,total_steps,elapsed\n", *lines]))
    assert [moment.step for moment in moments] == list(range(1, 101))
    assert moments[60].judgement.eta.total == pytest.approx(200.0, rel=0.01)


def test_stamps_that_come_late_become_the_clock_once_most_records_have_them():
    lines = [f"{step},100,{step * 2.0},\n" for step in range(1, 11)]
    lines += [f"{step},100,{step * 2.0},{1e9 + step * 3.0}\n" for step in range(11, 101)]
    moments = list(replay(["step,total_steps,elapsed,timestamp\n", *lines]))
    assert moments[9].elapsed == pytest.approx(20.0)
    assert moments[15].elapsed == pytest.approx(32.0)
    assert moments[-1].elapsed == pytest.approx(89 * 3.0)
    assert moments[-1].judgement.eta.total == pytest.approx(89 * 3.0)


def test_a_clock_that_starts_again_with_the_run_counts_from_there():
    first = [f"{step},1000,{step * 1.0}\n" for step in range(1, 500)]
    again = [f"{step},1000,{(step - 400) * 1.0}\n" for step in range(401, 1001)]
    moments = list(replay(["step,total_steps,elapsed\n", *first, *again]))
    assert moments[400].judgement.eta.total == pytest.approx(1000.0, rel=0.02)
    assert moments[700].judgement.eta.total == pytest.approx(600.0, rel=0.02)


def test_all_ranks_of_a_job_in_one_log_are_one_run():
    line = (
        "[rank{rank}]:[titan] 2025-06-16 22:{m:02d}:{s:02d},000 - root - INFO - step: {step}  loss:  6.1  tps: 5,856\n"
    )
    lines = []
    for step in range(1, 101):
        for rank, late in ((0, 0), (1, 25)):  # rank 1 writes after rank 0 has made the next steps
            at = 10 * max(step - late, 1) + late
            lines.append((at, rank, max(step - late, 1)))
    text = "".join(line.format(rank=r, m=at // 60, s=at % 60, step=step) for at, r, step in lines)
    moments = list(replay(text.splitlines(keepends=True), total_steps=100))
    assert [moment.step for moment in moments] == list(range(1, 101))


def test_losses_of_a_csv_are_watched_too(capsys, tmp_path):
    rows = "".join(f"{step},train_loss,{3.0 if step != 150 else float('nan')}\n" for step in range(1, 201))
    (tmp_path / "log.csv").write_text("step,kind,loss\n" + rows)
    assert main(["detect", "loss", str(tmp_path / "log.csv"), "-o", "json"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[0] == {"step": 150, "signal": "nonfinite", "began": True}


@pytest.mark.parametrize("schedule", ["x", "1:0", "5", "1:a"])
def test_a_wrong_schedule_is_a_usage_error(capsys, tmp_path, schedule):
    (tmp_path / "log").write_text("")
    assert main(["detect", "eta", str(tmp_path / "log"), "--schedule", schedule]) == 2
    assert "STEP:COST" in (err := capsys.readouterr().err) or "above 0" in err
