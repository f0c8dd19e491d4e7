"""What formats announce, change between versions, and how launchers and containers wrap their lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone

import pytest

from agent.base.trainlog import Progress, open_format

Read = Callable[..., list[Progress]]

T = datetime(2025, 1, 2, 3, 4, 5, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    "line",
    [
        "2025-01-02T03:04:05.000000000Z stdout F step:3/10 train_time:405ms step_avg:1ms",
        json.dumps(
            {"log": "step:3/10 train_time:405ms step_avg:1ms\n", "stream": "stdout", "time": "2025-01-02T03:04:05Z"}
        ),
        "[2025-01-02 03:04:05] step:3/10 train_time:405ms step_avg:1ms",
        "2025-01-02 04:04:05+01:00 step:3/10 train_time:405ms step_avg:1ms",
        "[\x1b[32m20250102 03:04:05\x1b[0m] \x1b[1mstep:3/10\x1b[0m train_time:405ms step_avg:1ms",
    ],
)
def test_envelopes_and_clocks(read: Read, line: str) -> None:
    (record,) = read("nanogpt", line)
    assert (record.step, record.time) == (3, T)


@pytest.mark.parametrize(
    ("line", "rank"),
    [
        ("[rank3]: step:3/10 train_time:4ms", 3),
        ("[default12]:step:3/10 train_time:4ms", 12),
        ("7: step:3/10 train_time:4ms", 7),
        ("[rank-7/8] step:3/10 train_time:4ms", 7),
        ("step:3/10 train_time:4ms", None),
    ],
)
def test_ranks(read: Read, line: str, rank: int | None) -> None:
    assert read("nanogpt", line)[0].rank == rank


def test_gpt_neox_line_begins_with_its_rate(read: Read) -> None:
    (record,) = read(
        "megatron",
        " samples/sec: 7.799 | iteration       34/   10000 | elapsed time per iteration (ms): 4103.1 | learning rate:"
        " 2.111E-06 | approx flops per GPU: 112.9TFLOPS | lm_loss: 1.118665E+01 | number of nan iterations:   0 |",
    )
    assert (record.step, record.total_steps) == (34, 10000)
    assert record.flops_gpu == pytest.approx(112.9e12)
    assert record.loss == pytest.approx(11.18665)


def test_megatron_variant_with_averages_behind_a_slash(read: Read) -> None:
    records = read(
        "megatron",
        "using world size: 64, data-parallel size: 8",
        "[20251202 06:56:28][rank-7/8][INFO ] : iteration 4408/ 5000 | consumed samples: 564224 | elapsed time per"
        " iteration (ms): 13100.0/13240.9 | throughput per GPU (TFLOP/s/GPU): 579.4/573.6 | tokens per GPU"
        " (tokens/s/GPU): 10005.5/9903.7 | lm loss: 4.142716E-03 | number of nan iterations: 0 |",
    )
    assert records[0].step_seconds == pytest.approx(13.1)
    assert records[0].tokens_per_second == pytest.approx(10005.5 * 64)


def test_megatron_tokens_come_from_batch_and_announced_length(read: Read) -> None:
    records = read(
        "megatron",
        "  seq_length ...................................... 2048",
        " iteration 10/ 100 | consumed samples: 160 | elapsed time per iteration (ms): 500.0 | global batch size: 16 |",
    )
    assert records[0].tokens_per_second == pytest.approx(16 * 2048 / 0.5)
    assert records[0].consumed_tokens == 160 * 2048


def test_megatron_of_2020_has_values_without_a_colon(read: Read) -> None:
    line = (
        " iteration      {}/  320000 | elapsed time per iteration (ms): 512.3 | learning rate 1.500E-06 |"
        " lm loss {} | loss scale 524288.0 |"
    )
    records = read(
        "megatron",
        line.format(100, "9.734E+00"),
        line.format(200, "nan"),
    )
    assert (records[0].loss, records[0].learning_rate) == (9.734, 1.5e-6)
    assert (records[1].step, records[1].nonfinite) == (200, 1)
    parser = open_format("megatron", timezone.utc)
    damaged = parser.feed(line.format(300, "9.734E"))
    assert damaged is not None
    assert (damaged.step, damaged.loss, damaged.damaged, parser.unparsed) == (300, None, {"loss"}, 1)


@pytest.mark.parametrize(
    ("skipped", "nan", "lost"), [(0, 0, True), (1, 1, True), (1, 0, False)], ids=["bf16", "fp16", "overflow"]
)
def test_megatron_leaves_a_lost_loss_out_of_its_line(read: Read, skipped: int, nan: int, lost: bool) -> None:
    """Its average is written if it is >= 0, which nan is not; what was known before would stand for ever."""
    line = (
        " [2025-06-01 10:00:2{0}.123456] iteration        {0}/  500000 | elapsed time per iteration (ms): 2451.2 |"
        " consumed samples:          512 | global batch size:   512 |{1} loss scale: 1.0 | grad norm: 2.345 |"
        " number of skipped iterations:   {2} | number of nan iterations:   {3} |"
    )
    first, second = read("megatron", line.format(1, " lm loss: 1.0E+01 |", 0, 0), line.format(2, "", skipped, nan))
    assert (first.loss, first.nonfinite) == (10.0, 0)
    assert second.nonfinite == int(lost)
    assert (second.loss is not None) is lost


def test_megatron_lines_without_a_loss_of_their_own_lose_none(read: Read) -> None:
    """A policy's loss may be negative, and is then not written either."""
    line = " iteration {}/ infinity | elapsed time per iteration (ms): 5.0 |{} number of nan iterations: 0 |"
    records = read("megatron", line.format(1, " grpo loss: 1.0E-02 |"), line.format(2, ""))
    assert [(record.loss, record.nonfinite) for record in records] == [(0.01, 0), (None, 0)]


