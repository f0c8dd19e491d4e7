"""The one vocabulary: every metric of gpuvigil is declared here, a file a domain.

Collectors, rules, panels, drills and docs/metrics.md use these declarations; nothing else spells
a metric's name. Adding a metric is one declaration in its domain's file.
"""

from __future__ import annotations

import importlib
import pkgutil

from agent.base.catalogue.metric import (
    CATALOGUE,
    SUFFIX,
    TARGET_LABELS,
    UNITS,
    Layout,
    Metric,
    Sample,
    Table,
)

__all__ = ["CATALOGUE", "SUFFIX", "TARGET_LABELS", "UNITS", "Layout", "Metric", "Sample", "Table", "load_all"]


def load_all() -> dict[str, Metric]:
    """Import every domain file and return the whole catalogue, by stem."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return CATALOGUE
