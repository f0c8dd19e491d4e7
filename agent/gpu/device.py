"""One GPU in the child: who it is, its plan, and what follows from several readings."""

from __future__ import annotations

import ctypes
import math
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from time import monotonic_ns
from typing import Any, Final

import pynvml

from agent.gpu import codes
from agent.gpu.nvml import Gone, Library, text
from agent.gpu.pci import normalise
from agent.gpu.pcie import PcieBytes
from agent.gpu.plan import NAN, Plan
from agent.gpu.probes import probe
from agent.gpu.readings import STATS, WINDOWED

STRIKES: Final = 3
"""Sweeps in a row in which nothing but 999 came back, after which the GPU counts as lost."""
WINDOW: Final = 15
"""Sweeps over which minimum, maximum and 95th percentile are taken."""
BUSY: Final = 0.05
"""Utilisation above which a GPU is at work."""
RESET_GPU: Final = 1
"""Recovery action of a GPU whose calls answer RESET_REQUIRED, where the driver does not tell one."""
SETTLING_NS: Final = 60_000_000_000
"""Utilisation reads high while a freshly initialised GPU scrubs its memory (nvml.h)."""
ARCHITECTURES: Final = {
    **{2: "kepler", 3: "maxwell", 4: "pascal", 5: "volta", 6: "turing"},
    **{7: "ampere", 8: "ada", 9: "hopper", 10: "blackwell"},
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a GPU is.

    `pci` is normalised (0000:1a:00); `index` is NVML's, of this enumeration; `inforom` maps parts to versions.
    """

    uuid: str
    index: int
    pci: str
    model: str = ""
    architecture: str = ""
    vbios: str = ""
    serial: str = ""
    inforom: dict[str, str] = field(default_factory=dict)


def identify(library: Library, handle: ctypes.c_void_p, index: int) -> Identity:
    """Ask a handle who it is.

    Raises:
        Gone: it is lost, or does not even know its UUID.
    """
    uuid = text(library.ask(pynvml.nvmlDeviceGetUUID, handle, index=index))
    if not uuid:
        raise Gone(codes.UNKNOWN)
    pci = library.ask(pynvml.nvmlDeviceGetPciInfo, handle, index=index)
    architecture = library.ask(pynvml.nvmlDeviceGetArchitecture, handle, index=index)
    return Identity(
        uuid=uuid,
        index=index,
        pci=normalise(text(pci.busId)) if pci else "",
        model=text(library.ask(pynvml.nvmlDeviceGetName, handle, index=index)),
        architecture=ARCHITECTURES.get(architecture or 0, ""),
        vbios=text(library.ask(pynvml.nvmlDeviceGetVbiosVersion, handle, index=index)),
        serial=text(library.ask(pynvml.nvmlDeviceGetSerial, handle, index=index)),
        inforom=_inforom(library, handle, index),
    )


def _inforom(library: Library, handle: ctypes.c_void_p, index: int) -> dict[str, str]:
    """Versions of the InfoROM's image and objects; what the board does not tell is left out."""
    found = {"image": text(library.ask(pynvml.nvmlDeviceGetInforomImageVersion, handle, index=index))}
    for number, part in enumerate(("oem", "ecc", "power")):
        found[part] = text(library.ask(pynvml.nvmlDeviceGetInforomVersion, handle, number, index=index))
    return {part: version for part, version in found.items() if version}


class Device:
    """A GPU that answers.

    Args:
        driver, uptime_ns, per_link, lifetime_ecc: see agent.gpu.probes.probe.
        errors: counts calls that failed or gave nonsense, by (call, reason).

    Raises:
        Gone: on opening or sweeping, a call said that the GPU is lost.
        Down: a call said that all of NVML is down.
    """

    def __init__(
        self,
        library: Library,
        handle: ctypes.c_void_p,
        identity: Identity,
        driver: tuple[int, int],
        uptime_ns: int,
        errors: Counter[tuple[str, str]],
        per_link: bool = False,
        lifetime_ecc: bool = False,
    ) -> None:
        self.handle, self.identity = handle, identity
        self.plan = Plan(library, handle, identity.index, errors)
        self._mig = probe(self.plan, driver, uptime_ns, per_link, lifetime_ecc)
        self._pcie_bytes: PcieBytes | None = None
        self._strikes = 0
        self._windows = {key: deque[float](maxlen=WINDOW) for key in WINDOWED if self.plan.has(key)}
        self._partitioned = self.plan.value("mig_mode")
        fresh = self.plan.value("persistence") == 0
        self._settled_ns = monotonic_ns() + SETTLING_NS if fresh else 0
        self._find_pcie()

    def close(self) -> None:
        """Let go of the GPU; its handle needs no closing, its GPM samples are host memory and do."""
        for close in self.plan.closers:
            close()

    @property
    def slow_pcie(self) -> bool:
        """PCIe throughput has to be asked by the call that takes 20 ms, at least for now."""
        return self._pcie_bytes is not None and not self._pcie_bytes.proven

    def describe(self) -> dict[str, Any]:
        """Who it is, what its readings stand for, and its MIG instances."""
        instances = self._mig.instances if self._mig else []
        return {**asdict(self.identity), "keys": self.plan.keys, "mig": instances}

    @property
    def outdated(self) -> bool:
        """Whether MIG was switched since the GPU was probed, which changes what it can tell."""
        return self.plan.value("mig_mode") == 1 - self._partitioned

    def sweep(self, turn: int) -> None:
        """Make every call that is due in this turn; GPUs take turns with what is not due each time.

        Raises:
            Gone, Down: see the class.
        """
        answered = self.plan.run(turn + self.identity.index)
        self._find_pcie()
        self._strikes = 0 if answered else self._strikes + 1
        if self._strikes >= STRIKES:
            raise Gone(codes.UNKNOWN)
        if self.plan.reset_required and not self.plan.value("recovery_action") > 0:
            self.plan.put("recovery_action", RESET_GPU)
        if self._settled_ns and self.plan.has("utilization"):
            self.plan.put("utilization", NAN)
            if monotonic_ns() > self._settled_ns:
                self._settled_ns = 0
        self._advance_windows()
        self._judge_pcie()

    def _find_pcie(self) -> None:
        """Another source of PCIe throughput where GPM has none, or proved not to."""
        if self._pcie_bytes is None and not self.plan.has("pcie_tx"):
            self._pcie_bytes = PcieBytes(self.plan)

    def _advance_windows(self) -> None:
        for key, samples in self._windows.items():
            samples.append(self.plan.value(key))
            known = sorted([sample for sample in samples if sample == sample]) or [NAN]
            p95 = known[math.ceil(0.95 * len(known)) - 1]
            for stat, value in zip(STATS, (known[0], known[-1], p95), strict=True):
                self.plan.put(f"{key}.{stat}", value)

    def _judge_pcie(self) -> None:
        """Whether the PCIe link is worse than slot and card allow.

        Links lower their speed when idle, so the generation is judged only while the GPU has been
        busy for the whole window.
        """
        plan = self.plan
        if not plan.has("pcie_width", "pcie_width_max", "pcie_generation", "pcie_generation_max"):
            return
        narrow = plan.value("pcie_width") < plan.value("pcie_width_max")
        slow = plan.value("pcie_generation") < plan.value("pcie_generation_max")
        busy = plan.value("utilization.min") > BUSY
        plan.put("pcie_degraded", float(narrow or slow) if busy or narrow else NAN)
