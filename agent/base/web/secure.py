"""Applies a web configuration file to a server, and again whenever one of its files changes."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path

from agent.base.errors import ConfigError
from agent.base.web.guard import BasicAuth, Guard, RateLimiter
from agent.base.web.server import Server
from agent.base.web.tls import make_context
from agent.base.web.webconfig import WebConfig, load_web_config

_log = logging.getLogger("gpuvigil.web")
_LOOK_EVERY = 2.0
_Stamp = tuple[tuple[int, int, int] | None, ...]


class WebSecurity:
    """TLS, authentication and limits of one server, from one file.

    A change that is wrong is reported and changes nothing: the old certificate and passwords stay in force.
    """

    def __init__(self, server: Server, path: str | Path) -> None:
        """Read the file and apply it.

        Raises:
            ConfigError: the file, or one that it names, is wrong.
        """
        self._server = server
        self._path = Path(path)
        self._files = [self._path]
        self.good = True
        """Whether the newest state of the files is in force."""
        self._stamp: _Stamp = ()
        self._apply(*self._read())

    async def watch(self) -> None:
        """Look for changes for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            # in a thread: the files may lie on a file system that hangs
            if await asyncio.to_thread(self._look) == self._stamp:
                continue
            try:
                self._apply(*await asyncio.to_thread(self._read))
            except ConfigError as error:
                self.good = False
                _log.error("web configuration refused, the old one stays: %s", error)
            else:
                self.good = True
                _log.info("web configuration reloaded")

    def _read(self) -> tuple[WebConfig, ssl.SSLContext | None]:
        self._stamp = self._look()  # before reading: what changes meanwhile is read again
        config = load_web_config(self._path)
        tls = config.tls_server_config
        named = [tls.cert_file, tls.key_file, tls.client_ca_file] if tls is not None else []
        files = [self._path, *(Path(name) for name in named if name is not None)]
        if files != self._files:
            self._files = files
            self._stamp = self._look()
        return config, make_context(tls) if tls is not None else None

    def _apply(self, config: WebConfig, context: ssl.SSLContext | None) -> None:
        limit = config.rate_limit
        users = {user: secret.get_secret_value() for user, secret in config.basic_auth_users.items()}
        guard = Guard(
            self._server.app,
            RateLimiter(limit.interval, limit.burst) if limit.interval else None,
            BasicAuth(users) if users else None,
        )
        old, self._server.guard = self._server.guard, guard
        if isinstance(old, Guard):
            old.close()
        self._server.tls = context
        self._server.headers = config.http_server_config.headers.pairs()
        self._server.allowed_names = config.tls_server_config.client_allowed_sans if config.tls_server_config else None

    def _look(self) -> _Stamp:
        return tuple(map(_stamp, self._files))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
