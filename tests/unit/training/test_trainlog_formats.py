"""Each format's lines as real programs print them, and what must be read from them."""

from __future__ import annotations

import math
from datetime import timezone

import pytest

from agent.base.errors import ConfigError
from agent.base.trainlog import FORMATS, Auto, Progress, detect, open_format

MEGATRON = (
    " [2025-04-13 23:41:12] iteration       10/    1000 | consumed samples:          160 | elapsed time per iteration"
    " (ms): 1147.6 | learning rate: 1.500000E-04 | global batch size:    16 | lm loss: 9.718885E+00 | loss scale: 1.0"
    " | grad norm: 14.286 | number of skipped iterations:  10 | number of nan iterations:   0 |"
)
DEEPSPEED = (
    "[2024-07-17 19:53:24,981] [INFO] [timer.py:258:stop] epoch=0/micro_step=4500/global_step=4500,"
    " RunningAvgSamplesPerSec=16.124955167964504, CurrSamplesPerSec=16.807402094161112, MemAllocated=0.02GB,"
    " MaxMemAllocated=0.97GB"
)
NEMO = (
    "Training epoch 0, iteration 120/149 | lr: 3e-05 | consumed_samples: 121 | global_batch_size: 1 | global_step: 120"
    " | reduced_train_loss: 1.233 | train_step_timing in s: 0.03146 | val_loss: 4.106"
)
NEMO_1 = (
    "Epoch 0:   1%|          | 795/77225 [9:07:58<878:01:48, 41.36s/it, loss=3.1, v_num=, reduced_train_loss=3.090,"
    " global_step=794.0, consumed_samples=1.63e+6]"
)
TITAN = (
    "[rank0]:[titan] 2025-06-16 22:30:50,322 - root - INFO - \x1b[31mstep: 200  \x1b[32mloss:  6.1384  \x1b[33mmemory:"
    " 49.66GiB(52.28%)  \x1b[34mtps: 5,856  \x1b[36mtflops: 339.16  \x1b[35mmfu: 34.29%\x1b[39m"
)
MLLOG = (
    ':::MLLOG {"namespace": "", "time_ms": 1721026805975, "event_type": "POINT_IN_TIME", "key": "tracked_stats",'
    ' "value": {"throughput": 1.9257918929116467}, "metadata": {"file": "a.py", "lineno": 161, "step": 3072}}'
)
LLMC = (
    "step    2/32000 | loss 10.539388 (+nanz)| norm 43.5996 (+nanz)| lr 1.71e-06 | 2747.19 ms | 47.4% bf16 MFU"
    " | 381690 tok/s"
)
SPEED_RUN = "step:13/1750 train_loss:6.2651 train_time:405ms step_avg:134.85ms"

LINES = {
    "megatron": MEGATRON,
    "deepspeed": DEEPSPEED,
    "nemo": NEMO,
    "nemo1": NEMO_1,
    "torchtitan": TITAN,
    "mllog": MLLOG,
    "llm.c": LLMC,
    "nanogpt": SPEED_RUN,
    "nanotron": (
        "12/20/2024 01:50:11 [INFO|DP=0|PP=0|TP=0|ip-26-0-160-225]: iteration: 10 / 1200 | consumed_tokens: 10.5M |"
        " elapsed_time_per_iteration_ms: 4.71K | tokens_per_sec: 2.94M | tokens_per_sec_per_gpu: 45.9K |"
        " global_batch_size: 512 | lm_loss: 10.3 | lr: 0.00015 | model_tflops_per_gpu: 412 | grad_norm: 5.36"
    ),
    "torchtune": "1|10|Loss: 1.5873: 10%|█         | 10/100 [00:12<01:48,  1.21s/it]",
    "litgpt": "Epoch 1 | iter 128 step 4 | loss train: 10.967, val: n/a | iter time: 421.22 ms (step)",
    "verl": (
        "step:12 - actor/pg_loss:-0.01 - actor/grad_norm:0.5 - actor/lr:1e-06 - perf/mfu/actor:np.float64(0.31)"
        " - timing_s/step:48.70 - perf/throughput:3283.42"
    ),
    "composer": "[batch=10/100]:\r Train loss/train/total: 10.9736\r Train wall_clock/total: 19.8653",
    "csv": "step,total_steps,kind,loss,train_time_ms\r10,6200,train_loss,10.91,74701.0",
    "pairs": "[2026-01-02 03:04:05] INFO train.py:12: Step 10/1000 | Loss: 2.31 | LR: 1e-4 | 51,200 tok/s | MFU: 41.2%",
    "huggingface": " 12%|█▎        | 2/16 [02:00<13:54, 59.61s/it]",
    "json": '{"current_steps": 10, "total_steps": 100, "loss": 1.25, "lr": 1e-4, "elapsed_time": "0:01:12"}',
}


