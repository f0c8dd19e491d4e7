"""What has been read and learnt, kept over restarts: one SQLite file, a row a watch.

A row is written whole or not at all. One that is damaged, of another version or of other settings is dropped and
counted; a file that is no database is put aside. Nothing here can keep the service from starting.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import logging
import sqlite3
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

log = logging.getLogger(__name__)

VERSION = 3
FILE = "central.db"
OURS = ("alerts.detect.", "alerts.central.")
"""Modules whose classes may be kept."""


T = TypeVar("T")


class Store:
    """The file in `folder`; safe from several threads."""

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / FILE
        self._lock = threading.Lock()
        self.dropped = 0
        """Rows or files that could not be used."""
        self.saved = 0.0
        """Unix time at which something was last kept; 0 if nothing has been."""
        self.usable = True
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._connection = self._open()
        except (OSError, sqlite3.OperationalError) as error:
            log.warning("no state is kept: %s: %s", folder, error)
            self.usable = False

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            return self._anew(error)

    def _anew(self, error: sqlite3.DatabaseError) -> sqlite3.Connection:
        """Put a file that is no database, or no longer one, aside, and begin another."""
        aside = self._path.with_name(f"{FILE}.damaged-{int(time.time())}")
        log.warning("state file put aside: %s", error, extra={"kept_as": str(aside)})
        self._path.rename(aside)
        for part in ("-wal", "-shm"):
            self._path.with_name(FILE + part).unlink(missing_ok=True)
        self.dropped += 1
        return _connect(self._path)

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the database; in a new one where the old one turns out to be damaged.

        Raises:
            sqlite3.Error: it cannot be done for another reason, such as a full disk.
        """
        with self._lock:
            try:
                with self._connection:
                    return work(self._connection)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._connection.close()
                self._connection = self._anew(error)
                with self._connection:
                    return work(self._connection)

    def save(self, name: str, settings: str, document: dict[str, Any]) -> None:
        """Replace what is kept of a watch."""
        if not self.usable:
            return
        try:
            row = (name, VERSION, settings, time.time(), pack(document))
            self._do(lambda connection: connection.execute("INSERT OR REPLACE INTO watch VALUES (?, ?, ?, ?, ?)", row))
        except (OSError, sqlite3.Error, TypeError, ValueError) as error:
            log.warning("state not saved: %s", error, extra={"monitor": name})
        else:
            self.saved = row[3]

    def load(self, name: str, settings: str) -> dict[str, Any] | None:
        """What is kept of a watch with these settings, or None."""
        if not self.usable:
            return None
        query = "SELECT data FROM watch WHERE name = ? AND version = ? AND settings = ?"
        try:
            row = self._do(lambda connection: connection.execute(query, (name, VERSION, settings)).fetchone())
            return unpack(row[0]) if row is not None else None
        except (sqlite3.Error, ValueError, KeyError, TypeError, ImportError, EOFError, OSError, zlib.error) as error:
            log.warning("kept state cannot be used: %s", error, extra={"monitor": name})
            self.dropped += 1
            return None

    def keep_only(self, names: list[str]) -> None:
        """Forget watches that are no longer configured."""
        if not self.usable:
            return
        marks = ", ".join("?" * len(names))
        try:
            self._do(lambda connection: connection.execute(f"DELETE FROM watch WHERE name NOT IN ({marks})", names))  # noqa: S608 - marks alone
        except (OSError, sqlite3.Error) as error:
            log.warning("state not tidied up: %s", error)

    def close(self) -> None:
        if self.usable:
            self._connection.close()


def pack(document: dict[str, Any]) -> bytes:
    """A nested document as bytes: arrays as npz, the rest as JSON, a checksum in front.

    Dataclasses and named tuples of our own modules, such as what a model has learnt, are kept by their fields; a deque
    is one of tuples of numbers.
    """
    arrays: dict[str, Any] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays[f"a{len(arrays)}"] = value
            return {"__array__": f"a{len(arrays) - 1}"}
        if isinstance(value, np.generic):
            return value.item()
        if names := _fields(type(value)):
            where = f"{type(value).__module__}:{type(value).__qualname__}"
            return {"__of__": where, "fields": {name: plain(getattr(value, name)) for name in names}}
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, tuple):
            return {"__tuple__": [plain(inner) for inner in value]}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        if isinstance(value, deque):
            return {"__deque__": plain(np.array(value)), "maxlen": value.maxlen}
        return value

    text = json.dumps(plain(document)).encode()
    body = io.BytesIO()
    np.savez(body, __document__=np.frombuffer(text, dtype=np.uint8), **arrays)
    data = zlib.compress(body.getvalue(), 1)
    return zlib.crc32(data).to_bytes(4, "big") + data


def unpack(data: bytes) -> dict[str, Any]:
    """The reverse of `pack`.

    Raises:
        ValueError: the bytes are damaged, or hold something that this version does not know.
    """
    if zlib.crc32(data[4:]).to_bytes(4, "big") != data[:4]:
        raise ValueError("checksum differs")
    with np.load(io.BytesIO(zlib.decompress(data[4:])), allow_pickle=False) as arrays:
        document = json.loads(arrays["__document__"].tobytes())

        def whole(value: Any) -> Any:
            if isinstance(value, list):
                return [whole(inner) for inner in value]
            if not isinstance(value, dict):
                return value
            match value:
                case {"__array__": name}:
                    return arrays[name]
                case {"__tuple__": inner}:
                    return tuple(whole(each) for each in inner)
                case {"__deque__": name, "maxlen": most}:
                    return deque(map(tuple, whole(name).tolist()), most)
                case {"__of__": where, "fields": fields}:
                    return _made(where, {name: whole(inner) for name, inner in fields.items()})
            return {key: whole(inner) for key, inner in value.items()}

        found: dict[str, Any] = whole(document)
        return found


def _fields(kind: type) -> tuple[str, ...]:
    """Names of the fields of a dataclass or named tuple of ours, less its caches; none of anything else."""
    if not kind.__module__.startswith(OURS):
        return ()
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind) if field.compare)
    return tuple(getattr(kind, "_fields", ()))


def _made(where: str, fields: dict[str, Any]) -> Any:
    """An object as it was packed, without its `__init__`.

    Raises:
        ValueError: this version has no such class, or one of other fields.
    """
    module, _, name = where.partition(":")
    kind = getattr(importlib.import_module(module), name, None) if module.startswith(OURS) else None
    if not isinstance(kind, type) or set(_fields(kind)) != set(fields):
        raise ValueError(f"{where} is not what it was")
    if issubclass(kind, tuple):
        return kind(**fields)
    made = object.__new__(kind)
    for field in dataclasses.fields(cast("Any", kind)):
        empty = field.default_factory if field.default_factory is not dataclasses.MISSING else None
        value = fields[field.name] if field.name in fields else empty and empty()
        object.__setattr__(made, field.name, value)
    return made


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS watch "
        "(name TEXT PRIMARY KEY, version INTEGER, settings TEXT, saved REAL, data BLOB)"
    )
    return connection
