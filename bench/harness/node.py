"""A simulated node and the real agent on it, as a process of its own with all its collectors."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.harness.mounts import ROOT, mount, unmount
from bench.harness.processes import free_port
from bench.harness.warp import Warp
from chaos.simulator.build import build
from chaos.simulator.world import STATE_VARIABLE, World

PATIENCE = 60.0
LAST_STEP = 400
DISK_BYTES = 4 << 20
_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ENGINE_PAGE = Path(__file__).parents[2] / "tests/data/metrics/vllm_0.32_after.prom"


class Page:
    """One page of metrics: `page[name]` is a list of (labels, value)."""

    def __init__(self, text: str) -> None:
        self.size = len(text)
        self._series: dict[str, list[tuple[dict[str, str], float]]] = {}
        for name, labels, value in _LINE.findall(text):
            self._series.setdefault(name, []).append((dict(_LABEL.findall(labels)), float(value)))

    def all(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        wanted = labels.items()
        return [(found, value) for found, value in self._series.get(name, []) if wanted <= found.items()]

    def value(self, name: str, **labels: str) -> float | None:
        """The value of the one series that fits; None if there is none."""
        found = self.all(name, **labels)
        assert len(found) <= 1, (name, labels, found)
        return found[0][1] if found else None

    def gpus(self, name: str) -> dict[str, float]:
        """Value by the label `gpu`."""
        return {labels["gpu"]: value for labels, value in self.all(name)}

    def __len__(self) -> int:
        return sum(map(len, self._series.values()))


@dataclass(frozen=True, slots=True)
class Usage:
    """What the agent's own process holds (resident memory in MB, threads, open files), and its children."""

    rss: float
    threads: int
    fds: int
    children: int
    children_rss: float = 0.0


