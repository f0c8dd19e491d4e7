"""The demo's GPUs: eight simulated H100, with the LLM server's process on one of them."""

from __future__ import annotations

from pathlib import Path

from chaos.demo.configs import ENGINE_GPU, GPUS
from chaos.demo.layout import Layout
from chaos.simulator.build import build
from chaos.simulator.world import World


def make(layout: Layout) -> Path:
    """Compile the simulator if need be and make its world; returns the library's directory.

    Raises:
        VigilError: no compiler, or it failed.
    """
    library = build()
    layout.kmsg.touch()
    World.create(layout.world, gpus=GPUS).close()
    return library


def place_engine(layout: Layout, pid: int) -> None:
    """Show `pid` as the one compute process on the engine's GPU."""
    with World.open(layout.world) as world:
        for fault in world.faults():
            if fault.kind == "process" and fault.gpu == ENGINE_GPU:
                world.clear(fault.id)
        world.set("process", ENGINE_GPU, pid=pid)


def engine_gpu_lost(layout: Layout) -> bool:
    """Whether the engine's GPU is lost now."""
    with World.open(layout.world) as world:
        return any(fault.kind == "gpu_lost" and fault.gpu == ENGINE_GPU for fault in world.faults())
