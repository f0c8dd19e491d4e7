"""Energy and cost of the node: joules across restarts, PUE, greenhouse gases, joules a token and a step.

The node's energy is that of a meter of the whole machine (its power, integrated) where the chassis
collector has one, else the sum of GPUs and CPU packages, and says which. GPU counters and RAPL go on while the
agent is down; a meter's power in that time is not known and not counted.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pydantic import Field, model_validator

from agent.base.catalogue import Sample
from agent.base.catalogue import energy as m
from agent.base.collector import Context, PartialFailure, Settings, register
from agent.base.config import Duration, Model
from agent.base.drillfile import boot_id
from agent.gpu.node import SHARED as GPU
from agent.gpu.node import GpuNode
from agent.node import rapl
from agent.node.ledger import Ledger
from agent.node.lent import CHASSIS_POWER, LLM_USAGE, TRAIN_PROGRESS, Reached, Usage

SAVE_EVERY = 60.0
GAP = 3
"""Longest time between two runs, in periods, over which a meter's power is taken as constant."""
JOULES_PER_KWH = 3.6e6


class Facility(Model):
    """Where PUE and prices come from."""

    pue: float | None = Field(
        default=None, ge=1, le=10, description="Power usage effectiveness, if it is not measured."
    )
    pue_file: Path | None = Field(
        default=None, description="File with facility_watts=N and it_watts=N lines, kept by the site's metering."
    )
    pue_file_age: Duration = Field(default=900.0, gt=0, description="An older file counts as no measurement.")
    grid_grams_per_kwh: float | None = Field(
        default=None, ge=0, description="Greenhouse gases of the grid, g CO2e a kWh."
    )
    price_per_kwh: float | None = Field(default=None, ge=0, description="Price of a kWh.")
    currency: str = Field(default="EUR", pattern="^[A-Z]{3}$", description="Its currency, in three letters.")

    @model_validator(mode="after")
    def _counted(self) -> Facility:
        if (self.grid_grams_per_kwh, self.price_per_kwh) != (None, None) and (self.pue, self.pue_file) == (None, None):
            raise ValueError("gases and price are those of the facility's energy: give pue (1 counts the node alone)")
        return self


class EnergySettings(Settings):
    sys: Path = Field(default=Path("/sys"), description="Root of sysfs.")
    proc: Path = Field(default=Path("/proc"), description="Root of the process tree.")
    window: Duration = Field(default=300.0, gt=0, description="Time over which joules a token and a step are taken.")
    facility: Facility = Field(default_factory=Facility, description="PUE, grid factor, price.")


