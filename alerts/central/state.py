"""What has been read and learnt, kept over restarts: one SQLite file, a row a watch.

A row is written whole or not at all. One that is damaged, of another version or of other settings is dropped and
counted; a file that is no database is put aside. Nothing here can keep the service from starting.
"""

from __future__ import annotations

import io
import json
import logging
import sqlite3
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

VERSION = 1
FILE = "central.db"


class Store:
    """The file in `folder`; safe from several threads."""

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / FILE
        self._lock = threading.Lock()
        self.dropped = 0
        """Rows or files that could not be used."""
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
            aside = self._path.with_name(f"{FILE}.damaged-{int(time.time())}")
            log.warning("state file put aside: %s", error, extra={"kept_as": str(aside)})
            self._path.rename(aside)
            self.dropped += 1
            return _connect(self._path)

    def save(self, name: str, settings: str, document: dict[str, Any]) -> None:
        """Replace what is kept of a watch."""
        if not self.usable:
            return
        data = pack(document)
        with self._lock:
            try:
                with self._connection:
                    self._connection.execute(
                        "INSERT OR REPLACE INTO watch VALUES (?, ?, ?, ?, ?)",
                        (name, VERSION, settings, time.time(), data),
                    )
            except sqlite3.Error as error:
                log.warning("state not saved: %s", error, extra={"monitor": name})

    def load(self, name: str, settings: str) -> dict[str, Any] | None:
        """What is kept of a watch with these settings, or None."""
        if not self.usable:
            return None
        with self._lock:
            try:
                row = self._connection.execute(
                    "SELECT data FROM watch WHERE name = ? AND version = ? AND settings = ?", (name, VERSION, settings)
                ).fetchone()
                return unpack(row[0]) if row is not None else None
            except (sqlite3.Error, ValueError, KeyError, EOFError, OSError, zlib.error) as error:
                log.warning("kept state cannot be used: %s", error, extra={"monitor": name})
                self.dropped += 1
                return None

    def keep_only(self, names: list[str]) -> None:
        """Forget watches that are no longer configured."""
        if not self.usable:
            return
        with self._lock, self._connection:
            known = [row[0] for row in self._connection.execute("SELECT name FROM watch")]
            for name in set(known) - set(names):
                self._connection.execute("DELETE FROM watch WHERE name = ?", (name,))

    def close(self) -> None:
        if self.usable:
            self._connection.close()


def pack(document: dict[str, Any]) -> bytes:
    """A nested document with arrays in it as bytes: the arrays as npz, the rest as JSON, a checksum in front."""
    arrays: dict[str, Any] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays[f"a{len(arrays)}"] = value
            return {"__array__": f"a{len(arrays) - 1}"}
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(inner) for inner in value]
        return value

    text = json.dumps(plain(document)).encode()
    body = io.BytesIO()
    np.savez(body, __document__=np.frombuffer(text, dtype=np.uint8), **arrays)
    data = zlib.compress(body.getvalue(), 1)
    return zlib.crc32(data).to_bytes(4, "big") + data


def unpack(data: bytes) -> dict[str, Any]:
    """The reverse of `pack`.

    Raises:
        ValueError: the bytes are damaged.
    """
    if zlib.crc32(data[4:]).to_bytes(4, "big") != data[:4]:
        raise ValueError("checksum differs")
    with np.load(io.BytesIO(zlib.decompress(data[4:])), allow_pickle=False) as arrays:
        document = json.loads(arrays["__document__"].tobytes())

        def whole(value: Any) -> Any:
            if isinstance(value, dict):
                if set(value) == {"__array__"}:
                    return arrays[value["__array__"]]
                return {key: whole(inner) for key, inner in value.items()}
            if isinstance(value, list):
                return [whole(inner) for inner in value]
            return value

        found: dict[str, Any] = whole(document)
        return found


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS watch "
        "(name TEXT PRIMARY KEY, version INTEGER, settings TEXT, saved REAL, data BLOB)"
    )
    return connection
