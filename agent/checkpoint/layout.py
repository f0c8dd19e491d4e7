"""Which checkpoints lie in a job's folder, by the names that training programs give them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.checkpoint import manifest

_FOLDERS: Final = (
    re.compile(r"(?:checkpoint|ckpt)[-_](\d+)"),  # Hugging Face, our demo
    re.compile(r"iter_(\d+)"),  # Megatron-LM
    re.compile(r"global_?step[-_]?(\d+)"),  # DeepSpeed, verl
    re.compile(r"step[-_=]?(\d+)(?:-\w+)?"),  # torchtitan
    re.compile(r".*\bstep=(\d+).*"),  # NeMo, Lightning
    re.compile(r"ep\d+-ba(\d+)"),  # Composer
)
_FILES: Final = (
    re.compile(r".*?(?<![a-z])(?:step|iter)[-_=]?(\d+).*\.(?:ckpt|pt|pth|safetensors|bin)"),
    re.compile(r"(?:checkpoint|ckpt|model)[-_](\d+)\.(?:ckpt|pt|pth|safetensors|bin)"),
)
_OVERWRITTEN: Final = re.compile(r"(?:ckpt|checkpoint|last|latest)\.(?:ckpt|pt|pth|safetensors)")
"""One file that each checkpoint replaces (nanoGPT): it counts where there is nothing with a step of its own."""
TRACKERS: Final = ("latest_checkpointed_iteration.txt", "latest")
"""Files beside the checkpoints in which Megatron-LM and DeepSpeed name the newest finished one."""
DCP_METADATA: Final = ".metadata"
_UNFINISHED: Final = re.compile(r"^(?:tmp[-_.]|\.)|(?:\.tmp|\.partial|-unfinished|\.incomplete)$")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that looks like a checkpoint; `step` None where its name has none."""

    path: Path
    step: int | None
    is_folder: bool


def candidates(folder: Path) -> list[Candidate]:
    """What looks like a checkpoint in `folder`, in order of steps; an unknown step comes first.

    Raises:
        OSError: the folder cannot be listed.
    """
    found: list[Candidate] = []
    overwritten: list[Candidate] = []
    with os.scandir(folder) as listing:
        for item in listing:
            if _UNFINISHED.search(item.name):
                continue
            path = folder / item.name
            if item.is_symlink() and _within(path, folder):  # another name of a checkpoint that is counted: `latest`
                continue
            if item.is_dir():
                step = _step(item.name, _FOLDERS)
                if step is not None or manifest.locate(path) or os.path.isfile(path / DCP_METADATA):
                    found.append(Candidate(path, step, True))
            elif item.is_file() and (step := _step(item.name, _FILES)) is not None:
                found.append(Candidate(path, step, False))
            elif _OVERWRITTEN.fullmatch(item.name) and item.is_file():
                overwritten.append(Candidate(path, None, False))
    return sorted(found or overwritten, key=lambda one: (one.step if one.step is not None else -1, one.path.name))


def _within(link: Path, folder: Path) -> bool:
    return os.path.dirname(os.path.realpath(link)) == os.path.realpath(folder)


def _step(name: str, patterns: tuple[re.Pattern[str], ...]) -> int | None:
    for pattern in patterns:
        if matched := pattern.fullmatch(name):
            return int(matched[1])
    return None


def tracked_step(folder: Path) -> int | None:
    """The step that Megatron's or DeepSpeed's tracker file names as finished; None where there is none."""
    for name in TRACKERS:
        try:
            text = (folder / name).read_text(encoding="utf-8", errors="replace")[:200].strip()
        except OSError:
            continue
        if found := re.fullmatch(r"(?:\D*?)(\d+)", text):
            return int(found[1])
    return None
