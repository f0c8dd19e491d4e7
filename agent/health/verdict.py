"""Verdicts on one GPU: a component each, judged from facts alone. Unknown is never healthy.

Thresholds stand here and nowhere else; readings are named as in agent.gpu.series.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from agent.health.xid_catalogue import RECOVERY


class State(IntEnum):
    """In order of the gauge; for "the worst of these" see `worst`."""

    HEALTHY = 0
    DEGRADED = 1
    UNHEALTHY = 2
    UNKNOWN = 3


_BADNESS: Final = {State.HEALTHY: 0, State.UNKNOWN: 1, State.DEGRADED: 2, State.UNHEALTHY: 3}

INSPECT: Final = "HARDWARE_INSPECTION"
MINUTE: Final = 60
SUSTAINED: Final = 0.5
"""Share of the last minute for which clocks must have been held down before it counts."""


def worst(states: Sequence[State]) -> State:
    """The state of a whole: unhealthy before degraded before unknown before healthy; nothing is unknown."""
    return max(states, key=_BADNESS.__getitem__, default=State.UNKNOWN)


@dataclass(frozen=True)
class Verdict:
    """One component of a GPU (or of the node, where `uuid` is empty).

    Attributes:
        action: what to do, a word of NVIDIA's catalogue or HARDWARE_INSPECTION; "" where nothing.
        since: Unix time at which the component took this state.
        evidence: what was seen in the minute before, see agent.health.evidence.
    """

    component: str
    state: State
    reason: str = ""
    action: str = ""
    uuid: str = ""
    gpu: str = ""
    since: float = 0.0
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What is known of one GPU.

    Attributes:
        present: it answers; None while nobody can tell.
        refused: the driver lets nobody look at it.
        stuck: (call, seconds) of a driver call on it that does not return.
        readings: by key, the last sweep's; empty while it does not answer.
        throttled: share of the last minute for which each reason held clocks down.
        marks: readings of error counters when somebody last declared them settled.
    """

    uuid: str
    gpu: str
    present: bool | None
    stuck: tuple[str, float] | None = None
    readings: Mapping[str, float] = field(default_factory=dict)
    throttled: Mapping[str, float] = field(default_factory=dict)
    marks: Mapping[str, float] = field(default_factory=dict)
    refused: bool = False

    def get(self, key: str) -> float:
        return self.readings.get(key, math.nan)

    def has(self, *keys: str) -> bool:
        return all(key in self.readings for key in keys)

    def grown(self, key: str) -> float:
        """By how much a counter grew since it was declared settled; a restarted one counts from 0."""
        value, mark = self.get(key), self.marks.get(key, 0.0)
        return value - mark if value >= mark else value


HEAT: Final = ("hw_thermal", "hw_slowdown", "sw_thermal")
BRAKE: Final = ("hw_power_brake",)
"""Throttle reasons that speak against the machine."""
HOST_MEMORY: Final = "host_memory.uncorrectable"
"""The node's own counter, among its facts."""
COUNTERS: Final = ("ecc.uncorrected.volatile", HOST_MEMORY)
"""Counters that somebody may declare settled."""

Finding = tuple[State, str, str]
"""(state, reason, action)."""

GOOD: Final[Finding] = (State.HEALTHY, "", "")


def judge_gpu(facts: Facts) -> Iterator[Verdict]:
    """A verdict for every component of which the GPU tells anything; presence always."""
    findings: dict[str, Finding] = {"presence": _presence(facts)}
    if facts.present:
        for component, judge in _JUDGES.items():
            found = judge(facts)
            if found is not None:
                findings[component] = found
    for component, (state, reason, action) in findings.items():
        yield Verdict(component, state, reason, action, facts.uuid, facts.gpu)


def _presence(facts: Facts) -> Finding:
    if facts.stuck is not None:
        call, seconds = facts.stuck
        return State.UNHEALTHY, f"{call} has not returned for {seconds:.0f} s", "RESTART_BM"
    if facts.present is None:
        return State.UNKNOWN, "the driver lets nobody look at it" if facts.refused else "the driver does not answer", ""
    if not facts.present:
        return State.UNHEALTHY, "it no longer answers the driver", "RESTART_BM"
    if not facts.readings:
        return State.UNKNOWN, "the driver lists it and tells nothing of it", ""
    return GOOD


