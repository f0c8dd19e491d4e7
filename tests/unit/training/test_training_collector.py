"""The training collector on files as jobs write them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.base.catalogue import Sample
from agent.base.collector import Context, PartialFailure
from agent.base.config import loads
from agent.base.errors import ConfigError
from agent.collectors.training import Training
from agent.intake import Intake
from agent.training.settings import TrainingSettings
from agent.training.tail import HEAD

DATA = Path(__file__).parents[2] / "data/training"
Page = dict[str, float]


def megatron(step: int, at: float, loss: str = "2.5E+00", total: int = 100) -> str:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    return (
        f" [{stamp}] iteration {step:8d}/{total:8d} | consumed samples: {step * 4:12d} | elapsed time per iteration"
        f" (ms): 1500.0 | learning rate: 1.0E-04 | global batch size:     4 | lm loss: {loss} | grad norm: 1.250 |"
        " number of skipped iterations:   0 | number of nan iterations:   0 |\n"
    )


class Bench:
    """A collector over one job in a temporary folder, with a clock of its own."""

    def __init__(self, folder: Path, **job: Any) -> None:
        self.log = folder / "train.log"
        self.state = folder / "state"
        self.now = time.time()
        self.settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j", "log": str(self.log), **job}]})
        self.collector = self.build()

    def build(self) -> Training:
        return Training(self.settings, Context(str(self.state), str(self.state)), clock=lambda: self.now)

    def write(self, *lines: str) -> None:
        with self.log.open("a") as file:
            file.writelines(lines)
        os.utime(self.log, (self.now, self.now))

    def page(self) -> Page:
        return page(self.collector.collect())


def page(samples: Any) -> Page:
    """Samples by name, through the same strict intake as the agent's."""
    intake = Intake(strict=True)
    found: Page = {}
    for sample in samples:
        assert isinstance(sample, Sample)
        intake.add(sample)
        found[sample.metric.name.removeprefix("gpuvigil_train_")] = sample.value
    return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_progress_of_a_live_job(bench: Bench) -> None:
    bench.write(*(megatron(step, bench.now - 3 + step) for step in (1, 2, 3)))
    seen = bench.page()
    assert seen["step"] == 3
    assert seen["steps_planned"] == 100
    assert seen["loss"] == 2.5
    assert seen["running"] == 1
    assert seen["step_seconds"] == 1.5
    assert seen["started_timestamp_seconds"] == pytest.approx(bench.now - 2, abs=1)
    assert seen["last_step_timestamp_seconds"] == pytest.approx(bench.now, abs=1)
    assert seen["log_lines_unparsed_total"] == 0


def test_no_log_no_series(bench: Bench) -> None:
    assert bench.page() == {"log_readable": 0}


def test_a_log_that_disappears_takes_its_series_along(bench: Bench) -> None:
    bench.write(megatron(1, bench.now))
    assert bench.page()["step"] == 1
    bench.log.unlink()
    assert bench.page() == {"log_readable": 0}


def test_an_ended_run_keeps_facts_and_loses_its_pace(bench: Bench) -> None:
    bench.write(megatron(99, bench.now - 2), megatron(100, bench.now))
    seen = bench.page()
    assert seen["running"] == 0
    assert seen["step"] == 100
    assert seen["loss"] == 2.5
    assert "step_seconds" not in seen


def test_a_hung_run_loses_its_pace_at_once_and_ends_after_the_silence(bench: Bench) -> None:
    bench.write(*(megatron(step, bench.now - 30 + 10 * step) for step in (1, 2, 3)))
    bench.page()
    bench.now += 300
    seen = bench.page()
    assert seen["running"] == 1
    assert "step_seconds" not in seen
    bench.now += 1800
    assert bench.page()["running"] == 0


def test_a_damaged_line_is_counted_and_changes_nothing(bench: Bench) -> None:
    bench.write(
        megatron(7, bench.now), " iteration       8?/ x | consumed samples: 3 | elapsed time per iteration (ms): x |\n"
    )
    seen = bench.page()
    assert seen["log_lines_unparsed_total"] == 1
    assert seen["step"] == 7


@pytest.mark.parametrize("bad", ["abc", "1.2E", "1.0.5E+00", ""])
def test_a_damaged_loss_takes_the_last_one_away_until_a_good_one_comes(bench: Bench, bad: str) -> None:
    bench.write(megatron(7, bench.now - 3))
    assert bench.page()["loss"] == 2.5
    bench.write(megatron(8, bench.now - 2, loss=bad))
    seen = bench.page()
    assert "loss" not in seen
    assert (seen["step"], seen["grad_norm"], seen["log_lines_unparsed_total"]) == (8, 1.25, 1)
    bench.write(megatron(9, bench.now, loss="1.5E+00"))
    seen = bench.page()
    assert (seen["loss"], seen["log_lines_unparsed_total"], seen["loss_nonfinite_total"]) == (1.5, 1, 0)


