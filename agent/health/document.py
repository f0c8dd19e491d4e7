"""The verdicts as one JSON document: what `/api/v1/health` answers and `agent health` shows.

The running agent keeps its last one in the state directory, so that it can be read when the agent is not
answering; `taken` says how old it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agent.base import statefile
from agent.health.engine import Settled, of_gpu
from agent.health.verdict import State, Verdict, worst

SHARED: Final = "health"
"""Name in `context.shared` of what makes the newest document, which is made when it is asked for."""
SETTLED_NAME: Final = "settled.json"
SETTLED_KEPT: Final = 64


def path_of(state_dir: str | Path, synthetic: bool) -> Path:
    return Path(state_dir, f"health-{'simulator' if synthetic else 'nvml'}.json")


def build(
    verdicts: Sequence[Verdict],
    settled: Sequence[Settled],
    inventory: Mapping[str, Any],
    differences: Sequence[str] | None,
    *,
    node: str,
    synthetic: bool | None,
    taken: float,
) -> dict[str, Any]:
    """The document. `differences` from the baseline are None where none was signed off."""
    gpus = [of_gpu(verdicts, uuid) for uuid in dict.fromkeys(verdict.uuid for verdict in verdicts if verdict.uuid)]
    return {
        "node": node,
        "taken": taken,
        "simulated": synthetic,
        "state": worst([verdict.state for verdict in verdicts]).name.lower(),
        "gpus": [_brief(verdict) for verdict in gpus],
        "verdicts": [
            {"component": verdict.component, **_brief(verdict), "evidence": dict(verdict.evidence)}
            for verdict in verdicts
        ],
        "settled": [{"uuid": each.uuid, "at": each.at, "by": each.by, "why": each.why} for each in settled],
        "inventory": dict(inventory),
        "baseline_differences": None if differences is None else list(differences),
    }


def _brief(verdict: Verdict) -> dict[str, Any]:
    return {
        "gpu": verdict.gpu,
        "uuid": verdict.uuid,
        "state": verdict.state.name.lower(),
        "reason": verdict.reason,
        "action": verdict.action,
        "since": verdict.since,
    }


def state_of(document: Mapping[str, Any]) -> State:
    """The node's state; unknown where the document does not say."""
    try:
        return State[str(document["state"]).upper()]
    except KeyError:
        return State.UNKNOWN


def read_settled(state_dir: str | Path) -> list[Settled]:
    """What people declared healthy, oldest first; entries that make no sense are left out."""
    found = []
    rows = statefile.load(Path(state_dir, SETTLED_NAME)).get("settled")
    for row in rows if isinstance(rows, list) else ():
        at = statefile.number(row[1]) if isinstance(row, list) and len(row) == 4 else None
        if at is not None:
            found.append(Settled(str(row[0]), at, str(row[2]), str(row[3])))
    return found


def add_settled(state_dir: str | Path, entry: Settled) -> bool:
    """Declare a GPU or the node healthy; the running agent takes it in at its next run."""
    kept = [*read_settled(state_dir), entry][-SETTLED_KEPT:]
    rows = [[each.uuid, each.at, each.by, each.why] for each in kept]
    return statefile.save_for_agent(Path(state_dir, SETTLED_NAME), {"settled": rows})
