"""Small pieces of state that outlive the process: JSON files, each replaced whole by one rename."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOG = logging.getLogger("gpuvigil.state")

_refused: dict[Path, tuple[str, bool]] = {}
"""What could not be written the last time, and whether it is to be synced; a disk that stays full is told once."""
_renaming = threading.Lock()
"""Nobody may put what was refused before in the place of what is newer."""


_keeping = True


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Within it files are read and none is written: they are another process', which runs."""
    global _keeping
    _keeping = False
    try:
        yield
    finally:
        _keeping = True


def writable() -> bool:
    """Whether every file could be written the last time it was to be."""
    return not _refused


def load(path: str | Path) -> dict[str, Any]:
    """The mapping in the file; empty where there is none or where it is damaged, which is logged.

    A damaged file is kept beside itself as `.damaged`, so that nothing is lost by starting afresh.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        LOG.warning("%s: cannot be read, starting afresh: %s", path, error)
        if _keeping:
            with contextlib.suppress(OSError):
                path.replace(path.with_suffix(".damaged"))
        return {}
    return found if isinstance(found, dict) else {}


def number(value: object) -> float | None:
    """The value as a finite number; None where it is anything else: who edited the file, nobody knows."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def save(path: str | Path, content: dict[str, Any], *, sync: bool = True) -> bool:
    """Replace the file by one atomic rename; False (and a log line) where the disk refuses.

    State on a full or read-only disk must not stop the agent: it goes on with what is in memory.
    """
    if not _keeping:
        return True
    path, text = Path(path), json.dumps(content)  # at once: json.dump takes five times the CPU, piece by piece
    try:
        _write(path, text, sync)
    except OSError as error:
        if path not in _refused:
            LOG.warning("%s: cannot be written: %s", path, error.strerror)
        _refused[path] = text, sync
        return False
    return True


def save_for_agent(path: str | Path, content: dict[str, Any]) -> bool:
    """As `save`, by a command: the agent's user can read it, under whatever umask root runs that command."""
    before = os.umask(0o022)
    try:
        return save(path, content)
    finally:
        os.umask(before)


def catch_up() -> None:
    """Write what was refused before, if the disk takes it now: its owner may not come again for long."""
    for path, refused in list(_refused.items()):
        with contextlib.suppress(OSError):
            _write(path, *refused, only_if=refused)


def _write(path: Path, text: str, sync: bool, *, only_if: tuple[str, bool] | None = None) -> None:
    """Replace the file; with `only_if`, only if that is what was refused last, and nothing was written since."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        with _renaming:
            if only_if is None or _refused.get(path) is only_if:
                os.replace(temporary, path)
                _refused.pop(path, None)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
