"""Listens, limits and counts connections; `/metrics` and every API stand on it.

Everything runs in one event loop: a client that is idle or slow costs a few kilobytes and no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import psutil

from agent.base.errors import ConfigError
from agent.base.web.address import format_address
from agent.base.web.app import App
from agent.base.web.connection import Connection
from agent.base.web.message import Handler, Request, Response

_HANDSHAKE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take.

    Attributes:
        connections: open at a time; one more drops the one that has been quiet longest.
        request_seconds: from the first byte of a request to its last, and from connecting to the first.
        response_seconds: for an answer to be made, and then for the client to take it.
        idle_seconds: between two requests; longer than any scrape interval.
        backlog_bytes: of answers not yet taken by all clients together; above it new requests get 503.
    """

    connections: int = 512
    request_seconds: float = 10.0
    response_seconds: float = 30.0
    idle_seconds: float = 150.0
    backlog_bytes: int = 16 * 1024 * 1024


Guard = Callable[[Request], Response | Handler | None]
"""Looks at a request before the app does: None lets it pass, anything else answers it."""


class Server:
    """One app on one or more listening sockets.

    Args:
        app: the routes.
        limits: what a client may take.
        tls: context of the handshake, None for plain HTTP; may be replaced while running.
        guard: authentication and rate limit.
    """

    def __init__(
        self,
        app: App,
        limits: Limits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        guard: Guard | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self.limits = limits or Limits()
        self.tls = tls
        self.guard = guard
        self.headers: tuple[tuple[str, str], ...] = ()
        """Sent with every answer."""
        self.allowed_names: list[str] | None = None
        """Names, one of which a client's certificate must carry; None lets every verified one in."""
        self.wall = wall
        self.now: Callable[[], float] = time.monotonic
        self.connections: dict[Connection, None] = {}
        """Open connections, the one longest without a finished request first."""
        self.unread: set[Connection] = set()
        """Those whose client has not taken its answer yet."""
        self.answered: Counter[tuple[str, int]] = Counter()
        """Answers so far, by path ("other" if it is not ours) and status."""
        self.refused: Counter[str] = Counter({"evicted": 0, "deadline": 0, "handshake": 0})
        """Connections dropped so far, by reason."""
        self._sockets: list[socket.socket] = []
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket."""
        return [sock.getsockname()[:2] for sock in self._sockets]

    def listen(self, host: str, port: int) -> None:
        """Bind; "" is every interface.

        Raises:
            ConfigError: the address is in use (names the holder) or is not ours.
        """
        for family, address in _resolve(host, port):
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if not host else 1)
                sock.bind(address)
                sock.listen(128)
            except OSError as error:
                sock.close()
                self.unlisten()
                where = format_address(host, port)
                if error.errno == errno.EADDRINUSE:
                    raise ConfigError(f"listen: {where} is in use by {holder(port)}") from None
                raise ConfigError(f"listen: {where}: {error.strerror}") from None
            self._sockets.append(sock)

    def unlisten(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def start(self) -> None:
        """Accept connections; call in the event loop."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.add_reader(sock, self._accept, sock)
        self._sweeper = loop.create_task(self._sweep())

    async def stop(self, grace: float = 1.0) -> None:
        """Stop listening, let answers under way end within `grace` seconds, drop the rest."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock)
        self.unlisten()
        if self._sweeper is not None:
            self._sweeper.cancel()
        end = self.now() + grace
        while self.connections:
            for connection in list(self.connections):
                if not connection.busy or self.now() >= end:
                    connection.abort()
            await asyncio.sleep(0.01)

    # connections

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(64):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._evict()  # a free descriptor for the next turn
                return
            if len(self.connections) >= self.limits.connections and not self._evict():
                sock.close()
                continue
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self)
            self.connections[connection] = None
            connection.greeting = asyncio.get_running_loop().create_task(self._greet(connection, sock))
            connection.greeting.add_done_callback(partial(self._greeted, connection, sock))

    async def _greet(self, connection: Connection, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        wait = min(self.limits.request_seconds, _HANDSHAKE_SECONDS) if self.tls is not None else None
        await loop.connect_accepted_socket(lambda: connection, sock, ssl=self.tls, ssl_handshake_timeout=wait)

    def _greeted(self, connection: Connection, sock: socket.socket, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is not None:
            self.refused["handshake"] += 1
            self.forget(connection)
            sock.close()

    def _evict(self) -> bool:
        """Drop the connection that has been quiet longest, if one is not being answered."""
        for connection in self.connections:
            if not connection.busy and not connection.dying:
                self.refused["evicted"] += 1
                connection.abort()
                return True
        return False

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1.0 - self.now() % 1.0)  # with whatever else begins a second: waking up is what costs
            now = self.now()
            for connection in [each for each in self.connections if each.deadline < now and not each.dying]:
                if not connection.lingering:  # it was counted when it was refused
                    self.refused["deadline"] += 1
                connection.expire()

    def touch(self, connection: Connection) -> None:
        """The connection finished a request: it is the last to be dropped now."""
        self.unread.discard(connection)
        if connection in self.connections:
            del self.connections[connection]
            self.connections[connection] = None

    def forget(self, connection: Connection) -> None:
        self.connections.pop(connection, None)
        self.unread.discard(connection)

    # requests

    def begin(self, request: Request) -> Response | Handler:
        if sum(each.backlog() for each in self.unread) > self.limits.backlog_bytes:
            return Response(503, b"503: too many answers are waiting to be read\n", headers=(("Retry-After", "5"),))
        if self.guard is not None:
            verdict = self.guard(request)
            if verdict is not None:
                return verdict
        return self.app.begin(request)

    def count(self, path: str, status: int) -> None:
        self.answered[path if self.app.known(path) else "other", status] += 1


def _resolve(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    if not host:
        return [(socket.AF_INET6, ("::", port)) if socket.has_dualstack_ipv6() else (socket.AF_INET, ("0.0.0.0", port))]  # noqa: S104
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"listen: {host!r} is no address of this machine: {error.strerror}") from None
    unique = {(family, address[:2]): None for family, _, _, _, address in found}
    return [(family, (str(name), int(number))) for family, (name, number) in unique]


def holder(port: int) -> str:
    """Who listens on a port: "pid 123 (prometheus)", as far as this user may see."""
    try:
        found = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        found = []
    for each in found:
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
            try:
                return f"pid {each.pid} ({_program(psutil.Process(each.pid))})"
            except psutil.Error:
                return f"pid {each.pid}"
    return "another user's process (run as root to see which: ss -ltnp)"


def _program(process: psutil.Process) -> str:
    """The program's name, with its script if an interpreter runs one; never other arguments, which may be secret."""
    name: str = process.name()
    script = next(iter(process.cmdline()[1:2]), "")
    if name.startswith(("python", "node", "ruby", "perl", "sh", "bash")) and script and not script.startswith("-"):
        return f"{name} {os.path.basename(script)}"
    return name
