"""`detect eta` on logs of many shapes: their clocks, totals, ranks and restarts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from agent.base.errors import CannotTell
from alerts.detect.replay import Moment, replay

START = datetime(2024, 5, 1, 23, 10, tzinfo=timezone.utc)
TOKYO = timezone(timedelta(hours=9))


def bar(step: int, total: int, elapsed: int, title: str = "", post: str = "") -> str:
    hours, rest = divmod(elapsed, 3600)
    clock = f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60:02d}:{rest % 60:02d}"
    return f"\r{title}{100 * step // total:3d}%|█   | {step}/{total} [{clock}<01:00,  4.00s/it{post}]"


def follow(lines: list[str], total: int | None = None, plan: float | None = None) -> list[Moment]:
    found = list(replay(lines, total_steps=total, plan=plan))
    elapsed = [moment.elapsed for moment in found]
    assert elapsed == sorted(elapsed)
    for moment in found:
        if (eta := moment.judgement.eta) is not None:
            assert moment.elapsed <= eta.low <= eta.total <= eta.high
    return found


def is_steady(found: list[Moment], seconds: float, steps: int = 1000) -> bool:
    """Whether a run of so many seconds was foreseen from a tenth of it on, and ended as such."""
    last = found[-1]
    etas = [moment.judgement.eta for moment in found if moment.step >= 0.1 * steps]
    near = all(eta is not None and abs(eta.total / seconds - 1) < 0.03 for eta in etas)
    return near and last.step == steps and last.judgement.eta is not None and last.judgement.eta.total == last.elapsed


CLOCKS: dict[str, Callable[[datetime], str]] = {
    "iso": lambda at: f"{at:%Y-%m-%d %H:%M:%S} INFO",
    "zone": lambda at: f"{at.astimezone(TOKYO):%Y-%m-%dT%H:%M:%S%z}",
    "slashes": lambda at: f"{at:%Y/%m/%d %H:%M:%S} - INFO -",
    "huggingface": lambda at: f"{at:%m/%d/%Y %H:%M:%S} - INFO - __main__ -",
    "rich": lambda at: f"[{at:%m/%d/%y %H:%M:%S}] INFO    ",
    "half days": lambda at: f"{at:%m/%d/%Y %I:%M:%S %p}",
    "dots": lambda at: f"{at:%d.%m.%Y %H:%M:%S}",
    "short year": lambda at: f"{at:%y-%m-%d %H:%M:%S}",
    "ctime": lambda at: f"[{at:%a %b %d %H:%M:%S %Y}]",
    "syslog": lambda at: f"{at:%b %d %H:%M:%S} node1 train[77]:",
    "glog": lambda at: f"{at:I%m%d %H:%M:%S}.000123 1234 train.py:226]",
    "no year": lambda at: f"[{at:%m/%d %H:%M:%S}]",
    "unix": lambda at: f"{at.timestamp():.3f}",
    "time of day": lambda at: f"{at:%H:%M:%S} INFO",
    "time of day in brackets": lambda at: f"[{at:%H:%M:%S}]",
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_wall_clock_of_any_layout_tells_time_through_midnight(clock: str) -> None:
    def line(step: int) -> str:
        return f"{CLOCKS[clock](START + timedelta(seconds=4 * step))} step {step}/1000, loss: 2.31\n"

    assert is_steady(follow([line(step) for step in range(10, 1001, 10)]), 3960)


def test_a_clock_set_back_at_the_end_of_summer_time_does_not_stop_the_run() -> None:
    summer = datetime(2024, 10, 27, 0, 0)
    lines = []
    for step in range(10, 1001, 10):
        at = summer + timedelta(seconds=20 * step)
        shown = at if at.hour < 3 else at - timedelta(hours=1)
        lines.append(f"{shown:%Y-%m-%d %H:%M:%S} step {step}/1000, loss: 2.31\n")
    assert is_steady(follow(lines), 19800)


@pytest.mark.parametrize(("title", "post"), [("Training: ", ""), ("steps: ", ", avr_loss=0.1"), ("gpt2: ", ", loss=2")])
def test_a_titled_bar_of_the_training_is_the_run(title: str, post: str) -> None:
    lines = [bar(step, 1000, 4 * step, title, post) for step in range(5, 1001, 5)]
    assert is_steady(follow(lines), 4000)
    others = [bar(step, 50, step, "Validation: ", post) for step in range(1, 51)]
    assert len(follow([*lines[:100], *others, *lines[100:]])) == 200


@pytest.mark.parametrize("title", ["Epoch {}/5: ", "Episode [{}/5]: "])
def test_bars_of_epochs_make_one_clock_and_one_count(title: str) -> None:
    lines = [bar(s, 200, 4 * s, title.format(epoch)) for epoch in range(1, 6) for s in range(4, 201, 4)]
    assert is_steady(follow(lines), 4000)


def test_lightnings_and_torchtunes_epochs_too() -> None:
    lightning = [bar(s, 250, 4 * s, f"Epoch {epoch}: ", ", v_num=0") for epoch in range(4) for s in range(5, 251, 5)]
    assert is_steady(follow(lightning, 1000), 4000)
    tune = [bar(s, 250, 4 * s, f"{e + 1}|{250 * e + s}|Loss: 1.5: ") for e in range(4) for s in range(5, 251, 5)]
    assert is_steady(follow(tune, 1000), 4000)


def test_steps_that_begin_anew_with_each_epoch() -> None:
    lines = [
        f"{START + timedelta(seconds=4 * step):%Y-%m-%d %H:%M:%S} Epoch {(step - 1) // 250 + 1}/4"
        f" step {(step - 1) % 250 + 1}/250 loss: 2.3\n"
        for step in range(10, 1001, 10)
    ]
    assert is_steady(follow(lines), 3960)
    running = [line.replace(line[line.index(" step") : line.index("loss")], f" step {10 * n}/1000 ")
               for n, line in enumerate(lines, 1)]  # fmt: skip
    assert replay_last(running) == (1000, 3960)


def replay_last(lines: list[str]) -> tuple[int, float]:
    last = list(replay(lines))[-1]
    return last.step, last.elapsed


def test_copies_of_other_ranks_are_no_restarts() -> None:
    lines = []
    for step in range(5, 1001, 5):
        lines += [bar(step, 1000, 4 * step), bar(max(step - 5, 5), 1000, 4 * step - 1)]
    found = follow(lines)
    assert is_steady(found, 4000)
    assert not any(moment.judgement.alert for moment in found)


def megatron(step: int, seconds: float, rank: int) -> str:
    at = START + timedelta(seconds=seconds)
    return f"[default{rank}]: [{at:%Y-%m-%d %H:%M:%S}] iteration {step:8d}/ 1000 | lm loss: 2.5E+00 |\n"


def test_another_rank_may_tell_after_a_restart() -> None:
    lines = [megatron(step, 4 * step, 7) for step in range(10, 501, 10)]
    lines.append("[default15]: successfully loaded checkpoint from /ckpt at iteration 400\n")
    lines += [megatron(step, 4 * step + 1000, 15) for step in range(410, 1001, 10)]
    found = follow(lines)
    assert (found[-1].step, found[-1].elapsed) == (1000, 4960)
    assert found[-20].judgement.eta is not None
    assert found[-20].judgement.eta.total == pytest.approx(4960, rel=0.02)


def test_the_log_of_a_resumed_run_has_a_clock_of_its_own() -> None:
    lines = [bar(step, 1000, 4 * (step - 500)) for step in range(502, 1001, 2)]
    found = follow(lines)
    assert found[50].judgement.eta is not None
    assert found[50].judgement.eta.total == pytest.approx(2000, rel=0.03)
    assert not any(moment.judgement.alert for moment in found)


@pytest.mark.parametrize("each", [0.05, 0.55])
def test_steps_shorter_than_what_the_clock_shows(each: float) -> None:
    """A clock of whole seconds gives intervals of 0 and 1: alone they say nothing of the pace."""
    steps = 1000
    lines = [bar(step, steps, int(each * step)) for step in range(1, steps + 1)]
    found = follow(lines, plan=each * steps)
    for share in (0.1, 0.25, 0.5, 0.75):
        eta = found[int(share * steps)].judgement.eta
        assert eta is not None
        assert eta.total == pytest.approx(each * steps, rel=0.05)
    assert not any(moment.judgement.alert for moment in found)


def stamped(step: int, seconds: float) -> str:
    return f"{START + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S} step {step}/1000, loss: 2.31\n"


def test_few_records_far_apart_are_enough_from_a_tenth_on() -> None:
    found = follow([stamped(step, 4 * step) for step in range(50, 1001, 50)])
    assert found[1].judgement.eta is not None
    assert found[1].judgement.eta.total == pytest.approx(3800, rel=0.03)


@pytest.mark.parametrize("plan", [None, 4240.0])
def test_a_slow_beginning_is_not_late(plan: float | None) -> None:
    lines = [stamped(step, 4 * step + 8 * min(step, 30)) for step in range(2, 1001, 2)]
    assert not any(moment.judgement.alert for moment in follow(lines, plan=plan))


def test_evaluations_that_begin_after_a_plan_was_learnt_are_no_lateness() -> None:
    lines = [stamped(step, 4 * step + 120 * (step // 100)) for step in range(5, 1001, 5)]
    assert not any(moment.judgement.alert for moment in follow(lines))
    slower = np.cumsum([4.0] * 400 + [8.0] * 600)
    late = [stamped(step, slower[step - 1] + 120 * (step // 100)) for step in range(5, 1001, 5)]
    assert any(moment.judgement.alert == "ticket" for moment in follow(late))


TABLES = {
    "dates": ("timestamp,step,total_steps", lambda s: f"{START + timedelta(seconds=4 * s):%Y-%m-%d %H:%M:%S},{s},1000"),
    "seconds": ("time,step,max_steps", lambda s: f"{4 * s},{s},1000"),
    "semicolons": ("step;elapsed_s;total_steps", lambda s: f"{s};{4 * s};1000"),
    "tabs": ("step\telapsed_seconds\ttotal_steps", lambda s: f"{s}\t{4 * s}\t1000"),
    "quotes": ('"_step","_timestamp","max_steps"', lambda s: f'"{s}","{1.7e9 + 4 * s}","1000"'),
}


@pytest.mark.parametrize("table", TABLES)
def test_tables_of_other_programs(table: str) -> None:
    head, row = TABLES[table]
    found = follow([head + "\n", *(row(step) + "\n" for step in range(10, 1001, 10))])
    assert is_steady(found, found[-1].elapsed)
    assert found[-1].elapsed in (3960, 4000)


def composer(step: int) -> str:
    return f"[batch={step}/1000]:\n Train loss/train/total: 2.31\n Train time/total: {4 * step / 3600:.4f}\n"


def mllog(key: str, value: object, seconds: float, **where: int) -> str:
    meta = ", ".join(f'"{name}": {at}' for name, at in where.items())
    when = int(1.7e12 + 1000 * seconds)
    return f':::MLLOG {{"time_ms": {when}, "key": "{key}", "value": {value}, "metadata": {{{meta}}}}}\n'


def test_the_total_of_composer_mlperf_and_verl_is_found() -> None:
    lines = "".join(composer(step) for step in range(10, 1001, 10)).splitlines(keepends=True)
    assert is_steady(follow(lines), 4000)
    events = [mllog("global_batch_size", 8, 0), mllog("max_steps", 1000, 0)]
    events += [mllog("train_loss", 2.3, 4 * step, samples_count=8 * step) for step in range(10, 1001, 10)]
    assert is_steady(follow(events), 3960)
    steps = ["Total training steps: 1000\n"]
    steps += [f"step:{step} - actor/pg_loss:-0.01 - timing_s/step:4.0\n" for step in range(10, 1001, 10)]
    assert is_steady(follow(steps), 4000)


def test_litgpts_step_is_the_time_of_its_micro_batches() -> None:
    lines = [
        f"Epoch 1 | iter {n} step {n // 4} | loss train: 2.3, val: n/a | iter time: 1000.00 ms\n"
        for n in range(20, 4001, 20)
    ]
    assert is_steady(follow(lines, 1000), 4000)


@pytest.mark.parametrize("back", [613.0, 5 * 86400.0 + 77])
def test_a_clock_that_was_set_back_goes_on_at_the_usual_distance(back: float) -> None:
    lines = [stamped(step, 4 * step - back * (step > 500)) for step in range(10, 1001, 10)]
    found = follow(lines)
    assert is_steady(found, 3960)
    assert not any(moment.judgement.alert for moment in found)


def test_a_clock_that_was_set_only_after_the_start_does_not_add_the_years() -> None:
    lines = [stamped(step, 4 * step).replace("2024-05", "1970-01" if step < 100 else "2024-05")
             for step in range(10, 1001, 10)]  # fmt: skip
    assert is_steady(follow(lines), 3960)


def test_another_run_in_the_same_log_begins_anew() -> None:
    one = [stamped(step, 4 * step) for step in range(10, 1001, 10)]
    two = [stamped(step, 6000 + 8 * step) for step in range(10, 1001, 10)]
    found = list(replay(one + two))
    assert is_steady(found[:100], 3960)
    assert is_steady(found[100:], 7920)
    assert not any(moment.judgement.alert for moment in found)


def test_a_run_that_is_made_longer_is_not_late_by_what_was_learnt() -> None:
    lines = [stamped(step, 4 * step) for step in range(10, 1001, 10)]
    longer = [line.replace("/1000", "/500") if n < 40 else line for n, line in enumerate(lines)]
    found = follow(longer)
    assert is_steady(found[40:], 3960)
    assert not any(moment.judgement.alert for moment in found)
    planned = follow(longer, plan=2000)
    assert planned[-1].judgement.alert == "page"


def test_a_clock_that_few_records_carry_is_the_clock_all_the_same() -> None:
    rows = [f"{step},{4 * step if step % 30 == 0 else ''},1000\n" for step in range(10, 1001, 10)]
    found = follow(["step,elapsed,total_steps\n", *rows])
    assert [moment.step for moment in found] == list(range(30, 1000, 30))
    assert found[-1].judgement.eta is not None
    assert found[-1].judgement.eta.total == pytest.approx(4000, rel=0.01)


def test_a_clock_beyond_all_measure_is_none() -> None:
    rows = [f"{step},{step}e306,1000\n" for step in range(1, 100)]
    with pytest.raises(CannotTell, match="nothing to measure time by"):
        follow(["step,elapsed,total_steps\n", *rows])


def test_a_log_that_tells_no_step_of_the_run_is_refused() -> None:
    with pytest.raises(CannotTell, match="no line"):
        follow([f"Epoch 2, step {step}/938 loss: 2.3\n" for step in range(1, 900)])
