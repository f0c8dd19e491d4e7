"""Brings the parts up, watches over them, and takes them down; nothing else is ever stopped.

A part that is missing or does not come up is named, with the end of its log, and the rest goes on.
A part that dies later is named too; only the engine is started again, and only after it died with
its GPU in a drill.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.base import drillfile
from agent.base.catalogue import gpu
from agent.base.errors import VigilError
from chaos import measure
from chaos.demo import configs, parts
from chaos.demo.layout import Layout
from chaos.demo.process import Part, PartFailed, stop

READY = 60.0
"""Seconds that a part has to become ready."""
WATCH = 0.25
Say = Callable[[str], None]


@dataclass(slots=True)
class Stack:
    """The demo's parts on this machine.

    Attributes:
        lost: parts that are missing or failed, with the reason.
        library: the simulator's directory; None with the node's own driver, or without a simulator.
    """

    layout: Layout
    ports: dict[str, int]
    real: bool
    say: Say
    stopped: Callable[[], str | None]
    lost: dict[str, str] = field(default_factory=dict)
    library: Path | None = None
    parts: list[Part] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)
    _watcher: threading.Thread | None = None

    def up(self) -> None:
        """Prepare and start everything that can be started, and wait until it is ready."""
        if self.real:
            self.say("REAL: GPU values come from this node's own driver, if it has one")
        else:
            self._attempt("simulator", self._world)
        self._configure()
        for part in parts.make(self.layout, self.ports, self.library):
            if reason := parts.absent(part.name):
                self._lose(part.name, reason)
            elif part.name not in self.lost:
                self._attempt(part.name, part.start)
                if part.process is not None:
                    self.parts.append(part)
        for part in self.parts:
            self._attempt(part.name, lambda part=part: self._await(part))  # type: ignore[misc]
        if self.real and "agent" not in self.lost:
            self._attempt("gpus", self._driver_answers)
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._watcher.start()

    def down(self) -> None:
        """Stop what was started, and only that."""
        self._ending.set()
        if self._watcher is not None:
            self._watcher.join()
        for name in stop(self.parts):
            self.say(f"{name} did not stop in time and was killed")

    def urls(self) -> dict[str, str]:
        """Addresses by part, of those that are up."""
        return {part.name: part.url for part in self.parts if part.url and part.name not in self.lost}

    def pids(self) -> dict[str, int]:
        """Process ids by part, of those that live."""
        return {part.name: part.process.pid for part in self.parts if part.process is not None and part.alive}

    def _lose(self, name: str, reason: str) -> None:
        self.lost[name] = reason.partition("\n")[0]
        self.say(f"NOT UP: {name}: {reason}")

    def _attempt(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except (VigilError, OSError) as error:
            self._lose(name, str(error))

    def _world(self) -> None:
        from chaos.demo import world

        self.library = world.make(self.layout)
        self.say(f"SIMULATED: {configs.GPUS} x H100 come from gpuvigil's simulator of NVML; no GPU value here is real")

    def _configure(self) -> None:
        configs.agent(self.layout, self.ports, simulated=self.library is not None)
        configs.prometheus(self.layout, self.ports)
        configs.central(self.layout, self.ports)
        if self.library is not None:
            configs.target(self.layout, self.ports, self.library)
        links = configs.rules(self.layout, self.ports)
        rules = ["alerts", "rules", "build", "--profile", "demo", "--config", str(links)]
        routes = [
            "alerts",
            "routing",
            "build",
            "--sink",
            configs.local(self.ports["sink"]),
            "-o",
            str(self.layout.config("alertmanager")),
        ]
        self._attempt("prometheus", lambda: _command([*rules, "-o", str(self.layout.rules)]))
        self._attempt("alertmanager", lambda: _command(routes))
        if not parts.absent("engine"):
            self._attempt("engine", self._model)

    def _driver_answers(self) -> None:
        agent = measure.Agent(configs.local(self.ports["agent"]))
        if agent.value(gpu.DRIVER_UP.name, {}) != 1:
            raise PartFailed(
                "no NVIDIA driver answers on this node: `gpuvigil doctor` says why; the rest runs without GPUs"
            )

    def _model(self) -> None:
        from chaos.demo import tiny_model

        if not self.layout.model.exists():
            tiny_model.write(self.layout.model)

    def _await(self, part: Part) -> None:
        part.wait_ready(READY, self.stopped)
        self._on_gpus(part)
        if not self.stopped():
            self.say(f"{part.name} is ready" + (f"   {part.url}" if part.url else ""))

    def _on_gpus(self, part: Part) -> None:
        """Show the part's process on its simulated GPUs, or take it off them when it is dead."""
        if self.library is not None and part.process is not None:
            from chaos.demo import world

            (world.place if part.alive else world.remove)(self.layout, part.name, part.process.pid)

    def _watch(self) -> None:
        """Say who died; bring the engine back once its GPU is."""
        fallen: Part | None = None
        while not self._ending.wait(WATCH):
            for part in self.parts:
                if part.alive or part.told:
                    continue
                part.told = True
                self._on_gpus(part)
                if part.ends and part.process is not None and part.process.returncode == 0:
                    self.say(f"{part.name} has ended, as it should")
                elif part.name == "engine" and self._drilled() and self._gpu_lost():
                    fallen = part
                    self.say(f"engine {part.death()}, with its GPU in a drill; it is started again with the GPU")
                else:
                    self.say(f"DIED: {part.name} {part.death()}; the rest goes on\n{part.tail()}")
            if fallen is not None and not self._gpu_lost():
                self._attempt("engine", lambda part=fallen: self._again(part))  # type: ignore[misc]
                fallen = None

    def _again(self, part: Part) -> None:
        part.start()
        part.wait_ready(READY, lambda: "ending" if self._ending.is_set() else None)
        self._on_gpus(part)
        self.say("engine is up again")

    def _drilled(self) -> bool:
        try:
            entries = drillfile.read(self.layout.run, time.time(), drillfile.boot_id())
        except ValueError:
            return False
        return any(entry.scope == "engine" and entry.target == configs.ENGINE for entry in entries)

    def _gpu_lost(self) -> bool:
        if self.library is None:
            return False
        from chaos.demo import world

        return world.engine_gpu_lost(self.layout)


def _command(words: list[str]) -> None:
    """Run one of our own commands to its end.

    Raises:
        PartFailed: it failed; the text is what it said.
    """
    done = subprocess.run(parts.gpuvigil(*words), capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        last = said.rpartition("\n")[2]
        raise PartFailed(f"gpuvigil {' '.join(words[:3])} exited with {done.returncode}: {last}\n{said[-2000:]}")
