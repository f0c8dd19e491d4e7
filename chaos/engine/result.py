"""What a drill found out, ready for JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.base.errors import Exit

Say = Callable[[str], None]
"""Gets one line of progress at a time."""

MARKS = {
    "injected": "injected",
    "seen": "seen in the agent's metrics",
    "firing": "firing at Prometheus",
    "paged": "paged",
    "undone": "undone",
    "resolved": "resolved, at Prometheus and for those paged",
}
"""The marks of a timeline in their usual order, in words."""


@dataclass(slots=True)
class Result:
    """What happened, all of it JSON-able.

    Attributes:
        verdict: pass, fail, aborted, refused or undo_failed.
        reasons: why it is not a pass; empty for a pass.
        timeline: seconds since injection by mark: injected, seen, firing, paged, undone, resolved.
        page: labels and annotations of the page received, if any.
    """

    id: str
    drill: str
    title: str
    why: str
    node: str
    started: float
    simulated: bool = True
    verdict: str = "fail"
    reasons: list[str] = field(default_factory=list)
    timeline: dict[str, float] = field(default_factory=dict)
    details: dict[str, float] = field(default_factory=dict)
    plan: list[str] = field(default_factory=list)
    touches: list[dict[str, str]] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    page: dict[str, dict[str, str]] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)

    @property
    def code(self) -> Exit:
        codes = {"pass": Exit.GOOD, "undo_failed": Exit.UNDO_FAILED, "refused": Exit.BAD}
        return codes.get(self.verdict, Exit.BAD)
