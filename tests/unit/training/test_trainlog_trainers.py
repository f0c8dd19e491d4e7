"""Trainers beyond the large frameworks, layouts that vary, and lines that must not be taken for progress."""

from __future__ import annotations

from datetime import timezone

import pytest

from agent.base.trainlog import Auto, Progress
from agent.training.run import Run


def read(*lines: str) -> tuple[Auto, list[Progress]]:
    parser = Auto(timezone.utc)
    records = list(parser.feed_all(lines))
    assert parser.unparsed == 0
    return parser, records


def run_of(*lines: str) -> Run:
    run = Run()
    for at, record in enumerate(read(*lines)[1]):
        run.take(record, 1e9 + 60 * at)
    return run


def test_a_loss_behind_the_bar_on_one_line_has_the_bars_step() -> None:
    _, (record,) = read("  1%|          | 10/1000 [00:12<20:00,  1.21s/it]{'loss': 2.31, 'epoch': 0.01}")
    assert (record.step, record.total_steps, record.loss) == (10, 1000, 2.31)


@pytest.mark.parametrize("value", ["1.25", "'1.25'", "np.float64(1.25)", "tensor(1.25, device='cuda:0')"])
def test_scalars_of_numpy_and_torch_are_numbers(value: str) -> None:
    _, records = read("  1%|   | 10/1000 [00:12<20:00,  1.21s/it]", f"{{'loss': {value}, 'grad_norm': {value}}}")
    assert (records[1].loss, records[1].grad_norm) == (1.25, 1.25)


@pytest.mark.parametrize("name", ["tokens_per_second_per_gpu", "tokens/train_per_sec_per_gpu"])
def test_axolotl_tells_the_rate_of_a_gpu(name: str) -> None:
    _, records = read(f"{{'loss': 1.1, 'ppl': 3.0, 'memory/max_active (GiB)': 20.1, '{name}': 1234.5, 'epoch': 0.01}}")
    assert records[0].tokens_per_second_gpu == 1234.5


def bar(epoch: int, batch: int, total: str = "100") -> str:
    drawn = f"Epoch {epoch}:  5%|▌   | {batch}/{total} [00:10<00:10,  4.90it/s, v_num=0"
    return f"{drawn}, train_loss_step=0.512, val_loss=0.6]"


@pytest.mark.parametrize("total", ["100", "?"])
def test_lightnings_bar_begins_anew_each_epoch_and_that_is_no_restart(total: str) -> None:
    run = run_of(bar(0, 50, total), bar(0, 100, total), bar(1, 0, total), bar(1, 50, total))
    assert (run.step, run.restarts, run.steps_planned) == (150, 0, None)
    assert (run.loss, run.values["validation_loss"]) == (0.512, 0.6)
    assert run.running(1e9 + 200), "an epoch's end is not the run's"


def test_lightning_says_when_it_is_over() -> None:
    assert read(bar(1, 100), "`Trainer.fit` stopped: `max_epochs=2` reached.")[1][-1].ended


def test_torchtune_counts_over_epochs_and_the_bars_total_is_one_epochs() -> None:
    run = run_of(
        "  0%|          | 0/100 [00:00<?, ?it/s]",
        "1|100|Loss: 1.5: 100%|██████████| 100/100 [02:01<00:00,  1.21s/it]",
        "2|101|Loss: 1.4:   1%|          | 1/100 [00:01<02:00,  1.21s/it]",
    )
    assert (run.step, run.steps_planned, run.restarts, run.ended) == (101, None, 0, False)


def test_torchtunes_disk_logger() -> None:
    _, (record,) = read("Step 10 | loss:1.5873 lr:2e-05 tokens_per_second_per_gpu:1234.5 grad_norm:0.4 ")
    assert (record.step, record.loss, record.tokens_per_second_gpu) == (10, 1.5873, 1234.5)
    assert (record.learning_rate, record.grad_norm) == (2e-5, 0.4)


def test_torchtitans_validation_is_no_training_loss() -> None:
    line = "[rank0]:[titan] 2025-09-16 22:30:50,322 - root - INFO - {}step: 10  loss:  7.1384  memory: 49.66GiB(52.28%)"
    parser, records = read(line.format("") + "  wps: 5,856  mfu: 34.29%", line.format("validate ") + "  tps: 5,856")
    assert parser.chosen is not None
    assert parser.chosen.name == "torchtitan"
    assert (records[0].loss, records[0].tokens_per_second_gpu) == (7.1384, 5856)
    assert (records[1].loss, records[1].validation_loss, records[1].tokens_per_second_gpu) == (None, 7.1384, None)