def test_a_cut_line_as_it_was_seen_on_a_node(bench: Bench) -> None:
    bench.write(
        megatron(7, bench.now - 2),
        " iteration        8/     100 | consumed samples:           32 | elapsed time per iteration (ms): banana |"
        " learning rate: | lm loss: 1.2E | loss scale\n",
    )
    seen = bench.page()
    assert {"loss", "learning_rate", "step_seconds"}.isdisjoint(seen)
    assert (seen["step"], seen["log_lines_unparsed_total"]) == (8, 1)


def test_nan_loss_is_absent_and_counted(bench: Bench) -> None:
    bench.write(megatron(7, bench.now - 2), megatron(8, bench.now, loss="nan"))
    seen = bench.page()
    assert "loss" not in seen
    assert seen["loss_nonfinite_total"] == 1


@pytest.mark.parametrize("norm", ["nan", "NaN", "inf", "-inf"])
def test_a_fact_that_is_not_finite_is_absent_and_costs_nothing_else(bench: Bench, norm: str) -> None:
    """The norm of the gradients is lost before the loss is; a NaN on the page would be dropped as the agent's fault."""
    bench.write(megatron(7, bench.now - 2))
    assert bench.page()["grad_norm"] == 1.25
    bench.write(megatron(8, bench.now).replace("grad norm: 1.250", f"grad norm: {norm}"))
    seen = bench.page()
    assert "grad_norm" not in seen
    assert (seen["step"], seen["loss"], seen["learning_rate"], seen["loss_nonfinite_total"]) == (8, 2.5, 1e-4, 0)


def test_a_pace_that_is_not_finite_is_absent(bench: Bench) -> None:
    line = {"step": 5, "tokens_per_second": float("inf"), "step_seconds": float("nan"), "time": bench.now}
    bench.write(json.dumps(line) + "\n")
    seen = bench.page()
    assert seen["step"] == 5
    assert {"tokens_per_second", "step_seconds", "mfu_ratio"}.isdisjoint(seen)


def test_a_log_in_another_zone_is_set_right(bench: Bench) -> None:
    """A container that writes UTC on a node that does not: the file's own time shows it."""
    bench.write(*(megatron(step, bench.now - 7200 - 20 + 10 * step) for step in (1, 2)))
    seen = bench.page()
    assert seen["last_step_timestamp_seconds"] == pytest.approx(bench.now, abs=2)
    assert seen["started_timestamp_seconds"] == pytest.approx(bench.now - 10, abs=2)


def test_the_start_stays_when_the_logs_clock_goes_back_by_an_hour(bench: Bench) -> None:
    """The night in which summer time ends, in a container whose clock shows it."""
    begun = bench.now
    bench.write(*(megatron(step, bench.now - 2 + step) for step in (1, 2)))
    assert bench.page()["started_timestamp_seconds"] == pytest.approx(begun - 1, abs=1)
    bench.now += 600
    bench.write(*(megatron(step, bench.now - 3600 - 4 + step) for step in (3, 4)))
    seen = bench.page()
    assert seen["last_step_timestamp_seconds"] == pytest.approx(bench.now, abs=2)
    assert seen["started_timestamp_seconds"] == pytest.approx(begun - 1, abs=1)
    assert seen["restarts_total"] == 0


def test_the_start_of_a_long_log_in_another_zone_is_set_right_too(bench: Bench) -> None:
    """The first steps are read before the end of the file shows the zone."""
    lines = [megatron(step, bench.now - 7200 - 5000 + step, total=9000) + "time (ms) | x: 1\n" for step in range(5001)]
    bench.write(*lines)
    assert bench.log.stat().st_size > 2 * HEAD
    seen = bench.page()
    assert seen["step"] == 5000
    assert seen["started_timestamp_seconds"] == pytest.approx(bench.now - 5000, abs=2)
    assert seen["last_step_timestamp_seconds"] == pytest.approx(bench.now, abs=2)


def test_other_lines_behind_the_progress_teach_no_zone(bench: Bench) -> None:
    """Half an hour of chatter after the last step is no time zone."""
    bench.write(megatron(1, bench.now - 1800), *(f"worker {i} says hello\n" for i in range(20)))
    assert bench.page()["last_step_timestamp_seconds"] == pytest.approx(bench.now - 1800, abs=2)


def test_a_clock_ahead_is_not_believed(bench: Bench) -> None:
    bench.write(megatron(1, bench.now + 1000))
    assert bench.page()["last_step_timestamp_seconds"] == pytest.approx(bench.now, abs=2)


