"""The simulated node, seen from its control side: create it, set and lift faults, move its clock.

    world = World.create(path, profile="h100", gpus=8, workload="training", seed=1)
    fault = world.set("gpu_lost", gpu=3, at=2.0, duration=30.0)
    world.clear(fault)

A process started with LD_LIBRARY_PATH = the built library's folder and GPUVIGIL_SIM_STATE = `path` lives in it.
All values it reads there are simulated.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.base.errors import ConfigError, VigilError
from chaos.simulator import control, identity, profiles, records
from chaos.simulator.kinds import KINDS
from chaos.simulator.kmsg import xid_record
from chaos.simulator.real import survey

STATE_VARIABLE: Final = "GPUVIGIL_SIM_STATE"
OVERLAY_VARIABLE: Final = "GPUVIGIL_SIM_OVERLAY"
REAL_VARIABLE: Final = "GPUVIGIL_SIM_REAL"
DRIVER: Final = "580.95.05"
_NS: Final = 1_000_000_000


def state_path(given: str | Path | None = None) -> Path:
    """The state file: `given`, else GPUVIGIL_SIM_STATE, else GPUVIGIL_SIM_OVERLAY, else one in XDG_RUNTIME_DIR.

    Raises:
        ConfigError: none of them is there.
    """
    named = given or os.environ.get(STATE_VARIABLE) or os.environ.get(OVERLAY_VARIABLE)
    if named:
        return Path(named)
    run = os.environ.get("XDG_RUNTIME_DIR")
    if not run:
        raise ConfigError(f"no state file: give --state FILE, or set {STATE_VARIABLE}")
    return Path(run) / "gpuvigil-sim.state"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that is set.

    Attributes:
        id: by which it is lifted.
        gpu: the GPU's number, None for the whole node.
        active: it acts now.
        begins_in: seconds until it begins, 0 once begun.
        expires_in: seconds until it ends by itself; None = never.
        parameters: as `KINDS` names them.
    """

    id: int
    kind: str
    gpu: int | None
    active: bool
    begins_in: float
    expires_in: float | None
    parameters: dict[str, object]


@dataclass(frozen=True, slots=True)
class Gpu:
    """What names a simulated GPU; `index` is its place in the world, whatever order a process sees."""

    index: int
    uuid: str
    name: str
    bus_id: str
    memory_bytes: int


