"""NVML's return codes and what each means for us: one policy, used by every call."""

from __future__ import annotations

from typing import Final

SUCCESS: Final = 0
UNINITIALIZED: Final = 1
INVALID_ARGUMENT: Final = 2
NOT_SUPPORTED: Final = 3
NO_PERMISSION: Final = 4
NOT_FOUND: Final = 6
INSUFFICIENT_SIZE: Final = 7
DRIVER_NOT_LOADED: Final = 9
TIMEOUT: Final = 10
LIBRARY_NOT_FOUND: Final = 12
FUNCTION_NOT_FOUND: Final = 13
CORRUPTED_INFOROM: Final = 14
GPU_IS_LOST: Final = 15
RESET_REQUIRED: Final = 16
OPERATING_SYSTEM: Final = 17
LIB_RM_VERSION_MISMATCH: Final = 18
IN_USE: Final = 19
NO_DATA: Final = 21
ARGUMENT_VERSION_MISMATCH: Final = 25
DEPRECATED: Final = 26
NOT_READY: Final = 27
GPU_NOT_FOUND: Final = 28
UNKNOWN: Final = 999

PERMANENT: Final = frozenset({NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH, DEPRECATED})
"""Will not change while this library is loaded: the series is left out, nothing but what is forbidden asked again."""
REFUSED: Final = PERMANENT | {INVALID_ARGUMENT}
"""They speak of the call, not of the GPU: whether it is there, nobody can tell."""
GONE: Final = frozenset({GPU_IS_LOST, GPU_NOT_FOUND})
"""From any call, whatever other calls still answer: this GPU is lost."""
GONE_AT_OPEN: Final = GONE | {UNKNOWN}
"""999 from the handle is how a GPU that fell off the bus shows up."""
DOWN: Final = frozenset({UNINITIALIZED, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, LIB_RM_VERSION_MISMATCH})
"""All of NVML is down. A library once loaded stays mapped, so only a new process meets a new driver."""

_NAMES: Final = {value: name.lower() for name, value in list(globals().items()) if isinstance(value, int)}


def name(code: int) -> str:
    """The code as a short word for labels: `gpu_is_lost`; a number where we know no word."""
    return _NAMES.get(code, str(code))
