"""May a drill start? One at a time on a target, and never while a page is firing."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.engine.fault import Refused
from chaos.engine.target import Target
from chaos.measure import Prometheus

LOCK = "lock"
ABORT = "abort"


@contextmanager
def lock(target: Target, drill_id: str) -> Iterator[None]:
    """Hold the target; the kernel lets go when we die.

    Raises:
        Refused: another drill holds it (named).
    """
    target.state_dir.mkdir(parents=True, exist_ok=True)
    handle = os.open(target.state_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another drill is running on {target.node}: {holder(target.state_dir)}") from None
        (target.state_dir / ABORT).unlink(missing_ok=True)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"drill": drill_id, "pid": os.getpid()}).encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def holder(state_dir: Path) -> str:
    """Drill and process that hold the target, in words."""
    try:
        found = json.loads((state_dir / LOCK).read_text(encoding="utf-8"))
        return f"{found['drill']} (process {found['pid']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def running(state_dir: Path) -> bool:
    """Whether a drill holds the target now."""
    try:
        handle = os.open(state_dir / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def ask_to_stop(state_dir: Path, why: str) -> None:
    """Ask the running drill to end early; it takes everything back first."""
    (state_dir / ABORT).write_text(why, encoding="utf-8")


def asked_to_stop(state_dir: Path) -> str | None:
    """The reason given by `ask_to_stop`, for the drill's own supervisor."""
    try:
        return (state_dir / ABORT).read_text(encoding="utf-8") or "aborted"
    except FileNotFoundError:
        return None


def check(prometheus: Prometheus) -> None:
    """Refuse while anything pages that was not provoked."""
    if names := prometheus.paging():
        raise Refused(f"a page is firing: {', '.join(names)}; a drill never starts on top of an incident")
