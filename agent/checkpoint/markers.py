"""How a framework shows that a checkpoint without a manifest is finished.

| framework | sign |
|---|---|
| Megatron-LM, DeepSpeed | the tracker file beside the checkpoints names this step or a later one; it is written last |
| PyTorch distributed (torchtitan, NeMo 2) | `.metadata`, written by the coordinator when all shards are there |
| Hugging Face Trainer | `trainer_state.json`, and all weights that the index names, each as long as its header says |

Such a checkpoint is complete as far as anyone can tell without hashes; only a manifest can prove it.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

from agent.base.trainlog import trainer_state
from agent.checkpoint.layout import DCP_METADATA, Candidate

_WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_HEADER_LIMIT = 100 * 1024 * 1024


def marker(candidate: Candidate, tracked: int | None) -> Path | None:
    """The file that shows the checkpoint to be finished, None if there is no such sign.

    Args:
        candidate: the checkpoint.
        tracked: the step its folder's tracker file names.
    """
    folder = candidate.path
    if not candidate.is_folder:
        return None
    metadata = folder / DCP_METADATA
    if metadata.is_file():
        return metadata
    if tracked is not None and candidate.step is not None and candidate.step <= tracked and os.listdir(folder):
        return folder
    state = folder / trainer_state.FILE_NAME
    return state if state.is_file() and _hugging_face(folder, state) is None else None


def _hugging_face(folder: Path, state: Path) -> str | None:
    """What is missing in a Hugging Face checkpoint, None if nothing is."""
    try:
        trainer_state.records(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{state.name} is damaged"
    for name in _INDEXES:
        index = folder / name
        if index.is_file():
            return _shards(folder, index)
    weights = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not weights:
        # DeepSpeed and FSDP runs keep the weights in folders of their own
        return None if any(item.is_dir() for item in folder.iterdir()) else "no weights"
    return next((reason for path in weights if (reason := _short(path))), None)


def _shards(folder: Path, index: Path) -> str | None:
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{index.name} is damaged"
    for name in sorted(map(str, named)):
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if reason := _short(path):
            return reason
    return None


def _short(path: Path) -> str | None:
    """A safetensors file says in its header how long it is: catches one that was cut off."""
    if path.suffix != ".safetensors":
        return None
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _HEADER_LIMIT:
                return f"{path.name} has a damaged header"
            header = json.loads(file.read(length))
            size = os.fstat(file.fileno()).st_size
        end = max((one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"), default=0)
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error):
        return f"{path.name} has a damaged header"
    return None if size == 8 + length + end else f"{path.name} has {size} bytes instead of {8 + length + end}"