def test_megatron_timers_a_line_each(read: Read) -> None:
    """Of the pair the greater counts: the step waits for the slowest rank."""
    records = read(
        "megatron",
        " iteration 10/ 100 | elapsed time per iteration (ms): 1000.0 |",
        "(min, max) time across ranks (ms):",
        "    forward-backward ...............................: (700.00, 710.00)",
        "    all-grads-sync .................................: (50.00, 150.00)",
        "    params-all-gather ..............................: (20.00, 50.00)",
    )
    assert [record.communication_ratio for record in records[1:]] == [pytest.approx(0.15), pytest.approx(0.2)]


def test_a_loaded_checkpoint_is_a_restart_only_after_steps(read: Read) -> None:
    loaded = "  successfully loaded checkpoint from /ckpt [ t 0, p 0 ] at iteration 90"
    lines = [f" iteration {step}/ 1000 | elapsed time per iteration (ms): 5.0 |" for step in (100, 110)]
    assert [record.restart for record in read("megatron", loaded, *lines)] == [False, False]
    assert [record.restart for record in read("megatron", lines[0], loaded, lines[1])] == [False, True]


def test_a_step_backwards_is_a_restart_and_another_rank_is_not(read: Read) -> None:
    lines = [
        "[rank0]: step:9/10 train_time:4ms",
        "[rank1]: step:8/10 train_time:4ms",
        "[rank0]: step:5/10 train_time:1ms",
    ]
    assert [record.restart for record in read("nanogpt", *lines)] == [False, False, True]


def test_deepspeed_old_timer_gives_the_pace_beside_the_report(read: Read) -> None:
    records = read(
        "deepspeed",
        "[2022-03-11 02:06:00,985] [INFO] [config.py:752:print]   train_batch_size ............. 64",
        "[2022-03-11 02:06:58,985] [INFO] [logging.py:69:log_dist] [Rank 0] step=40, skipped=2, lr=[5e-05], mom=[]",
        "[2022-03-11 02:06:58,985] [INFO] [timer.py:189:stop] 0/80, SamplesPerSec=32.0, MemAllocated=0.26GB",
    )
    assert [record.step for record in records] == [40, None]
    assert records[0].learning_rate == pytest.approx(5e-5)
    assert records[1].step_seconds == pytest.approx(2.0)


