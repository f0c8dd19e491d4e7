"""systemd's notification protocol: READY, STATUS, WATCHDOG, RELOADING."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Sends datagrams to `$NOTIFY_SOCKET`; without one every call does nothing.

    The variables are taken out of the environment, so that no child process speaks in our name.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        source = os.environ if environ is None else environ
        self._address = source.get("NOTIFY_SOCKET", "")
        usec = source.get("WATCHDOG_USEC", "")
        mine = source.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(usec) / 1e6 if usec.isdigit() and mine else 0.0
        """Time within which systemd wants a sign of life; 0 means it wants none."""
        if environ is None:
            for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
                os.environ.pop(name, None)

    def send(self, **fields: str) -> None:
        """Send `KEY=value` lines in one datagram; failures are ignored, as sd_notify(3) advises."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(f"{key}={value}" for key, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), address)
        except OSError:
            return

    def ready(self, status: str) -> None:
        self.send(READY="1", STATUS=status)

    def status(self, status: str) -> None:
        self.send(STATUS=status)

    def alive(self) -> None:
        """A sign of life; call it more often than `watchdog_seconds`."""
        if self.watchdog_seconds:
            self.send(WATCHDOG="1")

    def reloading(self) -> None:
        self.send(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))

    def stopping(self) -> None:
        self.send(STOPPING="1")
