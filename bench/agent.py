"""What the agent costs, beside nvitop-exporter (same simulator) and Debian's node_exporter, in one run.

Prints `name value unit` lines; the peers' rows carry their name in front. CPU is the time of the process and its
children in the kernel's own nanoseconds, less what they use between scrapes. A scrape asks as Prometheus does:
OpenMetrics first, gzip, one connection kept. `scrape_cpu_us_per_series` is a scrape answered from memory (many a
snapshot, as with several Prometheus servers); `fresh_scrape_cpu_us_per_series` has to render and compress each time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

sys.path.remove(str(Path(__file__).parent))  # a script's folder comes first: `agent` would be this file

from chaos.simulator.build import build
from chaos.simulator.world import STATE_VARIABLE, World

PATIENCE = 60.0
BIN = Path(sys.executable).parent
ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@dataclass
class Subject:
    """One exporter that runs: what is measured of it, by name."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    path: str = "/metrics"
    rows: dict[str, tuple[float, str]] = field(default_factory=dict)

    def note(self, name: str, value: float, unit: str) -> None:
        self.rows[name] = (value, unit)
        prefix = "" if self.name == "agent" else f"{self.name}_"
        print(f"{prefix}{name} {value:.4g} {unit}", flush=True)

    def pids(self) -> list[int]:
        found = [self.process.pid]
        for pid in found:  # grows while it is walked: children of children too
            for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += map(int, tasks.read_text().split())
        return found

    def cpu(self) -> float:
        """CPU seconds so far, threads that ended included."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                # clock_getcpuclockid(3) of another process, in the kernel's own encoding
                total += time.clock_gettime_ns((~pid << 3) | 2)
        return total / 1e9

    def rss(self) -> float:
        """Resident memory in MB."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Client:
    """One kept connection that asks as Prometheus does."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._ask = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: Prometheus/2.42.0\r\nAccept: {ACCEPT}\r\n"
            "Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
        ).encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def scrape(self) -> tuple[float, bytes]:
        """Seconds it took and the body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        reader, writer = self._streams
        began = time.perf_counter()
        writer.write(self._ask)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith((b"http/1.1 200", b"http/1.0 200")):
            raise SystemExit(f"port {self._port}: {head[:100]!r}")
        length = re.search(rb"content-length: (\d+)", head)
        if length:
            body = await reader.readexactly(int(length.group(1)))
        elif b"chunked" in head:
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.read()
        took = time.perf_counter() - began
        if b"connection: close" in head or head.startswith(b"http/1.0"):
            self.close()
        return took, gzip.decompress(body) if b"content-encoding: gzip" in head else body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def samples(page: bytes) -> int:
    return sum(1 for line in page.splitlines() if line and not line.startswith(b"#"))


def percentile(values: list[float], part: int) -> float:
    return quantiles(values, n=100, method="inclusive")[part - 1]


async def scrape_many(subject: Subject, clients: int, rounds: int, pause: float = 0.0) -> list[float]:
    """Seconds of each scrape; all clients ask at the same moment, `rounds` times."""
    crowd = [Client(subject.port, subject.path) for _ in range(clients)]
    await asyncio.gather(*(client.scrape() for client in crowd))  # connected and warm
    took: list[float] = []
    for _ in range(rounds):
        took += [each[0] for each in await asyncio.gather(*(client.scrape() for client in crowd))]
        await asyncio.sleep(pause)
    for client in crowd:
        client.close()
    return took


def background(subject: Subject, seconds: float) -> float:
    """Share of a core used while nobody asks."""
    before, began = subject.cpu(), time.perf_counter()
    time.sleep(seconds)
    return (subject.cpu() - before) / (time.perf_counter() - began)


async def cost(subject: Subject, rounds: int, pause: float = 0.0) -> tuple[float, list[float]]:
    """CPU seconds of a scrape and the seconds each took.

    With a pause the CPU is read right before and after each scrape, so that what goes on between them is left out.
    """
    client = Client(subject.port, subject.path)
    await client.scrape()
    used, took = 0.0, []
    before = subject.cpu()
    for _ in range(rounds):
        if pause:
            await asyncio.sleep(pause)
            before = subject.cpu()
        took.append((await client.scrape())[0])
        if pause:
            used += subject.cpu() - before
    client.close()
    return (used if pause else subject.cpu() - before) / rounds, took


