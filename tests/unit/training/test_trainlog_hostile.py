"""No line of a log may stop the reader: damaged numbers, endless nesting, random bytes, cut lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.trainlog import FORMATS, Auto, open_format, trainer_state

REAL = (
    " iteration       50/    1000 | consumed samples:          200 | elapsed time per iteration (ms): 1377.4 |"
    " learning rate: 1.497E-04 | global batch size:     4 | lm loss: 9.718885E+00 | grad norm: 14.286 |",
    "[2024-07-17 19:53:24,981] [INFO] [timer.py:258:stop] epoch=0/micro_step=4500/global_step=4500,"
    " RunningAvgSamplesPerSec=16.1, CurrSamplesPerSec=16.8, MemAllocated=0.02GB",
    "Training epoch 0, iteration 120/149 | lr: 3e-05 | global_step: 120 | reduced_train_loss: 1.233",
    "Epoch 0:   1%|          | 795/77225 [9:07:58<878:01:48, 41.36s/it, loss=3.1, global_step=794.0]",
    "[rank0]:[titan] 2025-06-16 22:30:50,322 - root - INFO - step: 200  loss:  6.1384  tps: 5,856  mfu: 34.29%",
    ':::MLLOG {"time_ms": 1721026805975, "key": "tracked_stats", "value": {"loss": 1.9}, "metadata": {"step": 3072}}',
    "step    2/32000 | loss 10.539388 (+nanz)| norm 43.5996 (+nanz)| lr 1.71e-06 | 2747.19 ms | 381690 tok/s",
    "step:13/1750 train_loss:6.2651 train_time:405ms step_avg:134.85ms",
    " 12%|█▎        | 2/16 [02:00<13:54, 59.61s/it]",
    "{'loss': 1.453, 'grad_norm': 2.47, 'learning_rate': 4.68e-05, 'epoch': 0.19}",
    '{"step": 10, "loss": 1.25, "time": "2025-01-01T00:00:00Z"}',
    '{"log":"step:13/1750 train_loss:6.2 train_time:405ms step_avg:1ms\\n","time":"2025-01-01T00:00:00.1Z"}',
    "s:250 trl:6.48 lr:0.0006 norm:0.31",
    "step,total_steps,loss,time\r10,6200,10.91,74701.0",
    "1|10|Loss: 1.58: 10%|█  | 10/100 [00:12<01:48,  1.21s/it]",
    "Step 10 | loss:1.5873 lr:2e-05 grad_norm:0.4 ",
    "iteration: 1 / 15 | consumed_tokens: 2.1M | elapsed_time_per_iteration_ms: 4.71K | lm_loss: 5.32",
    "Epoch 1 | iter 128 step 4 | loss train: 10.967, val: n/a | iter time: 421.22 ms (step)",
    "step:12 - actor/lr:1e-06 - timing_s/step:48.70 - perf/throughput:3283.42",
    "Epoch [2/3], Step [10/1000] | Loss: 2.31 | Tokens/s: 1,523,456 | MFU: 45.2%",
)
HUGE = "9" * 3000


def feed_everything(line: str) -> None:
    for name in FORMATS:
        parser = open_format(name)
        parser.feed(REAL[0])
        parser.feed(line)
        parser.feed(line)
    Auto().feed(line)


@pytest.mark.parametrize("line", [line for line in REAL if any(c.isdigit() for c in line)])
def test_absurd_numbers_are_damage_or_absent(line: str) -> None:
    for number in (HUGE, "1e999", "-1", "٣", "0"):
        for at, char in enumerate(line):
            if char.isdigit() and (at == 0 or not line[at - 1].isdigit()):
                feed_everything(line[:at] + number + line[at + 1 :])


@pytest.mark.parametrize("line", ['{"step":' + "[" * 4000, ":::MLLOG " + "[" * 4000, '{"log":' + "{" * 4000])
def test_endless_nesting_is_damage(line: str) -> None:
    feed_everything(line)


def test_a_nested_trainer_state_is_damage() -> None:
    with pytest.raises(ValueError, match="nested"):
        trainer_state.records("[" * 100_000)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text(line: str) -> None:
    feed_everything(line)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(REAL), st.data())
def test_real_lines_cut_doubled_and_spoilt(line: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(line)))
    much = data.draw(st.integers(0, 8))
    with_text = data.draw(st.text(max_size=8))
    feed_everything(line[:at] + with_text + line[at + much :])
    feed_everything(line[:at] + line)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(["step", "loss", "time", "elapsed", "rank", "total_steps"]),
)
def test_any_json_value_in_any_field(value: object, field: str) -> None:
    parser = open_format("json")
    record = parser.feed(json.dumps({"step": 5, field: value}))
    assert record is not None or field == "step" or parser.unparsed == 1
