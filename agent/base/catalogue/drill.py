"""Drills: what is being provoked on purpose, so that rules, models and people can tell."""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

ACTIVE = Metric(
    "gpuvigil_drill_active",
    "gauge",
    "1 for each target a drill touches, until it is healthy again or the entry expires. Exactly one "
    "of uuid, engine, job_id is set; none means the whole node.",
    labels=("drill", "drill_page", "scope", "uuid", "engine", "job_id"),
    vital=True,
)
EXPIRES = Metric(
    "gpuvigil_drill_expires_timestamp_seconds",
    "gauge",
    "When the drill's entries expire.",
    "seconds",
    ("drill",),
    vital=True,
)
