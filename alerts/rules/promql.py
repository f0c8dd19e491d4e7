"""Pieces of PromQL that every rule shares: identity, drills and maintenance."""

from __future__ import annotations

from typing import Final, Literal

from agent.base.catalogue import drill, node
from alerts.rules.thresholds import Thresholds, duration

Scope = Literal["gpu", "node", "engine", "job", "cluster", "monitoring"]

IDENTITY: Final[dict[str, tuple[str, ...]]] = {
    "gpu": ("cluster", "node", "gpu", "uuid", "synthetic"),
    "node": ("cluster", "node", "synthetic"),
    "engine": ("cluster", "node", "engine"),
    "job": ("cluster", "node", "job_id"),
}
"""Labels by which an alert of each scope is one alert; `job` and `instance` are never among them."""

KEY: Final[dict[str, tuple[str, ...]]] = {
    "gpu": ("cluster", "node", "uuid"),
    "node": ("cluster", "node"),
    "engine": ("cluster", "node", "engine"),
    "job": ("cluster", "job_id"),
}
"""Labels by which a drill finds an alert of each scope."""

MAINTENANCE: Final = "node:gpuvigil_node_maintenance_until_timestamp_seconds:last"
"""Recorded: the flag as last seen, so that it outlives the node's reboot."""


def labels(*names: str) -> str:
    return "(" + ", ".join(names) + ")"


def per(scope: str, selector: str, *more: str, op: str = "max") -> str:
    """`selector` reduced to the identity of `scope`, plus the labels in `more`."""
    return f"{op} by {labels(*IDENTITY[scope], *more)} ({selector})"


def indent(text: str, by: int = 2) -> str:
    return "\n".join(" " * by + line if line else line for line in text.splitlines())


def number(value: float) -> str:
    """A float as PromQL reads it: 15.0 -> "15", 0.144 -> "0.144"."""
    return f"{value:.12g}"


def le(seconds: float) -> str:
    """A matcher value for the bucket edge `seconds`, however the server spells it.

    Prometheus 2 keeps an exposed `le="1"`, Prometheus 3 stores `le="1.0"`.
    """
    text = number(seconds)
    whole, _, fraction = text.partition(".")
    return f"=~{whole}[.]{fraction}" if fraction else f"=~{whole}|{whole}[.]0"


def drills(scope: str, t: Thresholds, *, agent_down: bool = False, lingers: float = 0.0) -> str:
    """The drill that touches each target of `scope`: one series a target.

    Where two drills overlap on a target the one that expires last is taken: a many-to-many join would
    fail the rule, and with it the page; a pick that changes would make one alert many.

    Args:
        scope: gpu, node, engine or job.
        t: an entry counts for `drill_grace` after it was last seen, but not beyond its expiry.
        agent_down: remember it for `drill_memory`, because the agent that exports it is what is down.
        lingers: seconds for which the condition stays true after its cause has gone; the entry counts as
            much longer, or the end of a drill would turn its own trace into a real page.
    """
    key = KEY[scope]
    window = duration((t.drill_memory if agent_down else t.drill_grace) + lingers)
    since = f"time() - {number(lingers)}" if lingers else "time()"
    return (
        f"topk by {labels(*key)} (1, max by {labels(*key, 'drill', 'drill_page')} (\n"
        f"  last_over_time({drill.ACTIVE(scope=scope)}[{window}])\n"
        f"  * on (cluster, node, drill) group_left ()\n"
        f"  (max by (cluster, node, drill) (last_over_time({drill.EXPIRES}[{window}])) > {since})\n))"
    )


def scoped(condition: str, scope: str, t: Thresholds, *, agent_down: bool = False, lingers: float = 0.0) -> str:
    """`condition` as an alert's expression: drills labelled, maintenance quiet.

    A series whose target a drill touches gains `drill` and `drill_page`; the others stay as they
    are. A node in maintenance is left out: by its flag as scraped now, or as last seen if the node
    is away. Scopes without a node of their own (cluster, monitoring) come back unchanged.
    `agent_down` and `lingers` are those of `drills`.
    """
    if scope not in KEY:
        return condition
    key, drilled = labels(*KEY[scope]), indent(drills(scope, t, agent_down=agent_down, lingers=lingers), 4)
    raw = f"max by (cluster, node) ({node.MAINTENANCE_UNTIL})"
    return (
        f"(\n    (\n{indent(condition, 6)}\n    )\n"
        f"  + on {key} group_left (drill, drill_page) 0 *\n{drilled}\n"
        f"  or\n    (\n{indent(condition, 6)}\n    )\n"
        f"  unless on {key}\n{drilled}\n)\n"
        f"unless on (cluster, node)\n  ({raw} or {MAINTENANCE}) > time()"
    )
