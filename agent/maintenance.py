"""The maintenance flag: a file that says until when this node's pages stay quiet, and why.

Written by `gpuvigil agent maintenance on`, exported by the collector of the same name. The time is
Unix time, so that it outlives a reboot.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.base.errors import ConfigError, VigilError

NAME = "maintenance.json"
LONGEST = 30 * 86400.0
"""Seconds; a window nobody remembers is how a dead node stays silent."""


@dataclass(frozen=True, slots=True)
class Maintenance:
    """One window: Unix times of its end and of its setting, the reason, and who set it."""

    until: float
    why: str
    by: str
    set_at: float


def read(state_dir: str | Path) -> Maintenance | None:
    """The window that is set, past or not; None if there is none.

    Raises:
        ValueError: the file is not one of ours (it says what is wrong).
    """
    path = Path(state_dir, NAME)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8 text") from None
    try:
        document = json.loads(text)
        found = Maintenance(
            float(document["until"]), str(document["why"]), str(document["by"]), float(document["set_at"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a maintenance file: {error!r}; `gpuvigil agent maintenance off` removes it"
        ) from None
    if not (math.isfinite(found.until) and found.until <= found.set_at + LONGEST + 1):
        raise ValueError(f"{path}: the end {found.until!r} is not within {LONGEST / 86400:g} days of its setting")
    return found


def switch_on(state_dir: str | Path, seconds: float, why: str, now: float) -> Maintenance:
    """Set the window that ends `seconds` after Unix time `now`; replaces an older one.

    Raises:
        ConfigError: no time, too long or no reason.
        VigilError: the file cannot be written.
    """
    if not 0 < seconds <= LONGEST:
        raise ConfigError(f"maintenance lasts more than 0 s and at most {LONGEST / 86400:g} days")
    if not why.strip():
        raise ConfigError("maintenance needs a reason: --why 'replacing GPU 3'")
    window = Maintenance(now + seconds, why.strip(), _user(), now)
    folder = Path(state_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=NAME)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(window), file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # the agent runs as another user
            os.replace(temporary, folder / NAME)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise VigilError(f"{folder / NAME}: cannot be written: {error.strerror}") from None
    return window


def switch_off(state_dir: str | Path) -> bool:
    """End maintenance; returns whether a file was there.

    Raises:
        VigilError: the file cannot be removed.
    """
    path = Path(state_dir, NAME)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise VigilError(f"{path}: cannot be removed: {error.strerror}") from None
    return True


def _user() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
