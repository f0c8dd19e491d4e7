"""What a checkpoint without a manifest shows of itself: shards that are missing, files that are cut off."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.checkpoint.judge import Judge, State, Verdict
from agent.checkpoint.numbered import gap
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
    (one,) = (one for one in Judge(folder.parent).look(LATER) if one.candidate.path == folder)
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


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"], "model-00002-of-00003.safetensors"),
        (["a-00000-of-00002.bin"], "a-00001-of-00002.bin"),
        ([f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1, 3)],
         "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt"),
        ([f"zero_pp_rank_{d}_mp_rank_0{m}_optim_states.pt" for d, m in ((0, 0), (1, 0), (0, 1))],
         "zero_pp_rank_1_mp_rank_01_optim_states.pt"),
        (["mp_rank_00", "mp_rank_01", "mp_rank_03"], "mp_rank_02"),
        (["mp_rank_00_000", "mp_rank_00_001", "mp_rank_01_000"], "mp_rank_01_001"),
        (["mp_rank_00_model_states.pt", "mp_rank_02_model_states.pt"], "mp_rank_01_model_states.pt"),
        ([f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(8, 16)], None),
        (["mp_rank_00", "mp_rank_00_000", "optimizer.pt", "rng_state_0.pth", "rng_state_2.pth"], None),
        (["1-00001-of-99999999999.bin", "mp_rank_0"], "1-00002-of-99999999999.bin"),
        (["mp_rank_0_99999999999", "mp_rank_99999999999999999999999_0"], "mp_rank_0_00000000000"),
        ([f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(16) if rank != 9],
         "zero_pp_rank_9_mp_rank_00_optim_states.pt"),
        ([], None),
    ],
)  # fmt: skip
def test_a_gap_in_the_numbers_is_named(names: list[str], missing: str | None) -> None:
    """Where each node keeps its own ranks, theirs are all there are."""
    assert gap(names) == missing


@given(
    st.lists(
        st.from_regex(
            r"(bf16_)?(zero_pp_rank_\d{1,30}_)?mp_rank_\d{1,30}(_optim_states\.pt)?|\d+-of-\d+", fullmatch=True
        )
    )
)
def test_any_numbers_are_borne(names: list[str]) -> None:
    missing = gap(names)
    assert missing is None or missing not in names


@pytest.mark.parametrize(
    ("layout", "gone"),
    [
        (megatron, "mp_rank_02"),
        (deepspeed, "zero_pp_rank_2_mp_rank_00_optim_states.pt"),
        (hugging_face, "model-00002-of-00003.safetensors"),
    ],
)
def test_a_shard_that_is_missing_shows_without_an_index(
    layout: object, gone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = layout(tmp_path)  # type: ignore[operator]
    for index in folder.glob("*.index.json"):
        index.unlink()
    path = folder / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert look(folder).state is State.BAD
    assert main(["checkpoint", "verify", str(folder)]) == 1
    assert f"{gone} is missing" in capsys.readouterr().err


def test_a_folder_that_bears_a_files_name_is_none(tmp_path: Path) -> None:
    folder = hugging_face(tmp_path)
    archive(folder / "last.ckpt/mp_rank_00_model_states.pt")
    assert look(folder).state is State.COMPLETE


def test_a_single_file_shows_its_own_end(tmp_path: Path) -> None:
    """As Lightning and many scripts write them: there is no other sign, and none is needed."""
    files = [tmp_path / name for name in ("epoch=1-step=100.ckpt", "state_step000100.pt", "step-100.safetensors")]
    for file in files[:2]:
        archive(file)
    safetensors(files[2])
    for file in files:
        assert look(file).state is State.COMPLETE
        os.truncate(file, file.stat().st_size - 10)
        assert look(file).state is State.BAD
    pickled = tmp_path / "old_step_100.pt"
    pickled.write_bytes(b"\x80\x02 a pickle, whose end does not show")
    assert look(pickled).state is State.BAD


def test_folders_of_lightning_with_deepspeed_and_of_accelerate(tmp_path: Path) -> None:
    lightning = tmp_path / "epoch=0-step=100.ckpt"
    archive(lightning / "checkpoint/mp_rank_00_model_states.pt")
    assert look(lightning).state is State.BAD
    (lightning / "latest").write_text("checkpoint")
    assert look(lightning).state is State.COMPLETE
    accelerate = tmp_path / "step_100"
    accelerate.mkdir()
    safetensors(accelerate / "model.safetensors")
    assert look(accelerate).state is State.BAD
    archive(accelerate / "random_states_0.pkl")
    assert look(accelerate).state is State.COMPLETE


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
