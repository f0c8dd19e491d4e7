"""Which process answers behind a container's own address: its port is in no list of the node's own listeners.

Of the processes that hold a GPU, the one whose network has the address and a listener on the port is the engine's; the
engine is its oldest ancestor in the same control group, the container's first process. Two of them at one address
(two engines in one pod) cannot be told apart: use `pid_file`. Reads /proc only: no container runtime is asked.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from agent.inference import process

PROXY = "docker-proxy"
"""Docker's stand-in on the node for a published port."""
_LISTEN = "0A"
"""TCP_LISTEN in /proc/PID/net/tcp: include/net/tcp_states.h of the kernel."""


def target_of_proxy(pid: int, proc: Path) -> tuple[str, int] | None:
    """Address and port in the container that a docker-proxy stands for; None if the process is none."""
    try:
        words = (proc / str(pid) / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return None
    if Path(words[0]).name != PROXY:
        return None
    options = dict(pairwise(words))
    port = options.get("-container-port", "")
    return (options.get("-container-ip", ""), int(port)) if port.isdigit() else None


def engine(host: str, port: int, pids: Iterable[int], proc: Path) -> int | None:
    """The process that answers at an IPv4 address of a container; None if it cannot be told.

    Args:
        host: the address, as text.
        port: the port in the container.
        pids: the processes that hold a GPU.
        proc: root of the process tree.
    """
    try:
        address = str(ipaddress.IPv4Address(host))
    except ValueError:
        return None
    there = {_first(pid, proc) for pid in pids if _listens(proc / str(pid) / "net", address, port)}
    return there.pop() if len(there) == 1 else None


def _listens(net: Path, address: str, port: int) -> bool:
    own = re.search(rf"\|-- {re.escape(address)}\n\s+/32 host LOCAL", _text(net / "fib_trie"))
    return own is not None and any(
        words[1].endswith(f":{port:04X}") and words[3] == _LISTEN
        for name in ("tcp", "tcp6")
        for line in _text(net / name).splitlines()[1:]
        if len(words := line.split()) > 3
    )


def _first(pid: int, proc: Path) -> int:
    """The oldest ancestor in the same control group, `pid` itself if it is the first there."""
    group = _text(proc / str(pid) / "cgroup")
    for _ in range(64):
        above = process.parent(pid, proc)
        if above <= 1 or not group or _text(proc / str(above) / "cgroup") != group:
            break
        pid = above
    return pid


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
