"""One GPU in the child: opened, probed for what it can tell, then swept every second.

Values live in one array of doubles, one slot a reading; NaN is "no value". A call that fails for
good is left out of the plan at once; one that fails for now leaves NaN for one turn.
"""

from __future__ import annotations

import ctypes
import math
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any, Final, NamedTuple

import pynvml

from agent.gpu import codes
from agent.gpu import readings as table
from agent.gpu.fields import NAME as FIELD_VALUES
from agent.gpu.fields import FieldArray
from agent.gpu.gpm import Gpm
from agent.gpu.links import STATE as LINK_STATE
from agent.gpu.links import Links
from agent.gpu.nvml import Gone, Library, judge, text
from agent.gpu.pci import normalise
from agent.gpu.readings import FAST, NUMBER, Field, Get, Part
from agent.gpu.wire import begin

NAN: Final = math.nan
STRIKES: Final = 3
"""Sweeps in a row in which nothing but 999 came back, after which the GPU counts as lost."""
WINDOW: Final = 15
"""Sweeps over which minimum, maximum and 95th percentile are taken."""
RESET_GPU: Final = 1
"""Recovery action of a GPU whose calls answer RESET_REQUIRED, where the driver does not tell one."""
SETTLING_NS: Final = 60_000_000_000
"""Utilisation reads high while a freshly initialised GPU scrubs its memory (nvml.h)."""

_NOT_AVAILABLE = {ctypes.c_uint: 0xFFFFFFFF, ctypes.c_ulonglong: 0xFFFFFFFFFFFFFFFF}
_ARCHITECTURES: Final = {2: "kepler", 3: "maxwell", 4: "pascal", 5: "volta", 6: "turing"}
ARCHITECTURES: Final = {**_ARCHITECTURES, 7: "ampere", 8: "ada", 9: "hopper", 10: "blackwell"}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a GPU is. `pci` is normalised (0000:1a:00); `index` is NVML's, of this enumeration."""

    uuid: str
    index: int
    pci: str
    model: str = ""
    architecture: str = ""
    vbios: str = ""


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
    )


class Call(NamedTuple):
    """One prepared driver call: `fn(*args)` gives a code, `store()` puts its outputs into the slots."""

    name: str
    fn: Callable[..., int]
    args: tuple[Any, ...]
    slots: tuple[int, ...]
    store: Callable[[], None]
    every: int = FAST


