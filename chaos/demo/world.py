"""The demo's GPUs: eight simulated H100, one serving the LLM engine, the others the training job."""

from __future__ import annotations

import shutil
from pathlib import Path

from chaos.demo.configs import ENGINE_GPU, GPUS
from chaos.demo.layout import Layout
from chaos.simulator.build import build
from chaos.simulator.world import World

GIB = 1 << 30
PLACES = {
    # part: (GPUs its process is on, memory it holds on each)
    "engine": ((ENGINE_GPU,), 60 * GIB),
    "training": (tuple(gpu for gpu in range(GPUS) if gpu != ENGINE_GPU), 70 * GIB),
}


def make(layout: Layout) -> Path:
    """Compile the simulator if need be and make its world; returns the directory of the demo's own copy.

    Raises:
        VigilError: no compiler, or it failed.
    """
    library = layout.root / "simulator"
    shutil.copytree(build(), library, dirs_exist_ok=True)  # a build during the run must not pull it away
    layout.kmsg.touch()
    with World.create(layout.world, profile="h100", gpus=GPUS, workload="training", replace=True) as world:
        world.set_workload("inference", ENGINE_GPU)
    return library


def place(layout: Layout, part: str, pid: int) -> None:
    """Show a part's real process on its simulated GPUs."""
    gpus, memory = PLACES.get(part, ((), 0))
    with World.open(layout.world) as world:
        for gpu in gpus:
            world.set_process(gpu, pid, memory)


def remove(layout: Layout, part: str, pid: int) -> None:
    """Take a dead process off its GPUs, as the driver would."""
    gpus, _ = PLACES.get(part, ((), 0))
    with World.open(layout.world) as world:
        for gpu in gpus:
            world.remove_process(gpu, pid)


def engine_gpu_lost(layout: Layout) -> bool:
    """Whether the engine's GPU is lost now."""
    with World.open(layout.world) as world:
        return any(fault.kind == "gpu_lost" and fault.gpu == ENGINE_GPU for fault in world.faults())
