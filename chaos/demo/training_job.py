"""A small, real training job: a character model in numpy, trained by gradient descent.

Prints progress in Megatron-LM's words and writes checkpoints whose manifest appears last, by
rename: a directory without a manifest is not a checkpoint. Started again in the same directory it
goes on from the last one. Only the pace is the demo's: each step waits until it is due.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
WEIGHTS = "weights.npz"
MOMENTUM = "optimizer.npz"
MANIFEST = "manifest.json"
RATE = 0.03


def corpus(seed: int, sentences: int = 4000) -> str:
    """Text with something to learn: sentences from a small grammar of a machine room."""
    rng = random.Random(seed)  # noqa: S311 - training text, not secrets
    subjects = ("the gpu", "a node", "the link", "this rank", "the host", "one disk")
    verbs = ("drops", "fails", "slows", "recovers", "waits", "answers")
    ends = ("under load", "at night", "in the morning", "after a reset", "again", "for an hour")
    return "".join(f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.choice(ends)}. " for _ in range(sentences))


class CharModel:
    """Next character from the last `context` ones: embedding, one tanh layer, softmax.

    Parameters by name: E (vocabulary, width), W1 (context * width, hidden), b1, W2 (hidden,
    vocabulary), b2; `velocity` holds their momentum.
    """

    def __init__(self, vocabulary: int, context: int = 10, width: int = 12, hidden: int = 96, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        inputs = context * width
        self.context = context
        self.parameters: dict[str, Array] = {
            "E": rng.normal(0, 0.1, (vocabulary, width)),
            "W1": rng.normal(0, inputs**-0.5, (inputs, hidden)),
            "b1": np.zeros(hidden),
            "W2": rng.normal(0, hidden**-0.5, (hidden, vocabulary)),
            "b2": np.zeros(vocabulary),
        }
        self.velocity = {name: np.zeros_like(value) for name, value in self.parameters.items()}

    def loss_and_gradients(self, past: Ids, following: Ids) -> tuple[float, dict[str, Array]]:
        """Mean cross-entropy (nats) of a batch, past (n, context) and following (n,), and its gradients."""
        p, rows = self.parameters, np.arange(len(past))
        x = p["E"][past].reshape(len(past), -1)
        h = np.tanh(x @ p["W1"] + p["b1"])
        logits = h @ p["W2"] + p["b2"]
        logits -= logits.max(axis=1, keepdims=True)
        q = np.exp(logits)
        q /= q.sum(axis=1, keepdims=True)
        loss = float(-np.log(q[rows, following] + 1e-12).mean())

        d_logits = q
        d_logits[rows, following] -= 1
        d_logits /= len(past)
        d_hidden = (d_logits @ p["W2"].T) * (1 - h * h)
        d_embedding = np.zeros_like(p["E"])
        np.add.at(d_embedding, past, (d_hidden @ p["W1"].T).reshape(*past.shape, -1))
        return loss, {
            "E": d_embedding,
            "W1": x.T @ d_hidden,
            "b1": d_hidden.sum(axis=0),
            "W2": h.T @ d_logits,
            "b2": d_logits.sum(axis=0),
        }

    def step(self, past: Ids, following: Ids, rate: float, momentum: float = 0.9) -> tuple[float, float]:
        """One step of gradient descent with momentum; returns loss and gradient norm."""
        loss, gradients = self.loss_and_gradients(past, following)
        for name, gradient in gradients.items():
            self.velocity[name] = momentum * self.velocity[name] - rate * gradient
            self.parameters[name] += self.velocity[name]
        return loss, float(np.sqrt(sum((g * g).sum() for g in gradients.values())))


def save(root: Path, step: int, model: CharModel, keep: int) -> Path:
    """Write `checkpoint-<step>/` under `root`, manifest last, and drop all but the newest `keep`."""
    folder = root / f"checkpoint-{step}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = []
    for name, arrays in ((WEIGHTS, model.parameters), (MOMENTUM, model.velocity)):
        with (folder / name).open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        data = (folder / name).read_bytes()
        files.append({"path": name, "size": len(data), "md5": hashlib.md5(data, usedforsecurity=False).hexdigest()})
    temporary = folder / (MANIFEST + ".tmp")
    temporary.write_text(json.dumps({"version": 1, "step": step, "files": files}), encoding="utf-8")
    temporary.rename(folder / MANIFEST)
    for _, old in complete(root)[:-keep]:
        (old / MANIFEST).unlink()  # first, so that a half-deleted directory is no checkpoint
        shutil.rmtree(old)
    return folder


def complete(root: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints as (step, directory), oldest first."""
    found = [manifest.parent for manifest in root.glob(f"checkpoint-*/{MANIFEST}")]
    return sorted((int(folder.name.rpartition("-")[2]), folder) for folder in found)