def test_deepspeed_pipeline_and_its_share_of_communication(read: Read) -> None:
    records = read(
        "deepspeed",
        "steps: 10 loss: 9.1234 iter time (s): 0.532 samples/sec: 120.300",
        "[2023-07-25 21:03:17,269] [INFO] [logging.py:96:log_dist] rank=0 time (ms) | forward: 652.41 | backward:"
        " 2164.52 | backward_inner: 2001.89 | backward_allreduce: 162.60 | step: 1172.13",
    )
    assert (records[0].step, records[0].loss, records[0].step_seconds) == (10, 9.1234, 0.532)
    assert records[1].communication_ratio == pytest.approx(162.60 / (652.41 + 2164.52 + 1172.13))


@pytest.mark.parametrize(
    "lead", ["[2024-04-04 09:09:53,313] [INFO] [logging.py:96:log_dist] [Rank 0] ", "[Rank 0] ", "rank=0 ", ""]
)
def test_deepspeed_share_by_its_newer_names(read: Read, lead: str) -> None:
    """Those of a micro-step are not those of the step."""
    times = (
        lead + "time (ms) | fwd_microstep: 2.00 | bwd_microstep: 3.00 | bwd_inner_microstep: 1.00 |"
        " bwd_allreduce_microstep: 2.00 | step_microstep: 1.00",
        lead + "time (ms) | fwd: 250.00 | bwd: 700.00 | bwd_inner: 500.00 | bwd_allreduce: 200.00 | step: 50.00",
    )
    (record,) = read("deepspeed", *times)
    assert record.communication_ratio == pytest.approx(0.2)
    iteration = " iteration 10/ 100 | elapsed time per iteration (ms): 1000.0 |"
    assert read("megatron", iteration, *times)[-1].communication_ratio == pytest.approx(0.2)  # Megatron-DeepSpeed


@pytest.mark.parametrize(
    "line",
    [
        " {0}%|█         | {0}/100 [00:{0}<01:30,  1.00s/it]",
        "Step {0}/100 | loss: 2.31",
        '{{"step": {0}, "loss": 2.5}}',
    ],
)
def test_deepspeed_share_beside_another_programs_steps(read: Read, line: str) -> None:
    times = "[Rank 0] time (ms) | fwd: 250.00 | bwd: 700.00 | bwd_inner: 500.00 | bwd_allreduce: 200.00 | step: 50.00"
    records = read("auto", *[each for step in range(10, 30) for each in (line.format(step), times)])
    assert [record.step for record in records[::2]] == list(range(10, 30))
    assert [record.communication_ratio for record in records[1::2]] == [pytest.approx(0.2)] * 20


def test_hugging_face_tells_the_training_bar_from_others(read: Read) -> None:
    records = read(
        "huggingface",
        "Map: 100%|██████████| 1000/1000 [00:00<00:00, 2345.67it/s]",
        "Loading checkpoint shards: 100%|██████████| 2/2 [00:01<00:00,  1.50it/s]",
        "  0%|          | 0/200 [00:00<?, ?it/s]",
        "  5%|▌         | 10/200 [00:20<06:20,  2.00s/it]",
        "{'loss': 1.453, 'grad_norm': 2.47, 'learning_rate': 4.68e-05, 'epoch': 0.19}",
        " 50%|█████     | 25/50 [00:03<00:03,  8.00it/s]",
        "{'eval_loss': 1.1, 'eval_runtime': 6.2, 'epoch': 0.2}",
        "  6%|▌         | 11/200 [00:30<06:20,  2.00s/it]",
        "{'train_runtime': 919.09, 'train_loss': 1.4, 'epoch': 1.0}",
    )
    assert [(record.step, record.total_steps) for record in records if record.step is not None] == [
        (0, 200),
        (10, 200),
        (11, 200),
    ]
    assert [record.loss for record in records if record.loss is not None] == [1.453]
    assert [record.validation_loss for record in records if record.validation_loss is not None] == [1.1]
    assert records[-1].ended


