"""Xids, from the driver's events and the kernel log, each counted once.

Either source works when the other is dead: the kernel's lines count while the driver hangs (which
GPU sits on which bus id is known from the inventory), and events count where the log is closed to us.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from agent.base import statefile
from agent.base.catalogue import Sample, kernel
from agent.base.catalogue import gpu as m
from agent.base.collector import Context, PartialFailure, Settings, register
from agent.base.config import Duration
from agent.base.drillfile import boot_id
from agent.base.hardfaults import XID_ACTIONS
from agent.gpu.inventory import Inventory, path_of
from agent.gpu.node import SHARED, GpuNode, wait_for_backend
from agent.health.journal import JournalError
from agent.health.kernel_lines import PATTERNS, kind_of
from agent.health.kernel_log import JOURNAL_FIX, KMSG_FIX, Log, Source, choose, open_log
from agent.health.kmsg import Record
from agent.health.ledger import SHARED as NEWS
from agent.health.ledger import Ledger, Trouble, XidNews, counted
from agent.health.xid_lines import SxidLine, UuidLine, XidLine, continues, parse

LOG = logging.getLogger("gpuvigil.xid")

RECORDS_A_RUN: Final = 20_000
RECORDS_AT_ONCE: Final = 500
PATIENCE_S: Final = 10.0
"""How long to wait for the child to say whether it reads a driver or the simulator."""
SAVE_CURSOR_EVERY_S: Final = 30.0
MESSAGE_PARTS: Final = 3
TROUBLE_KEPT: Final = 64
TROUBLE_TEXT: Final = 300
MOST_SWITCH_SERIES: Final = 64
FIRST_WAIT_S: Final = 3.0
"""The very first run waits this long for the gpu collector to say which backend it reads."""


class XidSettings(Settings):
    """Settings of the xid collector."""

    period: Duration = Field(default=2.0, gt=0, description="Time between two runs.")
    source: Source = Field(
        default="auto",
        description="Where kernel messages come from; auto is kmsg where it can be opened, else the journal.",
    )
    kmsg: Path = Field(default=Path("/dev/kmsg"), description="Kernel log, or a file of such records.")
    proc: Path = Field(default=Path("/proc"), description="Root of the process tree, for the boot id.")


@register("xid", XidSettings)
class XidCollector:
    """Xids from NVML events and the kernel log."""

    def __init__(self, settings: XidSettings, context: Context) -> None:
        self._settings, self._context = settings, context
        self._boot = boot_id(settings.proc)
        self._started = time.monotonic()
        self._synthetic: bool | None = None
        self._ledger = Ledger(self._boot)
        self._log: Log | None = None
        self._source: Literal["kmsg", "journal"] = "kmsg"
        self._inventory: Inventory | None = None
        self._learned: dict[str, str] = {}
        self._pending: list[str] = []
        self._kinds: Counter[str] = Counter()
        self._trouble: deque[Trouble] = deque(maxlen=TROUBLE_KEPT)
        self._switches: Counter[tuple[str, str, str, str, str]] = Counter()
        self._saved = time.monotonic()

    def close(self) -> None:
        self._context.shared.pop(NEWS, None)
        if self._log is not None:
            self._save()
            self._log.close()

    def collect(self) -> Iterable[Sample]:
        if self._synthetic is None:
            wait_for_backend(self._context, FIRST_WAIT_S - (time.monotonic() - self._started))
        node = self._node()
        if not self._choose(node):
            return
        assert self._log is not None
        before = self._counted()
        failure = None
        for event in node.client.take_xids() if node else ():
            self._ledger.from_driver(event, bool(self._synthetic))
        try:
            self._read(self._log)
        except OSError as error:
            failure = _explain(self._settings.kmsg, error)
        self._ledger.settle(time.monotonic())
        if self._counted() != before or time.monotonic() - self._saved > SAVE_CURSOR_EVERY_S:
            self._save()
        statefile.catch_up()  # for all: this is the collector that always runs, and often
        self._context.shared[NEWS] = XidNews(tuple(self._ledger.events), str(failure or ""), tuple(self._trouble))
        yield from self._samples()
        if failure is not None:
            raise failure

    def _read(self, log: Log) -> None:
        """Take in what is new, a little at a time: a flood must not become memory."""
        left = RECORDS_A_RUN
        while left > 0 and (records := log.read(min(left, RECORDS_AT_ONCE))):
            left -= len(records)
            for record in records:
                self._line(record)

    def _counted(self) -> int:
        return sum(self._ledger.actions.values()) + sum(self._kinds.values()) + sum(self._switches.values())

    def _node(self) -> GpuNode | None:
        node = self._context.shared.get(SHARED)
        return node if isinstance(node, GpuNode) else None

    def _choose(self, node: GpuNode | None) -> bool:
        """Take up the ledger of the backend; False while it is not known which that is."""
        synthetic = node.synthetic if node else None
        if synthetic is None:
            synthetic = self._synthetic
        if synthetic is None:
            if time.monotonic() - self._started < PATIENCE_S:
                return False
            synthetic = False
        if synthetic != self._synthetic:
            if self._log is not None:
                self._save()
                self._log.close()
            self._synthetic = synthetic
            stored = statefile.load(self._path)
            self._log = self._open(stored.get("cursor"))
            try:
                ledger = Ledger.restore(stored, self._boot)
                learned = {str(k): str(v) for k, v in stored.get("buses", {}).items()}
                kinds = Counter({str(k): counted(v) for k, v in stored.get("kinds", {}).items()})
                switches = Counter(dict(map(_switch, stored.get("switches", ()))))
            except (TypeError, ValueError, AttributeError) as error:
                raise PartialFailure("state", f"{self._path}: {error}; counting from 0") from None
            self._ledger, self._learned, self._kinds, self._switches = ledger, learned, kinds, switches
        known = node.inventory if node else None
        if known is not None:
            self._inventory = known
        elif self._inventory is None:
            self._inventory = Inventory(path_of(self._context.state_dir, synthetic))
        return True

    def _open(self, cursor: dict[str, Any] | None) -> Log:
        self._source, why = choose(self._settings.source, self._settings.kmsg)
        LOG.info("kernel log", extra={"source": self._source, **({"because": why} if why else {})})
        return open_log(self._source, self._settings.kmsg, self._boot, cursor)

    @property
    def _path(self) -> Path:
        return Path(self._context.state_dir, f"xids-{'simulator' if self._synthetic else 'nvml'}.json")

    def _save(self) -> None:
        """Counts and place in the log, in one file: neither can run ahead of the other."""
        assert self._log is not None
        self._saved = time.monotonic()
        state: dict[str, Any] = {
            **self._ledger.dump(),
            "cursor": self._log.state(),
            "buses": self._learned,
            "kinds": dict(self._kinds),
            "switches": [[*key, count] for key, count in self._switches.items()],
        }
        statefile.save(self._path, state)

    def _line(self, record: Record) -> None:
        text = record.text
        if self._pending and text.startswith("NVRM:"):
            self._pending.append(text)
            text = " ".join(self._pending)
            if len(self._pending) == MESSAGE_PARTS:
                self._pending = []
        elif continues(text):
            self._pending = [text]
            return
        else:
            self._pending = []
        said = parse(text)
        if not record.user and (kind := kind_of(text)):
            self._kinds[kind] += 1
            self._trouble.append(Trouble(record.time, kind, text[:TROUBLE_TEXT]))
        if isinstance(said, SxidLine):
            self._switch(said, record)
        elif isinstance(said, UuidLine):
            self._learned[said.pci] = said.uuid
        elif isinstance(said, XidLine):
            synthetic = bool(self._synthetic) or record.user
            self._ledger.from_kernel(said, self._uuid(said.pci), record.time, record.uptime, synthetic)

    def _switch(self, said: SxidLine, record: Record) -> None:
        """Lines that tell a severity are events; those that follow with data are not."""
        synthetic = "true" if self._synthetic or record.user else ""
        key = (said.switch, said.pci, str(said.sxid), said.severity, synthetic)
        if said.severity and (key in self._switches or len(self._switches) < MOST_SWITCH_SERIES):
            self._switches[key] += 1

    def _uuid(self, pci: str) -> str:
        return (self._inventory.at(pci) if self._inventory else "") or self._learned.get(pci, "")

    def _samples(self) -> Iterator[Sample]:
        assert self._log is not None
        ledger, inventory = self._ledger, self._inventory
        own = bool(self._synthetic)
        known = set(inventory.known) if inventory else set()
        for uuid in known:
            labels = self._labels(uuid, own)
            for action in XID_ACTIONS:
                yield m.XID_EVENTS.sample(ledger.actions[uuid, own, action], *labels, action)
        for (uuid, synthetic, action), count in ledger.actions.items():
            if uuid not in known or synthetic != own:
                yield m.XID_EVENTS.sample(count, *self._labels(uuid, synthetic), action)
        for (uuid, synthetic, xid, action), count in ledger.codes.items():
            yield m.XID_CODES.sample(count, *self._labels(uuid, synthetic), str(xid), action)
        for (uuid, synthetic, xid), last in ledger.last.items():
            yield m.XID_LAST.sample(last, *self._labels(uuid, synthetic), str(xid))
        for key, count in self._switches.items():
            yield kernel.SXID_EVENTS.sample(count, *key)
        for kind in PATTERNS:
            yield kernel.EVENTS.sample(self._kinds[kind], kind)
        yield kernel.LOG.sample(1, self._source)
        yield kernel.RECORDS.sample(self._log.records)
        yield kernel.LOST.sample(self._log.lost)

    def _labels(self, uuid: str, synthetic: bool) -> tuple[str, str, str]:
        return (self._inventory.label(uuid) if self._inventory else "", uuid, "true" if synthetic else "")


def _switch(row: Any) -> tuple[tuple[str, str, str, str, str], int]:
    switch, pci, sxid, severity, synthetic, count = row
    return (str(switch), str(pci), str(sxid), str(severity), str(synthetic)), counted(count)


def _explain(path: Path, error: OSError) -> PartialFailure:
    if isinstance(error, JournalError):
        return PartialFailure("journal", f"{error}; {JOURNAL_FIX}")
    if isinstance(error, PermissionError):
        return PartialFailure("kmsg_permission", f"{path}: not permitted; {KMSG_FIX}")
    return PartialFailure("kmsg", f"{path}: {error.strerror}")
