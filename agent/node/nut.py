"""A small client of upsd, the network UPS tools' server.

Protocol: RFC 9271 (UPS management protocol), the reading commands LIST UPS and LIST VAR; no log-in is needed.
"""

from __future__ import annotations

import re
import socket
import time

LIMIT = 1 << 20
"""Most bytes of an answer."""
_VALUE = re.compile(r'VAR (\S+) (\S+) "((?:[^"\\]|\\.)*)"')
_UPS = re.compile(r"UPS (\S+) ")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class NutError(Exception):
    """upsd answered with an error, or with something that is not its protocol."""


class Nut:
    """One connection, with a deadline for all that is asked on it.

    Raises:
        OSError: no connection, or (TimeoutError) the deadline passed.
    """

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._socket = socket.create_connection((host, port), timeout)
        self._rest = b""

    def __enter__(self) -> Nut:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def names(self) -> list[str]:
        """Every UPS the server knows."""
        lines = self._list("UPS")
        return [found[1] for line in lines if (found := _UPS.match(line))]

    def variables(self, ups: str) -> dict[str, str]:
        """What is known of one UPS, such as `battery.runtime`.

        Raises:
            NutError: no such UPS, or its data is stale.
        """
        if not _NAME.fullmatch(ups):
            raise NutError("a name that upsd cannot have given")
        lines = self._list(f"VAR {ups}")
        return {
            found[2]: re.sub(r"\\(.)", r"\1", found[3]) for line in lines if (found := _VALUE.fullmatch(line.strip()))
        }

    def _list(self, what: str) -> list[str]:
        self._socket.settimeout(self._left())
        self._socket.sendall(f"LIST {what}\n".encode())
        lines: list[str] = []
        size = 0
        while True:
            line = self._line()
            size += len(line)
            if line.startswith("ERR "):
                raise NutError(line[4:])
            if line == f"END LIST {what}":
                return lines
            if size > LIMIT:
                raise NutError("answer too long")
            if line != f"BEGIN LIST {what}":
                lines.append(line)

    def _line(self) -> str:
        while b"\n" not in self._rest:
            if len(self._rest) > LIMIT:
                raise NutError("answer too long")
            self._socket.settimeout(self._left())
            data = self._socket.recv(4096)
            if not data:
                raise NutError("the connection broke off")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("utf-8", "replace").rstrip("\r")

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("deadline passed")
        return left
