"""Memory that is free in this process and yet counted as its own."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
"""From the GNU C library's malloc.h."""


def few_heaps() -> None:
    """Have what is freed be found again by all threads, and large blocks go back to the kernel at once.

    By default each thread allocates from a heap of its own, and a large block that was freed raises the size from
    which blocks are kept apart (mallopt(3)). Python's table of interned strings, two megabytes that are now and then
    made anew by whichever thread comes upon it, then leaves a hole of that size in one heap after the other.
    Call it before there are threads. Elsewhere than with the GNU C library nothing happens.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(M_ARENA_MAX, 1)
        tune(M_MMAP_THRESHOLD, 1 << 20)
        tune(M_TRIM_THRESHOLD, 2 << 20)  # else the end of the heap goes and comes with every page that is made


def give_back() -> None:
    """Hand memory that start-up used for a moment back to the kernel: compiling alone leaves ten megabytes of it.

    malloc_trim(3) is the GNU C library's; elsewhere nothing happens.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
