"""What a loss tells, on curves whose fate is known and on a real one."""

import json
import math

import numpy as np
import pytest

from agent.base.trainlog import open_format
from agent.cli import main
from alerts.detect.loss import LossWatch


def curve(points=3000, seed=0, noise=0.05):
    steps = np.arange(1, points + 1)
    return 2.0 + 8.0 * steps**-0.5 + noise * np.random.default_rng(seed).normal(size=points)


def signals(losses):
    watch = LossWatch()
    return [set(watch.add(float(loss))) for loss in losses]


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_loss_is_silent(seed):
    assert not any(signals(curve(seed=seed)))


def test_a_real_healthy_loss_is_silent(request):
    parser, losses = open_format("auto"), []
    for line in (request.config.rootpath / "tests/data/training/llmc_main.log").read_text().splitlines():
        record = parser.feed(line)
        if record is not None and record.loss is not None:
            losses.append(record.loss)
    assert len(losses) > 100
    assert not any(signals(losses))


def test_not_a_number_is_told_at_once_and_ends_with_it():
    losses = curve()
    losses[1000:1003] = math.nan
    found = signals(losses)
    assert all("nonfinite" in now for now in found[1000:1003])
    assert "nonfinite" not in found[1003]


def test_a_spike_is_a_spike_and_no_divergence():
    losses = curve()
    losses[1500:1503] += 3
    losses[2000] += 3  # one hard batch
    found = signals(losses)
    assert "spike" in found[1501]
    assert not any("spike" in now for now in found[1990:2010])
    assert "spike" not in found[1504]
    assert not any("diverging" in now for now in found)


def test_divergence_is_told_and_ends_after_recovery():
    losses = curve()
    losses[1500:1900] += np.minimum(np.arange(400) / 100, 2.0)
    found = signals(losses)
    assert any("diverging" in now for now in found[1500:1650])
    assert "diverging" in found[1850]
    assert "diverging" not in found[2100]
    assert not any("diverging" in now for now in found[:1500])


def test_a_plateau_is_told_after_patience():
    losses = np.concatenate([curve(1000), np.full(2000, curve(1000, noise=0)[-1])])
    losses[1000:] += 0.05 * np.random.default_rng(1).normal(size=2000)
    found = signals(losses)
    assert not any("plateau" in now for now in found[:1200])
    assert "plateau" in found[-1]


def test_the_command_names_what_began_and_what_ended(tmp_path, capsys):
    losses = curve(1200)
    losses[800:802] = math.nan
    log = tmp_path / "log"
    log.write_text("".join(f"step:{n + 1}/1200 train_loss:{v:.4f} train_time:{n}ms\n" for n, v in enumerate(losses)))
    assert main(["detect", "loss", str(log), "-o", "json"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"step": 801, "signal": "nonfinite", "began": True} in found
    assert {"step": 803, "signal": "nonfinite", "began": False} in found
    log.write_text("no loss here\n")
    assert main(["detect", "loss", str(log)]) == 3