def _recovery(facts: Facts) -> Finding | None:
    """The driver's own verdict comes before everything we conclude."""
    if not facts.has("recovery_action"):
        return None
    code = int(facts.get("recovery_action"))
    name, action = RECOVERY.get(code, (f"recovery action {code}", "CONTACT_SUPPORT"))
    return GOOD if code == 0 else (State.UNHEALTHY, f"the driver asks for: {name}", action)


def _memory(facts: Facts) -> Finding | None:
    if not facts.has("ecc.uncorrected.volatile") and not facts.has("remap_pending"):
        return None
    if facts.get("remap_failure") == 1:
        return State.UNHEALTHY, "a row remapping failed", INSPECT
    if facts.get("remap_banks.none") > 0:
        return State.UNHEALTHY, f"{facts.get('remap_banks.none'):.0f} memory banks have no spare row left", INSPECT
    if facts.get("sram_threshold") == 1:
        return State.UNHEALTHY, "uncorrected SRAM errors passed the driver's threshold", INSPECT
    if facts.get("remap_pending") == 1:
        return State.DEGRADED, "a row remapping waits for a GPU reset", "RESET_GPU"
    if facts.get("retired_pending") == 1:
        return State.DEGRADED, "a page retirement waits for a GPU reset", "RESET_GPU"
    grown = facts.grown("ecc.uncorrected.volatile")
    if grown > 0:
        return State.DEGRADED, f"{grown:.0f} uncorrected ECC errors since the driver was loaded", "RESET_GPU"
    return GOOD


def _nvlink(facts: Facts) -> Finding | None:
    if not facts.has("nvlink_links", "nvlink_active"):
        return None
    links, active = facts.get("nvlink_links"), facts.get("nvlink_active")
    if active < links:
        return State.UNHEALTHY, f"{links - active:.0f} of {links:.0f} NVLinks are down", "WORKFLOW_NVLINK"
    return GOOD


def _c2c(facts: Facts) -> Finding | None:
    if not facts.has("c2c_links", "c2c_active"):
        return None
    links, active = facts.get("c2c_links"), facts.get("c2c_active")
    if active < links:
        return State.UNHEALTHY, f"{links - active:.0f} of {links:.0f} C2C links are down", "CONTACT_SUPPORT"
    return GOOD


def _inforom(facts: Facts) -> Finding | None:
    if not facts.has("inforom_valid"):
        return None
    if facts.get("inforom_valid") == 0:
        return State.DEGRADED, "the InfoROM does not agree with its checksums", "CONTACT_SUPPORT"
    return GOOD


def _fabric(facts: Facts) -> Finding | None:
    if not facts.has("fabric_state"):
        return None
    if facts.get("fabric_status") > 0:
        return State.UNHEALTHY, f"fabric registration failed with code {facts.get('fabric_status'):.0f}", "RESTART_FM"
    if facts.get("fabric_state") < 3:
        return State.DEGRADED, "registration with the NVLink fabric is not complete", "RESTART_FM"
    if facts.get("fabric_degraded") == 1:
        return State.DEGRADED, "the NVLink fabric gives less bandwidth than it has", "CONTACT_SUPPORT"
    return GOOD


def _pcie(facts: Facts) -> Finding | None:
    if not facts.has("pcie_degraded"):
        return None
    if facts.get("pcie_degraded") == 1:
        now = f"generation {facts.get('pcie_generation'):.0f} x{facts.get('pcie_width'):.0f}"
        best = f"generation {facts.get('pcie_generation_max'):.0f} x{facts.get('pcie_width_max'):.0f}"
        return State.DEGRADED, f"PCIe runs at {now}, slot and card allow {best}", "CHECK_MECHANICALS"
    return GOOD


def _held_down(facts: Facts, reasons: tuple[str, ...], action: str) -> Finding | None:
    known = [reason for reason in reasons if reason in facts.throttled]
    if not known:
        return None
    reason = max(known, key=facts.throttled.__getitem__)
    share = facts.throttled[reason]
    if share >= SUSTAINED:
        return State.DEGRADED, f"clocks were held down by {reason} for {share:.0%} of the last minute", action
    return GOOD


def _thermal(facts: Facts) -> Finding | None:
    return _held_down(facts, HEAT, "CHECK_COOLING")


def _power(facts: Facts) -> Finding | None:
    return _held_down(facts, BRAKE, "CHECK_MECHANICALS")


_JUDGES: Final = {
    "recovery": _recovery,
    "memory": _memory,
    "nvlink": _nvlink,
    "c2c": _c2c,
    "inforom": _inforom,
    "fabric": _fabric,
    "pcie": _pcie,
    "thermal": _thermal,
    "power": _power,
}
