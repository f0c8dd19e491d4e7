"""The demo's training job trains for real and never shows half a checkpoint."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from chaos.demo import training_job


def _batch(model: training_job.CharModel, vocabulary: int, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.integers(0, vocabulary, (n, model.context)), rng.integers(0, vocabulary, n)


@pytest.mark.parametrize("name", ["E", "W1", "b1", "W2", "b2"])
def test_gradients_agree_with_differences(name: str) -> None:
    model = training_job.CharModel(vocabulary=7, context=4, width=3, hidden=5, seed=1)
    past, following = _batch(model, 7)
    _, gradients = model.loss_and_gradients(past, following)
    values = model.parameters[name]
    for index in list(np.ndindex(values.shape))[::3]:
        kept, losses = values[index], []
        for delta in (1e-5, -1e-5):
            values[index] = kept + delta
            losses.append(model.loss_and_gradients(past, following)[0])
        values[index] = kept
        assert gradients[name][index] == pytest.approx((losses[0] - losses[1]) / 2e-5, abs=1e-6)


def _losses(text: str) -> dict[int, float]:
    return {int(step): float(loss) for step, loss in re.findall(r"iteration +(\d+)/ .*lm loss: (\S+) ", text)}


def test_loss_falls_and_checkpoints_are_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training_job.train(tmp_path, steps=300, pace=0, log_every=100, save_every=50, keep=2)
    losses = _losses(capsys.readouterr().out)
    assert list(losses) == [100, 200, 300]
    assert losses[300] < 0.6 * losses[100]
    assert [step for step, _ in training_job.complete(tmp_path)] == [250, 300]
    assert len(list(tmp_path.iterdir())) == 2
    for step, folder in training_job.complete(tmp_path):
        manifest = json.loads((folder / "manifest.json").read_text())
        assert (manifest["version"], manifest["step"]) == (1, step)
        assert {file["path"] for file in manifest["files"]} == {"weights.npz", "optimizer.npz"}
        for file in manifest["files"]:
            data = (folder / file["path"]).read_bytes()
            assert (len(data), hashlib.md5(data).hexdigest()) == (file["size"], file["md5"])


def test_goes_on_from_the_last_complete_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training_job.train(tmp_path, steps=100, pace=0, log_every=50, save_every=50, keep=3)
    (tmp_path / "checkpoint-100" / "manifest.json").unlink()  # as if killed while writing
    before = _losses(capsys.readouterr().out)
    training_job.train(tmp_path, steps=100, pace=0, log_every=50, save_every=50, keep=3)
    after = _losses(capsys.readouterr().out)
    assert list(after) == [100]
    assert after[100] < before[50]
    assert [step for step, _ in training_job.complete(tmp_path)] == [50, 100]


def test_sigkill_leaves_only_checkpoints_that_load(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chaos.demo.training_job", "--checkpoints", str(tmp_path)]
    command += ["--steps", "100000", "--pace", "0", "--save-every", "1", "--log-every", "1000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as job:
        deadline = time.monotonic() + 60
        while len(training_job.complete(tmp_path)) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        job.send_signal(signal.SIGKILL)
    found = training_job.complete(tmp_path)
    assert found
    model = training_job.CharModel(len(set(training_job.corpus(0))))
    assert training_job.resume(tmp_path, model) == found[-1][0]


def test_bad_arguments_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        training_job.main(["--checkpoints", "x", "--steps", "0"])
    assert "at least 1" in capsys.readouterr().err
