"""The engine of verdicts: judges facts, remembers since when and on what evidence, honours "set healthy".

Pure but for its memory, which `dump` and `restore` carry over restarts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agent.health.evidence import Minute, lines, trouble
from agent.health.ledger import Event, Trouble
from agent.health.verdict import COUNTERS, Facts, State, Verdict, judge_gpu, worst
from agent.health.xid_state import judge_xids

ORDER: Final = (
    *("recovery", "xid", "presence", "memory", "nvlink", "c2c", "fabric", "pcie", "inforom", "thermal", "power"),
)
"""Whose action stands for the whole GPU: the driver's own word first, the Xid catalogue second."""
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Settled:
    """Somebody declared a GPU (or the node, where `uuid` is empty) healthy."""

    uuid: str
    at: float
    by: str
    why: str


@dataclass
class _Memory:
    state: State
    action: str
    since: float
    evidence: dict[str, Any] = field(default_factory=dict)
    judged: Verdict | None = None
    """The last verdict, as it was judged and as it was given out: most stay what they are."""
    shown: Verdict | None = None


class Engine:
    """One node's judgement.

    Args:
        boot_id: of this boot.
    """

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._memory: dict[Key, _Memory] = {}
        self._unknown_since: dict[Key, float] = {}
        self._settled: dict[str, Settled] = {}
        self._settled_at: dict[str, float] = {}
        self._marks: dict[str, dict[str, float]] = {}

    @property
    def settled(self) -> list[Settled]:
        return list(self._settled.values())

    def marks(self, uuid: str) -> Mapping[str, float]:
        """Counters as they stood when a GPU (or the node, where `uuid` is empty) was declared healthy."""
        return self._marks.get(uuid, {})

    def settle(self, settled: Iterable[Settled], facts: Mapping[str, Facts]) -> None:
        """Take in what somebody declared healthy: earlier Xids and error counts no longer count.

        A condition that still holds (a remapping that waits, a link that is down) stays what it is.
        """
        for entry in settled:
            known = self._settled.get(entry.uuid)
            if known is not None and known.at >= entry.at:
                continue
            self._settled[entry.uuid], self._settled_at[entry.uuid] = entry, entry.at
            for uuid, fact in facts.items():
                if entry.uuid in ("", uuid):
                    self._marks[uuid] = {key: fact.get(key) for key in COUNTERS if fact.has(key)}

    def judge(
        self,
        facts: Sequence[Facts],
        node: Sequence[Verdict],
        events: Iterable[Event],
        minute: Minute,
        now: float,
        kernel: Sequence[Trouble] = (),
    ) -> list[Verdict]:
        """The verdicts of this moment, each with its time and evidence.

        Args:
            facts: of every known GPU; `marks` are filled in here.
            node: verdicts on components of the node.
            events: Xids of all GPUs, as the ledger keeps them.
            minute: the last minute's sweeps.
            now: Unix time.
            kernel: the last lines of trouble in the kernel log.
        """
        for uuid, at in self._settled_at.items():
            self._settled_at[uuid] = min(at, now)  # the clock was set back since: what comes now is later
        by_gpu: dict[str, list[Event]] = {}
        for event in events:
            by_gpu.setdefault(event.uuid, []).append(event)
        verdicts = list(node)
        for fact in facts:
            marked = replace(fact, marks=self.marks(fact.uuid))
            verdicts += judge_gpu(marked)
            verdicts.append(self._xids(fact.uuid, fact.gpu, fact.has("remap_pending"), by_gpu, now))
        known = {fact.uuid for fact in facts}
        for uuid in by_gpu:
            if uuid not in known:  # a GPU that nobody ever saw answer
                verdicts.append(self._xids(uuid, "", False, by_gpu, now))
        return [self._remember(verdict, by_gpu.get(verdict.uuid, []), minute, now, kernel) for verdict in verdicts]

    def _xids(self, uuid: str, gpu: str, remaps: bool, by_gpu: Mapping[str, list[Event]], now: float) -> Verdict:
        settled = max(self._settled_at.get(key, 0.0) for key in ("", uuid))
        found = judge_xids(by_gpu.get(uuid, ()), now, self._boot_id, settled, remaps)
        return Verdict("xid", found.state, found.reason, found.action, uuid, gpu)

    def _remember(
        self, verdict: Verdict, events: list[Event], minute: Minute, now: float, kernel: Sequence[Trouble]
    ) -> Verdict:
        key = (verdict.component, verdict.uuid)
        if verdict.state is State.UNKNOWN:  # what was known before is kept until somebody can tell again
            return replace(verdict, since=self._unknown_since.setdefault(key, now))
        self._unknown_since.pop(key, None)
        memory = self._memory.get(key)
        if memory is None or (memory.state, memory.action) != (verdict.state, verdict.action):
            memory = _Memory(verdict.state, verdict.action, now)
            if verdict.state is not State.HEALTHY:
                memory.evidence = {
                    "minute": minute.summary(verdict.uuid),
                    "kernel": lines(events, now),
                    "trouble": trouble(kernel, now),
                }
            self._memory[key] = memory
        if memory.shown is None or memory.judged != verdict:
            memory.judged = verdict
            memory.shown = replace(verdict, since=memory.since, evidence=memory.evidence)
        return memory.shown

    # -- keeping it -----------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """The memory as JSON."""
        return {
            "memory": [
                [component, uuid, int(memory.state), memory.action, memory.since, memory.evidence]
                for (component, uuid), memory in self._memory.items()
            ],
            "settled": [[entry.uuid, entry.at, entry.by, entry.why] for entry in self._settled.values()],
            "settled_at": self._settled_at,
            "marks": self._marks,
        }

    @classmethod
    def restore(cls, stored: Mapping[str, Any], boot_id: str) -> Engine:
        """An engine with the memory as dumped.

        Raises:
            ValueError: it is not a dump.
        """
        engine = cls(boot_id)
        try:
            for component, uuid, state, action, since, evidence in stored.get("memory", ()):
                engine._memory[component, uuid] = _Memory(State(state), str(action), float(since), dict(evidence))
            for uuid, at, by, why in stored.get("settled", ()):
                engine._settled[str(uuid)] = Settled(str(uuid), float(at), str(by), str(why))
            engine._settled_at = {uuid: entry.at for uuid, entry in engine._settled.items()}
            engine._settled_at.update({str(uuid): float(at) for uuid, at in stored.get("settled_at", {}).items()})
            engine._marks = {
                str(uuid): {str(key): float(value) for key, value in marks.items()}
                for uuid, marks in stored.get("marks", {}).items()
            }
        except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"not a memory of verdicts: {error}") from None
        return engine


def of_gpu(verdicts: Sequence[Verdict], uuid: str) -> Verdict:
    """One GPU's verdicts as one: the worst state; reasons and action of the bad components in ORDER.

    It is bad since the first of them, healthy since the last became so.
    """
    own = sorted(
        (verdict for verdict in verdicts if verdict.uuid == uuid),
        key=lambda verdict: ORDER.index(verdict.component) if verdict.component in ORDER else len(ORDER),
    )
    state = worst([verdict.state for verdict in own])
    bad = [verdict for verdict in own if verdict.state in (State.DEGRADED, State.UNHEALTHY)]
    gpu = own[0].gpu if own else ""
    if not bad:
        deciding = [verdict for verdict in own if verdict.state is state]
        reason = "; ".join(verdict.reason for verdict in deciding if verdict.reason)
        since = max((verdict.since for verdict in deciding), default=0.0)
        return Verdict("gpu", state, reason, "", uuid, gpu, since)
    action = next((verdict.action for verdict in bad if verdict.action), "")
    reason = "; ".join(verdict.reason for verdict in bad)
    return Verdict("gpu", state, reason, action, uuid, gpu, min(verdict.since for verdict in bad))
