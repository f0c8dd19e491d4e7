"""What a checkpoint's own files show to be missing or cut off; no data is read, only headers, ends and indexes.

| file | what it tells |
|---|---|
| `*.safetensors` | its header says how long it is |
| `*.pt`, `*.bin`, ... of torch.save | a zip archive ends with its directory |
| `*.index.json` of Hugging Face | names every shard of the weights |
| `.metadata` of PyTorch's distributed format | names every `.distcp` file; a pickle: it is searched, not loaded |
| numbers in names | `numbered` |
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from agent.checkpoint import numbered
from agent.checkpoint.layout import DCP_METADATA

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_TORCH = frozenset({".pt", ".pth", ".bin", ".ckpt"})
_ZIP, _ZIP_END, _ZIP_END_SIZE = b"PK\3\4", b"PK\5\6", 22
"""APPNOTE.TXT of PKWARE, sections 4.3.7 and 4.3.16; torch.save writes no comment behind the end."""
_DISTCP = re.compile(rb"__\d{1,9}_\d{1,9}\.distcp")
_HEADER_LIMIT = 100 * 1024 * 1024
_MOST = 1024
"""Files whose ends are looked at: of a checkpoint with more, the first by name."""


def fault(path: Path) -> str | None:
    """What is missing or cut off in a checkpoint (a folder or a file), as `FILE ...`; None if nothing shows.

    Raises:
        OSError: the folder cannot be listed, or a file in it may not be read.
    """
    if not path.is_dir():
        return _cut_off(path, path.name)
    for index in (path / name for name in INDEXES):
        if index.is_file() and (reason := _by_index(path, index)):
            return reason
    for folder in distributed(path):
        if reason := _by_metadata(folder):
            return reason
    for folder in (path, *_folders(path)):
        if missing := numbered.gap(os.listdir(folder)):
            return f"{(folder / missing).relative_to(path)} is missing"
    files = sorted(file for file in path.rglob("*") if file.suffix in _TORCH or file.suffix == ".safetensors")
    return next((reason for file in files[:_MOST] if (reason := _cut_off(file, str(file.relative_to(path))))), None)


def distributed(path: Path) -> Iterator[Path]:
    """The folders of PyTorch's distributed format in a checkpoint: itself (torchtitan, Megatron) or below (NeMo 2)."""
    for folder in (path, *_folders(path)):
        if (folder / DCP_METADATA).is_file() or any(folder.glob("*.distcp")):
            yield folder


def _folders(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_dir())


def tells_its_end(file: Path) -> bool:
    """Whether a file is of a format that shows by itself whether it is whole.

    Raises:
        OSError: it cannot be read.
    """
    if file.suffix == ".safetensors":
        return True
    with file.open("rb") as opened:
        return opened.read(len(_ZIP)) == _ZIP


def _by_index(folder: Path, index: Path) -> str | None:
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{index.name} is damaged"
    return next((f"{name} is missing" for name in sorted(map(str, named)) if not (folder / name).is_file()), None)


def _by_metadata(folder: Path) -> str | None:
    try:
        named = {found.decode() for found in _DISTCP.findall((folder / DCP_METADATA).read_bytes())}
    except FileNotFoundError:
        return f"{DCP_METADATA} is missing"
    except PermissionError:
        raise
    except OSError as error:
        return f"{DCP_METADATA} cannot be read: {error.strerror}"
    for name in sorted(named):
        try:
            if not (folder / name).stat().st_size:
                return f"{name} is empty"
        except OSError:
            return f"{name} is missing"
    return None


def _cut_off(file: Path, name: str) -> str | None:
    if not file.is_file():  # a folder that bears such a name
        return None
    if file.suffix == ".safetensors":
        return _safetensors(file, name)
    return _archive(file, name) if file.suffix in _TORCH else None


def _archive(file: Path, name: str) -> str | None:
    try:
        with file.open("rb") as opened:
            if opened.read(len(_ZIP)) != _ZIP:  # written without zip: it does not tell its length
                return None if os.fstat(opened.fileno()).st_size else f"{name} is empty"
            opened.seek(-_ZIP_END_SIZE, os.SEEK_END)
            return None if opened.read(len(_ZIP_END)) == _ZIP_END else f"{name} is cut off"
    except PermissionError:
        raise
    except OSError as error:
        return f"{name} is cut off" if file.is_file() else f"{name} cannot be read: {error.strerror}"


def _safetensors(file: Path, name: str) -> str | None:
    """Format: an eight-byte length, a JSON header with the offsets of all tensors, their data."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > _HEADER_LIMIT:
                return f"{name} has a damaged header"
            header = json.loads(opened.read(length))
            size = os.fstat(opened.fileno()).st_size
        end = max((one["data_offsets"][1] for key, one in header.items() if key != "__metadata__"), default=0)
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error):
        return f"{name} has a damaged header"
    return None if size == 8 + length + end else f"{name} has {size} bytes instead of {8 + length + end}"