def test_nanotron_writes_short_numbers() -> None:
    _, (record,) = read(
        "[default0]:08/31/2024 14:37:31 [INFO|DP=0|PP=0|TP=0]: iteration: 1 / 15 | consumed_tokens: 2.1M |"
        " elapsed_time_per_iteration_ms: 4.71K | tokens_per_sec: 109 | tokens_per_sec_per_gpu: 109 |"
        " global_batch_size: 2 | lm_loss: 5.32 | lr: 0.00015 | model_tflops_per_gpu: 1.87e-05 | grad_norm: 2.96"
    )
    assert (record.step, record.total_steps, record.rank) == (1, 15, 0)
    assert (record.consumed_tokens, record.step_seconds, record.loss) == (2.1e6, 4.71, 5.32)


def test_nanochat_counts_from_0_though_it_tells_the_total() -> None:
    _, (record,) = read(
        "step 00010/21400 (0.05%) | loss: 9.812345 | lrm: 1.00 | dt: 1312.02ms | tok/sec: 399,603 | bf16_mfu: 41.23"
        " | epoch: 1 | total time: 0.22m | eta: 300.2m"
    )
    assert (record.step, record.total_steps, record.loss) == (11, 21400, 9.812345)
    assert (record.step_seconds, record.tokens_per_second) == (pytest.approx(1.31202), 399603)
    assert record.mfu == pytest.approx(0.4123)
    assert record.learning_rate is None


def test_litgpt_counts_steps_not_micro_batches() -> None:
    _, records = read(
        "Epoch 1 | iter 128 step 4 | loss train: 10.967, val: n/a | iter time: 421.22 ms (step)",
        "Epoch 1 | iter 256 step 8 | loss train: 9.967, val: 9.123 | iter time: 421.22 ms",
    )
    assert [(one.step, one.loss, one.validation_loss) for one in records] == [(4, 10.967, None), (8, 9.967, 9.123)]


def test_a_speed_run_may_tell_seconds() -> None:
    _, records = read(
        "step:125/2900 val_loss:4.44701 train_time:474.173s step_avg:3793.38ms",
        "step:250/2900 val_loss:4.08755 train_time:935.005s step_avg:3740.02ms",
    )
    assert [one.elapsed for one in records] == [474.173, 935.005]
    assert records[1].step_seconds == pytest.approx((935.005 - 474.173) / 125)


@pytest.mark.parametrize(
    ("line", "step", "total"),
    [
        ("step=10 loss=2.31 lr=1e-4 tokens_per_second=51200", 10, None),
        ("step=10 total_steps=1000 loss=2.31", 10, 1000),
        ("time=2026-01-02T03:04:05Z level=info msg=train loss=2.31 step=10", 10, None),
        ("2024-05-01 10:00:00,123 - __main__ - INFO - step: 10, loss: 2.31, lr: 1e-4", 10, None),
        ("[rank0] Step 10/1000, Loss: 2.31, LR: 1e-4", 10, 1000),
        ("[Rank 0] Iteration 10 | train loss 2.31", 10, None),
        ("Epoch 1/3 | Step 10 | Loss: 2.31 | GPU: 85%", 10, None),
        ("Step 10 | aux loss: 0.01 | total loss: 2.31", 10, None),
        ("step=10 status=ok loss=2.31", 10, None),
        ("Epoch [2/3], Step [10/100], Loss: 2.31", 110, 300),
        ("05/01 10:00:00 - mmengine - INFO - Iter(train) [  10/1000]  lr: 2.0e-05  eta: 1:02:03  loss: 2.31", 10, 1000),
        ("completed step: 10, seconds: 3.213, Tokens/s/device: 2549.123, loss: 2.31", 11, None),
        ("[    INFO] - loss: 2.31, learning_rate: 1e-05, global_step: 10, interval_runtime: 3.2", 10, None),
        ("| INFO | train_inner | epoch 001:    10 / 500 loss=2.31, wps=12345, num_updates=10, lr=1e-05", 10, None),
    ],
)
def test_names_and_values(line: str, step: int, total: int | None) -> None:
    parser, (record,) = read(line)
    assert parser.chosen is not None
    assert parser.chosen.name == "pairs"
    assert (record.step, record.total_steps, record.loss) == (step, total, 2.31)


