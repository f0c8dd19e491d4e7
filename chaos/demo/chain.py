"""Is the whole chain alive? Asked once everything runs, before anything is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

from agent.base.catalogue import Metric, gpu, llm, train
from chaos import measure
from chaos.demo import configs
from chaos.demo.configs import local

PATIENCE = 60.0


def looks(ports: dict[str, int], up: set[str], simulated: bool) -> dict[str, measure.Look]:
    """What must be true, by a name for people; only what the parts that are up can show."""
    agent = measure.Agent(local(ports["agent"]))
    prometheus = measure.Prometheus(local(ports["prometheus"]))
    found: dict[str, measure.Look] = {}

    def exported(metric: Metric, part: str = "", **labels: str) -> Callable[[], bool]:
        name = f"{metric.stem}_{part}" if part else metric.name
        return lambda: bool(agent.value(name, labels))

    if "agent" in up and simulated:
        found["GPUs read through NVML"] = lambda: all(
            agent.value(gpu.UP.name, {"gpu": str(i)}) == 1 for i in range(configs.GPUS)
        )
    if {"agent", "engine"} <= up:
        found["time to first token measured by the probe"] = exported(llm.TTFT, "count", engine=configs.ENGINE)
    if {"agent", "training"} <= up:
        found["training loss read from the log"] = exported(train.LOSS, job_id=configs.JOB)
    if {"agent", "prometheus"} <= up:
        found["agent scraped by Prometheus"] = lambda: bool(prometheus.query('up{job="gpuvigil-agent"} == 1'))
    if {"central", "prometheus"} <= up:
        found["central scraped by Prometheus"] = lambda: bool(prometheus.query('up{job="gpuvigil-central"} == 1'))
    if {"prometheus", "alertmanager"} <= up:
        found["Alertmanager known to Prometheus"] = prometheus.has_alertmanager
    if {"agent", "prometheus"} <= up:
        found["nothing pages"] = lambda: not prometheus.paging()
    return found


def check(
    ports: dict[str, int],
    up: set[str],
    simulated: bool,
    stopped: Callable[[], str | None],
    seen: Callable[[str, float], None],
) -> dict[str, bool]:
    """Wait for every link; whether each was seen. `seen` is told at once."""
    asked = looks(ports, up, simulated)
    marks = measure.watch(asked, PATIENCE, stopped, seen)
    return {name: name in marks for name in asked}
