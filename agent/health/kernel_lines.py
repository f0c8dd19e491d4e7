"""Trouble in the kernel log beside Xids: kinds of lines, each counted.

Only lines of the kernel itself count; a process that writes into the log cannot fake one.
"""

from __future__ import annotations

import re
from typing import Final

PATTERNS: Final = {
    "oom_kill": r"Out of memory: Kill(?:ed)? process|Memory cgroup out of memory: Kill(?:ed)? process",
    "soft_lockup": r"BUG: soft lockup - CPU#\d+ stuck",
    "hard_lockup": r"Watchdog detected hard LOCKUP|NMI watchdog: Watchdog detected hard LOCKUP",
    "rcu_stall": r"rcu: INFO: rcu_\w+ (?:self-)?detected (?:expedited )?stalls?",
    "hung_task": r"INFO: task .{1,64}:\d+ blocked for more than \d+ seconds",
    "kernel_bug": r"kernel BUG at |BUG: unable to handle|Oops: |general protection fault",
    "machine_check": r"mce: \[Hardware Error\]|\[Hardware Error\]: Machine check|EDAC .{0,40}\bUE\b",
    "pcie_aer": r"AER: .{0,40}(?:[Ee]rror)|PCIe Bus Error: severity=",
    "io_error": r"I/O error, dev \w+|Buffer I/O error on dev",
    "nvme": r"nvme\d*(?:n\d+)?: .{0,24}(?:timeout|controller is down|Abort|Disabling device|Removing after probe)",
    "filesystem": r"EXT4-fs error|XFS \([\w-]+\): (?:Corruption|Internal error|metadata I/O error)|BTRFS error",
    "read_only": r"Remounting filesystem read-only|shutting down filesystem|forced readonly",
    "raid": r"md/raid.{0,8}: ?(?:Disk failure|md\d+: Disk failure)|md: .{0,24}(?:kicking|failed)",
    "nfs": r"nfs: server \S+ not responding",
    "lustre": r"Lustre(?:Error)?: .{0,200}(?:was lost|evicted|timed out)",
    "link_down": r"(?:NIC Link is Down|[Ll]ink is down|link_down|Link down)",
    "mlx5": r"mlx5_core .{0,160}(?:[Hh]ealth|[Ff]atal|firmware internal error|device's health compromised|timeout)",
    "nccl_crash": r"segfault at .{0,160} in libnccl\.so",
    "peermem": r"nvidia-peermem .{0,60}(?:ERROR|error)",
    "fabric": r"nvidia-nvswitch\d+: SXid",
    "nvlink": r"NVRM: .{0,60}(?:knvlink\w+|NVLink): .{0,120}(?:[Ff]ail|[Ee]rror|fault)"
    r"|nvidia-nvlink: .{0,120}(?:[Ff]ail|[Ee]rror)",
    "gsp": r"NVRM: .{0,40}GSP .{0,80}(?:[Tt]imeout|[Ee]rror|failed)",
    "file_limit": r"VFS: file-max limit \d+ reached",
}
"""kind: what a line of it looks like; the first that fits is its kind."""

_ANY: Final = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in PATTERNS.items()))
_WORDS: Final = (
    *("emory", "BUG", "LOCKUP", "rcu", "blocked for", "Oops", "fault", "Hardware Error", "EDAC", "AER", "PCIe Bus"),
    *(
        "I/O error",
        "nvme",
        "-fs error",
        "XFS",
        "BTRFS",
        "read-only",
        "shutting down",
        "readonly",
        "md",
        "nfs",
        "Lustre",
    ),
    *("own", "mlx5", "peermem", "nvswitch", "NVLink", "nvlink", "GSP", "VFS"),
)
"""A line of trouble has one of these; looking for them first makes a flood of others cheap."""
LONGEST: Final = 1024


def kind_of(text: str) -> str:
    """The kind of trouble a line tells of, "" for every other line."""
    text = text[:LONGEST]
    for word in _WORDS:
        if word in text:
            break
    else:
        return ""
    found = _ANY.search(text)
    return (found.lastgroup or "") if found else ""
