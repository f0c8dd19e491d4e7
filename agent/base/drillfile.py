"""drill.json: which targets a drill touches now, written by chaos and read by the agent.

One file in the run directory, replaced whole. Every entry carries its own expiry and the boot id,
so that a killed injector mutes nothing for ever and a reboot forgets all.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "drill.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One target of one drill.

    Attributes:
        drill: id of the drill.
        drill_page: "drill" sends its pages to the drill receiver, "real" rings the on-call channel.
        scope: gpu, engine, job or node.
        target: the GPU's uuid, the engine's name, the job_id; empty for the node.
        expires: Unix time after which the entry counts no more.
        boot_id: the boot in which it was written.
    """

    drill: str
    drill_page: str
    scope: str
    target: str
    expires: float
    boot_id: str


def boot_id(proc: str | Path = "/proc") -> str:
    """The kernel's id of this boot; empty where its settings are hidden (a process tree of processes alone)."""
    try:
        return Path(proc, "sys/kernel/random/boot_id").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def read(run_dir: str | Path, now: float, boot: str) -> list[Entry]:
    """The entries in force at Unix time `now`; an absent file is no drill.

    Where the boot is not known (""), an entry's expiry alone ends it.

    Raises:
        ValueError: the file is not a drill file (it names what is wrong).
    """
    try:
        text = Path(run_dir, NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        document = json.loads(text)
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']!r}, this agent reads {VERSION}")
        entries = [Entry(**entry) for entry in document["entries"]]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{Path(run_dir, NAME)}: not a drill file: {error}") from None
    return [entry for entry in entries if entry.expires > now and boot in ("", entry.boot_id)]


def write(run_dir: str | Path, entries: list[Entry]) -> None:
    """Replace the file by one atomic rename, synced; no entries removes it."""
    folder = Path(run_dir)
    if not entries:
        (folder / NAME).unlink(missing_ok=True)
        return
    document = {"version": VERSION, "entries": [asdict(entry) for entry in entries]}
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=NAME)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, folder / NAME)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
