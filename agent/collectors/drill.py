"""Which targets a drill touches now: drill.json of the run directory as metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from pydantic import Field

from agent.base import drillfile
from agent.base.catalogue import Sample
from agent.base.catalogue.drill import ACTIVE, EXPIRES
from agent.base.collector import Context, Settings, register
from agent.base.config import Duration

_LABEL = {"gpu": "uuid", "engine": "engine", "job": "job_id", "node": ""}


class DrillSettings(Settings):
    period: Duration = Field(default=2.0, gt=0, description="Time between two runs.")
    deadline: Duration = Field(default=5.0, gt=0, description="A run longer than this is late; its series go.")
    proc: str = Field(default="/proc", description="Where the kernel's boot id is read.")


@register("drill", DrillSettings)
class DrillCollector:
    """Drills in force on this node."""

    def __init__(self, settings: DrillSettings, context: Context, clock: Callable[[], float] = time.time) -> None:
        self._run_dir = context.run_dir
        self._boot = drillfile.boot_id(settings.proc)
        self._clock = clock

    def collect(self) -> Iterator[Sample]:
        expires: dict[str, float] = {}
        active: dict[tuple[str, ...], None] = {}
        for entry in drillfile.read(self._run_dir, self._clock(), self._boot):
            if entry.scope not in _LABEL:
                raise ValueError(f"{drillfile.NAME}: scope {entry.scope!r} is not one of {', '.join(_LABEL)}")
            target = {_LABEL[entry.scope]: entry.target}
            active[
                (
                    entry.drill,
                    entry.drill_page,
                    entry.scope,
                    target.get("uuid", ""),
                    target.get("engine", ""),
                    target.get("job_id", ""),
                )
            ] = None
            expires[entry.drill] = max(entry.expires, expires.get(entry.drill, 0.0))
        for labels in active:
            yield ACTIVE.sample(1, *labels)
        for drill, until in expires.items():
            yield EXPIRES.sample(until, drill)

    def close(self) -> None:
        """Nothing is held."""
