"""The plan of a GPU: its readings, each in a slot of one array of doubles, and the calls that fill them.

NaN is "no value". A call that fails for good leaves the plan, and its readings are gone; one that is forbidden
is tried again now and then; one that fails for now leaves NaN for one turn. A value that cannot be true is NaN and
counted.
"""

from __future__ import annotations

import ctypes
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from time import monotonic_ns
from typing import Any, Final, NamedTuple

from agent.gpu import codes
from agent.gpu.nvml import Library, judge
from agent.gpu.readings import EVERY, FAST, NUMBER
from agent.gpu.wire import begin

NAN: Final = math.nan
FORBIDDEN: Final = 30
"""Turns after which what was forbidden is tried again."""


class Call(NamedTuple):
    """One prepared driver call: `fn(*args)` gives a code, `store()` puts its outputs into the slots."""

    number: int
    name: str
    fn: Callable[..., int]
    args: tuple[Any, ...]
    slots: tuple[int, ...]
    store: Callable[[], None]
    every: int


class Plan:
    """Made by agent.gpu.probes, run by agent.gpu.device.

    Args:
        index: NVML's index of the GPU, for the heartbeat.
        errors: counts calls that failed or gave nonsense, by (call, reason).

    Attributes:
        keys: the readings in the order of `values`; "" is a slot no longer used.
        changed: `keys` is not what it was when the flag was last cleared.
        reset_required: in the last run a call said that this GPU wants a reset first.
    """

    def __init__(self, library: Library, handle: ctypes.c_void_p, index: int, errors: Counter[tuple[str, str]]) -> None:
        self.library, self.handle, self.index, self.errors = library, handle, index, errors
        self.keys: list[str] = []
        self.values = array("d")
        self.changed = True
        self.reset_required = False
        self.closers: list[Callable[[], None]] = []
        """What gives back memory of the driver's when the GPU is let go."""
        self._slots: dict[str, int] = {}
        self._calls: list[Call] = []
        self._forbidden: list[tuple[Call, dict[int, str]]] = []
        """Calls that left for want of permission, each with its readings by slot."""

    # -- readings -------------------------------------------------------------------------

    def has(self, *keys: str) -> bool:
        return all(key in self._slots for key in keys)

    def slot(self, key: str) -> int:
        """The slot of a reading, made if it is new."""
        if key not in self._slots:
            self._slots[key] = len(self.keys)
            self.keys.append(key)
            self.values.append(NAN)
            self.changed = True
        return self._slots[key]

    def value(self, key: str) -> float:
        return self.values[self._slots[key]] if key in self._slots else NAN

    def put(self, key: str, value: float) -> None:
        self.values[self.slot(key)] = value

    def put_checked(self, slot: int, value: float, low: float, top: float, source: str) -> None:
        """Store a value, or NaN and a count where it cannot be true."""
        if not low <= value <= top:
            if value == value:
                self.errors[source, "implausible"] += 1
            value = NAN
        self.values[slot] = value

    def starting(self, prefix: str) -> list[str]:
        return [key for key in self._slots if key.startswith(prefix)]

    def drop(self, keys: Iterable[str]) -> None:
        """Forget readings that the GPU turned out not to have."""
        for key in keys:
            slot = self._slots.pop(key)
            self.keys[slot], self.values[slot] = "", NAN
            self.changed = True

    # -- calls ----------------------------------------------------------------------------

    def call(self, name: str, *args: Any) -> int:
        """One call outside the plan, on this GPU."""
        code = self.library.call(name, self.handle, *args, index=self.index)
        judge(code)
        return code

    def add(
        self,
        name: str,
        fn: Callable[..., int],
        args: tuple[Any, ...],
        slots: Iterable[int],
        store: Callable[[], None],
        every: int = FAST,
    ) -> None:
        """Make a call once; it joins the plan unless it fails for good."""
        call = Call(NUMBER[name], name, fn, args, tuple(slots), store, every)
        self._calls.append(call)
        code = self._run(call)
        if code in codes.PERMANENT:
            self._leave(call, code)

    def _leave(self, call: Call, code: int) -> None:
        self.errors[call.name, codes.name(code)] += 1
        self._calls = [other for other in self._calls if other is not call]
        keys = {slot: self.keys[slot] for slot in call.slots if self.keys[slot]}
        self.drop(keys.values())
        if code == codes.NO_PERMISSION:
            self._forbidden.append((call, keys))

    def _try_forbidden(self) -> None:
        """Take back the calls that are permitted by now, and those of their readings that nothing else fills."""
        forbidden, self._forbidden = self._forbidden, []
        for call, keys in forbidden:
            free = {slot: key for slot, key in keys.items() if key not in self._slots}
            code = self._run(call) if free or not keys else codes.NOT_SUPPORTED
            if code == codes.NO_PERMISSION:
                self._forbidden.append((call, keys))
            elif code not in codes.PERMANENT:
                for slot, key in free.items():
                    self.keys[slot], self._slots[key] = key, slot
                self._calls.append(call)
                self.changed = True

    def _run(self, call: Call) -> int:
        lane = self.library.lane
        begin(lane, call.number, self.index, monotonic_ns())
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

    def run(self, turn: int) -> bool:
        """Make every call due in this turn; False where nothing but UNKNOWN came back.

        Raises:
            Gone, Down: a call said that the GPU is lost, or all of NVML down.
        """
        self.reset_required = False
        if self._forbidden and turn % FORBIDDEN == 0:
            self._try_forbidden()
        answered = failed = False
        due = {every: turn % every == 0 for every in EVERY}
        for call in self._calls:
            if not due[call.every]:
                continue
            code = self._run(call)
            answered |= code != codes.UNKNOWN
            failed |= code == codes.UNKNOWN
            if code in codes.PERMANENT:
                self._leave(call, code)
            elif code not in (codes.SUCCESS, codes.NOT_READY):
                self.errors[call.name, codes.name(code)] += 1
        return answered or not failed
