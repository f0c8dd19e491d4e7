"""File systems: mountinfo, masked mounts, and mounts that never answer."""

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import node as m
from agent.base.collector import Context, PartialFailure
from agent.collectors.filesystem import Filesystem, FilesystemSettings, Mount, Space, mounts, space

MOUNTINFO = """22 27 0:21 / /proc rw,relatime - proc proc rw
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw,size=24683656k
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 254:16 / /data\\040sets rw,relatime shared:1 master:2 - xfs /dev/vdb rw
29 27 0:50 / /ckpt rw,relatime - nfs4 store:/ckpt rw,vers=4.2
30 27 0:51 / /home ro,relatime - nfs store:/home ro
31 27 0:52 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
32 27 0:40 / /mnt/auto rw - autofs systemd-1 rw
33 27 0:60 / /lustre rw - lustre 10.0.0.1@o2ib:/fs rw
nonsense
"""
SPACE = Space(1000, 400, 50, 20)


def collector(tmp_path: Path, look: object, **settings: object) -> Filesystem:
    (tmp_path / "1").mkdir(exist_ok=True)
    (tmp_path / "1" / "mountinfo").write_text(MOUNTINFO)
    return Filesystem(FilesystemSettings(proc=tmp_path, **settings), Context("", ""), look)  # type: ignore[arg-type]


def of(samples: list[Sample], metric: Metric) -> dict[str, float]:
    return {s.labels[0]: s.value for s in samples if s.metric is metric}


def test_mountinfo() -> None:
    found = mounts(MOUNTINFO)
    assert found["/data sets"] == Mount("/data sets", "/dev/vdb", "xfs", os.makedev(254, 16), readonly=False)
    assert found["/home"].readonly
    assert [point for point, one in found.items() if one.remote] == ["/ckpt", "/home", "/lustre"]


@pytest.mark.parametrize("device", ["0:599999999999999999999999990", "0:\N{SUPERSCRIPT TWO}", "0:-1", "0", ":"])
def test_a_line_whose_device_is_no_number_of_the_kernels_is_left_out(device: str) -> None:
    assert mounts(f"29 27 {device} / /data rw - nfs4 store:/ rw") == {}


def test_the_last_mount_at_a_point_is_the_one_seen() -> None:
    found = mounts("1 1 8:1 / /a rw - ext4 /dev/sda1 rw\n2 1 8:2 / /a rw - xfs /dev/sda2 rw\n")
    assert found["/a"].fstype == "xfs"


@given(st.text(max_size=200))
def test_any_text_is_read_as_mountinfo(text: str) -> None:
    for point, one in mounts(text).items():
        assert one.point == point


def test_what_is_looked_at(tmp_path: Path) -> None:
    samples = list(collector(tmp_path, lambda path, mount: SPACE).collect())
    assert set(of(samples, m.FS_SIZE)) == {"/", "/dev/shm", "/data sets", "/ckpt", "/home", "/lustre"}
    assert of(samples, m.FS_AVAIL)["/ckpt"] == 400
    assert of(samples, m.FS_INODES_FREE)["/"] == 20
    assert of(samples, m.FS_READONLY) == {"/": 0, "/dev/shm": 0, "/data sets": 0, "/ckpt": 0, "/home": 1, "/lustre": 0}
    assert set(of(samples, m.FS_PROBE_OK)) == {"/ckpt", "/home", "/lustre"}


def test_a_dead_mount_hangs_nothing_and_costs_one_thread(tmp_path: Path) -> None:
    dead, calls = threading.Event(), []

    def look(path: str, mount: Mount) -> Space:
        if mount.point == "/ckpt":
            calls.append(threading.current_thread())
            dead.wait(60)
        return SPACE

    filesystem = collector(tmp_path, look, patience="50ms")
    for _ in range(4):
        samples = list(filesystem.collect())
    assert len(calls) == 1, "one look for as long as it does not come back"
    assert of(samples, m.FS_STUCK)["/ckpt"] > 0
    assert of(samples, m.FS_STUCK)["/home"] == 0
    for metric in (m.FS_SIZE, m.FS_AVAIL, m.FS_PROBE_OK, m.FS_PROBE_SECONDS):
        assert "/ckpt" not in of(samples, metric), "absent, neither frozen nor zero"
        assert metric is m.FS_PROBE_OK or "/home" in of(samples, metric)
    dead.set()
    calls[0].join(10)
    assert of(list(filesystem.collect()), m.FS_AVAIL)["/ckpt"] == 400