def test_hugging_face_corrects_a_first_guess_by_the_losses(read: Read) -> None:
    """A bar without a title before the training (tokenising) is not the training's."""
    records = read(
        "huggingface",
        "100%|██████████| 5000/5000 [00:02<00:00, 2345.67it/s]",
        "  5%|▌         | 10/200 [00:20<06:20,  2.00s/it]",
        "{'loss': '1.453', 'epoch': '0.19'}",
        "  6%|▌         | 11/200 [00:22<06:20,  2.00s/it]",
    )
    assert records[-1].step == 11
    assert records[-2].loss == 1.453


def test_ms_swift_carries_the_step_in_its_values(read: Read) -> None:
    (record,) = read(
        "huggingface",
        "{'loss': 1.2, 'learning_rate': 1e-05, 'global_step/max_steps': '5/150', 'elapsed_time': '0:00:23'}",
    )
    assert (record.step, record.total_steps, record.elapsed) == (5, 150, 23)


def test_torchtitan_announces_its_total(read: Read) -> None:
    records = read(
        "torchtitan",
        "[rank0]:[titan] 2025-06-16 22:30:00,000 - root - INFO - Training starts at step 1, with local batch size 8,"
        " global batch size 64, sequence length 2048, total steps 1000 (warmup 200)",
        "[rank0]:[titan] 2025-06-16 22:30:50,322 - root - INFO - step: 200  loss:  6.1384  grad_norm:  0.5"
        "  tps: 5,856  mfu: 34.29%",
    )
    assert (records[0].total_steps, records[0].batch_size, records[0].sequence_length) == (1000, 64, 2048)
    assert records[0].grad_norm == 0.5


def mllog(key: str, value: object, **metadata: object) -> str:
    event = {
        "namespace": "",
        "time_ms": 1721026805975,
        "event_type": "X",
        "key": key,
        "value": value,
        "metadata": metadata,
    }
    return ":::MLLOG " + json.dumps(event)


def test_mllog_samples_become_steps_of_the_logged_batch(read: Read) -> None:
    records = read(
        "mllog",
        mllog("global_batch_size", 32),
        mllog("run_start", None),
        mllog("train_loss", 11.8, samples_count=64, lr=3e-6),
        mllog("tracked_stats", {"throughput": 30.7}, step=96),
        mllog("run_stop", None, status="success", samples_count=128),
    )
    assert [record.step for record in records] == [2, None, 4], "one unit: positions of another kind are left out"
    assert records[0].loss == 11.8
    assert records[1].samples_per_second == 30.7
    assert [record.ended for record in records] == [False, False, True]


def test_mllog_step_beside_samples_is_no_other_count(read: Read) -> None:
    records = read(
        "mllog",
        mllog("global_batch_size", 8),
        mllog("opt_learning_rate_training_steps", 1024),
        mllog("train_samples", 3901),
        mllog("block_start", None, samples_count=0),
        mllog("tracked_stats", {"throughput": 1.9}, step=1536),
        mllog("block_stop", None, samples_count=1536),
        mllog("train_samples", 1536),
        mllog("eval_accuracy", 0.93, samples_count=1920),
    )
    assert [(record.step, record.total_steps) for record in records] == [(None, 1024), (192, 1024), (240, 1024)]


@pytest.mark.parametrize(("unit", "total"), [("samples_count", 500), ("step_num", None), ("epoch_num", None)])
def test_mllog_size_of_the_data_is_the_total_of_one_pass_over_it_in_samples(
    read: Read, unit: str, total: int | None
) -> None:
    events = [mllog("global_batch_size", 8), mllog("train_samples", 4000), mllog("train_loss", 2.0, **{unit: 80})]
    assert [record.total_steps for record in read("mllog", *events)] == [total]


def test_nanogpt_iterations(read: Read) -> None:
    records = read(
        "nanogpt",
        "Overriding: max_iters = 5000",
        "step 250: train loss 2.1, val loss 2.3",
        "iter 250: loss 2.0567, time 135.12ms, mfu 15.20%",
        "iter 0: loss 10.9, time 9000.00ms, mfu -100.00%",
    )
    assert [record.step for record in records] == [250, 251, 1]
    assert records[0].validation_loss == 2.3
    assert (records[1].mfu, records[1].total_steps) == (pytest.approx(0.152), 5000)
    assert records[2].mfu is None
    assert records[2].restart


