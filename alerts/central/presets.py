"""Monitors and capacity forecasts for the whole catalogue, so that a newcomer writes none.

`presets: [gpu, inference, node, training]` names what is wanted; a file without any monitor or resource has them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.base.catalogue import Metric, gpu, llm, node, train
from alerts.detect.bands import Direction

if TYPE_CHECKING:
    from alerts.central.settings import Capacity, Monitor, Settings

NAMES = ("gpu", "inference", "node", "training")


def monitors_of(settings: Settings) -> tuple[Monitor, ...]:
    """The monitors of the presets asked for, less those of a name that the user has given."""
    return tuple(made for name in _wanted(settings) for made in _MONITORS[name]() if made.name not in _taken(settings))


def resources_of(settings: Settings) -> tuple[Capacity, ...]:
    """The capacity forecasts of the presets asked for, less those of a name that the user has given."""
    return tuple(made for name in _wanted(settings) for made in _RESOURCES[name]() if made.name not in _taken(settings))


def _wanted(settings: Settings) -> tuple[str, ...]:
    if settings.presets is not None:
        return settings.presets
    return () if settings.monitors or settings.capacity else NAMES


def _taken(settings: Settings) -> set[str]:
    return {monitor.name for monitor in settings.monitors} | {resource.name for resource in settings.capacity}


def _resource(name: str, query: str) -> Capacity:
    from alerts.central.settings import Capacity

    return Capacity.model_validate({"name": name, "query": query})


def _monitor(name: str, query: str, direction: Direction, min_dev_abs: float, **more: Any) -> Monitor:
    from alerts.central.settings import Monitor

    values: dict[str, Any] = {"model": "prophet_batched", "step": "5m", "fit_window": "14d", "fit_every": "6h"}
    values |= {"min_history": "2d", "direction": direction, "min_dev_abs": min_dev_abs, "min_dev_rel": 0.1}
    return Monitor.model_validate({"name": name, "query": query} | values | more)


def _average(metric: Metric, by: str) -> str:
    """Five-minute means, so that one sample does not stand for all; by labels that outlive restarts."""
    return f"avg by ({by}) (avg_over_time({metric.name}[5m]))"


def _quantile(metric: Metric, q: float, by: str) -> str:
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({metric.stem}_bucket[5m])))"


def _gpu() -> list[Monitor]:
    by = "cluster, node, gpu, uuid, synthetic"
    share = {"data_range": [0, 1], "min_dev_rel": 0.0}
    return [
        _monitor("gpu-utilization", _average(gpu.UTILIZATION, by), "both", 0.05, **share),
        _monitor("gpu-memory-used", _average(gpu.MEMORY_USED, by), "above", 1e9),
        _monitor("gpu-temperature", _average(gpu.TEMPERATURE, f"{by}, sensor"), "above", 3.0, min_dev_rel=0.0),
        _monitor("gpu-power", _average(gpu.POWER, by), "both", 35.0),
    ]


def _inference() -> list[Monitor]:
    by = "cluster, node, engine, model"
    return [
        _monitor("ttft-p95", _quantile(llm.TTFT, 0.95, by), "above", 0.05, model="robust"),
        _monitor("inter-token-p95", _quantile(llm.INTER_TOKEN, 0.95, by), "above", 0.005, model="robust"),
        _monitor("e2e-p95", _quantile(llm.E2E, 0.95, by), "above", 0.25, model="robust"),
        _monitor("requests-waiting", _average(llm.WAITING, by), "above", 5.0, model="robust"),
        _monitor("kv-cache-usage", _average(llm.KV_CACHE, by), "above", 0.05, data_range=[0, 1]),
        _monitor(
            "generated-tokens", f"sum by ({by}) (rate({llm.GENERATED_TOKENS.name}[5m]))", "both", 1.0, model="robust"
        ),
    ]


def _node() -> list[Monitor]:
    by = "cluster, node"
    network = by + ", device"
    return [
        _monitor("cpu-utilization", _average(node.CPU_UTILIZATION, by), "above", 0.05, data_range=[0, 1]),
        _monitor("memory-available", _average(node.MEMORY_AVAILABLE, by), "below", 1e9),
        _monitor(
            "network-received", f"sum by ({network}) (rate({node.NET_RECEIVED.name}[5m]))", "both", 1e7, model="robust"
        ),
    ]


def _training() -> list[Monitor]:
    by = "cluster, node, job_id"
    return [
        _monitor("step-time", _average(train.STEP_SECONDS, by), "above", 0.0, model="robust", min_history="4h"),
    ]


def _disk() -> list[Capacity]:
    real = 'fstype!~"tmpfs|ramfs|overlay|squashfs|devtmpfs"'
    return [_resource("disk", f"1 - {node.FS_AVAIL.name}{{{real}}} / {node.FS_SIZE.name}{{{real}}}")]


def _gpu_resources() -> list[Capacity]:
    by = "cluster, node, gpu, uuid, synthetic"
    used = f"max by ({by}) (max_over_time({gpu.MEMORY_USED.name}[1h]))"
    power = f"sum by (cluster, node, synthetic) (avg_over_time({gpu.POWER.name}[1h]))"
    return [
        _resource("gpu-memory", f"{used} / max by ({by}) ({gpu.MEMORY_TOTAL.name})"),
        _resource("power-budget", f"{power} / sum by (cluster, node, synthetic) ({gpu.POWER_LIMIT.name})"),
    ]


def _inference_resources() -> list[Capacity]:
    by = "cluster, node, engine, model"
    rate = f"sum by ({by}) (rate({llm.GENERATED_TOKENS.name}[5m]))"
    queued = f"sum by ({by}) (avg_over_time({llm.WAITING.name}[5m])) >= 1"
    return [
        _resource("kv-cache", f"max by ({by}) (max_over_time({llm.KV_CACHE.name}[1h]))"),
        # What an engine can do is known from when requests waited: until it has, no forecast is made.
        _resource("request-load", f"max_over_time(({rate})[1h:5m]) / max_over_time(({rate} and {queued})[14d:1h])"),
    ]


_MONITORS = {"gpu": _gpu, "inference": _inference, "node": _node, "training": _training}
_RESOURCES = {"gpu": _gpu_resources, "inference": _inference_resources, "node": _disk, "training": list}
