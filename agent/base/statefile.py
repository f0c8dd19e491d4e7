"""Small pieces of state that outlive the process: JSON files, each replaced whole by one rename."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

LOG = logging.getLogger("gpuvigil.state")

_refused: set[Path] = set()
"""Files that could not be written the last time: a disk that stays full is told once."""


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
        with contextlib.suppress(OSError):
            path.replace(path.with_suffix(".damaged"))
        return {}
    return found if isinstance(found, dict) else {}


def save(path: str | Path, content: dict[str, Any], *, sync: bool = True) -> bool:
    """Replace the file by one atomic rename; False (and a log line) where the disk refuses.

    State on a full or read-only disk must not stop the agent: it goes on with what is in memory.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(content)  # at once: json.dump writes it piece by piece, at five times the CPU
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if path not in _refused:
            LOG.warning("%s: cannot be written: %s", path, error.strerror)
            _refused.add(path)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        return False
    _refused.discard(path)
    return True
