"""What stands around progress: prefixes of launchers, hosts and loggers, marks of encodings, Python's scalars."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timezone

import pytest

from agent.base.trainlog import Progress, open_format

Read = Callable[..., list[Progress]]


@pytest.mark.parametrize(
    "lead",
    [
        *(
            "[rank0]:",
            "[rank0]: ",
            "[default0]:",
            " 0: ",
            "000: ",
            "[1,0]<stdout>:",
            "node17: ",
            "10.0.0.1: ",
            "worker-1: ",
        ),
        *("Jan 02 03:04:05 node17 train[1234]: ", "2026-01-02T03:04:05+01:00 node17 train[1234]: ", "stdout: "),
        *("(Trainer pid=7, ip=10.0.0.1) ", "2026-01-02T03:04:05.12Z ", "[pod/train-0/pytorch] ", "trainer-0  | "),
    ],
)
def test_what_a_launcher_puts_in_front_is_no_title_of_a_bar(read: Read, lead: str) -> None:
    lines = [
        "Map: 100%|██████████| 30/30 [00:00<00:00, 2345.67it/s]",
        "{'loss': 1.2, 'grad_norm': 0.5, 'learning_rate': 1e-05, 'epoch': 0.1}",
        " 10%|█         | 10/100 [00:10<01:30,  1.00s/it]",
        "{'loss': 1.1, 'grad_norm': 0.5, 'learning_rate': 1e-05, 'epoch': 0.2}",
        " 20%|██        | 20/100 [00:20<01:20,  1.00s/it]",
    ]
    records = read("huggingface", *[lead + line for line in lines])
    assert [(record.step, record.loss) for record in records] == [(None, 1.2), (10, None), (None, 1.1), (20, None)]


@pytest.mark.parametrize(
    "lead",
    [
        *("[1,0]<stdout>:", "<6>", "\ufeff", "\t", "node17: ", "worker-1: ", "gpu17:0: ", "stderr: ", "trainer-0  | "),
        *("INFO:root:", "INFO:__main__:", "(WorkerDict pid=1234) ", "\x1b[36m(Runner pid=12, ip=10.0.0.1)\x1b[0m "),
        "2026-01-02 03:04:05 | INFO     | __main__:train:123 - ",
        "2026-01-02 03:04:05.123 | INFO     | pkg.train:<module>:7 - ",
    ],
)
@pytest.mark.parametrize("line", ["Step {}/100 | loss: 2.31 | lr: 1e-4", "step={} total_steps=100 loss=2.31 lr=1e-4"])
def test_names_and_values_behind_what_others_put_in_front(read: Read, lead: str, line: str) -> None:
    for name in ("pairs", "auto"):
        records = read(name, *[lead + line.format(step) for step in (10, 20)])
        assert [(r.step, r.total_steps, r.loss, r.learning_rate) for r in records] == [
            (10, 100, 2.31, 1e-4),
            (20, 100, 2.31, 1e-4),
        ]


@pytest.mark.parametrize(
    "lead",
    [
        "eval: ",
        "val1: ",
        "(eval) ",
        "test-1: ",
        "best so far: ",
        "[val] ",
        "2026-01-02 03:04:05 | INFO | root | [Validation] ",
    ],
)
def test_words_that_may_mean_another_step_are_no_lead(lead: str) -> None:
    assert open_format("pairs", timezone.utc).feed(lead + "step 10 | loss: 2.31") is None


@pytest.mark.parametrize("name", ["csv", "json", "mllog", "nanogpt"])
def test_a_byte_order_mark_is_taken_off(read: Read, name: str) -> None:
    lines = {
        "csv": ["\ufeffstep,loss", "5,2.5"],
        "json": ['\ufeff{"step": 5, "loss": 2.5}'],
        "mllog": ['\ufeff:::MLLOG {"key": "train_loss", "value": 2.5, "metadata": {"step_num": 5}}'],
        "nanogpt": ["\ufeffiter 4: loss 2.5, time 1ms"],
    }
    (record,) = read(name, *lines[name])
    assert (record.step, record.loss) == (5, 2.5)


@pytest.mark.parametrize(
    ("line", "step", "total", "loss"),
    [
        ("Step 1,000/10,000 | loss: 2.31", 1000, 10000, 2.31),
        ("step=1,234,567 loss=2.31", 1234567, None, 2.31),
        ("[Step 10/100] loss: 2.31", 10, 100, 2.31),
        ("[2026-01-02 03:04:05] [INFO] [step 10] loss: 2.31", 10, None, 2.31),
        ("Step 10, loss: tensor(2.3100, device='cuda:0', grad_fn=<NllLossBackward0>)", 10, None, 2.31),
        ("step 10 loss: np.float32(2.31)", 10, None, 2.31),
    ],
)
def test_numbers_as_python_prints_them(read: Read, line: str, step: int, total: int | None, loss: float) -> None:
    (record,) = read("pairs", line)
    assert (record.step, record.total_steps, record.loss) == (step, total, loss)


def test_a_lost_loss_in_a_tensor_is_counted(read: Read) -> None:
    assert read("pairs", "Step 10, loss: tensor(nan, device='cuda:0')")[0].nonfinite == 1


def test_the_step_of_an_epoch_in_brackets_is_left_alone() -> None:
    assert open_format("pairs", timezone.utc).feed("[Epoch 2][Step 10/100] loss: 2.31") is None
