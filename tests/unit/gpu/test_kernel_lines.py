"""Trouble in the kernel log: the kernel's own words for it, real ones where there are, and what is no trouble."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.health.kernel_lines import PATTERNS, kind_of

DATA = Path(__file__).parents[2] / "data" / "kernel"

LINES = {
    "oom_kill": "Out of memory: Killed process 4242 (python) total-vm:1kB, anon-rss:1kB, file-rss:0kB",
    "soft_lockup": "watchdog: BUG: soft lockup - CPU#12 stuck for 26s! [kworker/12:1:345]",
    "hard_lockup": "NMI watchdog: Watchdog detected hard LOCKUP on cpu 3",
    "rcu_stall": "rcu: INFO: rcu_sched self-detected stall on CPU",
    "hung_task": "INFO: task nvidia-smi:2024 blocked for more than 120 seconds.",
    "kernel_bug": "BUG: unable to handle page fault for address: ffffffffc0a81000",
    "machine_check": "mce: [Hardware Error]: Machine check events logged",
    "pcie_aer": "pcieport 0000:16:01.0: AER: Corrected error received: 0000:16:01.0",
    "io_error": "blk_update_request: I/O error, dev sda, sector 2048 op 0x0:(READ) flags 0x0",
    "nvme": "nvme nvme0: I/O 42 QID 3 timeout, aborting",
    "filesystem": "EXT4-fs error (device sda1): ext4_lookup:1855: inode #2: comm ls: deleted inode referenced: 12",
    "read_only": "EXT4-fs (sda1): Remounting filesystem read-only",
    "raid": "md/raid1:md0: Disk failure on sdb1, disabling device.",
    "nfs": "nfs: server 10.0.0.5 not responding, still trying",
    "lustre": "LustreError: 11-0: fs-OST0001-osc-ffff: operation ost_read to node was lost; evicted",
    "link_down": "mlx5_core 0000:41:00.0 eth0: Link down",
    "mlx5": "mlx5_core 0000:41:00.0: poll_health:795:(pid 0): device's health compromised - reached miss count",
    "nccl_crash": "pt_main_thread[2536443]: segfault at 7f79 ip 00007f7c sp 00007f7c error 4 in libnccl.so.2[7f7c+d3d]",
    "peermem": "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further",
    "fabric": "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error",
    "nvlink": "NVRM: knvlinkDiscoverPostRxDetLinks_GH100: Getting peer0's postRxDetLinkMask failed!",
    "gsp": "NVRM: _kgspRpcRecvPoll: GSP RM heartbeat timeout for GPU 0",
    "file_limit": "VFS: file-max limit 1000000 reached",
}


def test_every_kind_has_a_line() -> None:
    assert LINES.keys() == PATTERNS.keys()


@pytest.mark.parametrize(("kind", "line"), LINES.items())
def test_kinds(kind: str, line: str) -> None:
    assert kind_of(line) == kind


@pytest.mark.parametrize(
    "line",
    [
        "",
        "usb 1-1: new high-speed USB device number 2 using xhci_hcd",
        "nvme nvme0: 32/0/0 default/read/poll queues",
        "EXT4-fs (sda1): mounted filesystem with ordered data mode. Quota mode: none.",
        "mlx5_core 0000:41:00.0 eth0: Link up",
        "nvidia-nvlink: Nvlink Core is being initialized, major device number 507",
        "NVRM: knvlinkSetUniqueFabricBaseAddress_GV100: Fabric base addr 0x0 is assigned to GPU 0",
        "audit: type=1400 audit(1753325631.043:87): apparmor=STATUS operation=profile_replace",
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build",
    ],
)
def test_what_is_no_trouble(line: str) -> None:
    assert kind_of(line) == ""


def test_a_real_boot_is_quiet() -> None:
    """Forty-odd lines of a driver loading: NVSwitches being opened are no errors."""
    kinds = {kind_of(line) for line in (DATA / "kmsg.1.log").read_text().splitlines()}
    assert kinds <= {"", "link_down", "fabric"}


@given(st.text(max_size=2000))
def test_any_line_is_survived(text: str) -> None:
    kind_of(text)