def measure(subject: Subject, scrapes: int, idle_seconds: float) -> None:
    _, page = asyncio.run(Client(subject.port, subject.path).scrape())
    series = samples(page)
    subject.note("series", series, "samples")
    idle = background(subject, idle_seconds)
    began = time.perf_counter()
    used, took = asyncio.run(cost(subject, scrapes))
    used -= idle * (time.perf_counter() - began) / scrapes
    subject.note("scrape_cpu_us", used * 1e6, "us")
    subject.note("scrape_cpu_us_per_series", used * 1e6 / series, "us")
    if subject.name == "agent":
        fresh, _ = asyncio.run(cost(subject, max(5, int(idle_seconds)), pause=1.05))
        subject.note("fresh_scrape_cpu_us_per_series", fresh * 1e6 / series, "us")
    subject.note("scrape_p50_ms", percentile(took, 50) * 1e3, "ms")
    subject.note("scrape_p99_ms", percentile(took, 99) * 1e3, "ms")
    for clients in (10, 50):
        crowd = asyncio.run(scrape_many(subject, clients, max(5, scrapes // clients // 4), 0.05))
        subject.note(f"scrape_p99_ms_{clients}_clients", percentile(crowd, 99) * 1e3, "ms")
    subject.note("background_core_percent", idle * 100, "%")
    subject.note("cpu_ms_per_15_s", (idle * 15 + used) * 1e3, "ms")
    subject.note("rss_mb", subject.rss(), "MB")


def measure_hung(subject: Subject, world: World, rounds: int) -> None:
    """The same questions while a call to the driver does not return."""
    world.set("hang", gpu=3)
    deadline = time.monotonic() + PATIENCE
    stuck = re.compile(rb"gpuvigil_gpu_driver_stuck_seconds\{[^}]*\} ([1-9]|0\.[0-9]*[1-9])")
    while True:
        _, page = asyncio.run(Client(subject.port, "/metrics").scrape())
        if stuck.search(page):
            break
        if time.monotonic() > deadline:
            raise SystemExit("the agent does not say that its driver hangs")
        time.sleep(0.2)
    for path in ("metrics", "healthz"):
        asked = Subject(subject.name, subject.process, subject.port, f"/{path}")
        took = asyncio.run(scrape_many(asked, 1, rounds, 0.02))
        subject.note(f"hung_{path}_p99_ms", percentile(took, 99) * 1e3, "ms")
    world.clear()


# exporters


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(name: str, command: list[str], port: int, env: dict[str, str], log: Path) -> Iterator[Subject]:
    """Start an exporter, wait until it answers, stop it at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
        subject = Subject(name, process, port)
        try:
            wait_for(subject, log)
            yield subject
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(subject: Subject, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and subject.process.poll() is None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asyncio.run(Client(subject.port, "/metrics").scrape())
            return
        time.sleep(0.1)
    raise SystemExit(f"{subject.name} does not answer: {log.read_text()[-2000:]}")


def agent_command(folder: Path, port: int) -> list[str]:
    config = folder / "agent.yaml"
    config.write_text(
        f"listen: 127.0.0.1:{port}\nstate_dir: {folder}/state\nrun_dir: {folder}/run\n"
        "collectors:\n  gpu: {call_deadline: 1s}\n"
    )
    return [str(BIN / "gpuvigil"), "agent", "run", "--config", str(config)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scrapes", type=int, default=1000, help="scrapes of the agent (a tenth of it for peers)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to watch each exporter idle")
    args = parser.parse_args()
    node_exporter = shutil.which("prometheus-node-exporter")
    with tempfile.TemporaryDirectory(prefix="bench-agent-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        world = stack.enter_context(World.create(folder / "sim.state", gpus=8))
        simulated = {**os.environ, "LD_LIBRARY_PATH": str(build("simulator")), STATE_VARIABLE: str(world.path)}
        peers: dict[str, tuple[Callable[[int], list[str]], dict[str, str]]] = {
            "nvitop_exporter": (
                lambda port: [str(BIN / "nvitop-exporter"), "--bind-address", "127.0.0.1", "--port", str(port)],
                simulated,
            )
        }
        if node_exporter is None:
            print("prometheus-node-exporter is not installed: its row is left out", file=sys.stderr)
        else:
            peers["node_exporter"] = (
                lambda port: [node_exporter, f"--web.listen-address=127.0.0.1:{port}", "--web.max-requests=0"],
                {**os.environ},
            )
        port = free_port()
        with running("agent", agent_command(folder, port), port, simulated, folder / "agent.log") as agent:
            time.sleep(6)  # every collector has run, GPM has its second sample
            measure(agent, args.scrapes, args.seconds)
            measure_hung(agent, world, 100)
        per_series = agent.rows["scrape_cpu_us_per_series"][0]
        for peer, (command, env) in peers.items():
            port = free_port()
            with running(peer, command(port), port, env, folder / f"{peer}.log") as subject:
                time.sleep(3)
                measure(subject, max(20, args.scrapes // 10), args.seconds / 2)
            agent.note(f"vs_{peer}", subject.rows["scrape_cpu_us_per_series"][0] / per_series, "times")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
