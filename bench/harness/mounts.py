"""Mounts for root: a small disk that can be filled, and a network mount that never answers."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = os.geteuid() == 0 and os.path.exists("/dev/fuse")
"""Whether both can be had here."""
_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str, point: Path, kind: str, options: str) -> None:
    """As mount(2).

    Raises:
        OSError: the kernel refuses.
    """
    if _LIBC.mount(source.encode(), os.fsencode(point), kind.encode(), 0, options.encode()):
        raise OSError(ctypes.get_errno(), f"{point}: {os.strerror(ctypes.get_errno())}")


def unmount(point: Path) -> None:
    _LIBC.umount2(os.fsencode(point), _DETACH)


@contextlib.contextmanager
def silent_mount(point: Path) -> Iterator[None]:
    """A FUSE file system whose server never answers: whoever looks at it waits in the kernel."""
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        mount("server:/silent", point, "fuse.silent", f"fd={server},rootmode=40000,user_id=0,group_id=0")
    except OSError:
        os.close(server)
        raise
    try:
        yield
    finally:
        os.close(server)  # the kernel ends the connection: whoever waits gets an error
        unmount(point)
