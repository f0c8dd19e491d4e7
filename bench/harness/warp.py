"""Clocks of one's own for a process: its wall clock can be stepped, and time can run faster for it."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("warp.c")
CLOCKS = (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_MONOTONIC_RAW, 5, 6, time.CLOCK_BOOTTIME)
"""Those that are changed; 5 and 6 are the coarse ones."""
_LAYOUT = struct.Struct("dq8q")


class Warp:
    """The control page of one or more processes.

    Args:
        folder: where the page and the library are put.
        speed: seconds that pass for the process in one of ours.
    """

    def __init__(self, folder: Path, speed: float = 1.0) -> None:
        library, page = folder / "warp.so", folder / "warp.page"
        compiler = shutil.which("cc") or shutil.which("gcc") or "clang"
        subprocess.run(
            [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True
        )
        base = [time.clock_gettime_ns(clock) if clock in CLOCKS else 0 for clock in range(8)]
        self._speed, self._base = speed, base
        page.write_bytes(_LAYOUT.pack(speed, 0, *base))
        with page.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), _LAYOUT.size)
        self.environment = {"LD_PRELOAD": str(library), "GPUVIGIL_SIM_WARP": str(page)}
        """What the process has to be started with."""

    def now(self) -> float:
        """The wall clock (Unix seconds) as the process sees it while it is not stepped."""
        base = self._base[time.CLOCK_REALTIME]
        return (base + (time.time_ns() - base) * self._speed) / 1e9

    def step(self, seconds: float) -> None:
        """Let the wall clock stand this far from where it would stand, as seen by the process."""
        struct.pack_into("q", self._page, 8, int(seconds * 1e9))

    def close(self) -> None:
        self._page.close()