class Device:
    """A GPU that answers.

    Args:
        uptime_ns: time since boot; no throttle counter can exceed it.
        errors: counts calls that failed or gave nonsense, by (call, reason).

    Attributes:
        keys: the readings in the order of `values`; "" is a slot no longer used.
        changed: `keys` is not what it was when the flag was last cleared.
        reset_required: in the last sweep the driver said that this GPU wants a reset first.
        slow_pcie: PCIe throughput has to be asked by the call that takes 20 ms.

    Raises:
        Gone: on opening or sweeping, a call said that the GPU is lost.
        Down: a call said that all of NVML is down.
    """

    def __init__(
        self,
        library: Library,
        handle: ctypes.c_void_p,
        identity: Identity,
        driver_major: int,
        uptime_ns: int,
        errors: Counter[tuple[str, str]],
    ) -> None:
        self.handle, self.identity = handle, identity
        self.keys: list[str] = []
        self.values = array("d")
        self.changed = True
        self.reset_required = False
        self._library, self._errors = library, errors
        self._driver_major, self._uptime_ns = driver_major, uptime_ns
        self._slots: dict[str, int] = {}
        self._calls: list[tuple[int, Call]] = []
        self._strikes = 0
        self._probe()
        self.changed = True

    # -- the plan -------------------------------------------------------------------------

    def _probe(self) -> None:
        """Try every source once; what the GPU cannot tell is left out."""
        self._probe_fields()
        for get in table.GETTERS:
            if not all(part.key in self._slots for part in get.parts):
                self._probe_getter(get)
        self._probe_throttle()
        self._probe_links()
        peak = self._dram_peak()
        self._probe_gpm(peak)
        self.slow_pcie = "pcie_tx" not in self._slots
        self._windows = [
            (self._slots[key], [self._slot(f"{key}.{stat}") for stat in table.STATS], deque[float](maxlen=WINDOW))
            for key in table.WINDOWED
            if key in self._slots
        ]
        fresh = self._value("persistence") == 0
        self._settled_ns = monotonic_ns() + SETTLING_NS if fresh else 0

    def _slot(self, key: str) -> int:
        if key not in self._slots:
            self._slots[key] = len(self.keys)
            self.keys.append(key)
            self.values.append(NAN)
            self.changed = True
        return self._slots[key]

    def _value(self, key: str) -> float:
        return self.values[self._slots[key]] if key in self._slots else NAN

    def _drop(self, slots: Iterable[int]) -> None:
        """Forget readings that the GPU turned out not to have."""
        for slot in slots:
            self._slots.pop(self.keys[slot], None)
            self.keys[slot], self.values[slot] = "", NAN
        self.changed = True

    def _add(
        self,
        name: str,
        fn: Callable[..., int],
        args: tuple[Any, ...],
        slots: Iterable[int],
        store: Callable[[], None],
        every: int = FAST,
    ) -> None:
        """Make a call once; it joins the plan unless it fails for good."""
        call = Call(name, fn, args, tuple(slots), store, every)
        code = self._run(NUMBER[name], call)
        if code in codes.PERMANENT:
            self._errors[name, codes.name(code)] += 1
            self._drop(call.slots)
        else:
            self._calls.append((NUMBER[name], call))

    def _put(self, slot: int, value: float, top: float, source: str) -> None:
        """Store a value, or NaN and a count where it cannot be true."""
        if not 0 <= value <= top:
            if value == value:
                self._errors[source, "implausible"] += 1
            value = NAN
        self.values[slot] = value

    def _probe_fields(self) -> None:
        fn = self._library.function(FIELD_VALUES)
        if fn is None:
            return
        eras = [*table.THROTTLE_IDS_12, *table.THROTTLE_IDS_13]
        if self._driver_major >= table.RENUMBERED_SINCE:
            eras.reverse()
        trial = FieldArray(fn, self.handle, [*table.FIELDS, *eras])
        with self._library.calling(FIELD_VALUES, self.identity.index):
            code = fn(*trial.args)
        judge(code)
        kept: list[Field] = []
        for entry, result, value in trial.results():
            judge(result)
            reason = codes.name(result) if result in codes.PERMANENT or result == codes.INVALID_ARGUMENT else ""
            if entry.key.startswith("throttled.") and value > self._uptime_ns * entry.scale:
                reason = "implausible"
            if reason:
                self._errors[f"field {entry.id}", reason] += 1
            elif all(other.key != entry.key for other in kept):
                kept.append(entry)
        if code or not kept:
            return
        fields = FieldArray(fn, self.handle, kept)
        slots = [self._slot(entry.key) for entry in kept]

        def store() -> None:
            for slot, (entry, result, value) in zip(slots, fields.results(), strict=True):
                if result:
                    judge(result)
                    self.reset_required |= result == codes.RESET_REQUIRED
                    self._errors[f"field {entry.id}", codes.name(result)] += 1
                self._put(slot, value, entry.top, f"field {entry.id}")

        self._add(FIELD_VALUES, fn, fields.args, slots, store)

    def _probe_getter(self, get: Get) -> None:
        fn = self._library.function(get.name)
        if fn is None:
            self._errors[get.name, codes.name(codes.FUNCTION_NOT_FOUND)] += 1
            return
        outs: list[Any] = [out() for out in get.outs]
        if get.version:
            outs[0].version = get.version
        new = [part for part in get.parts if part.key not in self._slots]
        plan = [(self._slot(part.key), outs[part.out], part) for part in new]
        store = self._memory(outs[0]) if get.name == "nvmlDeviceGetMemoryInfo_v2" else self._storer(get.name, plan)
        args = (self.handle, *map(ctypes.c_uint, get.args), *map(ctypes.byref, outs))
        self._add(get.name, fn, args, (slot for slot, _, _ in plan), store, get.every)

    def _storer(self, name: str, plan: list[tuple[int, Any, Part]]) -> Callable[[], None]:
        def store() -> None:
            for slot, out, part in plan:
                raw = getattr(out, part.attr)
                self._put(slot, NAN if raw == _NOT_AVAILABLE.get(type(out)) else raw * part.scale, part.top, name)

        return store

    def _memory(self, out: Any) -> Callable[[], None]:
        """Memory v2: `used` may include `reserved` (nvml.h says so, drivers differ); here it never does."""
        slots = [self._slot("memory." + name) for name in ("total", "reserved", "free", "used")]

        def store() -> None:
            total, reserved, free = out.total, out.reserved, out.free
            used = min(out.used, total - free - reserved)
            top = total if total < table.COUNT_TOP else -1.0
            for slot, value in zip(slots, (total, reserved, free, used), strict=True):
                self._put(slot, value, top, "nvmlDeviceGetMemoryInfo_v2")

        return store

    def _probe_throttle(self) -> None:
        """Throttle reasons: one slot for each bit the GPU supports; the calls were renamed once."""
        for era in ("ClocksEvent", "ClocksThrottle"):
            name, supported = f"nvmlDeviceGetCurrent{era}Reasons", ctypes.c_ulonglong()
            fn = self._library.function(name)
            if fn is None or self._call(f"nvmlDeviceGetSupported{era}Reasons", ctypes.byref(supported)):
                continue
            out = ctypes.c_ulonglong()
            bits = [
                (bit, self._slot("throttle." + word))
                for bit, word in table.THROTTLE_BITS.items()
                if bit & supported.value
            ]

            def store(out: Any = out, bits: list[tuple[int, int]] = bits) -> None:
                for bit, slot in bits:
                    self.values[slot] = 1.0 if out.value & bit else 0.0

            self._add(name, fn, (self.handle, ctypes.byref(out)), (slot for _, slot in bits), store)
            return

    def _probe_links(self) -> None:
        links = Links(self._library, self.handle, self.identity.index)
        if not links.links:
            return
        slots = {key: self._slot(key) for key in links.keys}

        def store() -> None:
            for key, slot in slots.items():
                self.values[slot] = links.values[key]

        self._add(LINK_STATE, links.read, (), slots.values(), store, table.LINKS)

    def _dram_peak(self) -> float:
        """Bytes/s: 2 transfers a clock x maximum memory clock x bus width in bytes; NaN where unknown."""
        width = ctypes.c_uint()
        code = self._call("nvmlDeviceGetMemoryBusWidth", ctypes.byref(width))
        peak = 2.0 * self._value("clock_max.memory") * width.value / 8
        if code or not 0 < peak < 1e14:
            return NAN
        self.values[self._slot("dram_peak")] = peak
        return peak

    def _probe_gpm(self, peak: float) -> None:
        """GPM where there is some; DRAM bytes/s follow from its ratio and the bus's peak."""
        gpm = Gpm.open(self._library, self.handle, self.identity.index)
        if gpm is None:
            return
        slots = {entry.key: self._slot(entry.key) for entry in gpm.entries}
        if peak == peak:
            slots["dram_bytes"] = self._slot("dram_bytes")

        def store() -> None:
            for entry, code, value in gpm.results():
                if code in codes.PERMANENT:
                    gpm.leave_out(entry)
                    self._drop(
                        [
                            slots.pop(entry.key),
                            *([slots.pop("dram_bytes")] if entry.id == 10 and "dram_bytes" in slots else []),
                        ]
                    )
                elif entry.key in slots:
                    self._put(slots[entry.key], NAN if code else value * entry.scale, entry.top, f"GPM {entry.id}")
            if "dram_bytes" in slots:
                self.values[slots["dram_bytes"]] = self.values[slots["dram_ratio"]] * peak

        self._add("nvmlGpmSampleGet", gpm.read, (), slots.values(), store)

    # -- the sweep ------------------------------------------------------------------------

    def _call(self, name: str, *args: Any) -> int:
        code = self._library.call(name, self.handle, *args, index=self.identity.index)
        judge(code)
        return code

    def _run(self, number: int, call: Call) -> int:
        lane = self._library.lane
        begin(lane, number, self.identity.index, monotonic_ns())
        code = call.fn(*call.args)
        lane[2] = 0
        if code == codes.SUCCESS:
            call.store()
            return code
        judge(code)
        for slot in call.slots:
            self.values[slot] = NAN
        if code == codes.RESET_REQUIRED:
            self.reset_required = True
        return code

    def sweep(self, turn: int) -> None:
        """Make every call that is due in this turn; GPUs take turns with what is not due each time.

        Raises:
            Gone, Down: see the class.
        """
        self.reset_required = False
        turn += self.identity.index
        answered = failed = False
        for number, call in self._calls:
            if turn % call.every:
                continue
            code = self._run(number, call)
            answered |= code != codes.UNKNOWN
            failed |= code == codes.UNKNOWN
            if code and code != codes.NOT_READY:
                self._errors[call.name, codes.name(code)] += 1
                if code in codes.PERMANENT:
                    self._drop(call.slots)
                    self._calls = [entry for entry in self._calls if entry[1] is not call]
        self._strikes = self._strikes + 1 if failed and not answered else 0
        if self._strikes >= STRIKES:
            raise Gone(codes.UNKNOWN)
        if self.reset_required and not self._value("recovery_action") > 0:
            self.put("recovery_action", RESET_GPU)
        if self._settled_ns and "utilization" in self._slots:
            self.values[self._slots["utilization"]] = NAN
            if monotonic_ns() > self._settled_ns:
                self._settled_ns = 0
        self._advance_windows()

    def _advance_windows(self) -> None:
        for source, (low, high, p95), samples in self._windows:
            samples.append(self.values[source])
            known = sorted(sample for sample in samples if sample == sample) or [NAN]
            self.values[low], self.values[high] = known[0], known[-1]
            self.values[p95] = known[math.ceil(0.95 * len(known)) - 1]

    def put(self, key: str, value: float) -> None:
        """Store a reading that no call of the plan fills."""
        self.values[self._slot(key)] = value
