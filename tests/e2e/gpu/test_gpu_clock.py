"""The wall clock stepped by an hour under a running agent: values go on, counters do not jump, nothing counts twice."""

import ctypes
import json
import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from bench.harness.processes import free_port

pytestmark = pytest.mark.e2e

HOUR = 3600
# Adds the seconds in the file TEST_WALL_CLOCK to the wall clock of a process, and to no other clock.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static volatile const long *seconds;
__attribute__((constructor)) static void start(void)
{
    int fd = open(getenv("TEST_WALL_CLOCK"), O_RDONLY);
    void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    seconds = page == MAP_FAILED ? NULL : page;
}
int clock_gettime(clockid_t clock, struct timespec *out)
{
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, out);
    if (clock == CLOCK_REALTIME && seconds != NULL)
        out->tv_sec += *seconds;
    return result;
}
"""
LINE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)")


class Clock:
    def __init__(self, folder):
        path = folder / "clock"
        path.write_bytes(bytes(4096))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 4096)
        source, library = folder / "clock.c", folder / "libclock.so"
        source.write_text(SHIM)
        compiler = shutil.which("cc") or shutil.which("gcc") or "clang"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        self.env = {"LD_PRELOAD": str(library), "TEST_WALL_CLOCK": str(path)}

    def set(self, seconds):
        self._page[: struct.calcsize("l")] = struct.pack("l", seconds)


class Agent:
    """A running agent whose wall clock is ours to set."""

    def __init__(self, node, folder):
        self.port = free_port()
        self.clock, fast = Clock(folder), {"period": "300ms"}
        config = folder / "agent.yaml"
        collectors = {
            "gpu": {**fast, "interval": "200ms"},
            "xid": {**fast, "kmsg": str(node.kmsg)},
            "health": fast,
        }
        settings = {"listen": f"127.0.0.1:{self.port}", "state_dir": str(folder / "agent"), "run_dir": str(folder)}
        config.write_text(json.dumps({**settings, "tick": "300ms", "collectors": collectors}))
        command = [sys.executable, "-m", "agent.cli", "agent", "run", "--config", str(config)]
        self.process = subprocess.Popen(command, env={**os.environ, **self.clock.env})

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def page(self):
        """Series by name and labels, without what says that they are simulated."""
        found = {}
        for line in self.get("/metrics").splitlines():
            if match := LINE.match(line):
                labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match[2] or "")) - {("synthetic", "true")}
                found[match[1], labels] = float(match[3])
        return found

    def until(self, seen):
        deadline = time.monotonic() + 60
        while True:
            try:
                page = self.page()
                if seen(page):
                    return page
            except (urllib.error.URLError, OSError):
                page = {}
            assert time.monotonic() < deadline, sorted(map(str, page))[:40]
            time.sleep(0.2)


def one(page, name, **labels):
    found = [value for (stem, key), value in page.items() if stem == name and set(labels.items()) <= key]
    return found[0] if len(found) == 1 else None


@pytest.fixture
def agent(make_node, tmp_path):
    node = make_node(world={"gpus": 2})
    node.stop()
    made = Agent(node, tmp_path)
    made.node = node
    yield made
    made.process.send_signal(signal.SIGTERM)
    made.process.wait(timeout=30)


def resets(page):
    """Xids of GPU 1 that ask for a reset."""
    return one(page, "gpuvigil_gpu_xid_events_total", gpu="1", action="RESET_GPU")


def powers(page):
    return [one(page, "gpuvigil_gpu_power_watts", gpu=gpu) for gpu in "01"]


def test_the_shim_moves_the_wall_clock_alone(tmp_path):
    clock = Clock(tmp_path)
    clock.set(HOUR)
    program = "import time; print(time.time(), time.monotonic())"
    run = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **clock.env}, capture_output=True, text=True, check=True
    )
    wall, monotonic = map(float, run.stdout.split())
    assert wall == pytest.approx(time.time() + HOUR, abs=30)
    assert monotonic == pytest.approx(time.monotonic(), abs=30)
    assert ctypes.sizeof(ctypes.c_long) == struct.calcsize("l")


def test_an_hour_forward_and_back(agent):
    before = agent.until(lambda page: None not in powers(page) and resets(page) == 0)
    for step, code, seen in ((HOUR, 48, 1), (0, 119, 2)):
        energy = one(before, "gpuvigil_gpu_energy_joules_total", gpu="1")
        began = time.monotonic()
        agent.clock.set(step)
        stepped = time.time() + step
        page = agent.until(
            lambda page, at=stepped: abs(one(page, "gpuvigil_agent_snapshot_timestamp_seconds") - at) < HOUR / 2
        )
        watts = powers(page)
        assert None not in watts, "no gap"
        agent.until(lambda page, old=watts: None not in powers(page) and powers(page) != old)  # and nothing frozen
        agent.node.world.set("xid", gpu=1, code=code, kmsg=agent.node.kmsg)
        page = agent.until(lambda page, n=seen: resets(page) == n)
        last = one(page, "gpuvigil_gpu_xid_last_timestamp_seconds", gpu="1", xid=str(code))
        assert last == pytest.approx(time.time() + step, abs=60)
        agent.until(lambda page: one(page, "gpuvigil_health_state", component="xid", gpu="1") == 2)
        time.sleep(2)  # longer than the other source needs to tell the same
        before = agent.page()
        assert resets(before) == seen
        passed = time.monotonic() - began
        assert 0 <= one(before, "gpuvigil_gpu_energy_joules_total", gpu="1") - energy <= 750 * passed
        for gpu in "01":
            assert one(before, "gpuvigil_gpu_up", gpu=gpu) == 1
        assert one(before, "gpuvigil_gpu_driver_up") == 1
        assert one(before, "gpuvigil_gpu_child_restarts_total") == 0
        for collector in ("gpu", "xid", "health"):
            assert one(before, "gpuvigil_collector_success", collector=collector) == 1
        verdicts = json.loads(agent.get("/api/v1/health"))["verdicts"]
        xid = next(each for each in verdicts if each["component"] == "xid" and each["gpu"] == "1")
        assert xid["evidence"]["minute"]["readings"]["power"]["max"] > 0
