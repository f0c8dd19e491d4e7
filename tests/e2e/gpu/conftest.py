"""A simulated node with the gpu and xid collectors on it, through the real library path and child process."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.base.catalogue import load_all
from agent.base.collector import Context, PartialFailure
from agent.collectors.gpu import Gpu, GpuSettings
from agent.collectors.health import Health, HealthSettings
from agent.collectors.xid import XidCollector, XidSettings
from agent.intake import Intake
from chaos.simulator.build import LIBRARY, build
from chaos.simulator.world import OVERLAY_VARIABLE, REAL_VARIABLE, STATE_VARIABLE, World

FAST = {"interval": "200ms", "retry_lost": "500ms", "call_deadline": "1s", "open_deadline": "3s"}
PATIENCE = 30.0
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Page:
    """What one collection gave: series by name and labels, and the reason it was not whole."""

    def __init__(self, series: Series, failed: str) -> None:
        self.series, self.failed = series, failed

    def all(self, name: str, **labels: str) -> dict[frozenset[tuple[str, str]], float]:
        wanted = set(labels.items())
        return {key: value for (found, key), value in self.series.items() if found == name and wanted <= key}

    def one(self, name: str, **labels: str) -> float | None:
        values = list(self.all(name, **labels).values())
        assert len(values) <= 1, (name, labels, values)
        return values[0] if values else None

    def up(self) -> dict[str, float]:
        return {dict(key)["gpu"]: value for key, value in self.all("gpuvigil_gpu_up").items()}


class Node:
    """The world and the agent's two collectors; `restart` gives the agent a new life on the same state."""

    def __init__(self, folder: Path, world: World | None, **settings: Any) -> None:
        self.folder, self.world = folder, world
        self.settings = {**FAST, **settings}
        self.kmsg = folder / "kmsg"
        self.kmsg.touch()
        self.start()

    def start(self) -> None:
        self.context = Context(str(self.folder / "state"), str(self.folder))
        self.gpu = Gpu(GpuSettings.model_validate(self.settings), self.context)
        self.xid = XidCollector(XidSettings(kmsg=self.kmsg), self.context)
        self.health = Health(HealthSettings(), self.context)
        self.running = True

    def stop(self) -> None:
        if not self.running:
            return
        self.running = False
        self.health.close()
        self.xid.close()
        self.gpu.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def page(self) -> Page:
        """Collect once; a sample outside the catalogue or twice on the page fails the test."""
        intake, failed = Intake(strict=True), ""
        intake.begin()
        for collector in (self.gpu, self.xid, self.health):
            try:
                intake.take(collector.collect())
            except PartialFailure as failure:
                failed = failed or failure.reason
        series: Series = {}
        for family in intake.end().values():
            for start, value in family.lines.items():
                name, _, rest = start.partition("{")
                series[name.strip(), frozenset(_LABEL.findall(rest))] = value
        return Page(series, failed)

    def until(self, seen: Callable[[Page], object]) -> Page:
        """Collect until the page shows it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            page = self.page()
            if seen(page):
                return page
            assert time.monotonic() < deadline, (page.failed, sorted(page.series, key=str)[:20], page.up())
            time.sleep(0.1)

    def until_whole(self, gpus: int = 8) -> Page:
        return self.until(
            lambda page: list(page.up().values()) == [1.0] * gpus and len(page.all("gpuvigil_gpu_power_watts")) == gpus
        )


MakeNode = Callable[..., Node]


@pytest.fixture(scope="session", autouse=True)
def catalogue() -> None:
    load_all()


@pytest.fixture(scope="session")
def disguised(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the simulator without its mark, which nobody can tell from a driver's library, and its overlay.

    That overlay is built apart: the usual folder holds the one for the simulator as it is, which others use meanwhile.
    """
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("the simulator is built from C and no compiler is here")
    folder = tmp_path_factory.mktemp("disguised")
    library = folder / LIBRARY
    library.write_bytes((build() / LIBRARY).read_bytes().replace(b"\0gpuvigil_sim\0", b"\0gpuvigil_not\0"))
    return library, build("overlay", real=library, into=folder)


class OverlaidNode(Node):
    """The agent on the overlay, on a "driver" whose GPUs are real for all it can see; `sys` is its PCI bus."""

    def __init__(self, folder: Path, real: World, overlay: World) -> None:
        self.real, self.sys = real, folder / "sys"
        for gpu in real.gpus:
            place = self.bus(gpu.index)
            place.mkdir(parents=True)
            (place / "vendor").write_text("0x10de\n")
            (place / "class").write_text("0x030200\n")
        super().__init__(folder, overlay, sys=str(self.sys))

    def bus(self, gpu: int) -> Path:
        return self.sys / "bus/pci/devices" / self.real.gpus[gpu].bus_id.lower()


@pytest.fixture
def overlaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disguised: tuple[Path, Path]) -> Iterator[OverlaidNode]:
    library, overlay_folder = disguised
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "real.state"))
    real = World.create(tmp_path / "real.state", gpus=2)
    overlay = World.create_overlay(tmp_path / "overlay.state", library)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(overlay_folder))
    monkeypatch.setenv(REAL_VARIABLE, str(library))
    monkeypatch.setenv(OVERLAY_VARIABLE, str(tmp_path / "overlay.state"))
    node = OverlaidNode(tmp_path, real, overlay)
    yield node
    node.stop()
    overlay.close()
    real.close()


@pytest.fixture
def make_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeNode]:
    """Makes a node; `world=` gives World.create's arguments, `setup=` acts on the world before the agent starts."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("the simulator is built from C and no compiler is here")
    state = tmp_path / "sim.state"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build()))
    monkeypatch.setenv("GPUVIGIL_SIM_STATE", str(state))
    made: list[Node] = []

    def make(
        world: dict[str, Any] | None = None, setup: Callable[[World], object] | None = None, **settings: Any
    ) -> Node:
        created = World.create(state, **(world or {}))
        if setup:
            setup(created)
        made.append(Node(tmp_path, created, **settings))
        return made[-1]

    yield make
    for node in made:
        node.stop()
        assert node.world is not None
        node.world.close()
