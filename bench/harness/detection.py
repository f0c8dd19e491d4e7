"""What the benches of detection share: one BLAS thread, made-up series on one grid, CPU time, printed figures."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before numpy is loaded; Prophet's CmdStan inherits it

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from alerts.detect.model import Options  # noqa: E402
from alerts.detect.samples import KINDS, sample  # noqa: E402

STEP, POINTS, AHEAD = 300.0, 4032, 288
HOUR = 12
TIMES = 1_700_006_400.0 + STEP * np.arange(POINTS + AHEAD)
PAST, FUTURE = TIMES[:POINTS], TIMES[POINTS:]
BOTH = Options(daily=True, weekly=True)


def note(name: str, value: float, unit: str) -> None:
    """One figure, on stdout."""
    print(f"{name} {value:.4g} {unit}".rstrip(), flush=True)


def progress(text: str) -> None:
    """Where a long part stands, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def cpu() -> float:
    """Seconds of this process and the children that have ended, such as Prophet's CmdStan."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def kinds(number: int) -> npt.NDArray[np.float64]:
    """`number` distinct series (POINTS + AHEAD, number): every kind in turn, another seed each time."""
    return np.stack([sample(KINDS[i % len(KINDS)], len(TIMES), STEP, seed=i) for i in range(number)], axis=1)


def blas() -> str:
    """Which kernel of which BLAS numpy runs, and with how many threads: figures depend on it."""
    for path in sorted(Path(np.__file__).parent.parent.glob("numpy.libs/*openblas*")):
        library = ctypes.CDLL(str(path))
        for prefix, suffix in (("scipy_openblas_", "64_"), ("openblas_", "64_"), ("openblas_", "")):
            try:
                core = getattr(library, f"{prefix}get_corename{suffix}")
                threads = getattr(library, f"{prefix}get_num_threads{suffix}")()
            except AttributeError:
                continue
            core.restype = ctypes.c_char_p
            return f"OpenBLAS kernel {core().decode()}, {threads} thread(s)"
    return "a BLAS that does not say which kernel it runs; OMP_NUM_THREADS=1"