def test_scripts_that_print_like_llm_c(read: Read) -> None:
    records = read(
        "llm.c",
        "step    3/10 | train loss 10.958 | norm 22.09 | lr 1.71e-06 | (2494.79 ms | 210153 tok/s)",
        "step     3 | loss: 9.51 | lr 1.2e-04 | norm: 1.20 | dt: 300.00ms | tok/sec: 174762.67",
    )
    assert [(record.step, record.loss) for record in records] == [(3, 10.958), (4, 9.51)]
    assert records[0].step_seconds == pytest.approx(2.49479)
    assert records[1].tokens_per_second == pytest.approx(174762.67)
    assert records[1].step_seconds == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"step": 10, "time": 1735787045}', Progress(step=10, time=T)),
        ('{"global_step": 10, "time": 1735787045000}', Progress(step=10, time=T)),
        ('{"iter": 10, "time": "2025-01-02 03:04:05"}', Progress(step=10, time=T)),
        ('{"step": "10", "loss": "nan"}', None),
        ('{"step": 10, "loss": "1.5", "rank": 3}', Progress(step=10, loss=1.5, rank=3)),
        ('{"step": 10, "ended": true}', Progress(step=10, ended=True)),
    ],
)
def test_json_lines(read: Read, line: str, expected: Progress | None) -> None:
    (record,) = read("json", line)
    if expected is not None:
        assert record == expected
    else:
        assert record.step == 10
        assert record.nonfinite == 1


@pytest.mark.parametrize(
    "line",
    [
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
        "[2024-01-01 00:00:00,0] [ERROR] [launch.py:321:sigkill_handler] ['python'] exits with return code = -9",
        "srun: error: node7: task 3: Exited with exit code 1",
        "slurmstepd: error: *** JOB 1809579 ON r8i3n1 CANCELLED AT 2021-05-23T08:45:57 ***",
    ],
)
def test_launchers_say_that_a_job_is_over(read: Read, line: str) -> None:
    records = read("nanogpt", line, "step:3/10 train_time:4ms", line)
    assert [record.ended for record in records] == [False, True], "words before the first step end nothing"


def test_nemo1_bars_without_a_rate(read: Read) -> None:
    """NeMo's own bar; the first has no value yet."""
    records = read(
        "nemo1",
        "Epoch 0: :   0%|          | 0/300000 [00:00<?]",
        "Epoch 0: :   0%|          | 5/300000 [02:16<2281:40:05, v_num=0, reduced_train_loss=11.00, global_step=4.000,"
        " consumed_samples=960.0, train_step_timing in s=10.40, val_loss=11.00]",
        "Epoch 0: :   0%|          | 10/300000 [03:16<2281:40:05, v_num=0, reduced_train_loss=nan, global_step=9.000,"
        " consumed_samples=1920.0, train_step_timing in s=10.20, val_loss=11.00]",
    )
    assert [(record.step, record.elapsed) for record in records] == [(0, 0.0), (5, 136.0), (10, 196.0)]
    assert (records[1].total_steps, records[1].step_seconds, records[1].loss) == (300000, 10.4, 11.0)
    assert records[2].nonfinite == 1
    assert open_format("auto", timezone.utc).feed("Map:  50%|█████     | 500/1000 [00:01<00:01, 512.3kB/s]") is None


@pytest.mark.parametrize(
    ("epoch", "batch", "written", "step", "total"),
    [
        (0, 34103, "3.1e+4", 31001, None),  # its bar counts the batches of the validation too
        (0, 34106, "3.41e+4", 34106, 1100000),
        (1, 2001, "1.1e+6", 1102001, None),
        (0, 68206, "3.41e+4", 34101, None),  # two batches a step
    ],
)
def test_nemo1_rounds_its_step(read: Read, epoch: int, batch: int, written: str, step: int, total: int | None) -> None:
    (record,) = read(
        "nemo1",
        f"Epoch {epoch}:   3%|▎         | {batch}/1100000 [5:28:58<171:22:21,  1.73it/s, loss=2.52, v_num=,"
        f" reduced_train_loss=2.510, global_step={written}, consumed_samples=2.54e+8]",
    )
    assert (record.step, record.total_steps) == (step, total)