class Window:
    """Joules against a count over the last minutes."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._points: deque[tuple[float, float, float]] = deque()

    def rate(self, now: float, joules: float, count: float) -> float | None:
        """Joules for one more of the count, or None where there was none; a count that falls starts anew."""
        if self._points and count < self._points[-1][2]:
            self._points.clear()
        self._points.append((now, joules, count))
        while now - self._points[0][0] > self._seconds:
            self._points.popleft()
        _, first_joules, first_count = self._points[0]
        return (joules - first_joules) / (count - first_count) if count > first_count else None


@register("energy", EnergySettings)
class Energy:
    """Energy and cost of node, engines and training."""

    def __init__(self, settings: EnergySettings, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._context = context
        self._clock = clock
        self._ledger = Ledger(Path(context.state_dir) / "energy.json", boot_id(settings.proc))
        self._last: float | None = None
        self._saved = clock()
        self._windows: dict[tuple[str, str], Window] = {}

    def collect(self) -> Iterable[Sample]:
        now, node = self._clock(), self._gpu_node()
        gpus = self._gpu_steps(node)
        parts = list(gpus.values())
        for zone in rapl.zones(self._settings.sys):
            step = self._ledger.step(f"rapl/{zone.name}", zone.joules, zone.range)
            parts.append(step)
            yield m.CPU.sample(self._ledger.add(f"cpu/{zone.name}", step), zone.name)
        # Of simulated GPUs everything that follows is simulated too.
        synthetic = node.label if node and gpus else ""
        source, step = self._node_step(now, parts)
        self._last = now
        if source:
            total = self._ledger.add(_key("node", source, synthetic), step)
            yield m.NODE.sample(total, source, synthetic)
            yield from self._per_step(now, total, synthetic)
        yield from self._engines(now, gpus, synthetic)
        if now - self._saved >= SAVE_EVERY:
            self._saved = now
            self._ledger.save()
        if source:
            yield from self._facility(step, synthetic)

    def close(self) -> None:
        self._ledger.save()

    def _gpu_node(self) -> GpuNode | None:
        node: GpuNode | None = self._context.shared.get(GPU)
        return node

    def _gpu_steps(self, node: GpuNode | None) -> dict[str, float]:
        """Joules of each GPU since the last run, from the gpu collector's accumulated counters."""
        totals = node.counters.dump() if node else {}
        return {
            key.removeprefix("energy/"): self._ledger.step(_key("gpu", key, node.label if node else ""), pair[1])
            for key, pair in totals.items()
            if key.startswith("energy/")
        }

    def _node_step(self, now: float, parts: list[float]) -> tuple[str, float]:
        """Whose word it is (meter, parts or nobody's) and the joules since the last run."""
        watts: float | None = self._context.shared.get(CHASSIS_POWER)
        if watts is not None:
            passed = now - self._last if self._last is not None else 0.0
            return "meter", watts * passed if passed <= GAP * self._settings.period else 0.0
        return ("parts", sum(parts)) if parts else ("", 0.0)

    def _facility(self, step: float, synthetic: str) -> Iterator[Sample]:
        """What the facility spends; a file that is damaged (caught half-written) leaves the configured PUE in force."""
        facility = self._settings.facility
        damaged: PartialFailure | None = None
        try:
            pue, source = measured(facility), "measured"
        except PartialFailure as error:
            pue, damaged = None, error
        if pue is None:
            pue, source = facility.pue, "configured"
        if pue is not None:
            yield from self._spent(step, pue, source, synthetic)
        if damaged is not None:
            raise damaged

    def _spent(self, step: float, pue: float, source: str, synthetic: str) -> Iterator[Sample]:
        facility = self._settings.facility
        yield m.PUE.sample(pue, source)
        yield m.FACILITY.sample(self._ledger.add(_key("facility", "", synthetic), step * pue), synthetic)
        kwh = step * pue / JOULES_PER_KWH
        if facility.grid_grams_per_kwh is not None:
            total = self._ledger.add(_key("co2e", "", synthetic), kwh * facility.grid_grams_per_kwh)
            yield m.CO2E.sample(total, synthetic)
        if facility.price_per_kwh is not None:
            total = self._ledger.add(_key("cost", facility.currency, synthetic), kwh * facility.price_per_kwh)
            yield m.COST.sample(total, facility.currency, synthetic)

    def _engines(self, now: float, gpus: dict[str, float], synthetic: str) -> Iterator[Sample]:
        """Each engine's share of its GPUs' energy, and that by its tokens."""
        usage: Callable[[], list[Usage]] | None = self._context.shared.get(LLM_USAGE)
        engines = usage() if usage and gpus else []
        sharers = Counter(uuid for _, _, _, held in engines for uuid in held)
        for engine, model, tokens, held in engines:
            if not held:
                continue
            step = sum(gpus.get(uuid, 0.0) / sharers[uuid] for uuid in held)
            total = self._ledger.add(_key("llm", f"{engine}/{model}", synthetic), step)
            yield m.ENGINE.sample(total, engine, model, synthetic)
            each = self._window("llm", engine).rate(now, total, tokens) if tokens is not None else None
            if each is not None:
                yield m.PER_1000_TOKENS.sample(1000 * each, engine, model, synthetic)

    def _per_step(self, now: float, total: float, synthetic: str) -> Iterator[Sample]:
        """The node's energy for a step of the one job that trains here."""
        progress: Callable[[], dict[str, Reached]] | None = self._context.shared.get(TRAIN_PROGRESS)
        jobs = {job: reached.step for job, reached in progress().items() if reached.running} if progress else {}
        if len(jobs) != 1:
            return
        ((job, step),) = jobs.items()
        each = self._window("train", job).rate(now, total, step)
        if each is not None:
            yield m.PER_STEP.sample(each, job, synthetic)

    def _window(self, kind: str, name: str) -> Window:
        return self._windows.setdefault((kind, name), Window(self._settings.window))


def _key(kind: str, name: str, synthetic: str) -> str:
    return f"{'simulated-' if synthetic else ''}{kind}/{name}"


def measured(facility: Facility, now: Callable[[], float] = time.time) -> float | None:
    """Facility power by IT power from the site's file; None where there is none that is fresh and sane.

    Raises:
        PartialFailure: the file holds something else.
    """
    path = facility.pue_file
    if path is None:
        return None
    try:
        text, written = path.read_text(encoding="utf-8", errors="replace"), path.stat().st_mtime
    except OSError:
        return None
    if now() - written > facility.pue_file_age:
        return None
    found = {
        name.strip(): value for name, equals, value in (line.partition("=") for line in text.splitlines()) if equals
    }
    try:
        pue = float(found["facility_watts"]) / float(found["it_watts"])
    except (KeyError, ValueError, ZeroDivisionError):
        raise PartialFailure(
            "pue_file", f"{path}: must hold the lines facility_watts=N and it_watts=N, in watts"
        ) from None
    return pue if 1 <= pue <= 10 else None
