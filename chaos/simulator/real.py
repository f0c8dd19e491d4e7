"""What GPUs a real NVML library shows: asked in a process of its own, which may hang or die alone.

Run as a program (`python -m chaos.simulator.real LIBRARY`) it prints one JSON object.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml

from agent.base.errors import CannotTell


def survey(library: Path, timeout: float = 30.0) -> dict[str, Any]:
    """Driver and NVML versions, and per GPU: uuid, name, PCI place, memory, highest clocks, slowdown temperature.

    Raises:
        CannotTell: the library does not load, has no driver, or does not answer in time.
    """
    command = [sys.executable, "-m", __name__, str(library)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise CannotTell(f"{library}: does not answer within {timeout:g} s") from None
    if done.returncode != 0:
        raise CannotTell(f"{library}: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _or_zero(call: Callable[..., int], *arguments: object) -> int:
    try:
        return int(call(*arguments))
    except pynvml.NVMLError:
        return 0


def _gpu(index: int) -> dict[str, object]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    pci = pynvml.nvmlDeviceGetPciInfo(handle)
    return {
        "uuid": pynvml.nvmlDeviceGetUUID(handle),
        "name": pynvml.nvmlDeviceGetName(handle),
        "place": [pci.domain, pci.bus, pci.device],
        "memory": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        "clocks": [_or_zero(pynvml.nvmlDeviceGetMaxClockInfo, handle, kind) for kind in range(4)],
        "slowdown": _or_zero(pynvml.nvmlDeviceGetTemperatureThreshold, handle, 1),
    }


def main() -> int:
    pynvml.nvmlLib = ctypes.CDLL(sys.argv[1])
    try:
        pynvml.nvmlInit()
        answer = {
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "nvml": pynvml.nvmlSystemGetNVMLVersion(),
            "gpus": [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())],
        }
    except pynvml.NVMLError as error:
        print(f"NVML says: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps(answer))  # noqa: T201 - the answer
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