def resume(root: Path, model: CharModel) -> int:
    """Load the newest complete checkpoint into `model`; returns its step, 0 if there is none."""
    checkpoints = complete(root)
    if not checkpoints:
        return 0
    step, folder = checkpoints[-1]
    for name, arrays in ((WEIGHTS, model.parameters), (MOMENTUM, model.velocity)):
        with np.load(folder / name) as saved:
            arrays.update({key: saved[key] for key in saved.files})
    return step


def line(step: int, steps: int, batch: int, milliseconds: float, rate: float, loss: float, norm: float) -> str:
    """A progress line as Megatron-LM prints it."""
    return (
        f" [{time.strftime('%Y-%m-%d %H:%M:%S')}] iteration {step:8d}/{steps:8d} | consumed samples: {step * batch:12d}"
        f" | elapsed time per iteration (ms): {milliseconds:.1f} | learning rate: {rate:.6E}"
        f" | global batch size: {batch:5d} | lm loss: {loss:.6E} | loss scale: 1.0 | grad norm: {norm:.3f}"
        f" | number of skipped iterations:   0 | number of nan iterations:   0 |"
    )


def train(
    root: Path, steps: int, pace: float, log_every: int, save_every: int, keep: int = 3, batch: int = 128, seed: int = 0
) -> None:
    """Train to `steps`, `pace` seconds a step (0: as fast as it goes), from the last checkpoint on."""
    text = corpus(seed)
    letters = sorted(set(text))
    ids = np.array([letters.index(letter) for letter in text], dtype=np.int64)
    model = CharModel(len(letters), seed=seed)
    first = resume(root, model) + 1
    rng = np.random.default_rng((seed, first))
    window = np.arange(model.context)
    losses: list[float] = []
    began = due = time.monotonic()
    for step in range(first, steps + 1):
        at = rng.integers(0, len(ids) - model.context, batch)
        rate = RATE * min(1.0, step / (0.02 * steps)) * (0.1 + 0.9 * (1 - step / steps))  # warm-up, then linear decay
        loss, norm = model.step(ids[at[:, None] + window], ids[at + model.context], rate)
        losses.append(loss)
        due = max(due, time.monotonic() - pace) + pace  # after a stop, go on at the same pace
        time.sleep(max(0.0, due - time.monotonic()))
        if step % log_every == 0 or step == steps:
            now = time.monotonic()
            elapsed = (now - began) / len(losses) * 1000
            print(line(step, steps, batch, elapsed, rate, float(np.mean(losses)), norm), flush=True)
            losses, began = [], now
        if step % save_every == 0 or step == steps:
            save(root, step, model, keep)
    print(f" [after training is done] {steps} iterations", flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.demo.training_job", description=__doc__)
    parser.add_argument("--checkpoints", type=Path, required=True, help="directory of the checkpoints")
    parser.add_argument("--steps", type=int, default=1200, help="steps of the whole run")
    parser.add_argument("--pace", type=float, default=0.5, help="seconds a step")
    parser.add_argument("--log-every", type=int, default=4, help="steps between two progress lines")
    parser.add_argument("--save-every", type=int, default=40, help="steps between two checkpoints")
    parser.add_argument("--keep", type=int, default=3, help="checkpoints kept")
    args = parser.parse_args(argv)
    if min(args.steps, args.log_every, args.save_every, args.keep) < 1 or args.pace < 0:
        parser.error("steps, intervals and --keep must be at least 1 and --pace not negative")
    signal.signal(signal.SIGTERM, _stop)
    args.checkpoints.mkdir(parents=True, exist_ok=True)
    train(args.checkpoints, args.steps, args.pace, args.log_every, args.save_every, args.keep)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
