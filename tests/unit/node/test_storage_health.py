"""NVMe health logs, drives that hang, RAID arrays, and what is encrypted."""

import os
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import hardware as m
from agent.base.catalogue import node as n
from agent.base.collector import Context
from agent.collectors.filesystem import Filesystem, FilesystemSettings
from agent.collectors.storage import Storage, StorageSettings, raid
from agent.node import nvme
from agent.node.crypt import encrypted

Tree = Callable[[Mapping[str, str]], Path]


def of(samples: list[Sample], metric: Metric) -> dict[tuple[str, ...], float]:
    return {s.labels: s.value for s in samples if s.metric is metric}


def health_log(warning: int = 0, kelvin: int = 310, spare: int = 100, used: int = 3) -> bytes:
    log = bytearray(512)
    struct.pack_into("<BHBBB", log, 0, warning, kelvin, spare, 10, used)
    for offset, value in {128: 1000, 144: 5, 160: 2}.items():
        log[offset : offset + 16] = value.to_bytes(16, "little")
    return bytes(log)


def test_health_log() -> None:
    health = nvme.parse(health_log(warning=0b101, spare=7, used=104))
    assert health.warnings == {"spare", "reliability"}
    assert health.temperature == pytest.approx(36.85)
    assert (health.spare, health.used) == (0.07, 1.04), "used may pass its estimate"
    assert (health.power_on, health.unsafe_shutdowns, health.media_errors) == (3_600_000, 5, 2)


@pytest.mark.parametrize("log", [b"", bytes(512), bytes(511), health_log()[:-1]])
def test_no_log_is_no_health(log: bytes) -> None:
    with pytest.raises(ValueError, match="not a health log"):
        nvme.parse(log)


@given(st.binary(min_size=512, max_size=512).filter(any))
def test_any_log_is_read(log: bytes) -> None:
    assert nvme.parse(log).media_errors >= 0


def test_a_file_is_no_drive(tmp_path: Path) -> None:
    (tmp_path / "nvme0").touch()
    with pytest.raises(OSError, match=r"ioctl|Inappropriate"):
        nvme.read(tmp_path / "nvme0")


DRIVE = {
    "class/nvme/nvme0/model": "SAMSUNG MZWLO3T8HCLS-01AGG               \n",
    "class/nvme/nvme0/firmware_rev": "OPPA4B5Q\n",
    "class/nvme/nvme0/transport": "pcie\n",
    "class/nvme/nvme0/state": "live\n",
    "class/nvme/nvme0/hwmon3/temp1_input": "41850\n",
    "class/nvme/nvme1/state": "dead\n",
}


def storage(root: Path) -> Storage:
    return Storage(
        StorageSettings.model_validate({"sys": root, "dev": root / "dev", "patience": "50ms"}), Context("", "")
    )


def test_drives_from_sysfs_alone(tree: Tree) -> None:
    samples = list(storage(tree(DRIVE)).collect())
    assert of(samples, m.NVME_LIVE) == {("nvme0",): 1, ("nvme1",): 0}
    assert of(samples, m.NVME_TEMPERATURE) == {("nvme0",): 41.85}
    assert ("nvme0", "SAMSUNG MZWLO3T8HCLS-01AGG", "OPPA4B5Q", "pcie", "live") in of(samples, m.NVME_INFO)
    assert not of(samples, m.NVME_SPARE), "not permitted is absent"


