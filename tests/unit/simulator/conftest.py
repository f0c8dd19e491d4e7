"""Fixtures: a world, and nvidia-ml-py of its own that lives in it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pynvml
import pytest

from chaos.simulator.build import LIBRARY, build
from chaos.simulator.world import STATE_VARIABLE, World

START = 1_700_000_000.0  # a moment in the steps of a training cycle; any will do


def private_pynvml(library: Path) -> ModuleType:
    """A copy of nvidia-ml-py bound to `library`, whatever other tests do with theirs."""
    assert pynvml.__file__ is not None
    name = f"pynvml_on_{abs(hash(library))}"
    spec = importlib.util.spec_from_file_location(name, pynvml.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    module.nvmlLib = ctypes.CDLL(str(library))  # type: ignore[attr-defined]
    return module


@pytest.fixture(scope="session")
def library() -> Path:
    return build()


@pytest.fixture(scope="session")
def bound(library: Path) -> ModuleType:
    return private_pynvml(library / LIBRARY)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    """Creates worlds; by default one H100 with its clock frozen, which the environment then names."""
    made: list[World] = []

    def create(**options: Any) -> World:
        path = tmp_path / f"state{len(made)}"
        world = World.create(path, **{"gpus": 1, "speed": 0.0, "start": START, "seed": 7, **options})
        made.append(world)
        monkeypatch.setenv(STATE_VARIABLE, str(path))
        return world

    yield create
    for world in made:
        if world.is_open:  # no thread of a test may go on hanging
            world.clear()
            world.close()


@pytest.fixture
def nvml(bound: ModuleType) -> Iterator[Callable[[], ModuleType]]:
    """Initialises nvidia-ml-py in the world that the environment names; shuts it down afterwards."""
    started = 0

    def start() -> ModuleType:
        nonlocal started
        bound.nvmlInit()
        started += 1
        return bound

    yield start
    for _ in range(started):
        try:
            bound.nvmlShutdown()
        except bound.NVMLError_Uninitialized:
            break


@pytest.fixture
def in_world(library: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command, as a user would, on the simulator."""

    def run(*command: str, state: Path, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        world = {"LD_LIBRARY_PATH": str(library), STATE_VARIABLE: str(state)}
        return subprocess.run(
            command, env={**os.environ, **world, **env}, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


class Node:
    """Two H100 in training, five minutes after their start: the first gets the faults, the second stays well."""

    def __init__(self, world: World, nv: ModuleType) -> None:
        self.world, self.nv = world, nv
        self.gpu, self.other = (nv.nvmlDeviceGetHandleByIndex(index) for index in range(2))

    def code(self, name: str, *arguments: Any, gpu: Any = None) -> int:
        try:
            getattr(self.nv, name)(self.gpu if gpu is None else gpu, *arguments)
        except self.nv.NVMLError as error:
            return int(error.value)
        return 0

    def codes(self, gpu: Any) -> dict[str, int]:
        return {name: self.code(name, *arguments, gpu=gpu) for name, arguments in GETTERS.items()}

    def field(self, number: int, scope: int = 0) -> int:
        (entry,) = self.nv.nvmlDeviceGetFieldValues(self.gpu, [(number, scope)])
        assert entry.nvmlReturn == 0
        return int(entry.value.ullVal)

    def readings(self, gpu: Any) -> list[Any]:
        nv = self.nv
        return [
            nv.nvmlDeviceGetPowerUsage(gpu),
            nv.nvmlDeviceGetTemperature(gpu, 0),
            nv.nvmlDeviceGetClockInfo(gpu, 1),
            nv.nvmlDeviceGetTotalEnergyConsumption(gpu),
            nv.nvmlDeviceGetMemoryInfo(gpu).used,
            nv.nvmlDeviceGetUtilizationRates(gpu).gpu,
            [entry.value.ullVal for entry in nv.nvmlDeviceGetFieldValues(gpu, list(range(1, 308)))],
        ]


GETTERS: dict[str, tuple[Any, ...]] = {
    "nvmlDeviceGetUUID": (),
    "nvmlDeviceGetName": (),
    "nvmlDeviceGetMemoryInfo": (),
    "nvmlDeviceGetUtilizationRates": (),
    "nvmlDeviceGetPowerUsage": (),
    "nvmlDeviceGetTemperature": (0,),
    "nvmlDeviceGetClockInfo": (1,),
    "nvmlDeviceGetTotalEccErrors": (0, 0),
    "nvmlDeviceGetCurrPcieLinkWidth": (),
    "nvmlDeviceGetNvLinkState": (0,),
    "nvmlDeviceGetFieldValues": ([83],),
    "nvmlDeviceGetComputeRunningProcesses": (),
    "nvmlGpmQueryDeviceSupport": (),
    "nvmlDeviceGetSupportedEventTypes": (),
    "nvmlDeviceGetMigMode": (),
}


@pytest.fixture
def node(make: Callable[..., World], nvml: Callable[[], ModuleType]) -> Node:
    world = make(profile="h100", gpus=2)
    world.step(300)
    return Node(world, nvml())
