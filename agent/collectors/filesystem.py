"""File systems: size, space, inodes; network mounts by a bounded look, so that a dead one hangs nothing.

`statvfs` on a dead NFS mount never returns. Mounts of network and FUSE types are looked at aside, one
thread a mount; while a look has not come back no second one starts, and the mount is marked stuck with
its size and space absent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import Field

from agent.base.aside import Aside, wait_all
from agent.base.catalogue import Sample
from agent.base.catalogue import node as m
from agent.base.collector import Context, PartialFailure, Settings, register
from agent.base.config import Duration
from agent.node.crypt import encrypted

PSEUDO = re.compile(
    r"autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|efivarfs|erofs|fuse\.lxcfs|fusectl|hugetlbfs"
    r"|iso9660|mqueue|nsfs|proc|pstore|ramfs|resctrl|rootfs|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs"
)
REMOTE = re.compile(r"nfs\d?|cifs|smb3|ceph|lustre|gpfs|beegfs|glusterfs|9p|afs|ocfs2|gfs2|wekafs|fuse(\..*)?|fuseblk")
SHIFTING_DEVICE = frozenset({"btrfs", "overlay", "zfs", "fuse", "9p"})
"""Types whose files show another device number than their mount."""
HIDDEN = re.compile(r"/(proc|sys|run/credentials|run/user|var/lib/(docker|containerd|containers|kubelet))(/.*)?|/dev")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: where, what, and the kernel's number of its device."""

    point: str
    source: str
    fstype: str
    device: int
    readonly: bool

    @property
    def remote(self) -> bool:
        return bool(REMOTE.fullmatch(self.fstype))


@dataclass(frozen=True, slots=True)
class Space:
    """What statvfs says: bytes and inodes."""

    size: int
    avail: int
    inodes: int
    inodes_free: int


_DEVICE: Final = re.compile(r"(\d{1,7}):(\d{1,7})", re.ASCII)
"""Major and minor number; the kernel has 12 and 20 bits for them."""


def mounts(text: str) -> dict[str, Mount]:
    """The mounts of /proc/PID/mountinfo by mount point; the last one at a point is the one seen.

    Format: Documentation/filesystems/proc.rst of the kernel, section 3.5.
    """
    found: dict[str, Mount] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        words, tail = left.split(" "), right.split(" ")
        if len(words) < 6 or len(tail) < 3:
            continue
        device = _DEVICE.fullmatch(words[2])
        if device is None:
            continue
        point = _unescape(words[4])
        options = {*words[5].split(","), *tail[2].split(",")}
        found.pop(point, None)
        found[point] = Mount(
            point, _unescape(tail[1]), tail[0], os.makedev(*map(int, device.groups())), readonly="ro" in options
        )
    return found


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text) if "\\" in text else text


class FilesystemSettings(Settings):
    proc: Path = Field(default=Path("/proc"), description="Root of the process tree.")
    sys: Path = Field(default=Path("/sys"), description="Root of sysfs.")
    rootfs: Path = Field(default=Path("/"), description="Where the node's root is seen from here.")
    patience: Duration = Field(default=1.0, gt=0, description="How long a run waits for network mounts.")
    limit: int = Field(default=64, ge=1, description="Most network mounts looked at: each may hold a thread.")


@register("filesystem", FilesystemSettings)
class Filesystem:
    """File systems and network mounts."""

    def __init__(
        self,
        settings: FilesystemSettings,
        context: Context,
        look: Callable[[str, Mount], Space | None] | None = None,
    ) -> None:
        self._settings = settings
        self._look = look or space
        self._aside: dict[Mount, Aside[Space | None]] = {}

    def collect(self) -> Iterable[Sample]:
        found = [one for one in self._mounts() if not PSEUDO.fullmatch(one.fstype) and not HIDDEN.fullmatch(one.point)]
        found = [one for one in found if one.fstype != "overlay" or one.point == "/"]
        # Whoever is mounted below a network mount is reached through it, and hangs with it.
        far = tuple(f"{one.point.rstrip('/')}/" for one in found if one.remote)
        every = [one for one in found if one.remote or one.point.startswith(far)]
        remote = every[: self._settings.limit]
        self._start(remote)
        for one in found:
            yield m.FS_READONLY.sample(float(one.readonly), *_labels(one))
            if one not in every:
                yield from _space(one, self._local(one))
                under_key = encrypted(one.device, one.source, self._settings.sys)
                if under_key is not None:
                    yield m.FS_ENCRYPTED.sample(float(under_key), *_labels(one))
        wait_all([self._aside[one] for one in remote], self._settings.patience)
        for one in remote:
            yield from self._remote(one)
        if len(every) > len(remote):
            raise PartialFailure("limit", f"{len(every)} network mounts, only {len(remote)} looked at: raise limit")

    def close(self) -> None: ...

    def _mounts(self) -> Iterator[Mount]:
        """The node's mounts as its first process sees them; ours, where that is not allowed."""
        for pid in ("1", "self"):
            try:
                text = (self._settings.proc / pid / "mountinfo").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            yield from mounts(text).values()
            return

    def _path(self, mount: Mount) -> str:
        return str(self._settings.rootfs / mount.point.lstrip("/"))

    def _local(self, mount: Mount) -> Space | None:
        try:
            return self._look(self._path(mount), mount)
        except OSError:
            return None

    def _start(self, remote: list[Mount]) -> None:
        for gone in [one for one in self._aside if one not in remote and self._aside[one].pending is None]:
            del self._aside[gone]
        for one in remote:
            if one not in self._aside:
                self._aside[one] = Aside(f"mount-{one.point}", partial(self._look, self._path(one), one))
            self._aside[one].kick()

    def _remote(self, mount: Mount) -> Iterator[Sample]:
        aside = self._aside[mount]
        pending, last = aside.pending, aside.last
        yield m.FS_STUCK.sample(pending or 0.0, *_labels(mount))
        if pending is None and last is not None:
            yield m.FS_PROBE_OK.sample(float(last.error is None), *_labels(mount))
            if last.error is None:
                yield m.FS_PROBE_SECONDS.sample(last.seconds, *_labels(mount))
                yield from _space(mount, last.value)


def space(path: str, mount: Mount) -> Space | None:
    """Size and space of the file system mounted at `path`; None if another one answers there.

    In a unit's own mount namespace a directory may be masked or over-mounted: numbers of whatever stands
    in its place would be false, so the device must be the mount's.

    Raises:
        OSError: no access, or the server says no (ESTALE).
    """
    if mount.fstype.partition(".")[0] not in SHIFTING_DEVICE and os.stat(path).st_dev != mount.device:
        return None
    got = os.statvfs(path)
    return Space(got.f_blocks * got.f_frsize, got.f_bavail * got.f_frsize, got.f_files, got.f_ffree)


def _labels(mount: Mount) -> tuple[str, str, str]:
    return mount.point, mount.source, mount.fstype


def _space(mount: Mount, found: Space | None) -> Iterator[Sample]:
    if found is None or not found.size:
        return
    yield m.FS_SIZE.sample(found.size, *_labels(mount))
    yield m.FS_AVAIL.sample(found.avail, *_labels(mount))
    if found.inodes:
        yield m.FS_INODES_FREE.sample(found.inodes_free, *_labels(mount))
