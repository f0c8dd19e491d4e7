"""What a checkpoint without a manifest shows of itself: shards that are missing, files that are cut off."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest

from agent.checkpoint.judge import Judge, State, Verdict
from agent.cli import main

LATER = 1e10


def archive(path: Path) -> None:
    """A file as torch.save writes it: an uncompressed zip archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("archive/data.pkl", b"p" * 500)


def safetensors(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)


def megatron(root: Path) -> Path:
    for rank in range(4):
        archive(root / f"iter_0001000/mp_rank_0{rank}/model_optim_rng.pt")
    (root / "latest_checkpointed_iteration.txt").write_text("1000")
    return root / "iter_0001000"


def deepspeed(root: Path) -> Path:
    archive(root / "global_step1000/mp_rank_00_model_states.pt")
    for rank in range(4):
        archive(root / f"global_step1000/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    (root / "latest").write_text("global_step1000")
    return root / "global_step1000"


def distributed(folder: Path) -> Path:
    folder.mkdir(parents=True)
    names = [f"__{rank}_0.distcp" for rank in range(4)]
    for name in names:
        (folder / name).write_bytes(b"d" * 100)
    (folder / ".metadata").write_bytes(
        pickle.dumps({"storage_data": {f"layer.{name}": (name, 0, 100) for name in names}})
    )
    return folder


def torchtitan(root: Path) -> Path:
    return distributed(root / "step-1000")


def nemo(root: Path) -> Path:
    folder = root / "llama--reduced_train_loss=2.3-step=999-consumed_samples=1000-last"
    distributed(folder / "weights")
    (folder / "context").mkdir()
    return folder


def hugging_face(root: Path) -> Path:
    folder = root / "checkpoint-1000"
    folder.mkdir()
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for shard in shards:
        safetensors(folder / shard)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("abc", shards, strict=True))})
    )
    archive(folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1000, "log_history": []}))
    return folder


def look(folder: Path) -> Verdict:
    (one,) = Judge(folder.parent).look(LATER)
    return one


LAYOUTS = [megatron, deepspeed, torchtitan, nemo, hugging_face]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_checkpoint_is_complete_and_cannot_be_proved(layout: object, tmp_path: Path) -> None:
    folder = layout(tmp_path)  # type: ignore[operator]
    assert look(folder).state is State.COMPLETE
    assert look(folder).step in (999, 1000)
    assert main(["checkpoint", "verify", str(folder)]) == 3


@pytest.mark.parametrize(
    ("layout", "file", "harm"),
    [
        (megatron, "mp_rank_02/model_optim_rng.pt", "cut off"),
        (megatron, "mp_rank_02/model_optim_rng.pt", "is empty"),
        (deepspeed, "zero_pp_rank_2_mp_rank_00_optim_states.pt", "cut off"),
        (torchtitan, "__2_0.distcp", "is missing"),
        (torchtitan, "__2_0.distcp", "is empty"),
        (torchtitan, ".metadata", "is missing"),
        (nemo, "weights/__3_0.distcp", "is missing"),
        (nemo, "weights/.metadata", "is missing"),
        (hugging_face, "model-00002-of-00003.safetensors", "is missing"),
        (hugging_face, "model-00002-of-00003.safetensors", "instead of"),
        (hugging_face, "optimizer.pt", "cut off"),
    ],
)
def test_what_is_missing_or_cut_off_is_named(
    layout: object, file: str, harm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = layout(tmp_path)  # type: ignore[operator]
    path = folder / file
    if harm == "is missing":
        path.unlink()
    else:
        os.truncate(path, 0 if harm == "is empty" else path.stat().st_size - 10)
    one = look(folder)
    assert one.state is State.BAD
    assert Path(file).name in one.reason
    assert main(["checkpoint", "verify", str(folder), "-o", "json"]) == 1
    out, err = capsys.readouterr()
    assert Path(file).name in err
    assert harm in err
    assert json.loads(out)["verdict"] == "bad"


def test_nemo_says_beside_it_that_it_is_not_finished(tmp_path: Path) -> None:
    folder = nemo(tmp_path)
    mark = folder.with_name(folder.name + "-unfinished")
    mark.touch()
    assert look(folder).state is State.BAD
    mark.unlink()
    assert look(folder).state is State.COMPLETE


def test_a_single_file_that_is_cut_off(tmp_path: Path) -> None:
    archive(tmp_path / "model_1000.pt")
    assert main(["checkpoint", "verify", str(tmp_path / "model_1000.pt")]) == 3
    os.truncate(tmp_path / "model_1000.pt", 100)
    assert main(["checkpoint", "verify", str(tmp_path / "model_1000.pt")]) == 1
