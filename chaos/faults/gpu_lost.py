"""A GPU falls off the bus: it stops answering, Xid 79 is logged, its processes die with it.

Simulator only. The fault carries its own end (`duration`) in the simulator's state, so that it goes
away even if everything that injected it is killed.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
from pydantic import Field

from agent.base.config import Model
from agent.base.errors import CannotTell, UndoFailed
from chaos.engine.fault import NotInjected, Plan, Record, Refused, Touched, register
from chaos.engine.target import Engine, Target
from chaos.faults import nvml_readback
from chaos.simulator.world import World

KINDS = ("gpu_lost", "xid")


class Parameters(Model):
    gpu: int = Field(ge=0, description="Index of the GPU.")
    xid: int = Field(default=79, ge=1, description="Xid that the driver reports; 79 is fallen off the bus.")
    kill_processes: bool = Field(default=True, description="Kill the GPU's compute processes, as CUDA would.")


class GpuLost:
    parameters = Parameters
    summary = "a GPU no longer answers, Xid 79 is logged, its processes are killed"

    def plan(self, parameters: Parameters, target: Target, duration: float) -> Plan:
        index = parameters.gpu
        gpus = {gpu.index: gpu for gpu in nvml_readback.read(target.sim_library, target.sim_state)}
        gpu = gpus.get(index)
        if gpu is None or gpu.error:
            raise Refused(f"GPU {index} of {target.node}: {gpu.error if gpu else f'there are {len(gpus)} GPUs'}")
        with World.open(target.sim_state) as world:
            if present := [fault.kind for fault in world.faults() if fault.gpu == index and fault.kind in KINDS]:
                raise Refused(f"GPU {index} of {target.node} already has: {', '.join(present)}")
        victims = _alive(gpu.pids) if parameters.kill_processes else {}
        engines = [engine.name for engine in target.engines if _pid(engine) in victims]
        return Plan(
            steps=(
                f"GPU {index} ({gpu.uuid}) stops answering for at most {duration:g} s",
                f"Xid {parameters.xid} is raised as an NVML event" + (" and a kernel log line" if target.kmsg else ""),
                *(f"SIGKILL process {pid} ({name})" for pid, (name, _) in victims.items()),
            ),
            touches=(Touched("gpu", gpu.uuid), *(Touched("engine", name) for name in engines)),
            labels={"uuid": gpu.uuid},
            undo={
                "state": str(target.sim_state),
                "library": str(target.sim_library),
                "kmsg": str(target.kmsg) if target.kmsg else None,
                "gpu": index,
                "uuid": gpu.uuid,
                "xid": parameters.xid,
                "duration": duration,
                "victims": {str(pid): started for pid, (_, started) in victims.items()},
            },
        )

    def inject(self, plan: Plan) -> None:
        record = plan.undo
        with World.open(Path(record["state"])) as world:
            world.set("gpu_lost", record["gpu"], duration=record["duration"])
            world.set("xid", record["gpu"], duration=record["duration"], kmsg=record["kmsg"], code=record["xid"])
            for pid, started in record["victims"].items():
                _kill(int(pid), float(started))
                world.remove_process(record["gpu"], int(pid))

    def verify_injected(self, plan: Plan) -> str:
        record = plan.undo
        gpus = nvml_readback.read(Path(record["library"]), Path(record["state"]))
        if _answers(gpus, record["uuid"]):
            raise NotInjected(f"GPU {record['gpu']} still answers NVML")
        if left := set(_alive(tuple(map(int, record["victims"])))):
            raise NotInjected(f"processes {sorted(left)} are still alive")
        error = next((gpu.error for gpu in gpus if gpu.index == record["gpu"]), "not enumerated")
        others = sum(1 for gpu in gpus if not gpu.error)
        return f"NVML on GPU {record['gpu']}: {error}; the other {others} GPUs answer"

    def undo(self, record: Record) -> None:
        with World.open(Path(record["state"])) as world:
            for fault in world.faults():
                if fault.gpu == record["gpu"] and fault.kind in KINDS:
                    world.clear(fault.id)

    def verify_undone(self, record: Record) -> str:
        try:
            gpus = nvml_readback.read(Path(record["library"]), Path(record["state"]))
        except CannotTell as error:
            raise UndoFailed(str(error)) from None
        if not _answers(gpus, record["uuid"]):
            raise UndoFailed(f"GPU {record['gpu']} ({record['uuid']}) still does not answer NVML")
        return f"GPU {record['gpu']} answers NVML again"


def _answers(gpus: list[nvml_readback.Gpu], uuid: str) -> bool:
    return any(gpu.uuid == uuid and not gpu.error for gpu in gpus)


def _pid(engine: Engine) -> int:
    try:
        return int(engine.pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _alive(pids: tuple[int, ...]) -> dict[int, tuple[str, float]]:
    """Of the processes that live: pid to (command, start time); a pid alone may be another by now."""
    found = {}
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found[pid] = (" ".join(process.cmdline())[:80] or process.name(), process.create_time())
        except psutil.Error:
            continue
    return found


def _kill(pid: int, started: float) -> None:
    try:
        if psutil.Process(pid).create_time() == started:
            os.kill(pid, signal.SIGKILL)
    except (psutil.Error, ProcessLookupError):
        return


register("gpu_lost", GpuLost())
