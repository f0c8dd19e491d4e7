"""Until when this node's pages stay quiet, as `gpuvigil agent maintenance on` set it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from agent import maintenance
from agent.base.catalogue import Sample
from agent.base.catalogue.node import MAINTENANCE_UNTIL
from agent.base.collector import Context, Settings, register
from agent.base.config import Duration


class MaintenanceSettings(Settings):
    period: Duration = Field(default=2.0, gt=0, description="Time between two runs.")
    deadline: Duration = Field(default=5.0, gt=0, description="A run longer than this is late; its series go.")


@register("maintenance", MaintenanceSettings)
class MaintenanceCollector:
    """Maintenance flag of this node."""

    def __init__(self, settings: MaintenanceSettings, context: Context) -> None:
        self._state_dir = context.state_dir

    def collect(self) -> Iterator[Sample]:
        window = maintenance.read(self._state_dir)
        yield MAINTENANCE_UNTIL.sample(window.until if window is not None else 0.0)

    def close(self) -> None:
        """Nothing is held."""
