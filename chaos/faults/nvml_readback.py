"""What NVML says of each GPU, asked in a process of its own through the library given.

Run as a program (`python -m chaos.faults.nvml_readback`) it prints one JSON object; a drill reads a
fault's effect and its end back this way, through the same door as the agent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from agent.base.errors import CannotTell


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML shows it: `error` is empty while it answers; `pids` are compute processes."""

    index: int
    uuid: str
    error: str
    pids: tuple[int, ...]


def read(library: Path, state: Path, timeout: float = 20.0) -> list[Gpu]:
    """All GPUs through the simulator's library in `library` with the world in `state`.

    Raises:
        CannotTell: the library does not load or does not answer in time.
    """
    env = {**os.environ, "LD_LIBRARY_PATH": str(library), "GPUVIGIL_SIM_STATE": str(state)}
    command = [sys.executable, "-m", "chaos.faults.nvml_readback"]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise CannotTell(f"NVML in {library} does not answer within {timeout:g} s") from None
    if done.returncode:
        raise CannotTell(f"NVML in {library}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return [Gpu(row["index"], row["uuid"], row["error"], tuple(row["pids"])) for row in json.loads(done.stdout)]


def main() -> int:
    import pynvml as nv

    nv.nvmlInit()
    rows = []
    for index in range(nv.nvmlDeviceGetCount()):
        row = {"index": index, "uuid": "", "error": "", "pids": []}
        rows.append(row)
        try:
            handle = nv.nvmlDeviceGetHandleByIndex(index)
            row["uuid"] = nv.nvmlDeviceGetUUID(handle)
            nv.nvmlDeviceGetTemperature(handle, nv.NVML_TEMPERATURE_GPU)
            row["pids"] = [process.pid for process in nv.nvmlDeviceGetComputeRunningProcesses(handle)]
        except nv.NVMLError as error:
            row["error"] = str(error)
    print(json.dumps(rows))  # noqa: T201 - the answer
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
