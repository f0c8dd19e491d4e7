"""The real agent on the simulator, scraped and judged by our rules: all is well, and then a GPU is lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.base.catalogue import gpu
from chaos.simulator.build import build
from chaos.simulator.world import World

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the simulator (apt: gcc libc6-dev)"),
]


@dataclass
class Node:
    """A simulated node with its agent and the Prometheus that scrapes it."""

    world: World
    chain: Any
    kmsg: Path

    def gpu(self, place: int) -> tuple[str, int]:
        """UUID and number of a GPU."""
        found = sorted(self.chain.query(gpu.UP.name), key=lambda one: int(one["metric"]["gpu"]))[place]
        return found["metric"]["uuid"], int(found["metric"]["gpu"])


@pytest.fixture(scope="module")
def node(prometheus: str, tmp_path_factory: pytest.TempPathFactory, make_chain: Any) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    library = build("simulator")
    state = folder / "world"
    world = World.create(state)
    kmsg = folder / "kmsg"
    kmsg.touch()
    (folder / "agent.yaml").write_text(
        yaml.safe_dump(
            {
                "node": "n1",
                "cluster": "c1",
                "listen": "127.0.0.1:0",
                "state_dir": str(folder / "state"),
                "run_dir": str(folder / "run"),
                "collectors": {"gpu": {"period": "1s", "retry_lost": "1s"}, "xid": {"kmsg": str(kmsg)}},
            }
        )
    )
    command = [sys.executable, "-m", "agent.cli", "agent", "run", "--config", str(folder / "agent.yaml")]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "GPUVIGIL_SIM_STATE": str(state)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as agent:
        try:
            address = _address(agent)
            with make_chain(prometheus, address, folder) as chain:
                yield Node(world, chain, kmsg)
        finally:
            agent.terminate()
            agent.wait(60)


def _address(agent: subprocess.Popen[str]) -> str:
    assert agent.stderr is not None
    for line in agent.stderr:
        if found := re.search(r"msg=listening address=(\S+)", line):
            threading.Thread(target=agent.stderr.read, daemon=True).start()
            return found[1]
    pytest.fail("the agent never listened")


def firing(node: Node) -> set[str]:
    return {found["metric"]["alertname"] for found in node.chain.query('ALERTS{alertstate="firing"}')}


def test_prometheus_takes_the_whole_page(node: Node) -> None:
    chain = node.chain
    chain.wait_for("8 GPUs are scraped", lambda: len(chain.query(f"{gpu.UP} == 1")) == 8)
    assert {found["metric"]["synthetic"] for found in chain.query(gpu.UP.name)} == {"true"}
    [scraped] = chain.query('scrape_samples_scraped{job="gpuvigil-agent"}')
    with urllib.request.urlopen(f"http://{scraped['metric']['instance']}/metrics", timeout=10) as response:
        lines = [line for line in response.read().decode().splitlines() if line and not line.startswith("#")]
    # a collector may begin or end between the two looks; a page cut short would lack far more
    assert float(scraped["value"][1]) >= 0.9 * len(lines)
    assert chain.query('up{job="gpuvigil-agent"}')[0]["value"][1] == "1"


def test_a_healthy_node_is_quiet(node: Node) -> None:
    node.chain.evaluated(5)
    assert node.chain.query("sum(prometheus_rule_evaluation_failures_total)")[0]["value"][1] == "0"
    # the machine under the test may have its own troubles with disks; GPUs and agents have none
    assert not {name for name in firing(node) if name.startswith(("Gpu", "Agent"))}


def test_a_lost_gpu_reaches_the_drills_door(node: Node) -> None:
    chain = node.chain
    uuid, index = node.gpu(3)
    fault = node.world.set("gpu_lost", index)
    alert = chain.delivered(uuid, "/drill")
    assert alert["labels"]["synthetic"] == "true"
    assert alert["labels"]["gpu"] == str(index)
    assert "SIMULATED" in alert["annotations"]["description"]
    node.world.clear(fault)
    chain.delivered(uuid, "/drill", "resolved")
    assert not [path for path, _, _ in chain.deliveries(uuid) if path == "/page"]


def test_an_xid_is_told_with_its_code(node: Node) -> None:
    uuid, index = node.gpu(5)
    node.world.set("xid", index, code=79, kmsg=str(node.kmsg))
    alert = node.chain.delivered(uuid, "/drill", name="GpuXid")
    assert (alert["labels"]["action"], alert["labels"]["severity"]) == ("RESTART_BM", "page")
    assert "Recent Xid: 79." in alert["annotations"]["description"]
