"""The ledger of Xids: both sources merged, each event counted once, kept across restarts.

An event is one (bus id, code) within five seconds, whoever tells it: the driver's event set knows
the GPU at once, the kernel's line brings process, text and cause, and either may be missing. Codes
whose action stands in the text wait those seconds for the line. What is within five seconds is told by the
monotonic clock of a boot, because the other may be set between the two. Pure: no files, no clock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

from agent.base import statefile
from agent.health import nvlink5
from agent.health.xid_catalogue import RECOVERY, look_up
from agent.health.xid_lines import XidLine

WINDOW_S: Final = 5.0
KEPT: Final = 512
TEXT_DECIDES: Final = frozenset({*range(144, 151), 154})
MOST_SERIES: Final = 96
"""Distinct codes counted one by one; what a broken log brings beyond them is counted as code 0 of NOBODY."""
MOST_OWNERS: Final = 32
NOBODY: Final = "unknown"
"""UUID under which events are counted when a broken log names more GPUs than a node can hold."""

Source = Literal["nvml", "kernel"]


@dataclass(frozen=True, slots=True)
class Event:
    """One Xid that happened. `uuid` is the GPU's, or PCI-<bus id> while nobody knows which GPU sits there.

    `time` is in Unix seconds, `uptime` in those of the boot's monotonic clock (of states without one: long ago).
    """

    uuid: str
    pci: str
    xid: int
    time: float
    synthetic: bool
    sources: tuple[Source, ...]
    boot_id: str
    action: str
    shown: str = ""
    text: str = ""
    pid: int | None = None
    name: str | None = None
    gi: int | None = None
    ci: int | None = None
    cause: int | None = None
    recovery: int | None = None
    fatal: bool = False
    uptime: float = -1e9


class Trouble(NamedTuple):
    """A line of trouble in the kernel log that is no Xid: when, of which kind (agent.health.kernel_lines), its text."""

    time: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class XidNews:
    """What the xid collector lends to the judge, as `context.shared["xid"]`: replaced whole at each run.

    `log_error` says why the kernel log cannot be read; empty where it can. `trouble` are the last such lines.
    """

    events: tuple[Event, ...]
    log_error: str = ""
    trouble: tuple[Trouble, ...] = ()


SHARED: Final = "xid"
"""Name in `context.shared`."""


@dataclass
class Ledger:
    """Totals by series, and the last events for verdicts.

    Attributes:
        actions: events by (uuid, synthetic, action).
        codes: events by (uuid, synthetic, xid, action).
        last: Unix time of the last by (uuid, synthetic, xid).
        events: the last ones, in order of arrival.
    """

    boot_id: str
    actions: Counter[tuple[str, bool, str]] = field(default_factory=Counter)
    codes: Counter[tuple[str, bool, int, str]] = field(default_factory=Counter)
    last: dict[tuple[str, bool, int], float] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=KEPT))
    _waiting: list[Event] = field(default_factory=list)
    _newest: dict[tuple[str, int], Event] = field(default_factory=dict)

    def from_driver(self, event: dict[str, Any], synthetic: bool) -> Event | None:
        """Take in an event of the NVML event set; returns it where it is counted at once."""
        code = int(event["xid"])
        new = Event(
            uuid=str(event["uuid"]),
            pci=str(event["pci"]),
            xid=code,
            time=float(event["time"]),
            uptime=float(event["uptime"]),
            synthetic=synthetic,
            sources=("nvml",),
            boot_id=self.boot_id,
            action=look_up(code).action,
            shown=str(code),
            gi=event.get("gi"),
            ci=event.get("ci"),
            fatal=look_up(code).gravity == "fatal",
        )
        return self._take(new)

    def from_kernel(self, line: XidLine, uuid: str, time: float, uptime: float, synthetic: bool) -> Event | None:
        """Take in a line of the kernel log; returns the event where it is counted at once."""
        action, shown, fatal = judge(line)
        new = Event(
            uuid=uuid or f"PCI-{line.pci}",
            pci=line.pci,
            xid=line.xid,
            time=time,
            uptime=uptime,
            synthetic=synthetic,
            sources=("kernel",),
            boot_id=self.boot_id,
            action=action,
            shown=shown,
            text=line.text,
            pid=line.pid,
            name=line.name,
            gi=line.gi,
            ci=line.ci,
            cause=line.cause,
            recovery=line.recovery,
            fatal=fatal,
        )
        return self._take(new)

    def settle(self, uptime: float) -> list[Event]:
        """Count events whose wait for a kernel line is over at this moment of the boot."""
        here = [event for event in self._waiting if event.boot_id == self.boot_id]
        due = [event for event in self._waiting if event not in here or not abs(uptime - event.uptime) <= WINDOW_S]
        self._waiting = [event for event in self._waiting if event not in due]
        return [self._count(event) for event in due]

    def _take(self, new: Event) -> Event | None:
        for number, waiting in enumerate(self._waiting):
            if _same(waiting, new):
                if "kernel" in new.sources:
                    del self._waiting[number]
                    return self._count(_merge(waiting, new))
                return None
        newest = self._newest.get((new.pci, new.xid))
        if newest is not None and new.uptime <= newest.uptime + WINDOW_S:
            old = newest if _same(newest, new) else next((e for e in self.events if _same(e, new)), None)
            if old is not None:
                self._join(old, new)
                return None
        if new.xid in TEXT_DECIDES and new.sources == ("nvml",):
            self._waiting.append(new)
            return None
        return self._count(new)

    def _join(self, old: Event, new: Event) -> None:
        """Add what a second telling knows to an event already counted."""
        if set(new.sources) <= set(old.sources):
            return
        joined = _merge(old, new)
        if old in self.events:
            self.events[self.events.index(old)] = joined
        if self._newest.get((old.pci, old.xid)) == old:
            self._newest[old.pci, old.xid] = joined

    def _count(self, event: Event) -> Event:
        owners = {uuid for uuid, *_ in self.actions}
        if event.uuid not in owners and len(owners) >= MOST_OWNERS:
            event = replace(event, uuid=NOBODY)
        known = (event.uuid, event.synthetic, event.xid, event.action) in self.codes
        code = event.xid if known or len(self.codes) < MOST_SERIES else 0
        self.actions[event.uuid, event.synthetic, event.action] += 1
        owner = event.uuid if code else NOBODY
        self.codes[owner, event.synthetic, code, event.action] += 1
        key = (owner, event.synthetic, code)
        self.last[key] = max(event.time, self.last.get(key, 0.0))
        self.events.append(event)
        if len(self._newest) >= 4 * KEPT:
            self._newest = {(kept.pci, kept.xid): kept for kept in self.events}
        self._newest[event.pci, event.xid] = event
        return event

    # -- keeping it -----------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Everything as JSON; `restore` takes it back."""
        return {
            "actions": [[*key, count] for key, count in self.actions.items()],
            "codes": [[*key, count] for key, count in self.codes.items()],
            "last": [[*key, time] for key, time in self.last.items()],
            "events": [asdict(event) for event in self.events],
            "waiting": [asdict(event) for event in self._waiting],
        }

    @classmethod
    def restore(cls, stored: dict[str, Any], boot_id: str) -> Ledger:
        """A ledger as dumped; an empty one where there is nothing.

        Raises:
            ValueError: it is not a dump.
        """
        ledger = cls(boot_id)
        try:
            for uuid, synthetic, action, count in stored.get("actions", ()):
                ledger.actions[str(uuid), bool(synthetic), str(action)] = counted(count)
            for uuid, synthetic, xid, action, count in stored.get("codes", ()):
                ledger.codes[str(uuid), bool(synthetic), int(xid), str(action)] = counted(count)
            for uuid, synthetic, xid, time in stored.get("last", ()):
                ledger.last[str(uuid), bool(synthetic), int(xid)] = _real(time)
            ledger.events.extend(_events(stored.get("events", ())))
            ledger._newest = {(event.pci, event.xid): event for event in ledger.events}
            ledger._waiting = list(_events(stored.get("waiting", ())))
        except (TypeError, KeyError, ValueError, ArithmeticError) as error:
            raise ValueError(f"not a ledger of Xids: {error}") from None
        return ledger


