"""Kernel log lines of the NVIDIA driver: Xids, GPUs that fell off the bus, UUIDs, NVSwitch SXids.

The forms are the driver's own (open-gpu-kernel-modules, kernel_rc.c). "NVRM:" is not asked for,
because the journal strips it and injectors double it. Text after the code is free: it is kept as
evidence and only searched for the few patterns below.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from agent.gpu.pci import normalise

_BDF = r"(?P<bdf>(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2})(?:\.[0-7])?"
_XID = re.compile(
    r"(?<![A-Za-z])Xid \((?:PCI:)?" + _BDF + r"(?: GPU-I:(?P<gi>\d+))?(?: GPU-CI:(?P<ci>\d+))?\): "
    r"(?P<xid>\d{1,6})(?:, (?P<rest>.*))?$"
)
_PROCESS = re.compile(r"pid='?<?(?P<pid>[^,>']+)>?'?, name=<?(?P<name>.*?)>?(?:, (?P<text>.*))?$")
_NVLINK5 = re.compile(
    r"(?P<unit>[A-Z][A-Z0-9_]*(?:/[A-Z][A-Z0-9_]*)?)\s+(?P<severity>[A-Za-z-]+)\s+XC(?P<xc>\d)\s+i(?P<inj>\d+)\s+"
    r"Link\s+(?P<link>-?\d+)\s+\((?P<words>0x[0-9a-fA-F]+(?:\s+0x[0-9a-fA-F]+)*)"
)
_ACTION = re.compile(r"GPU recovery action changed from 0x(?P<old>[0-9a-fA-F]+) \([^)]*\) to 0x(?P<new>[0-9a-fA-F]+) ")
_CAUSE = re.compile(r"caused by previous Xid (?P<previous>\d+)")
_LOST = re.compile(
    r"NVRM:\s+(?:The NVIDIA )?GPU "
    + _BDF
    + r"(?::\s+GPU has fallen off the bus|.*?fallen off the bus and is not responding)",
    re.S,
)
_LOST_BEGINS = re.compile(r"NVRM:\s+The NVIDIA GPU " + _BDF + r"\s*$")
_UUID = re.compile(r"NVRM: GPU at PCI:" + _BDF + r": (?P<uuid>GPU-[0-9a-f-]{36})")
_SXID = re.compile(
    r"(?P<switch>nvidia-nvswitch\d+): SXid \(PCI:" + _BDF + r"\): (?P<sxid>\d{1,6}), "
    r"(?:(?P<severity>Fatal|Non-fatal), )?(?P<text>.*)"
)
FALLEN_OFF: Final = 79
LONGEST: Final = 512
"""Characters of a line kept as evidence."""


class Link(NamedTuple):
    """The NVLink part of Xids 144-150. `status` is the second word, `sub_code` from the first."""

    unit: str
    severity: str
    link: int
    word: int
    status: int

    @property
    def sub_code(self) -> int:
        return self.word >> 20 & 0x3F


class XidLine(NamedTuple):
    """One Xid: `pci` normalised; pid, name, gi, ci, cause, recovery, link are None where not told."""

    pci: str
    xid: int
    text: str
    pid: int | None = None
    name: str | None = None
    gi: int | None = None
    ci: int | None = None
    cause: int | None = None
    recovery: int | None = None
    link: Link | None = None


class UuidLine(NamedTuple):
    """The driver's word on which GPU sits where."""

    pci: str
    uuid: str


class SxidLine(NamedTuple):
    """An error of an NVSwitch; severity is "fatal", "non-fatal" or "" where not told."""

    switch: str
    pci: str
    sxid: int
    severity: str
    text: str


def parse(line: str) -> XidLine | UuidLine | SxidLine | None:
    """What a line says, or None for every other line. Never raises.

    `line` is one record's text, continued messages already joined by spaces or newlines.
    """
    if "Xid" not in line and "NVRM" not in line:
        return None
    first = line.partition("\n")[0]
    if found := _SXID.search(first):
        severity = (found["severity"] or "").lower()
        return SxidLine(found["switch"], normalise(found["bdf"]), int(found["sxid"]), severity, found["text"][:LONGEST])
    if found := _XID.search(first):
        return _xid(found)
    if found := _UUID.search(first):
        return UuidLine(normalise(found["bdf"]), found["uuid"])
    if found := _LOST.search(line):
        return XidLine(normalise(found["bdf"]), FALLEN_OFF, line[found.start() :][:LONGEST])
    return None


def continues(line: str) -> bool:
    """Whether this line opens the driver's three-line message "... has fallen off the bus"."""
    return _LOST_BEGINS.search(line) is not None


def _xid(found: re.Match[str]) -> XidLine:
    rest = found["rest"] or ""
    process = _PROCESS.match(rest)
    pid = process["pid"] if process else ""
    name = process["name"] if process else "unknown"
    text = (process["text"] or "") if process else rest
    cause, action, link = _CAUSE.search(text), _ACTION.search(text + " "), _NVLINK5.search(text)
    return XidLine(
        pci=normalise(found["bdf"]),
        xid=int(found["xid"]),
        text=text[:LONGEST],
        pid=int(pid) if pid.isdigit() else None,
        name=None if name == "unknown" else name,
        gi=int(found["gi"]) if found["gi"] else None,
        ci=int(found["ci"]) if found["ci"] else None,
        cause=int(cause["previous"]) if cause else None,
        recovery=int(action["new"], 16) if action else None,
        link=_link(link) if link else None,
    )


def _link(found: re.Match[str]) -> Link:
    words = [int(word, 16) for word in found["words"].split()]
    status = words[1] if len(words) > 1 else 0
    return Link(found["unit"], found["severity"].lower(), int(found["link"]), words[0], status)
