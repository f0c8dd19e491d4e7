"""Engines behind a container's address or a published port: found among the processes that hold a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.inference import container
from agent.inference.engine import Engine
from agent.inference.settings import EngineSettings

PROXY = (
    "/usr/bin/docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8000 -container-ip 172.17.0.2 -container-port 8001"
)
TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 127.0.0.1
        /32 host LOCAL
     |-- {}
        /32 host LOCAL
     |-- 172.17.0.1
        /32 link UNICAST
"""
TCP = "  sl  local_address rem_address   st\n   0: {}:1F41 00000000:0000 {} 00000000:00000000\n"


def process(proc: Path, pid: int, parent: int, group: str, address: str = "", tcp: str = "", tcp6: str = "") -> None:
    folder = proc / str(pid)
    (folder / "net").mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} (python3) S {parent} " + "0 " * 17 + "1200 0\n")
    (folder / "cgroup").write_text(f"0::{group}\n")
    (folder / "net/fib_trie").write_text(TRIE.format(address or "10.0.0.9"))
    (folder / "net/tcp").write_text(tcp or TCP.format("00000000", "01"))
    (folder / "net/tcp6").write_text(tcp6 or "  sl\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Container A: shim 50, server 60, worker 61 with the GPU. Container B: 70, with another address."""
    process(tmp_path, 50, 1, "/system.slice/containerd.service")
    process(tmp_path, 60, 50, "/docker/a", "172.17.0.2", TCP.format("00000000", "0A"))
    process(tmp_path, 61, 60, "/docker/a", "172.17.0.2", TCP.format("00000000", "0A"))
    process(tmp_path, 70, 50, "/docker/b", "172.17.0.3", tcp6=TCP.format("0" * 32, "0A"))
    return tmp_path


def test_the_first_process_of_the_container_that_listens_there(proc: Path) -> None:
    assert container.engine("172.17.0.2", 8001, [61, 70], proc) == 60
    assert container.engine("172.17.0.3", 8001, [61, 70], proc) == 70


@pytest.mark.parametrize(
    ("host", "port", "pids"),
    [
        ("172.17.0.2", 8002, [61]),
        ("172.17.0.1", 8001, [61]),
        ("172.17.0.2", 8001, [70]),
        ("172.17.0.2", 8001, [99]),
        ("engine.local", 8001, [61]),
    ],
)
def test_what_cannot_be_told(proc: Path, host: str, port: int, pids: list[int]) -> None:
    assert container.engine(host, port, pids, proc) is None


def test_two_engines_at_one_address_are_not_guessed(proc: Path) -> None:
    process(proc, 80, 50, "/docker/c", "172.17.0.2", TCP.format("00000000", "0A"))
    assert container.engine("172.17.0.2", 8001, [61, 80], proc) is None


def test_a_published_port_leads_through_the_proxy(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process(proc, 40, 1, "/system.slice/docker.service")
    (proc / "40/cmdline").write_text(PROXY.replace(" ", "\0") + "\0")
    assert container.target_of_proxy(40, proc) == ("172.17.0.2", 8001)
    assert container.target_of_proxy(60, proc) is None
    monkeypatch.setattr("agent.inference.process.listener", lambda url: 40)
    settings = EngineSettings.model_validate({"name": "a", "url": "http://127.0.0.1:8000"})
    assert Engine(settings, proc, lambda: [(61, "0", "GPU-a", "")])._listener() == 60
    assert Engine(settings, proc)._listener() is None, "the proxy is not the engine"
