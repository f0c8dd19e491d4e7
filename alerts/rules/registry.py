"""Finds the groups: every `Group` object in a module of `alerts.rules.groups`."""

from __future__ import annotations

import importlib
import pkgutil

from alerts.rules import groups
from alerts.rules.model import Alert, Group
from alerts.rules.thresholds import Thresholds


def discover() -> list[Group]:
    """Every group by name of its module, then in order of declaration.

    Raises:
        ValueError: two groups have one name, which would overwrite a file.
    """
    found: dict[str, Group] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(groups.__path__)):
        for value in vars(importlib.import_module(f"{groups.__name__}.{module}")).values():
            if isinstance(value, Group):
                if value.name in found:
                    raise ValueError(f"group {value.name!r} is declared twice")
                found[value.name] = value
    return list(found.values())


def alerts(t: Thresholds) -> list[Alert]:
    """Every alerting rule of every group."""
    return [alert for group in discover() for alert in group.alerts(t)]
