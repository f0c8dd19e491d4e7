"""Clients that are none: many that connect and say nothing, some that send a byte a second.

python -m bench.harness.crowd PORT IDLE SLOW        until its standard input is closed
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys


def crowd(port: int, idle: int, slow: int) -> None:
    """Whoever is dropped comes again."""
    clients: list[socket.socket] = []
    while not select.select([sys.stdin], [], [], 1.0)[0]:
        clients = [each for each in clients if _open(each)]
        with contextlib.suppress(OSError):
            while len(clients) < idle + slow:
                clients.append(socket.create_connection(("127.0.0.1", port), timeout=5))
                clients[-1].setblocking(False)
        for each in clients[:slow]:
            with contextlib.suppress(OSError):
                each.send(b"G")
    for each in clients:
        each.close()


def _open(client: socket.socket) -> bool:
    """Whether the agent still has it; closed here too if not."""
    try:
        if client.recv(4096):
            return True
    except BlockingIOError:
        return True
    except OSError:
        pass
    client.close()
    return False


if __name__ == "__main__":
    crowd(*map(int, sys.argv[1:]))
