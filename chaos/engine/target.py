"""Where a drill may act and where it looks: one YAML file, written by the demo or by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from agent.base.config import Model


class Engine(Model):
    """An LLM server that may be hit together with its GPU."""

    name: str = Field(description="The engine's name in the agent's configuration.")
    pid_file: Path = Field(description="File with the server's process id.")


class Target(Model):
    """One node, the stations that witness what happens to it, and the drill's own files."""

    kind: Literal["simulator"] = Field(description="What stands behind NVML; only the simulator takes faults yet.")
    node: str = Field(description="The node's name in alerts.")
    sim_state: Path = Field(description="State file of the simulator.")
    sim_library: Path = Field(description="Directory of the simulator's libnvidia-ml.so.1.")
    kmsg: Path | None = Field(default=None, description="Stand-in for /dev/kmsg that the agent reads.")
    agent: str = Field(description="The agent's URL.")
    prometheus: str = Field(description="Prometheus' URL.")
    sink: str = Field(description="URL of the webhook sink that stands for people.")
    run_dir: Path = Field(description="The agent's run directory, for drill.json.")
    state_dir: Path = Field(description="Where the undo journal and the lock live.")
    engines: tuple[Engine, ...] = Field(default=(), description="LLM servers on the node.")
