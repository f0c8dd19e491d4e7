"""Monitors and capacity forecasts for the whole catalogue, so that a newcomer writes none.

`presets: [gpu, inference, node, training]` names what is wanted; a file without any monitor or resource has these
four. `detail` adds the rest of the catalogue, at about four times the series.
"""

from __future__ import annotations

from alerts.central.preset_list import MONITORS, RESOURCES
from alerts.central.settings import Capacity, Monitor, Settings

NAMES = tuple(MONITORS)
DEFAULT = tuple(name for name in NAMES if name != "detail")


def monitors_of(settings: Settings) -> tuple[Monitor, ...]:
    """The monitors of the presets asked for, less those of a name that the user has given."""
    return tuple(made for name in _wanted(settings) for made in MONITORS[name]() if made.name not in _taken(settings))


def resources_of(settings: Settings) -> tuple[Capacity, ...]:
    """The capacity forecasts of the presets asked for, less those of a name that the user has given."""
    ready = [made for name in _wanted(settings) if name in RESOURCES for made in RESOURCES[name]()]
    return tuple(made for made in ready if made.name not in _taken(settings))


def _wanted(settings: Settings) -> tuple[str, ...]:
    if settings.presets is not None:
        return settings.presets
    return () if settings.monitors or settings.capacity else DEFAULT


def _taken(settings: Settings) -> set[str]:
    return {monitor.name for monitor in settings.monitors} | {resource.name for resource in settings.capacity}