def test_a_drive_that_never_answers(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    back, calls = threading.Event(), []

    def read(device: Path) -> nvme.Health:
        calls.append(device.name)
        if device.name == "nvme1":
            back.wait(60)
        return nvme.parse(health_log())

    monkeypatch.setattr(nvme, "read", read)
    collector = storage(tree(DRIVE))
    for _ in range(3):
        samples = list(collector.collect())
    assert calls.count("nvme1") == 1
    assert of(samples, m.NVME_SPARE) == {("nvme0",): 1.0}
    assert of(samples, m.NVME_WARNING)["nvme0", "spare"] == 0
    back.set()


MD = "block/md0/md/"
ARRAY = {
    MD + "array_state": "active\n",
    MD + "level": "raid1\n",
    MD + "raid_disks": "2\n",
    MD + "degraded": "1\n",
    MD + "sync_action": "recover\n",
    MD + "sync_completed": "250 / 1000\n",
    MD + "mismatch_cnt": "0\n",
    MD + "dev-sda1/state": "in_sync\n",
    MD + "dev-sdb1/state": "faulty,write_error\n",
}


def test_a_degraded_array(tree: Tree) -> None:
    samples = list(storage(tree(ARRAY)).collect())
    assert of(samples, m.RAID_INFO) == {("md0", "raid1", "active", "recover"): 1}
    assert of(samples, m.RAID_DISKS) == {("md0",): 2}
    assert of(samples, m.RAID_MISSING) == {("md0",): 1}
    assert of(samples, m.RAID_FAULTY) == {("md0",): 1}
    assert of(samples, m.RAID_SYNC) == {("md0",): 0.25}


def test_an_idle_array(tree: Tree) -> None:
    root = tree({**ARRAY, MD + "sync_completed": "none\n", "block/md1/md/array_state": "clear\n"})
    assert not of(list(raid(root / "block/md0")), m.RAID_SYNC)
    assert list(raid(root / "block/md1")) == []


def test_an_array_that_could_not_start_is_shown_and_a_container_of_metadata_is_not(tree: Tree) -> None:
    root = tree(
        {
            "block/md1/md/array_state": "inactive\n",
            "block/md1/md/level": "raid5\n",
            "block/md1/md/raid_disks": "3\n",
            "block/md1/md/dev-sda1/state": "spare\n",
            "block/md127/md/array_state": "inactive\n",
            "block/md127/md/level": "container\n",
            "block/md127/md/raid_disks": "\n",
        }
    )
    samples = list(storage(root).collect())
    assert of(samples, m.RAID_INFO) == {("md1", "raid5", "inactive", ""): 1}
    assert of(samples, m.RAID_DISKS) == {("md1",): 3}
    assert not of(samples, m.RAID_MISSING), "not known while it does not run"


def test_an_array_that_grows_has_the_disks_it_is_to_have(tree: Tree) -> None:
    root = tree({**ARRAY, MD + "raid_disks": "11 (10)\n", MD + "sync_action": "reshape\n"})
    assert of(list(raid(root / "block/md0")), m.RAID_DISKS) == {("md0",): 11}


DM = {
    "dev/block/253:0/dm/uuid": "LVM-abc\n",
    "dev/block/253:0/slaves/dm-1/dm/uuid": "CRYPT-LUKS2-0123-data\n",
    "dev/block/253:1/dm/uuid": "CRYPT-LUKS2-0123-data\n",
    "dev/block/9:0/slaves/dm-1/dm/uuid": "CRYPT-PLAIN-x\n",
    "dev/block/9:0/slaves/sdb1/size": "7\n",
    "dev/block/8:1/size": "7\n",
}


@pytest.mark.parametrize(
    ("device", "wanted"),
    [((253, 0), True), ((253, 1), True), ((9, 0), False), ((8, 1), False), ((8, 9), None), ((0, 44), None)],
)
def test_what_is_encrypted(tree: Tree, device: tuple[int, int], wanted: bool | None) -> None:
    assert encrypted(os.makedev(*device), "/dev/sda1", tree(DM)) is wanted


@pytest.mark.parametrize(
    ("source", "wanted"), [("/dev/mapper/data", True), ("/dev/sdb1", False), ("tank/data", None), ("/dev/gone", None)]
)
def test_a_file_system_with_a_number_of_its_own_goes_by_its_source(
    tree: Tree, source: str, wanted: bool | None
) -> None:
    root = tree(
        {
            "class/block/dm-0/dm/name": "data\n",
            "class/block/dm-0/dm/uuid": "CRYPT-LUKS2-0123-data\n",
            "class/block/sdb1/size": "7\n",
        }
    )
    assert encrypted(os.makedev(0, 44), source, root) is wanted


def test_encrypted_file_systems(tree: Tree) -> None:
    root = tree(
        {**DM, "1/mountinfo": "27 1 253:0 / / rw - ext4 /dev/vg/root rw\n28 1 8:1 / /boot rw - ext4 /dev/sda1 rw\n"}
    )
    settings = FilesystemSettings(proc=root, sys=root)
    samples = list(Filesystem(settings, Context("", ""), lambda *_: None).collect())
    assert {labels[0]: value for labels, value in of(samples, n.FS_ENCRYPTED).items()} == {"/": 1, "/boot": 0}
