"""NVLink: how many links a GPU has, how many are up, and their errors summed over links."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Final

from agent.gpu import codes
from agent.gpu.fields import FieldArray
from agent.gpu.nvml import Library, judge
from agent.gpu.readings import COUNT_TOP, LINK_ERRORS, MAX_LINKS, Field

STATE: Final = "nvmlDeviceGetNvLinkState"


class Links:
    """The links of one GPU: `read()` asks for all, `values` holds the outcome by reading.

    A link is one that answers for its state; counts a driver gives are never trusted.
    """

    def __init__(self, library: Library, handle: ctypes.c_void_p, index: int) -> None:
        self._library, self._handle, self._index = library, handle, index
        self._active = ctypes.c_uint()
        self.links = [link for link in range(MAX_LINKS) if self._state(link) is not None]
        self.values: dict[str, float] = {}
        self._errors: FieldArray | None = None
        fields: Callable[..., int] | None = library.function("nvmlDeviceGetFieldValues")
        if self.links and fields is not None:
            wanted = [Field(id, key, 1.0, COUNT_TOP, link) for id, key in LINK_ERRORS.items() for link in self.links]
            array = FieldArray(fields, handle, wanted)
            code = self._ask(array)
            kept = [entry for entry, result, _ in array.results() if code == 0 and result not in codes.PERMANENT]
            self._errors = FieldArray(fields, handle, kept) if kept else None

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

    @property
    def keys(self) -> tuple[str, ...]:
        errors = {entry.key for entry in self._errors.entries} if self._errors else ()
        return ("nvlink_links", "nvlink_active", *sorted(errors))

    def read(self) -> int:
        """Ask every link. A kind of error that one link does not tell this time is no sum.

        Raises:
            Gone, Down: by the policy of agent.gpu.codes.
        """
        states = [self._state(link) for link in self.links]
        self.values = {
            "nvlink_links": len(self.links),
            "nvlink_active": sum(map(bool, states)) if None not in states else math.nan,
        }
        if self._errors is not None:
            code = self._ask(self._errors)
            sums = dict.fromkeys((entry.key for entry in self._errors.entries), 0.0)
            for entry, result, value in self._errors.results():
                judge(result)
                plausible = code == result == codes.SUCCESS and 0 <= value <= entry.top
                sums[entry.key] += value if plausible else math.nan
            self.values.update(sums)
        return codes.SUCCESS
