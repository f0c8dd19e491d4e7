"""Memory that is free in this process and yet counted as its own."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Hand memory that start-up used for a moment back to the kernel: compiling alone leaves ten megabytes of it.

    malloc_trim(3) is the GNU C library's; elsewhere nothing happens.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
