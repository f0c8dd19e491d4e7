"""Taking faults back: at once after a drill, or from the journal after a crash."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from agent.base.errors import UndoFailed, VigilError
from chaos.engine.fault import Fault, find
from chaos.engine.journal import Journal
from chaos.engine.result import Say


@dataclass(frozen=True, slots=True)
class TakenBack:
    evidence: str
    error: str


def take_back(journal: Journal, drill_id: str, name: str, fault: Fault, record: dict[str, Any]) -> TakenBack:
    """Undo and verify, three times if need be; what is done is in the journal."""
    problem = ""
    for attempt in range(3):
        if attempt:
            time.sleep(0.5)
        try:
            fault.undo(record)
            journal.write(drill_id, "undone", name, record)
            evidence = fault.verify_undone(record)
            journal.write(drill_id, "verified", name)
            return TakenBack(evidence, "")
        except (UndoFailed, OSError, VigilError) as error:
            problem = str(error)
    return TakenBack("", f"UNDO FAILED: {problem}")


def recover(journal: Journal, say: Say) -> int:
    """Take back every drill that the journal shows unfinished, the newest first; returns how many.

    Raises:
        UndoFailed: at least one could not be taken back; all were tried.
    """
    problems = []
    unfinished = journal.unfinished()
    for entry in unfinished:
        if entry.undo is None:
            problems.append(f"{entry.drill}: the journal holds no undo record")
            continue
        undone = take_back(journal, entry.drill, entry.fault, find(entry.fault), entry.undo)
        if undone.error:
            problems.append(f"{entry.drill}: {undone.error}")
        else:
            say(f"{entry.drill}: {undone.evidence}")
    if problems:
        raise UndoFailed("; ".join(problems))
    return len(unfinished)
