"""Which part listens where, and who holds a port that is not free."""

from __future__ import annotations

import contextlib
import socket

import psutil

from agent.base.errors import ConfigError

DEFAULT = {"agent": 9840, "central": 9841, "sink": 9843, "engine": 9844, "prometheus": 9090, "alertmanager": 9093}
OFFSET = {"agent": 0, "central": 1, "sink": 3, "engine": 4, "prometheus": 5, "alertmanager": 6}
"""Places after the base of `--ports BASE`; 2 is the bridge's, as in the fixed ports."""


def choose(text: str | None) -> dict[str, int]:
    """Ports by part from `--ports`: nothing, "auto", a base such as "20000", or "name=port,...".

    Raises:
        ConfigError: not one of these, or one port for two parts.
    """
    if text is None:
        return dict(DEFAULT)
    if text == "auto":
        return _free()
    if text.isdigit():
        ports = {name: int(text) + offset for name, offset in OFFSET.items()}
    else:
        ports = dict(DEFAULT)
        for item in text.split(","):
            name, equals, port = item.partition("=")
            if name not in DEFAULT or not equals or not port.isdigit():
                raise ConfigError(
                    f"--ports {item!r}: give auto, a base such as 20000, or name=port with one of {', '.join(DEFAULT)}"
                )
            ports[name] = int(port)
    for name, number in ports.items():
        if not 1 <= number <= 65535:
            raise ConfigError(f"--ports: {name} would listen on {number}; a port is 1 to 65535")
        if twin := next((other for other, taken in ports.items() if taken == number and other != name), None):
            raise ConfigError(f"--ports: {name} and {twin} would both listen on {number}")
    return ports


def _free() -> dict[str, int]:
    with contextlib.ExitStack() as held:
        sockets = {name: held.enter_context(socket.socket()) for name in DEFAULT}
        for one in sockets.values():
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in sockets.items()}


def check_free(ports: dict[str, int]) -> None:
    """Raises ConfigError naming every port in use and its holder."""
    taken = []
    for name, number in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
            except OSError as error:
                taken.append(f"port {number} ({name}): {error.strerror}; {holder(number)}")
    if taken:
        raise ConfigError("\n".join([*taken, "stop the holder, or choose other ports: --ports 20000 or --ports auto"]))


def holder(port: int) -> str:
    """Pid and command of the process that listens on a TCP port, in words."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,)
            if listens and connection.pid:
                command = " ".join(psutil.Process(connection.pid).cmdline())
                return f"held by process {connection.pid}: {command[:160]}"
    return "its holder cannot be seen (another user's process?)"
