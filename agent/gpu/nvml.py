"""The NVML library under prepared calls: loaded by nvidia-ml-py, called by ctypes.

nvidia-ml-py finds and initialises the library, so whatever it would load is what we speak to.
The calls of each sweep bypass its wrappers: function, device and buffers are resolved once.
Only the child process imports this.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic_ns
from typing import Any, Final, TypeVar

import pynvml

from agent.gpu import codes
from agent.gpu.readings import NUMBER
from agent.gpu.wire import begin

T = TypeVar("T")
NAME: Final = "libnvidia-ml.so.1"


class Down(Exception):
    """NVML as a whole does not answer; `code` says why."""

    def __init__(self, code: int) -> None:
        super().__init__(codes.name(code))
        self.code = code


class Gone(Exception):
    """This GPU is lost."""

    def __init__(self, code: int) -> None:
        super().__init__(codes.name(code))
        self.code = code


class Library:
    """The loaded library and the lane of the heartbeat on which its calls are announced."""

    def __init__(self, lane: memoryview, path: str | None = None) -> None:
        self.lane = lane
        self._path = path
        self._functions: dict[str, Any] = {}

    def load(self) -> None:
        """Load the library as nvidia-ml-py would, but apart from initialising it.

        Whether it is the simulator is then known even where initialising never returns.

        Raises:
            Down: there is no library.
        """
        if pynvml.nvmlLib is None:
            try:
                pynvml.nvmlLib = ctypes.CDLL(self._path or NAME)
            except OSError:
                raise Down(codes.LIBRARY_NOT_FOUND) from None

    def open(self) -> None:
        """Initialise NVML, which opens no GPU yet.

        Raises:
            Down: no driver, or a library that does not fit it.
        """
        with self.calling("nvmlInit"):
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError as error:
                raise Down(error.value) from None

    @property
    def synthetic(self) -> bool | None:
        """Whether the loaded library is the simulator; None before one is loaded."""
        if pynvml.nvmlLib is None:
            return None
        return self.function("gpuvigil_sim") is not None

    def function(self, name: str) -> Any:
        """A function object of our own (its settings are not shared), or None where the driver lacks it."""
        function = self._functions.get(name)
        if function is None:
            try:
                function = pynvml.nvmlLib[name]  # a look at the library's symbols each time
            except AttributeError:
                return None
            function.restype = ctypes.c_int
            self._functions[name] = function
        return function

    def call(self, name: str, *args: Any, index: int | None = None, lane: memoryview | None = None) -> int:
        """One announced call; returns NVML's code (13 where the driver lacks the function)."""
        function = self.function(name)
        if function is None:
            return codes.FUNCTION_NOT_FOUND
        lane = self.lane if lane is None else lane
        begin(lane, NUMBER.get(name, 0), index, monotonic_ns())
        try:
            return int(function(*args))
        finally:
            lane[2] = 0

    def ask(self, wrapper: Callable[..., T], *args: Any, index: int | None = None) -> T | None:
        """One call through nvidia-ml-py's wrapper, announced; None if it fails in a way that may.

        Raises:
            Down, Gone: by the policy of agent.gpu.codes.
        """
        with self.calling(wrapper.__name__, index):
            try:
                return wrapper(*args)
            except pynvml.NVMLError as error:
                if index is not None or error.value not in codes.GONE:  # a call about no GPU knows of no lost one
                    judge(error.value)
                return None
            except pynvml.NVMLLibraryMismatchError:
                return None

    @contextmanager
    def calling(self, name: str, index: int | None = None) -> Iterator[None]:
        begin(self.lane, NUMBER.get(name, 0), index, monotonic_ns())
        try:
            yield
        finally:
            self.lane[2] = 0


def judge(code: int) -> None:
    """Raise what a code means for more than the call that returned it.

    Raises:
        Gone: the GPU is lost, whatever its other calls still answer.
        Down: the driver went away or no longer fits the library.
    """
    if code in codes.GONE:
        raise Gone(code)
    if code in codes.DOWN:
        raise Down(code)


def text(value: object) -> str:
    """Some wrappers return bytes, some text (it varies by driver and wrapper)."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
