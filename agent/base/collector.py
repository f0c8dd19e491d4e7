"""The contract between the runner and a collector, and the register of collectors.

A collector reads and yields. It never sleeps, catches broad errors, logs in a loop or keeps time:
the runner owns period, deadline, thread, success, duration and last-success time.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

from pydantic import Field

from agent.base.catalogue import Sample, Table
from agent.base.config import Duration, Model


class Settings(Model):
    """Settings every collector has; each adds its own. Roots and URLs are settings, for tests."""

    enabled: bool = Field(default=True, description="Run this collector.")
    period: Duration = Field(default=15.0, gt=0, description="Time between two runs.")
    deadline: Duration = Field(default=10.0, gt=0, description="A run longer than this is late; its series go.")


@dataclass(slots=True)
class Context:
    """What the process gives each collector besides its settings.

    `state_dir` is a folder the agent may write (persisted baselines and cursors); `run_dir` holds
    drill.json; `node` and `cluster` are the names used by direct posts.
    """

    state_dir: str
    run_dir: str
    node: str = ""
    cluster: str = ""
    shared: dict[str, Any] = field(default_factory=dict)
    """Things one collector lends another, e.g. the NVML client: the lender registers by name."""


class Collector(Protocol):
    """One source. `collect` yields samples whose metrics are in the catalogue, one by one or by the table.

    A partial failure is reported by yielding what is known and raising `PartialFailure` last;
    any exception marks the run failed, and the samples yielded before it are kept.
    """

    def collect(self) -> Iterable[Sample | Table]: ...

    def close(self) -> None: ...


class PartialFailure(Exception):
    """Some of the sources did not answer; `reason` is one short word for the error counter."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Kind:
    """A registered collector: its name, settings model, factory and one-line summary."""

    name: str
    settings: type[Settings]
    build: Callable[[Any, Context], Collector]
    summary: str


REGISTER: dict[str, Kind] = {}


def register(
    name: str, settings: type[Settings]
) -> Callable[[Callable[[Any, Context], Collector]], Callable[[Any, Context], Collector]]:
    """Declare a collector: `@register("host", HostSettings)` above its class or factory."""

    def add(build: Callable[[Any, Context], Collector]) -> Callable[[Any, Context], Collector]:
        if name in REGISTER:
            raise ValueError(f"collector {name!r} is registered twice")
        summary = (build.__doc__ or "").strip().partition("\n")[0]
        REGISTER[name] = Kind(name, settings, build, summary)
        return build

    return add


def discover(package: ModuleType) -> dict[str, Kind]:
    """Import every module of `package` so that its collectors register; returns the register."""
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return REGISTER
