"""Pressure stall information: how long tasks waited for CPU, memory and disks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, Settings, register

RESOURCES = ("cpu", "memory", "io", "irq")
LINES: dict[str, Metric] = {"some": m.PRESSURE_WAITING, "full": m.PRESSURE_STALLED}


class PressureSettings(Settings):
    proc: Path = Field(default=Path("/proc"), description="Root of the process tree.")


@register("pressure", PressureSettings)
class Pressure:
    """Waiting for CPU, memory and disks (PSI)."""

    def __init__(self, settings: PressureSettings, context: Context) -> None:
        self._folder = settings.proc / "pressure"

    def collect(self) -> Iterable[Sample]:
        """Format: Documentation/accounting/psi.rst of the kernel; totals are in microseconds."""
        for resource in RESOURCES:
            try:
                text = (self._folder / resource).read_text(encoding="ascii", errors="replace")
            except OSError:  # a kernel without PSI, or with psi=0
                continue
            for line in text.splitlines():
                kind, _, rest = line.partition(" ")
                metric, total = LINES.get(kind), rest.rpartition("total=")[2]
                if metric is not None and total.isdigit():
                    yield metric.sample(int(total) / 1e6, resource)

    def close(self) -> None: ...
