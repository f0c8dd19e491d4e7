"""The real agent on the simulated node: its page, a hung driver, a full disk. Simulated values throughout."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bench.harness import node as harness
from chaos.simulator.build import build
from chaos.simulator.world import STATE_VARIABLE, World

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("cc") is None, reason="the simulator needs a C compiler"),
]
DROPPED = "gpuvigil_agent_dropped_samples_total"
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}


class Node:
    """A simulated node of two GPUs and its agent."""

    def __init__(self, folder, limits=None):
        self.world = World.create(folder / "sim.state", gpus=2)
        config = folder / "agent.yaml"
        config.write_text(
            f"listen: 127.0.0.1:0\nstate_dir: {folder}/state\nrun_dir: {folder}/run\ntick: 200ms\n"
            "collectors:\n  gpu: {period: 500ms, interval: 500ms, call_deadline: 1s, retry_lost: 2s}\n"
        )
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "agent", "run", "--strict", "--config", str(config)],
            stderr=self.log,
            env={**os.environ, "LD_LIBRARY_PATH": str(build("simulator")), STATE_VARIABLE: str(self.world.path)},
            preexec_fn=limits,
        )
        found = self.until(lambda: re.search(r"address=127\.0\.0\.1:(\d+)", (folder / "log").read_text()))
        self.url = f"http://127.0.0.1:{found[1]}"

    def until(self, condition, seconds=40):
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)
        return value

    def said(self):
        self.log.seek(0)
        return self.log.read()[-3000:]

    def get(self, path, headers=None):
        with urllib.request.urlopen(
            urllib.request.Request(self.url + path, headers=headers or {}), timeout=20
        ) as answer:
            return answer.read().decode()

    def values(self, name):
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics", OPENMETRICS))
            for sample in family.samples
            if sample.name == name
        }

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.world.close()
            self.log.close()
        return code


@pytest.fixture
def node(tmp_path):
    started = []

    def start(**options):
        started.append(Node(tmp_path, **options))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end()


def test_the_page_is_whole_sound_and_says_simulated(node):
    running = node()
    running.until(lambda: len(running.values("gpuvigil_gpu_up")) == 2)
    assert list(running.values("gpuvigil_agent_simulated").values()) == [1.0]
    assert "SIMULATED" in running.get("/")
    page = running.get("/metrics")
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "metrics"], input=page, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    failed = [labels for labels, value in running.values("gpuvigil_collector_success").items() if value == 0]
    assert failed == [], running.get("/readyz")
    assert running.end() == 0


def test_a_hung_driver_hangs_nothing_else_and_is_named(node):
    running = node()
    running.until(lambda: len(running.values("gpuvigil_gpu_power_watts")) == 2)
    running.world.set("hang", gpu=1)
    stuck = running.until(lambda: [x for x, s in running.values("gpuvigil_gpu_driver_stuck_seconds").items() if s > 0])
    assert dict(stuck[0])["gpu"] == "1"
    assert running.get("/healthz") == "ok\n"
    assert running.values("gpuvigil_node_cpus"), "the rest is still served"
    running.world.clear()
    running.until(lambda: len(running.values("gpuvigil_gpu_power_watts")) == 2)
    assert running.end() == 0


def test_a_full_disk_costs_what_would_be_written_and_nothing_else(node):
    # no file may grow beyond 4 KiB, the log included: writing fails as on a full disk
    running = node(limits=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    running.until(lambda: len(running.values("gpuvigil_gpu_up")) == 2)
    assert running.get("/healthz") == "ok\n"
    assert running.process.poll() is None


def test_a_node_never_has_more_series_than_agreed(tmp_path):
    """Sixteen GPUs with a series for every link are more than 2,000: whole families go, counted by collector."""
    node = harness.Node(tmp_path, gpus=16, collectors={"gpu": {"per_link": True}})
    try:
        node.start()
        node.see(lambda page: any(n for _, n in page.all(DROPPED, collector="gpu", reason="node_budget")))
        time.sleep(2.5)  # a tick later the agent's own new lines are counted, too
        page = node.page()
        assert len(page) == page.value("gpuvigil_agent_series") <= 2000
        assert page.all("gpuvigil_gpu_nvlink_link_bytes_total") == [], "whole families go, the largest first"
        assert len(page.all("gpuvigil_collector_success")) > 10, "what the agent says of itself stays"
    finally:
        node.close()
