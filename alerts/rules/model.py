"""What a rule is: its expression, its cases and its runbook in one declaration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from alerts.rules.promql import Scope, scoped
from alerts.rules.thresholds import Thresholds, Timing

Severity = Literal["page", "ticket", "info", "none"]

ACTIONS: Final[dict[str, str]] = {
    # NVIDIA's own words, as in the Xid catalogue
    "RESTART_BM": "Drain the node and reboot it; if the fault returns, take the node out of service",
    "RESET_GPU": "Drain the GPU's work and reset it (nvidia-smi -r -i UUID)",
    "RESTART_APP": "Restart the application; look at the GPU only if one GPU recurs in several jobs",
    "RESTART_VM": "Restart the virtual machine",
    "CHECK_MECHANICALS": "Check power, seating and cabling of the board",
    "CONTACT_SUPPORT": "Drain the node, collect nvidia-bug-report.sh and contact the vendor",
    "UPDATE_SWFW": "Update driver and firmware at the next window",
    "WORKFLOW_NVLINK": "Follow NVIDIA's NVLink workflow: reset, then reseat, then replace",
    "IGNORE": "Nothing to do by itself; look for the Xid beside it",
    # ours
    "CHECK_AGENT": "Look at the agent: systemctl status gpuvigil-agent, then gpuvigil doctor",
    "CHECK_CENTRAL": "Look at the central service: systemctl status gpuvigil-central",
    "CHECK_PROMETHEUS": "Look at Prometheus, or at the way from the central service to it",
    "EXPLAIN": "Look at the series: gpuvigil detect explain --monitor MONITOR",
    "CHECK_NETWORK": "Look for what these nodes share: switch, rack, deployment, credentials",
    "CHECK_FLEET": "Stop and look for what these nodes share before touching any one: driver, power, cooling",
    "CHECK_CONFIG": "Correct the configuration",
    "DRAIN_ENGINE": "Take the engine out of the load balancer, then restart it",
    "SCALE_OUT": "Add replicas or shed load; look at queue and KV cache first",
    "REVIEW_PLAN": "Find the slow-down (stragglers, idle GPUs, storage) or correct the plan",
    "SAVE_CHECKPOINT": "Look at the storage and the job's save hook; have the job save now",
    "ADD_CAPACITY": "Order or free capacity before the date; find out what grows",
    "FREE_SPACE": "Shorten retention or order disks",
    "NONE": "Nothing to do: this alert shows that alerting works",
}
"""Every action word, with what it means in a sentence."""

DASHBOARDS: Final = {
    "fleet": "/d/gpuvigil-fleet?var-cluster={{ $labels.cluster }}&var-node={{ $labels.node }}",
    "fleet_cluster": "/d/gpuvigil-fleet?var-cluster={{ $labels.cluster }}",
    "fleet_all": "/d/gpuvigil-fleet",
    "engine": (
        "/d/gpuvigil-fleet?var-cluster={{ $labels.cluster }}&var-node={{ $labels.node }}"
        "&var-engine={{ $labels.engine }}"
    ),
    "training": "/d/gpuvigil-training?var-cluster={{ $labels.cluster }}&var-job_id={{ $labels.job_id }}",
}
SIMULATED: Final = "{{ if $labels.synthetic }} These readings are SIMULATED.{{ end }}"


@dataclass(frozen=True, slots=True)
class Runbook:
    """What the person who was rung reads; Markdown, a paragraph or list each."""

    meaning: str
    impact: str
    diagnosis: str
    mitigation: str


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert a case expects.

    Attributes:
        labels: labels beyond those the rule gives itself.
        description: the description as Prometheus renders it; None where labels alone decide it.
        severity: which rule of that name fires.
    """

    labels: Mapping[str, str]
    description: str | None = None
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One promtool case: series in, alerts out at several times.

    Attributes:
        name: what it shows.
        series: promtool values (`0x5 1x5`) by selector, one a `step`.
        expect: at each time (`2m`), the alerts that fire.
        step: time between two samples and between two evaluations; "" for the profile's own.
    """

    name: str
    series: Mapping[str, str]
    expect: Mapping[str, tuple[Firing, ...]]
    step: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording rule; the name reads level:metric:operations."""

    record: str
    expr: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alerting rule.

    Attributes:
        condition: PromQL whose series are the alerts, reduced to the identity of `scope`.
        action: an action word, or "" where the series itself carries the label `action`.
        fault: short word for inhibition; never empty, since Alertmanager takes two missing labels as
            equal. "" only where the series itself carries the label `fault`.
        agent_down: the agent that would tell of a drill is itself what is down.
        lingers: seconds for which the condition stays true after its cause has gone (a window of events).
        runbook: None for a further severity of an alert that has its runbook already.
    """

    name: str
    severity: Severity
    fault: str
    scope: Scope
    action: str
    condition: str
    timing: Timing
    summary: str
    description: str
    dashboard: str
    cases: tuple[Case, ...] = ()
    runbook: Runbook | None = None
    agent_down: bool = False
    lingers: float = 0.0

    def __post_init__(self) -> None:
        if self.action and self.action not in ACTIONS:
            raise ValueError(f"{self.name}: action {self.action!r} is not one of {sorted(ACTIONS)}")

    def expr(self, t: Thresholds) -> str:
        return scoped(self.condition, self.scope, t, agent_down=self.agent_down, lingers=self.lingers)

    @property
    def labels(self) -> dict[str, str]:
        """The labels the rule adds; with those of the series they are the alert's identity."""
        own = {"severity": self.severity, "fault": self.fault, "scope": self.scope, "action": self.action}
        return {name: value for name, value in own.items() if value}

    def annotations(self, t: Thresholds) -> dict[str, str]:
        action = ACTIONS[self.action] if self.action else _action_by_label()
        return {
            "summary": self.summary,
            "description": self.description + (SIMULATED if self.scope in ("gpu", "node", "cluster") else ""),
            "action": action,
            "runbook_url": f"{t.links.runbooks}/{self.name}.md",
            "dashboard_url": t.links.dashboards + DASHBOARDS[self.dashboard],
        }


