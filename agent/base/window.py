"""A window of time that somebody set on this node: a file that says until when, why and by whom.

Written by a command, read by the running agent, which runs as another user. The end is Unix time, so that it
outlives a reboot; every window has one, because what nobody remembers to end would hold for ever.
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


@dataclass(frozen=True, slots=True)
class Window:
    """Unix times of its end and of its setting, the reason, and who set it."""

    until: float
    why: str
    by: str
    set_at: float


@dataclass(frozen=True, slots=True)
class WindowFile:
    """One kind of window.

    Attributes:
        name: of the file in the state directory.
        what: the window, as messages name it.
        longest: seconds; no window may be longer.
        example: a reason that somebody may have, for the message that asks for one.
        undo: the command that removes the file.
    """

    name: str
    what: str
    longest: float
    example: str
    undo: str

    def read(self, state_dir: str | Path) -> Window | None:
        """The window that is set, past or not; None if there is none.

        Raises:
            ValueError: the file is not one of ours (it says what is wrong).
        """
        path = Path(state_dir, self.name)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise ValueError(f"{path}: is not UTF-8 text") from None
        try:
            document = json.loads(text)
            found = Window(
                float(document["until"]), str(document["why"]), str(document["by"]), float(document["set_at"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a {self.what} file: {error!r}; `{self.undo}` removes it") from None
        if not (math.isfinite(found.until) and found.until <= found.set_at + self.longest + 1):
            raise ValueError(f"{path}: the end {found.until!r} is not within {self._days} of its setting")
        return found

    def switch_on(self, state_dir: str | Path, seconds: float, why: str, now: float) -> Window:
        """Set the window that ends `seconds` after Unix time `now`; replaces an older one.

        Raises:
            ConfigError: no time, too long or no reason.
            VigilError: the file cannot be written.
        """
        if not 0 < seconds <= self.longest:
            raise ConfigError(f"{self.what} lasts more than 0 s and at most {self._days}")
        if not why.strip():
            raise ConfigError(f"{self.what} needs a reason: --why '{self.example}'")
        window = Window(now + seconds, why.strip(), user(), now)
        folder = Path(state_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=self.name)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(asdict(window), file)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(temporary, 0o644)  # the agent runs as another user
                os.replace(temporary, folder / self.name)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise VigilError(f"{folder / self.name}: cannot be written: {error.strerror}") from None
        return window

    def switch_off(self, state_dir: str | Path) -> bool:
        """End the window; returns whether a file was there.

        Raises:
            VigilError: the file cannot be removed.
        """
        path = Path(state_dir, self.name)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise VigilError(f"{path}: cannot be removed: {error.strerror}") from None
        return True

    @property
    def _days(self) -> str:
        return f"{self.longest / 86400:g} days"


def user() -> str:
    """Who runs this command."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
