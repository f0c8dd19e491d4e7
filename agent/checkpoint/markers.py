"""How a framework shows that a checkpoint without a manifest is finished.

| framework | sign |
|---|---|
| Megatron-LM, DeepSpeed | the tracker file beside the checkpoints names this step or a later one; it is written last |
| PyTorch distributed (torchtitan, NeMo 2) | `.metadata`, written by the coordinator when all shards are there |
| Hugging Face Trainer | `trainer_state.json`, and the weights |
| Accelerate | `random_states_0.pkl`, which it writes last |
| Lightning with DeepSpeed | `latest` in the checkpoint, which names its folder `checkpoint` |
| a file of torch.save, a safetensors file | its own end |

Such a checkpoint is complete as far as anyone can tell without hashes, if `shards` finds nothing that is missing or cut
off; only a manifest can prove it.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.base.trainlog import trainer_state
from agent.checkpoint.layout import DCP_METADATA, Candidate
from agent.checkpoint.shards import INDEXES, distributed, tells_its_end

_WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin")
_ACCELERATE = "random_states_0.pkl"
_UNFINISHED = "-unfinished"
"""What NeMo 2 puts beside a checkpoint, behind its name, until it is written."""


def marker(candidate: Candidate, tracked: int | None) -> Path | None:
    """The file that shows the checkpoint to be finished, None if there is no such sign.

    Args:
        candidate: the checkpoint.
        tracked: the step its folder's tracker file names.
    """
    folder = candidate.path
    if not candidate.is_folder:
        return folder if tells_its_end(folder) else None
    if folder.with_name(folder.name + _UNFINISHED).exists():
        return None
    if metadata := [one / DCP_METADATA for one in distributed(folder)]:
        return metadata[-1] if all(one.is_file() for one in metadata) else None
    if tracked is not None and candidate.step is not None and candidate.step <= tracked and os.listdir(folder):
        return folder
    for sign in (folder / _ACCELERATE, folder / "latest"):
        if sign.is_file() and (sign.name == _ACCELERATE or _lightning(sign)):
            return sign
    state = folder / trainer_state.FILE_NAME
    return state if state.is_file() and _hugging_face(folder, state) else None


def _lightning(latest: Path) -> bool:
    name = latest.read_text(encoding="utf-8", errors="replace")[:200].strip()
    return name == "checkpoint" and (latest.parent / name).is_dir()


def _hugging_face(folder: Path, state: Path) -> bool:
    """Whether the state can be read and there are weights; DeepSpeed and FSDP keep theirs in folders of their own."""
    try:
        trainer_state.records(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any((folder / name).is_file() for name in (*INDEXES, *_WEIGHTS)) or any(map(Path.is_dir, folder.iterdir()))
