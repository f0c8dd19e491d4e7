"""The demo's files: one directory that may be deleted as a whole."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.base.errors import ConfigError

MARK = "gpuvigil-demo"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below `root`."""

    root: Path

    @property
    def target(self) -> Path:
        return self.root / "target.yaml"

    @property
    def rules(self) -> Path:
        return self.root / "rules"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def kmsg(self) -> Path:
        return self.root / "kmsg"

    @property
    def world(self) -> Path:
        return self.root / "gpus.state"

    @property
    def model(self) -> Path:
        return self.root / "tiny.gguf"

    @property
    def engine_pid(self) -> Path:
        return self.root / "engine.pid"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def pages(self) -> Path:
        return self.root / "pages.jsonl"

    def config(self, part: str) -> Path:
        """The configuration file of a part."""
        return self.root / f"{part}.yaml"

    def state(self, part: str) -> Path:
        """The state directory of a part."""
        return self.root / "state" / part

    def log(self, part: str) -> Path:
        """The log of a part; the training job's is what the agent reads its progress from."""
        return self.root / "log" / f"{part}.log"


@contextmanager
def occupied(root: Path, keep: bool) -> Iterator[Layout]:
    """Hold the demo's directory, emptied unless `keep`; one demo at a time.

    Raises:
        ConfigError: another demo holds it, or the directory is not a demo's.
    """
    root = root.absolute()
    root.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(root.parent / f".{root.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(handle, 20).decode("ascii", "replace")
            raise ConfigError(f"{root}: another demo uses it (process {pid}); stop it, or use --build DIR") from None
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        if root.exists() and not keep:
            if any(root.iterdir()) and not (root / MARK).exists():
                raise ConfigError(f"{root}: not a demo's directory, so it is not emptied; move it away")
            shutil.rmtree(root)
        for folder in ("log", "run", "state", "checkpoints"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / MARK).touch()
        yield Layout(root)
    finally:
        os.close(handle)