def test_rates_and_shares_among_the_values() -> None:
    _, (record,) = read("Step 10 | Loss: 8.42 | LR: 3.00e-05 | Tokens/s: 1,523,456 | MFU: 45.2% | step time: 350ms")
    assert (record.tokens_per_second, record.learning_rate) == (1523456, 3e-5)
    assert (record.mfu, record.step_seconds) == (pytest.approx(0.452), pytest.approx(0.35))


def test_steps_numbered_anew_each_epoch_are_no_restart() -> None:
    run = run_of(*[f"Epoch {epoch} | Step {step} | Loss: 2.3" for epoch in (1, 2) for step in (0, 50, 100)])
    assert (run.step, run.restarts) == (200, 0)


def test_a_table_of_lightning_has_lines_of_training_and_of_validation() -> None:
    parser, records = read(
        "epoch,lr-AdamW,step,train_loss_epoch,train_loss_step,val_loss",
        "0,0.001,,,,",
        "0,,49,,0.512,",
        "0,,99,,,0.61",
        "1,,149,0.55,0.41,",
    )
    assert parser.chosen is not None
    assert parser.chosen.name == "csv"
    assert [(one.step, one.loss, one.validation_loss) for one in records] == [
        (49, 0.512, None),
        (99, None, 0.61),
        (149, 0.41, None),
    ]


def test_a_table_says_what_its_lines_are_of() -> None:
    _, records = read("step,total_steps,kind,loss,train_time_ms", "0,6200,val_loss,10.9,285.0", "1,6200,,,400.0")
    assert (records[0].validation_loss, records[0].loss, records[0].elapsed) == (10.9, None, pytest.approx(0.285))
    assert (records[1].step, records[1].total_steps, records[1].loss) == (1, 6200, None)


def test_a_table_without_steps_is_left_alone() -> None:
    assert read(",worker,gpu,time,batch_time_norm", "0,0,25,1,476")[1] == []


def test_a_text_file_with_a_line_for_each_value() -> None:
    run = run_of("step=120", "total_steps=1000", "loss=2.31", "tokens_per_second=51200", "mfu=41%")
    assert (run.step, run.steps_planned, run.loss) == (120, 1000, 2.31)
    assert run.values["tokens_per_second"] == 51200
    assert run.values["mfu"] == pytest.approx(0.41)


@pytest.mark.parametrize(
    "line",
    [
        "PATH=/usr/bin",
        "batch=12",
        "Resuming from step 100, best loss 2.3",
        "Epoch: 0 | Step: 10 | PPO Epoch: 1 | Actor Loss: 0.1 | Critic Loss: 0.2",
        "Step 10 | aux loss: 0.01",
        "Saving checkpoint at step=100",
        "step 250: val loss 2.3",
        "Epoch 2 Step 10/1000 Loss 2.31",
        "Train Epoch: 1 [640/60000 (1%)]\tLoss: 0.523000",
        "Epoch 3: train loss 2.31",
        "iteration over the data: loss is averaged over 10 steps",
        "INFO step 3 of the pipeline, loss of data: 2",
        "Downloading: 45%|████▌     | 450/1000 [00:12<00:15, 36.1MB/s]",
        "Map (num_proc=8):  45%|████▌     | 450/1000 [00:12<00:15, 36.1 examples/s]",
        "Validation DataLoader 0: 100%|██████████| 10/10 [00:00<00:00, 55.1it/s]",
        "Training Progress:   2%|██▉  | 60/3499 [21:41:02<7621:31:2",
    ],
)
def test_what_is_not_certain_is_left_alone(line: str) -> None:
    assert read(line)[1] == []


def test_a_run_takes_back_a_total() -> None:
    run = Run()
    run.take(Progress(step=0, total_steps=100), 1.0)
    run.take(Progress(step=1, total_steps=0), 2.0)
    assert run.steps_planned is None


def test_a_total_told_late_does_not_wake_a_run_that_is_over() -> None:
    run = Run()
    run.take(Progress(step=50), 1.0)
    run.take(Progress(ended=True), 2.0)
    run.take(Progress(total_steps=1000), 3.0)
    assert run.ended
    run.take(Progress(step=51), 4.0)
    assert not run.ended