def test_a_local_mount_below_a_dead_one_hangs_nothing_either(tmp_path: Path) -> None:
    dead = threading.Event()

    def look(path: str, mount: Mount) -> Space:
        if mount.point in ("/ckpt", "/ckpt/local"):
            dead.wait(60)
        return SPACE

    filesystem = collector(tmp_path, look, patience="50ms")
    inside = "40 29 8:1 / /ckpt/local rw - ext4 /dev/sda1 rw\n41 27 8:2 / /ckpt2 rw - ext4 /dev/sda2 rw\n"
    (tmp_path / "1" / "mountinfo").write_text(MOUNTINFO + inside)
    samples = list(filesystem.collect())
    assert of(samples, m.FS_STUCK)["/ckpt/local"] > 0
    assert of(samples, m.FS_AVAIL)["/ckpt2"] == 400
    dead.set()


def test_a_mount_that_answers_with_an_error_is_not_ok(tmp_path: Path) -> None:
    def look(path: str, mount: Mount) -> Space:
        if mount.point == "/ckpt":
            raise OSError(116, "Stale file handle")
        return SPACE

    samples = list(collector(tmp_path, look).collect())
    assert of(samples, m.FS_PROBE_OK)["/ckpt"] == 0
    assert of(samples, m.FS_STUCK)["/ckpt"] == 0
    assert "/ckpt" not in of(samples, m.FS_SIZE)


def test_more_network_mounts_than_threads_is_said(tmp_path: Path) -> None:
    samples: list[Sample] = []
    with pytest.raises(PartialFailure, match="3 network mounts, only 2 looked at"):
        samples.extend(collector(tmp_path, lambda *_: SPACE, limit=2).collect())
    assert set(of(samples, m.FS_STUCK)) == {"/ckpt", "/home"}
    assert {"/", "/data sets"} <= set(of(samples, m.FS_SIZE))


def test_own_mounts_where_those_of_the_first_process_are_hidden(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text("27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n")
    samples = list(Filesystem(FilesystemSettings(proc=tmp_path), Context("", ""), lambda *_: SPACE).collect())
    assert set(of(samples, m.FS_SIZE)) == {"/"}


def test_a_masked_directory_gives_no_numbers(tmp_path: Path) -> None:
    """What answers at the path is another device than the mount's: its numbers would be false."""
    here = os.stat(tmp_path).st_dev
    assert space(str(tmp_path), Mount(str(tmp_path), "x", "ext4", here + 1, readonly=False)) is None
    assert space(str(tmp_path), Mount(str(tmp_path), "x", "ext4", here, readonly=False)) is not None


def test_this_node() -> None:
    samples = list(Filesystem(FilesystemSettings(), Context("", "")).collect())
    for point, size in of(samples, m.FS_SIZE).items():
        assert 0 <= of(samples, m.FS_AVAIL)[point] <= size


@contextlib.contextmanager
def silent_mount(point: Path) -> Iterator[None]:
    """A FUSE file system whose server never answers: any look at it blocks in the kernel."""
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"silent", str(point).encode(), b"fuse.silent", 0, options):
        os.close(server)
        pytest.skip(f"cannot mount FUSE: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        os.close(server)  # the kernel aborts: whoever waits gets an error
        libc.umount2(str(point).encode(), 2)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse")
def test_a_real_mount_that_never_answers(tmp_path: Path) -> None:
    with silent_mount(tmp_path):
        filesystem = Filesystem(FilesystemSettings.model_validate({"patience": "200ms"}), Context("", ""))
        before = set(threading.enumerate())  # an earlier test's thread may end meanwhile
        for _ in range(3):
            samples = list(filesystem.collect())
        assert of(samples, m.FS_STUCK)[str(tmp_path)] > 0
        assert str(tmp_path) not in of(samples, m.FS_SIZE)
        assert of(samples, m.FS_SIZE), "the other mounts are looked at"
        assert len(set(threading.enumerate()) - before) == 1
    deadline = time.monotonic() + 20
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(threading.enumerate()) - before
    assert str(tmp_path) not in of(list(filesystem.collect()), m.FS_STUCK)