def test_restart_from_a_checkpoint_is_counted(bench: Bench) -> None:
    bench.write(*(megatron(step, bench.now - 20 + step) for step in range(1, 11)))
    bench.page()
    bench.write(megatron(6, bench.now))
    seen = bench.page()
    assert seen["restarts_total"] == 1
    assert seen["step"] == 6


def test_whichever_rank_tells_of_a_restart_first_it_is_one(bench: Bench) -> None:
    def ranks(*steps: int) -> list[str]:
        return [f"[rank{rank}]:{megatron(step, bench.now + step)}" for step in steps for rank in (2, 0, 3, 1)]

    bench.write(*ranks(*range(1, 51)))
    assert bench.page()["step"] == 50
    bench.now += 100
    bench.write(*ranks(*range(40, 46)))
    seen = bench.page()
    assert (seen["step"], seen["restarts_total"]) == (45, 1)


@pytest.mark.parametrize("resumed", [True, False])
def test_a_job_that_resumes_in_another_log_without_loss_is_a_restart_if_it_says_so(
    tmp_path: Path, resumed: bool
) -> None:
    """Preempted with a checkpoint of its last step: no number goes back. A rotated log says nothing of the kind."""
    bench = Bench(tmp_path, log=str(tmp_path / "slurm-*.out"))
    bench.log = tmp_path / "slurm-1.out"
    bench.write("  successfully loaded checkpoint from /base at iteration 0\n", megatron(7, bench.now))
    assert bench.page()["restarts_total"] == 0
    bench.now += 100
    bench.log = tmp_path / "slurm-2.out"
    words = "  successfully loaded checkpoint from /ckpt [ t 0, p 0 ] at iteration 7\n" if resumed else "# rotated\n"
    bench.write(words, *(megatron(step, bench.now - 9 + step) for step in (8, 9)))
    seen = bench.page()
    assert (seen["step"], seen["restarts_total"]) == (9, int(resumed))


def test_everything_survives_a_restart_of_the_agent(bench: Bench) -> None:
    bench.write(*(megatron(step, bench.now - 20 + step) for step in range(1, 11)), megatron(6, bench.now - 5))
    before = bench.page()
    bench.collector.close()
    bench.write(megatron(7, bench.now))
    bench.collector = bench.build()
    after = bench.page()
    assert after["step"] == 7
    for name in ("restarts_total", "started_timestamp_seconds", "log_lines_unparsed_total"):
        assert after[name] == before[name]


def test_a_spoilt_state_file_costs_only_the_state(bench: Bench) -> None:
    bench.write(megatron(5, bench.now))
    bench.page()
    bench.collector.close()
    (kept,) = (bench.state / "training").iterdir()
    kept.write_text('{"log": 3')
    bench.collector = bench.build()
    assert bench.page()["step"] == 5


def test_a_dead_file_server_holds_up_its_own_job_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, dead = tmp_path / "good.log", tmp_path / "dead.log"
    now = time.time()
    good.write_text(megatron(5, now))
    dead.write_text(megatron(6, now))
    settings = TrainingSettings.model_validate(
        {"deadline": "1s", "jobs": [{"job_id": "good", "log": str(good)}, {"job_id": "dead", "log": str(dead)}]}
    )
    collector = Training(settings, Context(str(tmp_path), str(tmp_path)))
    released = threading.Event()
    real: Callable[..., int] = os.open

    def hang(path: Any, *rest: Any, **more: Any) -> int:
        if str(path) == str(dead):
            released.wait(30)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", hang)
    seen: list[Sample] = []
    try:
        with pytest.raises(PartialFailure, match="dead"):
            seen.extend(collector.collect())
    finally:
        released.set()
    assert {sample.labels[0] for sample in seen} == {"good"}
    for aside in collector._asides:
        assert aside.wait(30)


def test_a_log_that_we_cannot_bear_costs_its_own_job_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [{"job_id": name, "log": str(tmp_path / name)} for name in ("bad", "good")]
    (tmp_path / "bad").write_text(megatron(5, time.time()))
    (tmp_path / "good").write_text(megatron(6, time.time()))
    collector = Training(TrainingSettings.model_validate({"jobs": jobs}), Context(str(tmp_path), str(tmp_path)))

    def fail(*_: object) -> None:
        raise LookupError("a fault of ours")

    monkeypatch.setattr(collector._jobs[0].source, "poll", fail)
    found: list[Sample] = []
    with pytest.raises(LookupError, match="a fault of ours"):
        found.extend(collector.collect())
    assert {s.labels: s.value for s in found if s.metric.name == "gpuvigil_train_step"} == {("good",): 6}


