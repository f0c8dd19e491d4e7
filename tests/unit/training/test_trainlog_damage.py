"""A damaged number is no value: the field is absent and named, the line is counted, and the rest of it still tells."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.trainlog import FORMATS, Parser, Progress, open_format, trainer_state
from agent.base.trainlog.text import number

MEGATRON = (
    " [2025-04-13 23:41:12] iteration       10/    1000 | consumed samples:          160 | elapsed time per iteration"
    " (ms): 1147.6 | learning rate: 1.500000E-04 | global batch size:    16 | lm loss: 9.718885E+00 | loss scale: 1.0"
    " | grad norm: 14.286 | number of skipped iterations:  10 | number of nan iterations:   0 |"
)
PIPELINE = "steps: 10 loss: 9.1234 iter time (s): 0.532 samples/sec: 120.300"
TIMER = (
    "[2024-07-17 19:53:24,981] [INFO] [timer.py:258:stop] epoch=0/micro_step=4500/global_step=4500,"
    " RunningAvgSamplesPerSec=16.124955167964504, CurrSamplesPerSec=16.807402094161112, MemAllocated=0.02GB"
)
REPORT = "[2022-03-11 02:06:58,985] [INFO] [logging.py:69:log_dist] [Rank 0] step=40, skipped=2, lr=[5e-05], mom=[]"
SHARES = (
    "[2023-07-25 21:03:17,269] [INFO] [logging.py:96:log_dist] rank=0 time (ms) | forward: 652.41 | backward:"
    " 2164.52 | backward_inner: 2001.89 | backward_allreduce: 162.60 | step: 1172.13"
)
NEMO = (
    "Training epoch 0, iteration 120/149 | lr: 3e-05 | consumed_samples: 121 | global_batch_size: 4 | global_step: 120"
    " | reduced_train_loss: 1.233 | train_step_timing in s: 0.03146 | val_loss: 4.106"
)
NEMO_1 = (
    "Epoch 0:   1%|          | 795/77225 [9:07:58<878:01:48, 41.36s/it, loss=3.1, v_num=, reduced_train_loss=3.090,"
    " global_step=794.0, consumed_samples=1.63e+6]"
)
TITAN = (
    "[rank0]:[titan] 2025-06-16 22:30:50,322 - root - INFO - step: 200  loss:  6.1384  grad_norm:  0.5123  memory:"
    " 49.66GiB(52.28%)  tps: 5,856  tflops: 339.16  mfu: 34.29%"
)
LLMC = (
    "step    2/32000 | loss 10.539388 (+nanz)| norm 43.5996 (+nanz)| lr 1.71e-06 | 2747.19 ms | 47.4% bf16 MFU"
    " | 381690 tok/s"
)
LLMC_MAIN = "s:250 trl:6.4812 lr:0.000600 norm:0.3125"
BUILD_NANOGPT = "step     3 | loss: 9.51 | lr 1.2e-04 | norm: 1.20 | dt: 300.00ms | tok/sec: 174762.67"
SPEED_RUN = "step:13/1750 train_loss:6.2651 train_time:405ms step_avg:134.85ms"
ITERATION = "iter 250: loss 2.0567, time 135.12ms, mfu 15.20%"
EVALUATION = "step 250: train loss 2.1234, val loss 2.3456"
BAR = " 12%|█▎        | 2/16 [02:00<13:54, 59.61s/it]"
DICTIONARY = "{'loss': 1.453, 'grad_norm': 2.47, 'learning_rate': 4.68e-05, 'epoch': 0.19, 'num_tokens': 4096.0}"
SWIFT = "{'loss': '1.2345', 'learning_rate': 1.25e-05, 'global_step/max_steps': '25/150', 'elapsed_time': '1m 23s'}"
JSON = (
    '{"current_steps": 10, "total_steps": 100, "loss": 1.25, "lr": 1.5e-4, "throughput": 5120.5, "elapsed": "0:01:12"}'
)
MLLOG = (
    ':::MLLOG {"time_ms": 1721026805975, "key": "tracked_stats", "value": {"train_loss": 1.925, "throughput": 30.5},'
    ' "metadata": {"lineno": 161, "step": 3072, "lr": 3.5e-6}}'
)
NANOTRON = (
    "iteration: 10 / 1200 | consumed_tokens: 10.5M | elapsed_time_per_iteration_ms: 4.71K | tokens_per_sec: 2.94M |"
    " global_batch_size: 512 | lm_loss: 10.3 | lr: 0.00015 | model_tflops_per_gpu: 412.5 | grad_norm: 5.36"
)
TUNE_BAR = "1|10|Loss: 1.5873: 10%|█         | 10/100 [00:12<01:48,  1.21s/it]"
TUNE_LOG = "Step 10 | loss:1.5873 lr:2e-05 tokens_per_second_per_gpu:1234.5 grad_norm:0.41"
LITGPT = "Epoch 1 | iter 128 step 24 | loss train: 10.967, val: 9.123 | iter time: 421.22 ms (step)"
VERL = "step:12 - actor/grad_norm:0.51 - actor/lr:1e-06 - timing_s/step:48.70 - perf/throughput:3283.42"
PAIRS = "[2026-01-02 03:04:05] Step 10/1000 | Loss: 2.31 | LR: 1e-4 | step time: 350.5ms | Tokens/s: 51200.5"
CSV = "step,max_steps,loss,lr,iter_time_ms\r10,6200,10.91,0.0012,715.5"
VALIDATION = " validation loss at iteration 100 | lm loss value: 7.487306E+00 | lm loss PPL: 1.785E+03 |"
TIMERS = "time (ms) | forward-compute: 310.50 | backward-params-all-reduce: 120.25 | optimizer: 40.75"

COMPOSER = "[batch=10/100]: Train loss/train/total: 10.9736"
LINES = [
    ("megatron", MEGATRON),
    ("megatron", VALIDATION),
    ("megatron", TIMERS),
    ("deepspeed", PIPELINE),
    ("deepspeed", TIMER),
    ("deepspeed", REPORT),
    ("deepspeed", SHARES),
    ("nemo", NEMO),
    ("nemo1", NEMO_1),
    ("torchtitan", TITAN),
    ("llm.c", LLMC),
    ("llm.c", LLMC_MAIN),
    ("llm.c", BUILD_NANOGPT),
    ("nanogpt", SPEED_RUN),
    ("nanogpt", SPEED_RUN.replace("405ms", "474.173s")),
    ("nanogpt", ITERATION),
    ("nanogpt", EVALUATION),
    ("huggingface", BAR),
    ("huggingface", DICTIONARY),
    ("huggingface", SWIFT),
    ("json", JSON),
    ("mllog", MLLOG),
    ("nanotron", NANOTRON),
    ("torchtune", TUNE_BAR),
    ("torchtune", TUNE_LOG),
    ("litgpt", LITGPT),
    ("verl", VERL),
    ("composer", COMPOSER),
    ("pairs", PAIRS),
    ("csv", CSV),
]
OPEN_ENDED = {
    TIMERS,
    PIPELINE,
    SHARES,
    NEMO,
    LLMC_MAIN,
    BUILD_NANOGPT,
    EVALUATION,
    NANOTRON,
    TUNE_LOG,
    VERL,
    COMPOSER,
    PAIRS,
    CSV,
}
"""Lines that end in a bare number: of one cut off inside that number nobody can say so."""
BAD = ("banana", "", "1.2E", "1.0.5E+00", "1.", "1,2", "--3", "12x", "0x1F", "1e+", "1.5#2", "٣", "1_0")

NUMBERS = [
    ("composer", COMPOSER, "10.9736", "loss"),
    ("megatron", MEGATRON, "9.718885E+00", "loss"),
    ("megatron", MEGATRON, "1147.6", "step_seconds"),
    ("megatron", MEGATRON, "1.500000E-04", "learning_rate"),
    ("megatron", MEGATRON, "14.286", "grad_norm"),
    ("megatron", MEGATRON, "    16 ", "batch_size"),
    ("megatron", MEGATRON, "  160", "consumed_samples"),
    ("megatron", MEGATRON, "  0 ", "nonfinite"),
    ("megatron", VALIDATION, "7.487306E+00", "validation_loss"),
    ("megatron", TIMERS, "120.25", "communication_ratio"),
    ("deepspeed", PIPELINE, "9.1234", "loss"),
    ("deepspeed", PIPELINE, "0.532", "step_seconds"),
    ("deepspeed", PIPELINE, "120.300", "samples_per_second"),
    ("deepspeed", TIMER, "16.807402094161112", "samples_per_second"),
    ("deepspeed", REPORT, "5e-05", "learning_rate"),
    ("deepspeed", SHARES, "652.41", "communication_ratio"),
    ("deepspeed", SHARES, "162.60", "communication_ratio"),
    ("nemo", NEMO, "3e-05", "learning_rate"),
    ("nemo", NEMO, "1.233", "loss"),
    ("nemo", NEMO, "0.03146", "step_seconds"),
    ("nemo", NEMO, "4.106", "validation_loss"),
    ("nemo1", NEMO_1, "3.090", "loss"),
    ("nemo1", NEMO_1, "41.36", "step_seconds"),
    ("nemo1", NEMO_1, "1.63e+6", "consumed_samples"),
    ("torchtitan", TITAN, "6.1384", "loss"),
    ("torchtitan", TITAN, "0.5123", "grad_norm"),
    ("torchtitan", TITAN, "5,856", "tokens_per_second_gpu"),
    ("torchtitan", TITAN, "339.16", "flops_gpu"),
    ("torchtitan", TITAN, "34.29", "mfu"),
    ("llm.c", LLMC, "10.539388", "loss"),
    ("llm.c", LLMC, "43.5996", "grad_norm"),
    ("llm.c", LLMC, "1.71e-06", "learning_rate"),
    ("llm.c", LLMC, "2747.19", "step_seconds"),
    ("llm.c", LLMC, "47.4", "mfu"),
    ("llm.c", LLMC, "381690", "tokens_per_second"),
    ("llm.c", LLMC_MAIN, "6.4812", "loss"),
    ("llm.c", LLMC_MAIN, "0.000600", "learning_rate"),
    ("llm.c", BUILD_NANOGPT, "300.00", "step_seconds"),
    ("llm.c", BUILD_NANOGPT, "174762.67", "tokens_per_second"),
    ("nanogpt", SPEED_RUN, "6.2651", "loss"),
    ("nanogpt", SPEED_RUN, "405", "elapsed"),
    ("nanogpt", ITERATION, "2.0567", "loss"),
    ("nanogpt", ITERATION, "135.12", "step_seconds"),
    ("nanogpt", ITERATION, "15.20", "mfu"),
    ("nanogpt", EVALUATION, "2.3456", "validation_loss"),
    ("huggingface", BAR, "59.61", "step_seconds"),
    ("huggingface", BAR, "02:00", "elapsed"),
    ("huggingface", DICTIONARY, "1.453", "loss"),
    ("huggingface", DICTIONARY, "2.47", "grad_norm"),
    ("huggingface", DICTIONARY, "4.68e-05", "learning_rate"),
    ("huggingface", DICTIONARY, "0.19", "epoch"),
    ("huggingface", DICTIONARY, "4096.0", "consumed_tokens"),
    ("huggingface", SWIFT, "1.2345", "loss"),
    ("json", JSON, "1.25", "loss"),
    ("json", JSON, "1.5e-4", "learning_rate"),
    ("json", JSON, "5120.5", "tokens_per_second"),
    ("json", JSON, '"0:01:12"', "elapsed"),
    ("mllog", MLLOG, "1.925", "loss"),
    ("mllog", MLLOG, "30.5", "samples_per_second"),
    ("mllog", MLLOG, "3.5e-6", "learning_rate"),
    ("nanotron", NANOTRON, "10.3", "loss"),
    ("nanotron", NANOTRON, "10.5M", "consumed_tokens"),
    ("nanotron", NANOTRON, "4.71K", "step_seconds"),
    ("nanotron", NANOTRON, "412.5", "flops_gpu"),
    ("torchtune", TUNE_BAR, "1.5873", "loss"),
    ("torchtune", TUNE_BAR, "1.21", "step_seconds"),
    ("torchtune", TUNE_LOG, "1.5873", "loss"),
    ("torchtune", TUNE_LOG, "1234.5", "tokens_per_second_gpu"),
    ("litgpt", LITGPT, "10.967", "loss"),
    ("litgpt", LITGPT, "9.123", "validation_loss"),
    ("verl", VERL, "0.51", "grad_norm"),
    ("verl", VERL, "48.70", "step_seconds"),
    ("verl", VERL, "3283.42", "tokens_per_second_gpu"),
    ("csv", CSV, "10.91", "loss"),
    ("csv", CSV, "0.0012", "learning_rate"),
    ("csv", CSV, "715.5", "step_seconds"),
    ("pairs", PAIRS, "2.31", "loss"),
    ("pairs", PAIRS, "1e-4", "learning_rate"),
    ("pairs", PAIRS, "350.5ms", "step_seconds"),
    ("pairs", PAIRS, "51200.5", "tokens_per_second"),
]
NAMES = [field.name for field in fields(Progress) if field.name not in ("damaged", "time", "restart")]


def opened(name: str, line: str) -> Parser:
    """A parser that has seen a whole line of the kind before, as in the middle of a run."""
    parser = open_format(name, timezone.utc)
    if line == TIMERS:
        parser.feed(MEGATRON)
    parser.feed(line)
    assert parser.unparsed == 0
    return parser


def absent_or_as_whole(record: Progress | None, whole: Progress) -> None:
    for name in NAMES if record is not None else ():
        assert getattr(record, name) in (None, 0, False, getattr(whole, name)), name


def test_every_format_is_damaged_here() -> None:
    assert {name for name, _ in LINES} == {name for name, *_ in NUMBERS} == set(FORMATS)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("name", "line", "good", "field"), NUMBERS)
def test_a_damaged_number_is_absent_named_and_counted(name: str, line: str, good: str, field: str, bad: str) -> None:
    whole = opened(name, line).feed(line)
    assert whole is not None
    parser = opened(name, line)
    assert line.count(good) == 1
    if name == "csv":
        bad = bad.replace(",", ";") or "none at all"  # a comma is another cell, and an empty cell is no damage
    record = parser.feed(line.replace(good, json.dumps(bad) if name in ("json", "mllog") else bad))
    assert record is not None
    assert parser.unparsed == 1
    assert field in record.damaged
    assert not getattr(record, field)
    assert record.step == whole.step, "a whole step still moves"
    absent_or_as_whole(record, whole)


@pytest.mark.parametrize(
    ("name", "line", "good"),
    [
        ("megatron", MEGATRON, "10/ "),
        ("nemo", NEMO, "step: 120"),
        ("nemo", NEMO, "120/"),
        ("nemo1", NEMO_1, "794.0"),
        ("torchtitan", TITAN, "200"),
        ("llm.c", LLMC, "2/"),
        ("nanogpt", SPEED_RUN, "13/"),
        ("huggingface", SWIFT, "25/"),
        ("json", JSON, ": 10,"),
        ("mllog", MLLOG, "3072"),
    ],
)
@pytest.mark.parametrize("bad", ["1x", "1.5", "1e", "banana"])
def test_a_damaged_step_is_no_step(name: str, line: str, good: str, bad: str) -> None:
    parser = opened(name, line)
    spoilt = re.sub(r"\d[\d.]*", json.dumps(bad) if name in ("json", "mllog") else bad, good, count=1)
    record = parser.feed(line.replace(good, spoilt, 1))
    assert record is None or record.step is None
    assert parser.unparsed <= 1
    if (name, line) not in (("llm.c", LLMC), ("torchtitan", TITAN)):
        assert parser.unparsed == 1


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(LINES), st.data())
def test_a_line_cut_off_anywhere_gives_no_new_value(case: tuple[str, str], data: st.DataObject) -> None:
    name, line = case
    whole = opened(name, line).feed(line)
    assert whole is not None
    end = len(line)
    if line in OPEN_ENDED:
        end -= len(re.split(r"[\s:,]", line)[-1])
    parser = opened(name, line)
    record = parser.feed(line[: data.draw(st.integers(0, end))])
    absent_or_as_whole(record, whole)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(LINES), st.data())
def test_a_stump_before_the_next_writers_line_gives_no_new_value(case: tuple[str, str], data: st.DataObject) -> None:
    """A writer that was killed in mid-line: what is read is of the line behind the stump, or nothing."""
    name, line = case
    following = line.translate(str.maketrans("2345678", "3456789"))
    whole = opened(name, line).feed(following)
    record = opened(name, line).feed(line[: data.draw(st.integers(0, len(line)))] + following)
    if whole is not None:
        absent_or_as_whole(record, whole)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(LINES), st.data())
def test_one_spoilt_number_gives_no_new_value_or_is_counted(case: tuple[str, str], data: st.DataObject) -> None:
    """What is put into the number cannot make another number, and is no separator of any format."""
    name, line = case
    whole = opened(name, line).feed(line)
    assert whole is not None
    numbers = [found for found in re.finditer(r"\d[\d.,]*\d(?:[eE][-+]?\d+)?", line)]
    found = data.draw(st.sampled_from(numbers))
    at = data.draw(st.integers(found.start() + 1, found.end() - 1))
    parser = opened(name, line)
    record = parser.feed(
        line[:at] + data.draw(st.sampled_from(["x", "#", "..", "?", "E-x", "÷", "abc", "\x00"])) + line[at:]
    )
    absent_or_as_whole(record, whole)
    given = [getattr(record, name) for name in NAMES] if record is not None else None
    assert parser.unparsed == 1 or record is None or given == [getattr(whole, name) for name in NAMES]


@pytest.mark.parametrize("head", ["[batch=1x0/100]:", "[epoch=1][batch=10/1#0]:", "[epoch=x/3][batch=10/100]:"])
def test_values_behind_a_spoilt_step_of_composer_have_none(head: str) -> None:
    parser = open_format("composer")
    assert parser.feed("[batch=9/100]:") is not None
    assert [parser.feed(line) for line in (head, " Train time/total: 0.01")] == [None, None]
    assert parser.unparsed == 1


def test_a_megatron_line_with_single_spaces_and_the_loss_first_is_read() -> None:
    parser = open_format("megatron")
    record = parser.feed("iteration 120/ 1000 | lm loss: 1.0E+01 | grad norm: 0.5 |")
    assert record is not None
    assert (record.step, record.loss, record.grad_norm, parser.unparsed) == (120, 10.0, 0.5, 0)


def test_what_is_derived_from_a_damaged_number_is_damaged_too() -> None:
    parser = open_format("megatron")
    parser.feed("  seq_length ...................................... 2048")
    record = parser.feed(MEGATRON.replace("1147.6", "1147.6.1"))
    assert record is not None
    assert {"step_seconds", "tokens_per_second", "communication_ratio"} <= record.damaged
    parser.feed("using world size: 64, data-parallel size: 8")
    per_gpu = MEGATRON + " tokens/sec/gpu: 10.5 | curriculum seqlen: 1O24 |"
    record = parser.feed(per_gpu)
    assert record is not None
    assert (record.tokens_per_second, record.sequence_length, record.tokens_per_second_gpu) == (None, None, 10.5)
    record = parser.feed(MEGATRON.replace("  160", "  16O"))
    assert record is not None
    assert {"consumed_samples", "consumed_tokens"} <= record.damaged


def test_a_timer_of_a_block_that_is_damaged_spoils_the_sum() -> None:
    parser = open_format("megatron")
    lines = [
        MEGATRON,
        "(min, max) time across ranks (ms):",
        "    all-grads-sync .................................: (50.00, 15x.00)",
        "    params-all-gather ..............................: (20.00, 50.00)",
        "(min, max) time across ranks (ms):",
        "    params-all-gather ..............................: (20.00, 114.76)",
    ]
    records = list(parser.feed_all(lines))
    assert [record.communication_ratio for record in records[1:]] == [None, None, pytest.approx(0.1)]
    assert parser.unparsed == 2


@pytest.mark.parametrize(
    ("name", "line", "good", "spelled"),
    [
        ("torchtitan", TITAN, "34.29%", "N/A"),
        ("huggingface", DICTIONARY, "2.47", "None"),
        ("json", JSON, "1.25", "null"),
        ("llm.c", LLMC, "47.4% bf16 MFU", "-100.0% bf16 MFU"),
    ],
)
def test_a_value_said_to_be_missing_is_not_damage(name: str, line: str, good: str, spelled: str) -> None:
    parser = opened(name, line)
    record = parser.feed(line.replace(good, spelled))
    assert record is not None
    assert record.damaged == frozenset()
    assert parser.unparsed == 0


@pytest.mark.parametrize("spelled", ["nan", "NaN", "-inf", "Infinity", "1", "-1.5", "+.5", "1,234.5", "1e-05", "'2.5'"])
def test_number_literals(spelled: str) -> None:
    assert number(spelled) is not None


@pytest.mark.parametrize("spelled", [*BAD, "1,23", "1234,567", "1e5.0", "12 3", "infx", "nanms", "1/2", "34%", "5ms"])
def test_other_text_is_no_number(spelled: str) -> None:
    assert number(spelled) is None


def test_a_damaged_entry_of_a_trainer_state_is_named() -> None:
    state = {"global_step": 2, "log_history": [{"step": 1, "loss": "1.2E"}, {"step": 2, "loss": 1.5}]}
    first, last = trainer_state.records(json.dumps(state))
    assert (first.loss, first.damaged) == (None, {"loss"})
    assert (last.loss, last.damaged) == (1.5, frozenset())
