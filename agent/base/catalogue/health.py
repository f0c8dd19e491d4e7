"""Verdicts: what the agent concludes of each component, and whether the node still is what was signed off."""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

COMPONENT = ("component", "gpu", "uuid", "synthetic")

STATE = Metric(
    "gpuvigil_health_state",
    "gauge",
    "Verdict on a component: 0 healthy, 1 degraded, 2 unhealthy, 3 unknown. Without gpu and uuid: of the node.",
    labels=COMPONENT,
    vital=True,
)
VERDICT = Metric(
    "gpuvigil_health_verdict",
    "info",
    "Each verdict that is not healthy, with the action it calls for.",
    labels=(*COMPONENT, "state", "action"),
    vital=True,
)
BASELINE_DIFFERENCES = Metric(
    "gpuvigil_health_baseline_differences",
    "gauge",
    "Differences between the node and its signed-off inventory; absent where none was signed off.",
    labels=("synthetic",),
)
BASELINE_TIME = Metric(
    "gpuvigil_health_baseline_timestamp_seconds",
    "gauge",
    "When the inventory was signed off.",
    "seconds",
    ("synthetic",),
)
