"""Complete, being written, bad: with manifests and with each framework's own signs."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.checkpoint.judge import Judge, State, Verdict

T0 = 1_700_000_000.0
Build = Callable[..., Path]


def age(path: Path, at: float = T0) -> None:
    for inner in sorted(path.rglob("*"), reverse=True):
        os.utime(inner, (at, at))
    os.utime(path, (at, at))


def look(folder: Path, now: float = T0 + 1000) -> dict[str, Verdict]:
    return {one.candidate.path.name: one for one in Judge(folder).look(now)}


def test_complete_by_manifest(build: Build) -> None:
    folder = build(100, at=T0)
    one = look(folder.parent)["checkpoint-100"]
    assert one.state is State.COMPLETE
    assert (one.step, one.size, one.written) == (100, 1503, T0)


def test_without_its_manifest_it_is_being_written_then_bad(build: Build) -> None:
    build(100, at=T0)
    folder = build(200, manifest=False, at=T0)
    assert look(folder.parent, T0 + 299)["checkpoint-200"].state is State.WRITING
    bad = look(folder.parent, T0 + 301)["checkpoint-200"]
    assert bad.state is State.BAD
    assert "manifest" in bad.reason


def test_growth_of_one_file_keeps_it_being_written(build: Build) -> None:
    build(100, at=T0)
    folder = build(200, manifest=False, at=T0)
    os.utime(folder / "sub/optimizer.bin", (T0 + 900, T0 + 900))
    assert look(folder.parent)["checkpoint-200"].state is State.WRITING


@pytest.mark.parametrize("harm", ["short", "missing"])
def test_a_file_that_disagrees_with_the_manifest_is_named(build: Build, harm: str) -> None:
    folder = build(100)
    if harm == "short":
        os.truncate(folder / "weights.bin", 10)
    else:
        (folder / "weights.bin").unlink()
    age(folder)
    one = look(folder.parent)["checkpoint-100"]
    assert one.state is State.BAD
    assert "weights.bin" in one.reason


def test_a_damaged_manifest_is_bad_and_says_why(build: Build) -> None:
    folder = build(100)
    (folder / "manifest.json").write_text('{"files": [')
    age(folder)
    one = look(folder.parent)["checkpoint-100"]
    assert one.state is State.BAD
    assert "not JSON" in one.reason


def test_a_file_cut_short_later_is_found_at_the_next_look_or_recheck(build: Build) -> None:
    """Cutting a file changes neither its folder nor the manifest."""
    old, new = build(100, at=T0), build(200, at=T0 + 10)
    judge = Judge(old.parent, recheck=600)
    assert {one.state for one in judge.look(T0 + 1000)} == {State.COMPLETE}
    for folder in (old, new):
        os.truncate(folder / "weights.bin", 10)
        os.utime(folder / "weights.bin", (T0, T0))
    assert [one.state for one in judge.look(T0 + 1030)] == [State.COMPLETE, State.BAD]
    assert [one.state for one in judge.look(T0 + 1601)] == [State.BAD, State.BAD]


def test_unfinished_names_and_strangers_are_no_checkpoints(build: Build, tmp_path: Path) -> None:
    root = build(100, at=T0).parent
    for name in ("tmp-checkpoint-200", "checkpoint-300.tmp", "runs", ".checkpoint-400"):
        (root / name).mkdir()
    (root / "notes.txt").touch()
    assert set(look(root)) == {"checkpoint-100"}


def test_another_name_of_a_checkpoint_is_none_of_its_own(build: Build, tmp_path: Path) -> None:
    """`latest` and `best` as links beside them; a link to another disk is the checkpoint."""
    root = build(100, at=T0).parent
    (root / "latest").symlink_to("checkpoint-100")
    (root / "best").symlink_to(root / "checkpoint-100")
    elsewhere = build(200, root=tmp_path / "fast", at=T0)
    (root / "checkpoint-200").symlink_to(elsewhere)
    found = look(root)
    assert {name: one.step for name, one in found.items()} == {"checkpoint-100": 100, "checkpoint-200": 200}
    assert {one.state for one in found.values()} == {State.COMPLETE}


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("ckpt_iter_100.pt", 100),
        ("model_step_200.pt", 200),
        ("state_step001390.pt", 1390),
        ("checkpoint_000100", 100),
        ("ckpt-0001000", 1000),
        ("ep0-ba250", 250),
        ("footstep_3.pt", None),
        ("checkpoint-best", None),
    ],
)
def test_names_that_training_programs_give(tmp_path: Path, name: str, step: int | None) -> None:
    if name.endswith(".pt"):
        (tmp_path / name).touch()
    else:
        (tmp_path / name).mkdir()
    assert [one.step for one in look(tmp_path).values()] == ([] if step is None else [step])


def test_one_file_that_each_checkpoint_replaces(tmp_path: Path) -> None:
    """As nanoGPT writes it; beside checkpoints with a step it is but a copy of one."""
    file = tmp_path / "ckpt.pt"
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("archive/data.pkl", b"p" * 500)
    os.utime(file, (T0, T0))
    one = look(tmp_path)["ckpt.pt"]
    assert (one.step, one.state, one.written) == (None, State.COMPLETE, T0)
    os.truncate(file, 100)
    assert look(tmp_path, file.stat().st_mtime + 10)["ckpt.pt"].state is State.WRITING
    shutil.copy(file, tmp_path / "step_100.pt")
    assert set(look(tmp_path)) == {"step_100.pt"}


def test_megatron_by_its_tracker(tmp_path: Path) -> None:
    for step in (1000, 2000):
        shard = tmp_path / f"iter_{step:07d}/mp_rank_00"
        shard.mkdir(parents=True)
        (shard / "model_optim_rng.pt").write_bytes(b"x" * step)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("1000\n")
    age(tmp_path)
    found = look(tmp_path)
    assert found["iter_0001000"].state is State.COMPLETE
    assert found["iter_0001000"].size == 1000
    assert found["iter_0002000"].state is State.BAD
    assert look(tmp_path, T0 + 100)["iter_0002000"].state is State.WRITING


def test_deepspeed_by_latest(tmp_path: Path) -> None:
    for step in (5, 10):
        (tmp_path / f"global_step{step}").mkdir()
        (tmp_path / f"global_step{step}/zero_pp_rank_0.pt").write_bytes(b"x")
    (tmp_path / "latest").write_text("global_step10")
    age(tmp_path)
    assert [one.state for one in look(tmp_path).values()] == [State.COMPLETE, State.COMPLETE]


def test_distributed_checkpoint_by_its_metadata(tmp_path: Path) -> None:
    for step, done in ((10, True), (20, False)):
        folder = tmp_path / f"step-{step}"
        folder.mkdir()
        (folder / "__0_0.distcp").write_bytes(b"x")
        if done:
            (folder / ".metadata").write_bytes(b"p")
    age(tmp_path)
    found = look(tmp_path)
    assert found["step-10"].state is State.COMPLETE
    assert found["step-20"].state is State.BAD


def safetensors(path: Path, payload: int = 64) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [16], "data_offsets": [0, payload]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * payload)


def test_hugging_face_by_state_index_and_headers(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        for shard in shards:
            safetensors(folder / shard)
        index = {"weight_map": {"a": shards[0], "b": shards[1]}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))
    (tmp_path / "checkpoint-20" / shards[1]).unlink()
    cut = tmp_path / "checkpoint-30" / shards[0]
    os.truncate(cut, cut.stat().st_size - 1)
    age(tmp_path)
    states = {name: one.state for name, one in look(tmp_path).items()}
    assert states == {"checkpoint-10": State.COMPLETE, "checkpoint-20": State.BAD, "checkpoint-30": State.BAD}


def test_a_sign_does_not_stand_in_for_a_manifest_the_job_is_known_to_write(build: Build) -> None:
    root = build(10, at=T0).parent
    folder = root / "checkpoint-20"
    folder.mkdir()
    safetensors(folder / "model.safetensors")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 20, "log_history": []}))
    age(folder)
    assert look(root)["checkpoint-20"].state is State.BAD
