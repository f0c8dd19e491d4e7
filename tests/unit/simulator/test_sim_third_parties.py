"""Programs that know nothing of us see the simulated node, and a lost GPU on it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness.processes import free_port
from chaos.simulator.world import STATE_VARIABLE, World

Make = Callable[..., World]
BIN = Path(sys.executable).parent


def test_nvitop_shows_the_node(make: Make, in_world: Callable[..., Any]) -> None:
    world = make(profile="h100", gpus=8)
    world.set_process(2, os.getpid(), 5 << 30)
    result = in_world(str(BIN / "nvitop"), "-1", "--no-unicode", state=world.path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for gpu in world.gpus:
        assert f"0000{gpu.bus_id}" in result.stdout
    assert result.stdout.count("H100 80GB HBM3") == 8
    assert re.search(rf"\b2\s+{os.getpid()}\b", result.stdout), "our process is listed on GPU 2"


def test_gpustat_reads_the_same_numbers(make: Make, in_world: Callable[..., Any]) -> None:
    world = make(profile="a100", gpus=4)
    result = in_world(str(BIN / "gpustat"), "--json", state=world.path)
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert seen["driver_version"] == "580.95.05"
    assert [gpu["uuid"] for gpu in seen["gpus"]] == [gpu.uuid for gpu in world.gpus]
    for gpu in seen["gpus"]:
        assert gpu["name"] == "NVIDIA A100-SXM4-80GB"
        assert gpu["utilization.gpu"] == 100
        assert 0 < gpu["power.draw"] <= gpu["enforced.power.limit"] == 400


def test_gpustat_says_that_a_gpu_is_lost(make: Make, in_world: Callable[..., Any]) -> None:
    world = make(profile="h100", gpus=4)
    world.set("gpu_lost", 1)
    result = in_world(str(BIN / "gpustat"), state=world.path)
    assert result.returncode == 0, result.stderr
    assert "GPU is lost" in result.stdout
    assert result.stdout.count("H100 80GB HBM3") == 3


def test_nvitop_exporter_exports_the_node(make: Make, library: Path, tmp_path: Path) -> None:
    world = make(profile="h200", gpus=2, speed=1.0)
    port = free_port()
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        exporter = subprocess.Popen(
            [str(BIN / "nvitop-exporter"), "--hostname", "127.0.0.1", "--port", str(port), "--interval", "0.5"],
            env={**os.environ, "LD_LIBRARY_PATH": str(library), STATE_VARIABLE: str(world.path)},
            stdout=log,
            stderr=log,
        )
    try:
        power: dict[str, float] = {}
        page, deadline = "", time.monotonic() + 60
        while len(power) < 2:
            assert exporter.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, page[:2000]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    page = answer.read().decode()
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
            samples = re.finditer(r'^gpu_power_usage_W\{[^}]*uuid="([^"]+)"[^}]*\} (\S+)$', page, re.MULTILINE)
            power = {match[1]: float(match[2]) for match in samples}
        assert set(power) == {gpu.uuid for gpu in world.gpus}
        assert all(50 < watts <= 700 for watts in power.values())
    finally:
        exporter.send_signal(signal.SIGTERM)
        try:
            exporter.wait(10)
        except subprocess.TimeoutExpired:
            exporter.kill()
            exporter.wait()