def one(line: str, name: str = "auto") -> Progress:
    parser = open_format(name, timezone.utc)
    record = parser.feed(line)
    assert record is not None
    assert parser.unparsed == 0
    return record


def test_every_format_has_a_line_here() -> None:
    assert set(LINES) == set(FORMATS)


@pytest.mark.parametrize("name", LINES)
def test_a_format_is_recognised_by_one_line(name: str) -> None:
    found = detect([LINES[name]])
    assert found is not None
    assert found.name == name


def test_megatron() -> None:
    record = one(MEGATRON)
    assert (record.step, record.total_steps) == (10, 1000)
    assert record.time == 1744587672.0
    assert record.step_seconds == pytest.approx(1.1476)
    assert record.loss == pytest.approx(9.718885)
    assert record.grad_norm == pytest.approx(14.286)
    assert record.batch_size == 16
    assert record.nonfinite == 0


def test_megatron_without_total() -> None:
    record = one(MEGATRON.replace("   1000", "infinity"))
    assert record.step == 10
    assert record.total_steps is None


def test_megatron_cut_off_field_is_not_a_value() -> None:
    parser = open_format("megatron", timezone.utc)
    record = parser.feed(MEGATRON[: MEGATRON.index("9.718885") + 3])
    assert record is not None
    assert record.step == 10
    assert record.loss is None
    assert "loss" in record.damaged
    assert parser.unparsed == 1


def test_megatron_stump_of_a_killed_writer_gives_way_to_the_line_behind_it() -> None:
    record = one(MEGATRON[:100] + MEGATRON.replace("   10/", "   20/"))
    assert record.step == 20


def test_megatron_nan_iterations_are_counted() -> None:
    assert one(MEGATRON.replace("nan iterations:   0", "nan iterations:   3")).nonfinite == 3


def test_deepspeed() -> None:
    record = one(DEEPSPEED)
    assert record.step == 4500
    assert record.samples_per_second == pytest.approx(16.8074, abs=1e-4)


def test_nemo_counts_from_zero() -> None:
    record = one(NEMO)
    assert (record.step, record.total_steps) == (121, 150)
    assert record.loss == pytest.approx(1.233)
    assert record.step_seconds == pytest.approx(0.03146)


def test_nemo_1_bar() -> None:
    record = one(NEMO_1)
    assert (record.step, record.total_steps) == (795, 77225)
    assert record.elapsed == 9 * 3600 + 7 * 60 + 58
    assert record.step_seconds == pytest.approx(41.36)
    assert record.consumed_samples == 1.63e6


def test_torchtitan_through_colours_and_rank_prefix() -> None:
    record = one(TITAN)
    assert record.step == 200
    assert record.rank == 0
    assert record.loss == pytest.approx(6.1384)
    assert record.tokens_per_second_gpu == 5856
    assert record.mfu == pytest.approx(0.3429)


def test_mllog_time_is_its_own() -> None:
    record = one(MLLOG)
    assert record.time == pytest.approx(1721026805.975)
    assert record.step == 3072


def test_llm_c() -> None:
    record = one(LLMC)
    assert (record.step, record.total_steps) == (2, 32000)
    assert record.tokens_per_second == 381690
    assert record.mfu == pytest.approx(0.474)


def test_huggingface_dictionary_with_nan_is_read_and_counted() -> None:
    parser = open_format("huggingface")
    parser.feed(LINES["huggingface"])
    record = parser.feed("{'loss': nan, 'grad_norm': 2.47, 'learning_rate': 4.68e-05, 'epoch': 0.19}")
    assert record is not None
    assert record.loss is not None
    assert math.isnan(record.loss)
    assert record.nonfinite == 1
    assert record.grad_norm == pytest.approx(2.47)


def test_unknown_format_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="megatron"):
        open_format("megatorn")


def test_auto_prefers_the_format_that_tells_more() -> None:
    auto = Auto(timezone.utc)
    list(auto.feed_all([DEEPSPEED, MEGATRON]))
    assert auto.chosen is not None
    assert auto.chosen.name == "megatron"


def test_prose_is_not_progress() -> None:
    auto = Auto()
    lines = ["building train, validation, and test datasets ...", "step one: iterate", "Loading checkpoint shards", ""]
    assert list(auto.feed_all(lines)) == []
    assert auto.chosen is None