def _action_by_label() -> str:
    branches = "".join(
        f'{{{{ {"if" if index == 0 else "else if"} eq $labels.action "{word}" }}}}{text}'
        for index, (word, text) in enumerate(ACTIONS.items())
    )
    return branches + "{{ end }}"


_LABEL = re.compile(r"{{ \$labels\.(\w+) }}")


def expand(template: str, labels: Mapping[str, str]) -> str:
    """`{{ $labels.x }}` filled in, as Prometheus would; for the expectations of cases.

    Raises:
        ValueError: the template does more than that, so the case must give the text itself.
    """
    text = _LABEL.sub(lambda found: labels.get(found[1], ""), template)
    if "{{" in text:
        raise ValueError(f"the case must give the rendered text of: {template}")
    return text


Rule: TypeAlias = Alert | Recording


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that Prometheus evaluates one after the other.

    Attributes:
        name: of the group and of its file.
        summary: one line for the documentation.
        interval: evaluation interval where it must be fixed; None for the server's own.
    """

    name: str
    summary: str
    interval: Callable[[Thresholds], float] | None = None
    _makers: list[Callable[[Thresholds], Sequence[Rule]]] = field(default_factory=list)

    def alert(self, make: Callable[[Thresholds], Alert]) -> Callable[[Thresholds], Alert]:
        """Declare an alert: `@GROUP.alert` above a function of the thresholds."""
        self._makers.append(lambda t: [make(t)])
        return make

    def recordings(self, make: Callable[[Thresholds], list[Recording]]) -> Callable[[Thresholds], list[Recording]]:
        """Declare recording rules."""
        self._makers.append(make)
        return make

    def rules(self, t: Thresholds) -> list[Rule]:
        """The group's rules in order of declaration."""
        return [rule for make in self._makers for rule in make(t)]

    def alerts(self, t: Thresholds) -> list[Alert]:
        """The alerting rules among them."""
        return [rule for rule in self.rules(t) if isinstance(rule, Alert)]
