"""The clocks of the soak: every timed wait of the agent and of the simulator ends when it ends by the warped clock."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.harness.warp import Warp
from chaos.simulator.build import build
from chaos.simulator.world import STATE_VARIABLE, World

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the library needs a C compiler")

WAIT_FOR_AN_EVENT = """
import pynvml
pynvml.nvmlInit()
events = pynvml.nvmlEventSetCreate()
pynvml.nvmlDeviceRegisterEvents(pynvml.nvmlDeviceGetHandleByIndex(0), pynvml.nvmlEventTypeXidCriticalError, events)
for _ in range(100):
    try:
        pynvml.nvmlEventSetWait_v2(events, 1000)
    except pynvml.NVMLError_Timeout:
        continue
print("ended")
"""
COMPUTE_BESIDE_OTHERS = """
import threading, time
done = False
def compute():
    while not done:
        pass
thread = threading.Thread(target=compute)
time.sleep(60)
thread.start()
done = True
thread.join()
print("ended")
"""
SLEEP = """
import select, threading, time
before = time.monotonic()
time.sleep(100)
threading.Event().wait(100)
select.select([], [], [], 100)
select.poll().poll(100_000)
select.epoll().poll(100)
print("ended" if time.monotonic() - before >= 500 else "too soon")
"""


@pytest.mark.parametrize(
    "program", [WAIT_FOR_AN_EVENT, COMPUTE_BESIDE_OTHERS, SLEEP], ids=["driver", "interpreter", "sleep"]
)
def test_minutes_of_waiting_are_over_in_a_second(tmp_path: Path, program: str) -> None:
    warp, world = Warp(tmp_path, speed=1000.0), World.create(tmp_path / "sim.state", gpus=1)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={
                **os.environ,
                **warp.environment,
                "LD_LIBRARY_PATH": str(build("simulator")),
                STATE_VARIABLE: str(world.path),
            },
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
    finally:
        world.close()
        warp.close()
    assert done.stdout == "ended\n"
