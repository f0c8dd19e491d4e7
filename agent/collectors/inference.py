"""LLM engines on this node: their metrics page, health, load time, GPUs and a streaming probe.

Every engine's page and health are fetched aside, so that one that hangs delays none of the others; a
page that does not come in time leaves its engine `up 0` and its series absent. An engine that is down is
a finding, not a failure of this collector; a credential that cannot be read is.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, field_validator

from agent.base import statefile
from agent.base.aside import wait_all
from agent.base.catalogue import Sample
from agent.base.catalogue.self import PARSE_ERRORS
from agent.base.collector import Context, PartialFailure, Settings, register
from agent.base.config import Duration
from agent.base.drillfile import boot_id
from agent.gpu.node import SHARED, GpuNode
from agent.inference.engine import Engine, GpuProcess
from agent.inference.process import Process
from agent.inference.settings import EngineSettings
from agent.node.lent import LLM_USAGE, Usage

NAME = "inference"


class InferenceSettings(Settings):
    engines: list[EngineSettings] = Field(default_factory=list, description="The engines of this node.")
    patience: Duration = Field(default=0.5, gt=0, description="How long a run waits for slow engines at most.")
    proc: Path = Field(default=Path("/proc"), description="Root of the process tree.")

    @field_validator("engines")
    @classmethod
    def _unique(cls, engines: list[EngineSettings]) -> list[EngineSettings]:
        names = [engine.name for engine in engines]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"engine names must be unique, given twice: {', '.join(sorted(twice))}")
        return engines


@register(NAME, InferenceSettings)
class Inference:
    """Engine pages in one vocabulary, health, streaming probes, model-load time."""

    def __init__(self, settings: InferenceSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._engines = [Engine(one, settings.proc, self._gpu_processes) for one in settings.engines]
        self._first = True
        context.shared[LLM_USAGE] = self.usage
        self._state = Path(context.state_dir) / "inference.json"
        self._boot_id = boot_id(settings.proc)
        self._stored = self._restore()

    def collect(self) -> Iterable[Sample]:
        for engine in self._engines:
            engine.kick()
        wait_all([aside for engine in self._engines for aside in engine.asides], self._wait())
        gpus = self._gpu_processes()
        problems: list[str] = []
        for engine in self._engines:
            yield from engine.samples()
            yield from engine.placement(gpus)
            yield PARSE_ERRORS.sample(engine.parse_errors, NAME, engine.name)
            problems += engine.problems()
        self._save()
        if problems:
            raise PartialFailure("configuration", "; ".join(problems))

    def _wait(self) -> float:
        """The first run waits as long as an engine may take, so that `agent once` sees them all."""
        if not self._first:
            return self._settings.patience
        self._first = False
        longest = max((max(one.timeout, one.health_timeout) for one in self._settings.engines), default=0.0)
        return min(longest + 0.2, 0.8 * self._settings.deadline)

    def _gpu_processes(self) -> list[GpuProcess]:
        """Compute processes as the gpu collector knows them; none where it does not run."""
        node: GpuNode | None = self._context.shared.get(SHARED)
        if node is None or node.inventory is None:
            return []
        return [
            (pid, node.inventory.label(uuid), uuid, node.label)
            for uuid, rows in node.client.processes().items()
            for pid, _ in rows
        ]

    def _restore(self) -> dict[str, object]:
        """Load times that an agent before this one measured; they hold for this boot."""
        stored = statefile.load(self._state)
        found = stored.get("engines") if stored.get("boot_id") == self._boot_id else None
        engines = found if isinstance(found, dict) else {}
        for engine in self._engines:
            match engines.get(engine.name):
                case {"pid": int(pid), "started": int() | float() as started, "seconds": int() | float() as seconds}:
                    engine.load.restore(Process(pid, float(started)), float(seconds))
        return engines

    def _save(self) -> None:
        found: dict[str, object] = {}
        for engine in self._engines:
            if engine.load.measured is not None:
                timed, seconds = engine.load.measured
                found[engine.name] = {"pid": timed.pid, "started": timed.started, "seconds": seconds}
        if found and found != self._stored:
            self._stored = found
            statefile.save(self._state, {"boot_id": self._boot_id, "engines": found}, sync=False)

    def usage(self) -> list[Usage]:
        """Lent to the energy collector."""
        gpus = self._gpu_processes()
        return [engine.usage(gpus) for engine in self._engines]

    def close(self) -> None:
        if self._context.shared.get(LLM_USAGE) == self.usage:
            del self._context.shared[LLM_USAGE]
        for engine in self._engines:
            engine.close()
