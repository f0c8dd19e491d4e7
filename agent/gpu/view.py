"""What the agent knows of its GPUs at one moment, and how the child that asks for it is run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agent.gpu import wire


@dataclass(frozen=True, slots=True)
class Settings:
    """How the child is run.

    Attributes:
        library: path of libnvidia-ml, or None for what the dynamic linker finds.
        interval: seconds between sweeps.
        retry_lost: seconds between two looks at the enumeration, which finds lost GPUs again.
        call_deadline: seconds after which a driver call counts as stuck.
        open_deadline: the same for calls that may initialise a GPU.
        per_link: give every NVLink its own readings, too.
        lifetime_ecc: give ECC errors of the board's whole life by location, too.
    """

    library: str | None = None
    interval: float = 1.0
    retry_lost: float = 30.0
    call_deadline: float = 10.0
    open_deadline: float = 60.0
    per_link: bool = False
    lifetime_ecc: bool = False


@dataclass(frozen=True, slots=True)
class Stuck:
    """A driver call that does not return: `uuid` is empty where it is about no GPU."""

    uuid: str
    index: int | None
    call: str
    since_ns: int

    def seconds(self) -> float:
        return (time.monotonic_ns() - self.since_ns) / 1e9


class Process(NamedTuple):
    """A compute process: GPU memory in bytes, utilisations (0 to 1), MIG instance; None where there is none.

    Those of the video engines are None, too, for a process that never used them.
    """

    pid: int
    memory: int | None
    sm: float | None
    instance: int | None = None
    encoder: float | None = None
    decoder: float | None = None


@dataclass(frozen=True)
class View:
    """What is known now.

    Attributes:
        up: NVML is initialised and answers; None before the first word from a child, and while it is let go.
        code: NVML's code where it is not up.
        synthetic: the library is the simulator; None before one was loaded.
        versions: driver, nvml, cuda; empty texts where unknown.
        described: the last enumeration (message DESCRIBE), None before the first of this driver.
        fresh: a sweep ended recently enough to speak of the present.
        frame: that sweep, None where it is not fresh or not yet described.
        stuck: driver calls past their deadline, and GPUs left out because of one.
        restarts: children started after the first.
        released: the driver was let go on request, and no process of ours holds it.
    """

    up: bool | None = None
    code: int = 0
    synthetic: bool | None = None
    versions: dict[str, str] = field(default_factory=dict)
    described: dict[str, Any] | None = None
    fresh: bool = False
    frame: wire.Frame | None = None
    stuck: tuple[Stuck, ...] = ()
    restarts: int = 0
    released: bool = False

    def readings(self) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
        """Each GPU that answers now, as described, with its readings by key; those without a value left out."""
        if self.described is None or self.frame is None:
            return
        values = iter(self.frame.values)
        for gpu in self.described["gpus"]:
            found = dict(zip(gpu["keys"], values, strict=False))
            yield gpu, {key: value for key, value in found.items() if key and value == value}
