from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.cli import main

Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Writes `root/checkpoint-<step>` with two files and, unless told otherwise, its manifest last."""

    def make(step: int, *, root: Path | None = None, manifest: bool = True, at: float | None = None) -> Path:
        folder = (root or tmp_path / "ck") / f"checkpoint-{step}"
        (folder / "sub").mkdir(parents=True)
        files = []
        for name, data in (("weights.bin", b"w" * 1000 + str(step).encode()), ("sub/optimizer.bin", b"o" * 500)):
            (folder / name).write_bytes(data)
            md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
            files.append({"path": name, "size": len(data), "md5": md5})
        if manifest:
            (folder / "manifest.json").write_text(json.dumps({"version": 1, "step": step, "files": files}))
        if at is not None:
            touch(folder, at)
        return folder

    return make


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[Path]:  # tmp_path first: it is made with our own rights
    """A folder for a process with the rights of the agent's own user: to root nothing is unreadable."""
    main(["checkpoint", "latest", str(tmp_path)])  # imports what it needs: later our own folder may be out of reach
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(before)


def touch(path: Path, at: float) -> None:
    """Set the times of everything under `path` to `at`."""
    for inner in sorted(path.rglob("*"), reverse=True):
        os.utime(inner, (at, at))
    os.utime(path, (at, at))
