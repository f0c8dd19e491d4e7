"""The control library (csrc/control.c), by which Python writes worlds: loaded once, its functions typed."""

from __future__ import annotations

import ctypes

from agent.base.errors import VigilError
from chaos.simulator import records
from chaos.simulator.build import CONTROL, build

_loaded: ctypes.CDLL | None = None


def library() -> ctypes.CDLL:
    """The control library, built if need be and loaded once.

    Raises:
        VigilError: it cannot be built, or its records differ from ours.
    """
    global _loaded
    if _loaded is not None:
        return _loaded
    loaded = ctypes.CDLL(str(build() / CONTROL))
    sizes = (ctypes.c_uint32 * len(records.RECORDS)).in_dll(loaded, "gpuvigil_sizes")
    if list(sizes) != [ctypes.sizeof(record) for record in records.RECORDS]:
        raise VigilError("the simulator's library and its Python side differ: rebuild with `gpuvigil chaos sim build`")
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    signatures: dict[str, tuple[object, list[object]]] = {
        "gpuvigil_create": (
            integer,
            [
                ctypes.c_char_p,
                ctypes.POINTER(records.Header),
                ctypes.POINTER(records.Identity),
                ctypes.POINTER(records.GpuState),
                ctypes.c_double,
            ],
        ),
        "gpuvigil_open": (pointer, [ctypes.c_char_p, ctypes.c_char_p]),
        "gpuvigil_close": (None, [pointer]),
        "gpuvigil_header": (ctypes.POINTER(records.Header), [pointer]),
        "gpuvigil_identity": (ctypes.POINTER(records.Identity), [pointer, ctypes.c_uint]),
        "gpuvigil_read": (None, [pointer, ctypes.c_uint, ctypes.POINTER(records.GpuState)]),
        "gpuvigil_boot_now": (ctypes.c_int64, []),
        "gpuvigil_set": (
            ctypes.c_int64,
            [pointer, ctypes.c_uint, ctypes.c_uint32, ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(ctypes.c_double)],
        ),
        "gpuvigil_clear": (integer, [pointer, ctypes.c_uint, ctypes.c_uint32]),
        "gpuvigil_set_clock": (integer, [pointer, ctypes.c_double, ctypes.c_int64]),
        "gpuvigil_change": (None, [pointer, ctypes.c_uint, ctypes.POINTER(records.GpuState)]),
        "gpuvigil_end": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    _loaded = loaded
    return loaded