class World:
    """One state file, open for writing. Not bound to a thread; writers take turns by a lock on the file."""

    def __init__(self, path: Path) -> None:
        self._library = control.library()
        why = ctypes.create_string_buffer(256)
        self._control: int | None = self._library.gpuvigil_open(os.fsencode(path), why)
        if not self._control:
            raise ConfigError(f"{path}: {why.value.decode(errors='replace')}")
        self.path = path

    @classmethod
    def open(cls, path: str | Path | None = None) -> World:
        """The world that stands at `path` (see `state_path`).

        Raises:
            ConfigError: there is none, or the file is foreign, old or damaged.
        """
        return cls(state_path(path))

    @classmethod
    def create(
        cls,
        path: str | Path | None = None,
        *,
        profile: str = "h100",
        gpus: int = 8,
        workload: str = "training",
        seed: int = 1,
        start: float | None = None,
        speed: float = 1.0,
        driver: str = DRIVER,
        wide_pcie_counters: bool = False,
        replace: bool = False,
    ) -> World:
        """A new world.

        Args:
            path: the state file; None = see `state_path`.
            profile: a key of `profiles.PROFILES`.
            gpus: how many, 1 to 16.
            workload: idle, training or inference.
            seed: decides all values and identities.
            start: Unix time the simulated clock begins at; now if None.
            speed: simulated seconds per second; 0 freezes the clock.
            driver: version the node claims; it decides the field ids of clock event counters.
            wide_pcie_counters: the PCIe byte counters have 64 bits; else 32, which wrap all the time.
            replace: end the world that stands there; processes in it find their driver gone.

        Raises:
            ConfigError: an argument is out of range, or a world stands there and `replace` is False.
        """
        target = state_path(path)
        if profile not in profiles.PROFILES:
            raise ConfigError(f"profile {profile!r} is unknown; there are: {', '.join(profiles.PROFILES)}")
        if workload not in records.WORKLOADS:
            raise ConfigError(f"workload {workload!r} is unknown; there are: {', '.join(records.WORKLOADS)}")
        if not 1 <= gpus <= records.MAX_GPUS:
            raise ConfigError(f"gpus={gpus}: a world has 1 to {records.MAX_GPUS}")
        if not 0 <= speed <= 1e6:
            raise ConfigError(f"speed={speed}: must be 0 (frozen) to 1e6")
        began = time.time() if start is None else start
        header = records.Header(
            gpus=gpus,
            seed=seed & (1 << 64) - 1,
            epoch=int(began * _NS),
            driver=driver.encode(),
            nvml=f"13.{driver}".encode(),
            cuda=13000,
            quirks=_quirks(driver) | wide_pcie_counters * records.WIDE_PCIE_COUNTERS,
        )
        identities = (records.Identity * gpus)(*(identity.simulated(profile, seed, index) for index in range(gpus)))
        states = (records.GpuState * gpus)()
        for state in states:
            state.workload = records.WORKLOADS.index(workload)
        _install(target, header, identities, states, speed, replace)
        return cls(target)

    @classmethod
    def create_overlay(cls, path: str | Path, real: Path, *, replace: bool = False) -> World:
        """A world of faults to be laid over the GPUs that the library `real` shows now.

        Every fault set in it needs a duration, so that nothing outlives its injector.

        Raises:
            ConfigError: a world stands at `path` and `replace` is False, or there are no GPUs.
            CannotTell: the real library does not answer.
        """
        found = survey(real)
        gpus = found["gpus"][: records.MAX_GPUS]
        if not gpus:
            raise ConfigError(f"{real}: shows no GPU")
        header = records.Header(
            gpus=len(gpus),
            overlay=1,
            seed=1,
            epoch=time.time_ns(),
            driver=found["driver"].encode(),
            nvml=found["nvml"].encode(),
            quirks=_quirks(found["driver"]),
        )
        identities = (records.Identity * len(gpus))(*(identity.real(index, gpu) for index, gpu in enumerate(gpus)))
        _install(Path(path), header, identities, (records.GpuState * len(gpus))(), 1.0, replace)
        return cls(Path(path))

    def close(self) -> None:
        """Let go of the file; the world goes on."""
        if self._control:
            self._library.gpuvigil_close(self._control)
            self._control = None

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_control", None):
            self.close()

    @property
    def is_open(self) -> bool:
        return self._control is not None

    @property
    def _open_control(self) -> int:
        if self._control is None:
            raise VigilError(f"{self.path}: this World was closed")
        return self._control

    @property
    def gpus(self) -> list[Gpu]:
        found = []
        for index in range(self._header().gpus):
            record = self._library.gpuvigil_identity(self._open_control, index).contents
            bus_id = f"{record.pci_domain:04X}:{record.pci_bus:02X}:{record.pci_device:02X}.0"
            found.append(Gpu(index, record.uuid.decode(), record.name.decode(), bus_id, record.memory_total))
        return found

    def set(
        self,
        kind: str,
        gpu: int | None = None,
        *,
        at: float = 0.0,
        duration: float | None = None,
        kmsg: str | Path | None = None,
        **parameters: object,
    ) -> int:
        """Set a fault; returns its id.

        Args:
            kind: a key of `KINDS`, which names its parameters.
            gpu: number in the world; None for kinds that strike the node.
            at: seconds from now at which it begins.
            duration: seconds after which it ends by itself, counted by the boot clock; None = until cleared.
            kmsg: for an Xid: the file to which a kernel-log record is appended.
            parameters: of the kind.

        Raises:
            ConfigError: unknown kind, GPU or parameter; more than 24 faults at once on one GPU.
        """
        if kind not in KINDS:
            raise ConfigError(f"fault {kind!r} is unknown; there are: {', '.join(KINDS)}")
        entry = KINDS[kind]
        cell = self._cell(kind, gpu)
        if at < 0 or (duration is not None and duration <= 0):
            raise ConfigError(f"fault {kind}: at={at} must not be negative, duration={duration} must be positive")
        if self._header().overlay and not entry.overlay:
            raise ConfigError(f"fault {kind} is the simulator's alone: it cannot be laid over a real driver")
        if self._header().overlay and kind == "hang" and _is_true(parameters.get("forever")):
            raise ConfigError("fault hang: forever=1 is the simulator's alone")
        if kmsg is not None and (kind != "xid" or at > 0):
            raise ConfigError("kmsg=FILE goes with kind xid, and with no delay: the record is written at once")
        packed = (ctypes.c_double * records.PARAMETERS)(*entry.pack(kind, parameters))
        length = 0 if duration is None else max(1, int(duration * _NS))
        if kind == "xid" and not length and packed[1] == 0:
            length = 1  # an Xid happens and is over
        result = self._library.gpuvigil_set(self._open_control, cell, entry.number, int(at * _NS), length, packed)
        if result == -errno.EPERM:
            raise ConfigError(f"fault {kind}: over a real driver every fault needs a duration (--for TIME)")
        if result < 0:
            raise ConfigError(f"GPU {gpu} holds {records.MAX_FAULTS} faults already: clear some first")
        if kmsg is not None and gpu is not None:
            xid_record(Path(kmsg), self.gpus[gpu].bus_id, int(packed[0]))
        return int(result)

    def clear(self, id: int | None = None) -> int:
        """Lift the fault with this id, or all; returns how many were lifted: 0 if it was over already."""
        return sum(int(self._library.gpuvigil_clear(self._open_control, cell, id or 0)) for cell in self._cells())

    def faults(self) -> list[Fault]:
        """The faults that act or will; those that are over are left out."""
        names = {kind.number: name for name, kind in KINDS.items()}
        now = self._library.gpuvigil_boot_now()
        found = []
        for cell in self._cells():
            state = self._state(cell)
            for record in list(state.fault)[: state.faults]:
                if (record.off and record.off <= now) or record.kind not in names:
                    continue
                name = names[record.kind]
                found.append(
                    Fault(
                        id=record.id,
                        kind=name,
                        gpu=None if cell == records.NODE else cell,
                        active=record.on <= now,
                        begins_in=max(0.0, (record.on - now) / _NS),
                        expires_in=(record.off - now) / _NS if record.off else None,
                        parameters=KINDS[name].unpack(list(record.p)),
                    )
                )
        return sorted(found, key=lambda fault: fault.id)

    def now(self) -> float:
        """The simulated time, Unix seconds."""
        clock = self._state(records.NODE).clock
        passed = (self._library.gpuvigil_boot_now() - clock.boot) * clock.speed
        return float(clock.sim + passed) / _NS

    def set_clock(self, speed: float, step: float = 0.0) -> None:
        """Let the simulated clock run at `speed` (0 = frozen) and move it forward by `step` seconds.

        Raises:
            ConfigError: speed outside 0 to 1e6, or a step back (counters never step back).
        """
        if self._library.gpuvigil_set_clock(self._open_control, speed, int(step * _NS)) != 0:
            raise ConfigError(f"speed={speed} must be 0 to 1e6, step={step} must not be negative")

    def freeze(self) -> None:
        self.set_clock(0.0)

    def step(self, seconds: float) -> None:
        """Move the clock forward, at the speed it has."""
        self.set_clock(self._state(records.NODE).clock.speed, seconds)

    def set_workload(self, workload: str, gpu: int | None = None) -> None:
        """Change what one GPU, or all, are doing; counters go on from where they are."""
        if workload not in records.WORKLOADS:
            raise ConfigError(f"workload {workload!r} is unknown; there are: {', '.join(records.WORKLOADS)}")
        for index in self._cells()[:-1] if gpu is None else [self._gpu(gpu)]:
            state = self._state(index)
            state.workload = records.WORKLOADS.index(workload)
            self._library.gpuvigil_change(self._open_control, index, ctypes.byref(state))

    def set_process(
        self,
        gpu: int,
        pid: int,
        memory_bytes: int,
        *,
        graphics: bool = False,
        gpu_instance: int = 0,
        encoder: int = 0,
        decoder: int = 0,
    ) -> None:
        """Let `pid` be a process on the GPU (`gpu_instance` > 0: in that MIG instance); known pids are updated.

        `encoder` and `decoder` are per cent of the video engines that it uses.

        Raises:
            ConfigError: no such GPU, no percentage, or it lists 16 processes already.
        """
        for share in (encoder, decoder):
            if not 0 <= share <= 100:
                raise ConfigError(f"{share} % of a video engine: must be 0 to 100")
        state = self._state(self._gpu(gpu))
        entries = [entry for entry in list(state.process)[: state.processes] if entry.pid != pid]
        if len(entries) == records.MAX_PROCESSES:
            raise ConfigError(f"GPU {gpu} lists {records.MAX_PROCESSES} processes already")
        entries.append(
            records.Process(
                pid=pid,
                graphics=graphics,
                memory=memory_bytes,
                gpu_instance=gpu_instance,
                encoder=encoder,
                decoder=decoder,
            )
        )
        self._put_processes(gpu, state, entries)

    def remove_process(self, gpu: int, pid: int) -> None:
        state = self._state(self._gpu(gpu))
        self._put_processes(gpu, state, [entry for entry in list(state.process)[: state.processes] if entry.pid != pid])

    def set_mig(self, gpu: int, slices: Sequence[int]) -> None:
        """Partition the GPU into instances of so many slices each (at most 7 in all); none switches MIG off.

        Raises:
            ConfigError: the model has no MIG, or the slices do not fit.
        """
        record = self._library.gpuvigil_identity(self._open_control, self._gpu(gpu)).contents
        if slices and not record.features & profiles.MIG:
            raise ConfigError(f"{record.name.decode()} cannot be partitioned (MIG)")
        if any(size not in (1, 2, 3, 4, 7) for size in slices) or sum(slices) > records.MAX_MIG:
            raise ConfigError(f"MIG slices {list(slices)}: each is 1, 2, 3, 4 or 7, and 7 in all")
        state = self._state(gpu)
        state.mig = len(slices)
        for index in range(records.MAX_MIG):
            state.mig_slices[index] = slices[index] if index < len(slices) else 0
        self._library.gpuvigil_change(self._open_control, gpu, ctypes.byref(state))

    def _put_processes(self, gpu: int, state: records.GpuState, entries: list[records.Process]) -> None:
        state.processes = len(entries)
        for index, entry in enumerate(entries):
            state.process[index] = entry
        self._library.gpuvigil_change(self._open_control, gpu, ctypes.byref(state))

    def _header(self) -> records.Header:
        header: records.Header = self._library.gpuvigil_header(self._open_control).contents
        return header

    def _cells(self) -> list[int]:
        return [*range(self._header().gpus), records.NODE]

    def _gpu(self, gpu: int) -> int:
        if not 0 <= gpu < self._header().gpus:
            raise ConfigError(f"no GPU {gpu}: this world has 0 to {self._header().gpus - 1}")
        return gpu

    def _cell(self, kind: str, gpu: int | None) -> int:
        if KINDS[kind].scope == "node":
            if gpu is not None:
                raise ConfigError(f"fault {kind} strikes the whole node: leave out the GPU")
            return records.NODE
        if gpu is None:
            raise ConfigError(f"fault {kind} strikes one GPU: name it (--gpu N)")
        return self._gpu(gpu)

    def _state(self, cell: int) -> records.GpuState:
        state = records.GpuState()
        self._library.gpuvigil_read(self._open_control, cell, ctypes.byref(state))
        return state