def test_trainer_state_is_followed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    state = tmp_path / "trainer_state.json"

    def save(step: int) -> None:
        history = [
            {"step": s, "loss": 3.0 - s / 100, "learning_rate": 1e-4, "epoch": s / 50} for s in range(1, step + 1)
        ]
        state.write_text(json.dumps({"global_step": step, "max_steps": 100, "log_history": history}))
        os.utime(state, (bench.now, bench.now))

    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j", "log": str(state)}]})
    collector = Training(settings, Context(str(tmp_path), str(tmp_path)), clock=lambda: bench.now)
    save(10)
    assert page(collector.collect())["step"] == 10
    bench.now += 100
    state.write_text('{"global_step": 20, "log_hist')  # caught half-way
    assert page(collector.collect())["log_lines_unparsed_total"] == 1
    save(20)
    seen = page(collector.collect())
    assert seen["step"] == 20
    assert seen["step_seconds"] == pytest.approx(10.0)
    assert seen["loss"] == pytest.approx(2.8)


def test_lost_losses_of_a_trainer_state_are_counted_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    state = tmp_path / "trainer_state.json"
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j", "log": str(state)}]})

    def look(*losses: float) -> Page:
        history = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
        state.write_text(json.dumps({"global_step": len(losses), "max_steps": 100, "log_history": history}))
        collector = Training(settings, Context(str(tmp_path), str(tmp_path)), clock=lambda: bench.now)
        try:
            return page(collector.collect())
        finally:
            collector.close()

    seen = look(2.5, float("nan"))
    assert (seen["loss_nonfinite_total"], "loss" in seen) == (1, False)
    assert look(2.5, float("nan"), float("-inf"))["loss_nonfinite_total"] == 2  # by another agent, which goes on


@pytest.mark.parametrize(
    "line",
    [
        f" iteration 5/ 1{400 * '0'} | elapsed time per iteration (ms): 5.0 | number of nan iterations:   0 |",
        f"step:5/1{400 * '0'} train_time:5ms step_avg:nanms",
        f'{{"step": 5, "total_steps": 1{400 * "0"}, "loss": 1{400 * "0"}}}',
        f':::MLLOG {{"key": "max_steps", "value": 1{400 * "0"}}}\n:::MLLOG {{"key": "train_loss", "value": 2.5,'
        ' "time_ms": 1, "metadata": {"step_num": 5}}',
    ],
)
def test_a_total_beyond_all_measure_costs_no_other_job_its_series(bench: Bench, line: str) -> None:
    """The page's intake takes floats: an int that is none of them failed the collector of all jobs."""
    bench.write(line + "\n")
    seen = bench.page()
    assert seen["step"] == 5
    assert "steps_planned" not in seen


def test_a_trainer_state_beyond_all_measure(tmp_path: Path) -> None:
    state = tmp_path / "trainer_state.json"
    huge = int("1" + 400 * "0")
    state.write_text(json.dumps({"global_step": huge, "max_steps": huge, "log_history": [{"step": 5, "loss": 2.5}]}))
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j", "log": str(state)}]})
    seen = page(Training(settings, Context(str(tmp_path), str(tmp_path))).collect())
    assert (seen["step"], seen["loss"]) == (5, 2.5)


def test_a_real_cancelled_run(bench: Bench) -> None:
    bench.write((DATA / "megatron_cancelled.log").read_text())
    seen = bench.page()
    assert seen["step"] == 200
    assert seen["running"] == 0
    assert seen["validation_loss"] == pytest.approx(7.487306)


def test_flops_utilisation_from_the_configuration(tmp_path: Path) -> None:
    """6 x 1e9 parameters x 51,200 tokens/s over 8 GPUs of 1e15 FLOP/s = 3.84 %."""
    bench = Bench(tmp_path, parameters=1e9, gpus=8, peak_flops=1e15)
    bench.write(json.dumps({"step": 5, "tokens_per_second": 51200, "time": bench.now}) + "\n")
    assert bench.page()["mfu_ratio"] == pytest.approx(0.0384)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("jobs: [{job_id: a, log: x, format: megatorn}]", "must be one of auto, .*megatron"),
        ("jobs: [{job_id: a, log: x}, {job_id: a, log: y}]", "given twice: a"),
        ("jobs: [{job_id: a, log: x, timezone: Mars/North}]", "must be a zone"),
        ("jobs: [{job_id: a, log: x, planned: 600}]", "duration with a unit"),
        ("jobs: [{job_id: a, logfile: x}]", "unknown key"),
    ],
)
def test_bad_settings_name_the_fix(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        loads(TrainingSettings, text, name="agent.yaml", environ={})