def counted(stored: object) -> int:
    """A count as it was kept.

    Raises:
        ValueError: it is none.
    """
    return int(_real(stored))


def _real(stored: object) -> float:
    found = statefile.number(stored)
    if found is None or found < 0:
        raise ValueError(f"{str(stored)[:20]!r} where a count or a time was kept")
    return found


def _events(rows: Iterable[dict[str, Any]]) -> Iterator[Event]:
    for row in rows:
        event = Event(**{**row, "sources": tuple(row["sources"]), "synthetic": row["synthetic"] is True})
        words = (event.uuid, event.pci, event.boot_id, event.action, event.shown, event.text)
        if not all(isinstance(word, str) for word in words) or statefile.number(event.uptime) is None:
            raise ValueError(f"an event of {str(event.uuid)[:20]!r} that is none")
        counted(event.xid)
        _real(event.time)
        yield event


def judge(line: XidLine) -> tuple[str, str, bool]:
    """Action, the way it is shown, and whether it is fatal: by the line's own detail, else the catalogue."""
    entry = look_up(line.xid)
    if line.recovery is not None:
        name, action = RECOVERY.get(line.recovery, (str(line.recovery), "CONTACT_SUPPORT"))
        return action, f"{line.xid} ({name})", action == "RESTART_BM"
    if line.link is not None and 144 <= line.xid <= 150:
        decoded = nvlink5.decode(line.xid, line.link)
        return decoded.action, nvlink5.describe(line.xid, line.link), decoded.fatal
    return entry.action, str(line.xid), entry.gravity == "fatal"


def _same(old: Event, new: Event) -> bool:
    same = (old.boot_id, old.pci, old.xid) == (new.boot_id, new.pci, new.xid)
    return same and abs(old.uptime - new.uptime) <= WINDOW_S


def _merge(old: Event, new: Event) -> Event:
    """One event from two tellings: what either knows; the kernel's line decides text and action."""
    told, other = (new, old) if "kernel" in new.sources and "kernel" not in old.sources else (old, new)
    first = min(old, new, key=lambda event: event.uptime)
    return replace(
        told,
        uuid=other.uuid if told.uuid.startswith("PCI-") else told.uuid,
        time=first.time,
        uptime=first.uptime,
        sources=tuple(dict.fromkeys((*old.sources, *new.sources))),
        gi=told.gi if told.gi is not None else other.gi,
        ci=told.ci if told.ci is not None else other.ci,
        synthetic=old.synthetic,
    )