def _install(
    target: Path,
    header: records.Header,
    identities: ctypes.Array[records.Identity],
    states: ctypes.Array[records.GpuState],
    speed: float,
    replace: bool,
) -> None:
    """Write the file beside `target` and rename it into place, after ending what stood there."""
    if target.exists() and not replace:
        raise ConfigError(f"{target}: a world stands here already; --replace ends it")
    library = control.library()
    fresh = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    result = library.gpuvigil_create(os.fsencode(fresh), ctypes.byref(header), identities, states, speed)
    if result != 0:
        fresh.unlink(missing_ok=True)
        raise ConfigError(f"{target}: {os.strerror(-result)}")
    try:
        old = World(target) if target.exists() else None
    except ConfigError:
        old = None  # foreign, or of another boot: nobody lives in it
    os.replace(fresh, target)
    if old is not None:
        library.gpuvigil_end(old._open_control)
        old.close()


def _quirks(driver: str) -> int:
    """Drivers from 575 to 580.65 had the clock event counters under other field ids than those since."""
    version = [int(part) if part.isdigit() else 0 for part in driver.split(".")[:2]]
    return records.OLD_FIELD_IDS if [575] <= version < [580, 66] else 0


def _is_true(value: object) -> bool:
    return str(value).lower() in ("1", "true", "yes")
