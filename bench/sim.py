"""What the simulator costs: one call in C, and a sweep of 60 readings over 8 GPUs from Python.

`sim_call_ns` is the mean over the scalar getters of a GPU agent, called from a C loop. `sim_sweep_cpu_ms` is the CPU
time of 60 prepared ctypes calls on each of 8 GPUs, the least of many sweeps (others share the machine).
Prints `name value unit` lines.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))  # a script's folder comes first: bench/agent.py would be `agent`

from chaos.simulator.build import LIBRARY, build
from chaos.simulator.world import STATE_VARIABLE, World

GPUS = 8
SWEEPS = 200
# getter, its leading arguments after the device, bytes of its answer
READINGS: list[tuple[str, tuple[int, ...], int]] = [
    ("nvmlDeviceGetPowerUsage", (), 4),
    ("nvmlDeviceGetEnforcedPowerLimit", (), 4),
    ("nvmlDeviceGetPowerManagementLimit", (), 4),
    ("nvmlDeviceGetTotalEnergyConsumption", (), 8),
    ("nvmlDeviceGetTemperature", (0,), 4),
    *(("nvmlDeviceGetClockInfo", (clock,), 4) for clock in range(4)),
    *(("nvmlDeviceGetMaxClockInfo", (clock,), 4) for clock in range(4)),
    ("nvmlDeviceGetPerformanceState", (), 4),
    ("nvmlDeviceGetCurrentClocksEventReasons", (), 8),
    ("nvmlDeviceGetUtilizationRates", (), 8),
    *(("nvmlDeviceGetTotalEccErrors", (severity, life), 8) for severity in (0, 1) for life in (0, 1)),
    *(("nvmlDeviceGetMemoryErrorCounter", (severity, 0, place), 8) for severity in (0, 1) for place in range(6)),
    ("nvmlDeviceGetCurrPcieLinkGeneration", (), 4),
    ("nvmlDeviceGetCurrPcieLinkWidth", (), 4),
    ("nvmlDeviceGetMaxPcieLinkGeneration", (), 4),
    ("nvmlDeviceGetMaxPcieLinkWidth", (), 4),
    ("nvmlDeviceGetPcieReplayCounter", (), 4),
    *(("nvmlDeviceGetNvLinkState", (link,), 4) for link in range(18)),
    ("nvmlDeviceGetMemoryInfo", (), 24),
    ("nvmlDeviceGetBAR1MemoryInfo", (), 24),
    ("nvmlDeviceGetPersistenceMode", (), 4),
    ("nvmlDeviceGetComputeMode", (), 4),
    ("nvmlDeviceGetIndex", (), 4),
]
assert len(READINGS) == 60

LOOP = """
#include <time.h>
typedef unsigned int (*get_t)(void *, void *);
double mean_ns(get_t *get, unsigned int getters, void **device, unsigned int devices, unsigned int rounds)
{
    struct timespec a, b;
    unsigned long long out[8];
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    for (unsigned int round = 0; round < rounds; round++)
        for (unsigned int d = 0; d < devices; d++)
            for (unsigned int g = 0; g < getters; g++)
                get[g](device[d], out);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    return ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / rounds / devices / getters;
}
"""


def main() -> int:
    library = build() / LIBRARY
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, "state")
        World.create(state, profile="h100", gpus=GPUS, workload="training").close()
        os.environ[STATE_VARIABLE] = str(state)
        nvml = ctypes.CDLL(str(library))
        assert nvml.nvmlInit_v2() == 0
        devices = []
        for index in range(GPUS):
            device = ctypes.c_void_p()
            assert nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0
            devices.append(device)
        print(f"sim_call_ns {call_ns(nvml, devices, Path(folder)):.0f} ns")
        print(f"sim_sweep_cpu_ms {sweep_ms(nvml, devices):.3f} ms")
    return 0


def call_ns(nvml: ctypes.CDLL, devices: list[ctypes.c_void_p], folder: Path) -> float:
    """Mean CPU time of a getter without arguments, in a loop over all GPUs."""
    source, library = folder / "loop.c", folder / "loop.so"
    source.write_text(LOOP, encoding="ascii")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    loop = ctypes.CDLL(str(library))
    loop.mean_ns.restype = ctypes.c_double
    names = [name for name, arguments, _ in READINGS if not arguments]
    getters = (ctypes.c_void_p * len(names))(*(ctypes.cast(nvml[name], ctypes.c_void_p) for name in names))
    handles = (ctypes.c_void_p * len(devices))(*devices)
    return min(float(loop.mean_ns(getters, len(names), handles, len(devices), 2000)) for _ in range(5))


def sweep_ms(nvml: ctypes.CDLL, devices: list[ctypes.c_void_p]) -> float:
    """CPU time of 60 readings x 8 GPUs with prepared calls, as an agent would make them."""
    plan = []
    for device in devices:
        for name, arguments, size in READINGS:
            function = nvml[name]
            function.argtypes = [ctypes.c_void_p, *(ctypes.c_uint for _ in arguments), ctypes.c_void_p]
            out = ctypes.create_string_buffer(size)
            plan.append((function, (device, *(ctypes.c_uint(value) for value in arguments), ctypes.byref(out))))
    least = float("inf")
    for _ in range(SWEEPS):
        start = time.thread_time()
        codes = [function(*arguments) for function, arguments in plan]
        least = min(least, time.thread_time() - start)
        assert not any(codes)
    return least * 1000


if __name__ == "__main__":
    sys.exit(main())
