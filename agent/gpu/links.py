"""NVLink: how many links a GPU has, how many are up, their bytes and errors; to other GPUs and to the processor."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Final

from agent.gpu import codes
from agent.gpu.fields import FieldArray
from agent.gpu.nvml import Library, judge
from agent.gpu.readings import CHIP_LINK_ERRORS, COUNT_TOP, LINK_BYTES, LINK_ERRORS, MAX_CHIP_LINKS, MAX_LINKS, Field

STATE: Final = "nvmlDeviceGetNvLinkState"


class Links:
    """The links of one GPU: `read()` asks for all, `values` holds the outcome by reading.

    A link is one that answers for its state; counts a driver gives are never trusted.

    Args:
        sums: the driver tells no bytes of all links at once, so add them up here.
        per_link: give every link its own readings, too.
    """

    def __init__(self, library: Library, handle: ctypes.c_void_p, index: int, sums: bool, per_link: bool) -> None:
        self._library, self._handle, self._index = library, handle, index
        self._sums, self._per_link = sums, per_link
        self._active = ctypes.c_uint()
        self.links = [link for link in range(MAX_LINKS) if self._state(link) is not None]
        self.values: dict[str, float] = {}
        self._counters: FieldArray | None = None
        fields: Callable[..., int] | None = library.function("nvmlDeviceGetFieldValues")
        if self.links and fields is not None:
            self._counters = self._probe(fields)
        self.read()

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.values)

    def _probe(self, fn: Callable[..., int]) -> FieldArray | None:
        """The counters that the links have, of one generation or the other."""
        wanted = [(id, "nvlink_errors." + kind, 1.0) for id, kind in LINK_ERRORS.items()]
        if self._sums or self._per_link:
            wanted += [(id, "nvlink_" + way, scale) for id, (way, scale) in LINK_BYTES.items()]
        entries = [Field(id, key, scale, COUNT_TOP, link) for id, key, scale in wanted for link in self.links]
        array = FieldArray(fn, self._handle, entries)
        code = self._ask(array)
        kept = [
            entry
            for entry, result, _ in array.results()
            if code == 0 and result not in codes.PERMANENT and result != codes.INVALID_ARGUMENT
        ]
        return FieldArray(fn, self._handle, kept) if kept else None

    def _state(self, link: int) -> bool | None:
        code = self._library.call(
            STATE, self._handle, ctypes.c_uint(link), ctypes.byref(self._active), index=self._index
        )
        judge(code)
        return bool(self._active.value) if code == codes.SUCCESS else None

    def _ask(self, array: FieldArray) -> int:
        with self._library.calling("nvmlDeviceGetFieldValues", self._index):
            code = array.fn(*array.args)
        judge(code)
        return code

    def read(self) -> int:
        """Ask every link. A counter that one link does not tell this time gives no sum.

        Raises:
            Gone, Down: by the policy of agent.gpu.codes.
        """
        states = [self._state(link) for link in self.links]
        known = [state for state in states if state is not None]
        self.values = {
            "nvlink_links": len(self.links),
            "nvlink_active": sum(known) if len(known) == len(states) else math.nan,
        }
        if self._per_link:
            for link, state in zip(self.links, states, strict=True):
                self.values[f"link_active.{link}"] = math.nan if state is None else float(state)
        if self._counters is not None:
            code = self._ask(self._counters)
            for entry, result, value in self._counters.results():
                judge(result)
                good = code == result == codes.SUCCESS and 0 <= value <= entry.top
                self._count(entry, value if good else math.nan)
        return codes.SUCCESS

    def _count(self, entry: Field, value: float) -> None:
        is_bytes = not entry.key.startswith("nvlink_errors.")
        if self._sums or not is_bytes:
            self.values[entry.key] = self.values.get(entry.key, 0.0) + value
        if self._per_link:
            what = entry.key.removeprefix("nvlink_errors.").removeprefix("nvlink_")
            self.values[f"link_{'bytes' if is_bytes else 'errors'}.{entry.scope}.{what}"] = value


class ChipLinks:
    """NVLink-C2C, by which a GPU sits beside its processor (Grace): `values` is empty where it has none.

    Their count and a link's own state, speed and errors are field ids; the link is the scope of the latter.

    Raises:
        Gone, Down: on opening or reading, by the policy of agent.gpu.codes.
    """

    COUNT: Final = Field(170, "c2c_links", top=MAX_CHIP_LINKS)
    OF_A_LINK: Final = (
        Field(171, "c2c_active", top=1),
        Field(172, "c2c_speed", 1e6, top=1e12),
        *(Field(id, "c2c_errors." + kind) for id, kind in CHIP_LINK_ERRORS.items()),
    )

    def __init__(self, library: Library, handle: ctypes.c_void_p, index: int) -> None:
        self._library, self._index = library, index
        self._links = 0
        self.values: dict[str, float] = {}
        fn: Callable[..., int] | None = library.function("nvmlDeviceGetFieldValues")
        if fn is None:
            return
        count = FieldArray(fn, handle, [self.COUNT])
        if self._ask(count) == codes.SUCCESS:
            _, code, links = next(count.results())
            self._links = int(links) if code == codes.SUCCESS and 0 < links <= self.COUNT.top else 0
        if self._links:
            trial = [entry._replace(scope=link) for entry in self.OF_A_LINK for link in range(self._links)]
            self._array = FieldArray(fn, handle, trial)
            self._ask(self._array)
            kept = [entry for entry, code, _ in self._array.results() if code not in codes.PERMANENT]
            self._array = FieldArray(fn, handle, kept or [self.COUNT])
            self.read()

    def _ask(self, array: FieldArray) -> int:
        with self._library.calling("nvmlDeviceGetFieldValues", self._index):
            code = array.fn(*array.args)
        judge(code)
        return code

    def read(self) -> int:
        """Ask every link. What one link does not tell this time gives no sum."""
        code = self._ask(self._array)
        self.values = {"c2c_links": self._links}
        for entry, result, value in self._array.results():
            judge(result)
            if entry.key != self.COUNT.key:
                good = result == codes.SUCCESS and 0 <= value <= entry.top
                self.values[entry.key] = self.values.get(entry.key, 0.0) + (value if good else math.nan)
        return code