class Node:
    """A node of simulated GPUs with one engine, one training job and its checkpoints, and the agent that watches it.

    Nothing but the GPUs, the kernel log and the engine's page is made up: the rest is this machine's.

    Args:
        folder: everything is kept below it.
        gpus: how many GPUs.
        speed: seconds that pass for the agent in one of ours.
        collectors: settings that differ from those below, by collector.
    """

    def __init__(
        self,
        folder: Path,
        *,
        gpus: int = 8,
        speed: float = 1.0,
        collectors: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.gpus = gpus
        self.world = World.create(folder / "sim.state", gpus=gpus)
        self.warp = Warp(folder, speed)
        self.kmsg = folder / "kmsg"
        self.kmsg.touch()
        self.state, self.far = folder / "state", folder / "far"
        for each in (self.state, self.far, folder / "run"):
            each.mkdir()
        if ROOT:
            mount("state", self.state, "tmpfs", f"size={DISK_BYTES}")
        self.page_file = folder / "engine.prom"
        self.page_file.write_bytes(_ENGINE_PAGE.read_bytes())
        self.training_log = self.far / "train.log"
        self.training_log.write_text(
            "".join(f"step:{step}/{LAST_STEP} train_loss:2.5 train_time:9ms step_avg:1ms\n" for step in range(1, 30))
        )
        engine_port = free_port()
        self.engine = subprocess.Popen(
            [sys.executable, "-m", "bench.harness.engine", str(engine_port), str(self.page_file)],
            stderr=subprocess.DEVNULL,
        )
        mine: dict[str, dict[str, Any]] = {
            "gpu": {"expected": gpus, "call_deadline": "1s", "open_deadline": "3s", "retry_lost": "2s", "period": "2s"},
            "xid": {"source": "kmsg", "kmsg": str(self.kmsg)},
            "inference": {
                "period": "5s",
                "engines": [
                    {
                        "name": "chat",
                        "kind": "vllm",
                        "url": f"http://127.0.0.1:{engine_port}",
                        "probe": {"enabled": False},
                    }
                ],
            },
            "training": {"period": "5s", "jobs": [{"job_id": "pretrain", "log": str(self.training_log)}]},
            "checkpoint": {
                "period": "5s",
                "jobs": [{"job_id": "pretrain", "directory": str(self.far / "checkpoints")}],
            },
            "filesystem": {"period": "5s"},
        }
        for name, more in (collectors or {}).items():
            mine[name] = {**mine.get(name, {}), **more}
        self.settings = {
            "listen": "127.0.0.1:0",
            "state_dir": str(self.state),
            "run_dir": str(folder / "run"),
            "collectors": mine,
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def log(self) -> Path:
        """On the agent's disk: where that is full, what it says is lost too."""
        return self.state / "agent.log"

    # life

    def start(self) -> None:
        config = self.folder / "agent.yaml"
        config.write_text(yaml.safe_dump(self.settings))
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", "agent", "run", "--config", str(config)],
                stderr=log,
                env={
                    **os.environ,
                    **self.warp.environment,
                    "LD_LIBRARY_PATH": str(build("simulator")),
                    STATE_VARIABLE: str(self.world.path),
                },
            )
        found = self.until(lambda: re.search(rb"address=127\.0\.0\.1:(\d+)", self.log.read_bytes()))
        self.port = int(found[1])

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self.engine.kill()
        self.engine.wait()
        if ROOT:
            unmount(self.state)
        self.world.close()
        self.warp.close()

    def until(self, seen: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """What `seen` gives, once it is true.

        Raises:
            AssertionError: not within `patience` seconds, or the agent has ended.
        """
        end = time.monotonic() + patience
        while not (found := seen()):
            assert self.process is None or self.process.poll() is None, f"the agent has ended: {self.said()}"
            assert time.monotonic() < end, f"not seen within {patience:g} s: {self.said()}"
            time.sleep(0.1)
        return found

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    # what it answers

    def ask(self, path: str, accept: str = "*/*") -> tuple[float, bytes]:
        """Seconds from connecting to the last byte, and the body, over a connection of its own."""
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nConnection: close\r\n\r\n".encode()
        answer = bytearray()
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            sock.sendall(request)
            while data := sock.recv(1 << 18):
                answer += data
        took = time.perf_counter() - began
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), bytes(head[:200])
        return took, bytes(body)

    def page(self) -> Page:
        return Page(self.ask("/metrics")[1].decode())

    def see(self, wanted: Callable[[Page], Any], patience: float = PATIENCE) -> Any:
        """What `wanted` finds on a page, once it finds anything; asks again if it is not answered."""

        def look() -> Any:
            with contextlib.suppress(ConnectionError):
                return wanted(self.page())

        return self.until(look, patience)

    # what it holds

    def _children(self) -> list[str]:
        assert self.process is not None
        children: list[str] = []
        for task in Path(f"/proc/{self.process.pid}").glob("task/*/children"):
            with contextlib.suppress(OSError):  # the thread has ended
                children += task.read_text().split()
        return children

    def child(self) -> int:
        """The process that asks the driver."""
        commands = {pid: Path("/proc", pid, "cmdline").read_bytes() for pid in self._children()}
        (found,) = (int(pid) for pid, command in commands.items() if b"agent.gpu.child" in command)
        return found

    def usage(self) -> Usage:
        assert self.process is not None
        own, children = Path(f"/proc/{self.process.pid}"), self._children()
        return Usage(
            rss=_resident(own),
            threads=len(os.listdir(own / "task")),
            fds=len(os.listdir(own / "fd")),
            children=len(children),
            children_rss=sum(_resident(Path("/proc", pid)) for pid in children),
        )

    def state_bytes(self) -> int:
        """Size of all that it keeps on disk, its log left out."""
        size = 0
        for file in self.state.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # replaced at this moment
                size += file.stat().st_size if file.is_file() and file != self.log else 0
        return size


def _resident(process: Path) -> float:
    """Resident memory in MB; 0 where it has ended."""
    with contextlib.suppress(OSError, IndexError):
        return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0
