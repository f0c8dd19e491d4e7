"""HTTP requests bounded as a whole: an answer that dribbles cannot outlast its deadline.

A socket's time-out counts each read, so one byte every second keeps a reader for ever. Here every read
gets only what is left until the deadline of the whole request.
"""

from __future__ import annotations

import base64
import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.base.errors import ConfigError

CHUNK = 65536


class _Reader(io.RawIOBase):
    """The reading side of a socket that knows when it has to be done."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)


class _Bounded:
    """What http.client needs of a socket, with one deadline for all its reads and writes."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline), CHUNK)

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)

    def close(self) -> None:
        """Left to `request`: http.client closes its socket while the response is still to be read."""


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("deadline passed")
    return left


@contextmanager
def request(
    url: str,
    timeout: float,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    ca_file: str | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """Send one request (POST if `body` is given) and give its response; the connection ends with the block.

    Args:
        url: http or https; redirects are not followed.
        timeout: seconds for everything, from connecting to the last byte read in the block.
        body: makes the request a POST.
        headers: sent beside our own.
        ca_file: certificates that sign the server's, in place of the system's.

    Raises:
        TimeoutError: the deadline passed, here or while the caller reads.
        OSError, http.client.HTTPException: no connection, no TLS, not HTTP, or broken off.
    """
    deadline = time.monotonic() + timeout
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    sock = socket.create_connection((host, port), timeout)
    connection = http.client.HTTPConnection(host, port)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https":
            sock.settimeout(_left(deadline))
            sock = ssl.create_default_context(cafile=ca_file).wrap_socket(sock, server_hostname=host)
        connection.sock = _Bounded(sock, deadline)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {"Connection": "close", **(headers or {})}
        connection.request("GET" if body is None else "POST", path, body=body, headers=sent)
        response = connection.getresponse()
        try:
            yield response
        finally:
            response.close()
    finally:
        connection.close()
        sock.close()


def chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it arrives.

    Raises:
        EOFError: the transfer broke off before its announced end.
        TimeoutError, OSError: as `request`.
    """
    announced = response.length
    got = 0
    while True:
        try:
            data = response.read1(CHUNK)
        except http.client.IncompleteRead as error:
            raise EOFError(str(error)) from None
        if not data:
            if announced is not None and got < announced:
                raise EOFError(f"{got} of {announced} bytes")
            return
        got += len(data)
        yield data


def up_to(body: Iterable[bytes], limit: int) -> bytes:
    """The whole body, if it has `limit` bytes at most.

    Raises:
        ValueError: it is longer.
    """
    found = bytearray()
    for chunk in body:
        found += chunk
        if len(found) > limit:
            raise ValueError(f"answer longer than {limit} bytes")
    return bytes(found)


def authorization(credential_file: Path | None, *, basic: bool = False) -> dict[str, str]:
    """The header for a credential kept in a file, read each time so that it may be rotated.

    Args:
        credential_file: holds a bearer key, or `user:password` if `basic`; None gives no header.
        basic: basic authentication in place of a bearer token.

    Raises:
        ConfigError: the file cannot be read or does not hold one line of that form.
    """
    if credential_file is None:
        return {}
    try:
        secret = credential_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"credential file {credential_file}: cannot be read ({error})") from None
    if not secret or "\n" in secret or (basic and ":" not in secret):
        wanted = "user:password" if basic else "one key"
        raise ConfigError(f"credential file {credential_file}: must hold {wanted} on one line")
    if basic:
        return {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}
    return {"Authorization": f"Bearer {secret}"}
