"""What the agent costs, beside nvitop-exporter (same simulator) and Debian's node_exporter, in one run.

Prints `name value unit` lines; the peers' rows carry their name in front. All three run at the same time.

`scrape_cpu_us_per_series` is what production pays: a scrape every 15 s, as Prometheus sends it (OpenMetrics, gzip, one
connection kept), which finds values it has not seen, and processor caches that others have used meanwhile. It is the
median over the scrapes; `..._spread` is half of the middle half's width. CPU is that of the process and its children,
in the kernel's own nanoseconds; what they use between scrapes is `background_core_percent`: the agent's pages are
made there, with each tick, while its peers make theirs when asked; `cpu_ms_per_15_s` is both together.
`memory_scrape_cpu_us_per_series` is the agent asked again at once.
Clients of the latencies run in a process of their own, on the same cores: `client_cpu_ms_50_clients` is its part of
50 scrapes that begin together.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

sys.path.remove(str(Path(__file__).parent))  # a script's folder comes first: `agent` would be this file
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.harness.processes import free_port
from bench.lib import scraper
from bench.lib.exporters import PATIENCE, Subject, running
from bench.lib.scraper import Client
from chaos.simulator.build import build
from chaos.simulator.world import STATE_VARIABLE, World

BIN = Path(sys.executable).parent
INTERVAL = 15.0
SETTLED = 0.002
"""What a server still does of a scrape when the client has the answer is done after so many seconds."""


def samples(page: bytes) -> int:
    return sum(1 for line in page.splitlines() if line and not line.startswith(b"#"))


def percentile(values: Sequence[float], part: int) -> float:
    return quantiles(values, n=100, method="inclusive")[part - 1]


def watch(subjects: list[Subject], scrapes: int) -> None:
    """Scrape each every 15 s, in turn: what a scrape costs, and what goes on between two."""
    clients = {subject.name: Client(subject.port, "/metrics") for subject in subjects}
    used: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    begun: dict[str, tuple[float, float]] = {}
    due = time.monotonic()
    for turn in range(scrapes + 1):
        for subject in subjects:
            time.sleep(max(0.0, due - time.monotonic()))
            due += INTERVAL / len(subjects)
            pids = subject.pids()
            before = subject.cpu(pids)
            clients[subject.name].scrape()
            time.sleep(SETTLED)
            after = subject.cpu(pids)
            if turn == 0:  # the first connects and renders everything
                begun[subject.name] = (time.monotonic(), after)
            else:
                used[subject.name].append(after - before)
    for subject in subjects:
        since, cpu = begun[subject.name]
        costs = used[subject.name]
        total, elapsed = subject.cpu() - cpu, time.monotonic() - since
        idle = (total - sum(costs)) / elapsed
        series = samples(clients[subject.name].text())
        costs = [(cost - idle * SETTLED) * 1e6 for cost in costs]
        low, _, high = quantiles(costs, n=4)
        subject.note("series", series, "samples")
        subject.note("page_kb", len(clients[subject.name].body) / 1e3, "kB")
        subject.note("scrape_cpu_us", median(costs), "us")
        subject.note("scrape_cpu_us_per_series", median(costs) / series, "us")
        subject.note("scrape_cpu_us_per_series_spread", (high - low) / 2 / series, "us")
        subject.note("background_core_percent", idle * 100, "%")
        subject.note("cpu_ms_per_15_s", total / elapsed * INTERVAL * 1e3, "ms")
        subject.note("rss_mb", subject.rss(), "MB")
        clients[subject.name].close()


def ask_again(subject: Subject, scrapes: int) -> None:
    """What a scrape costs that comes right after another: most are answered from memory."""
    client = Client(subject.port, "/metrics")
    client.scrape()
    idle = subject.rows["background_core_percent"] / 100
    costs = []
    for _ in range(5):
        before, began = subject.cpu(), time.perf_counter()
        for _ in range(scrapes):
            client.scrape()
        costs.append((subject.cpu() - before - idle * (time.perf_counter() - began)) / scrapes)
    client.close()
    subject.note("memory_scrape_cpu_us_per_series", median(costs) * 1e6 / subject.rows["series"], "us")


def crowd(subject: Subject, path: str, clients: int, rounds: int, pause: float) -> tuple[list[float], float]:
    """Seconds of each scrape, and the CPU seconds the clients' process used for a round."""
    command = [sys.executable, scraper.__file__, str(subject.port), path, str(clients), str(rounds), str(pause)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=600).stdout)
    return [float(each) for each in found["took"]], float(found["cpu"]) / rounds


def latencies(subject: Subject, rounds: int) -> None:
    took, _ = crowd(subject, "/metrics", 1, rounds, 0.05)
    subject.note("scrape_p50_ms", percentile(took, 50) * 1e3, "ms")
    subject.note("scrape_p99_ms", percentile(took, 99) * 1e3, "ms")
    for clients in (10, 50):
        took, cpu = crowd(subject, "/metrics", clients, max(5, rounds // 8), 0.1)
        subject.note(f"scrape_p99_ms_{clients}_clients", percentile(took, 99) * 1e3, "ms")
        subject.note(f"client_cpu_ms_{clients}_clients", cpu * 1e3, "ms")


def hung(subject: Subject, world: World, rounds: int) -> None:
    """The same questions while a call to the driver does not return."""
    world.set("hang", gpu=3)
    deadline = time.monotonic() + PATIENCE
    stuck = re.compile(rb"gpuvigil_gpu_driver_stuck_seconds\{[^}]*\} ([1-9]|0\.[0-9]*[1-9])")
    client = Client(subject.port, "/metrics")
    while client.scrape() and not stuck.search(client.text()):
        if time.monotonic() > deadline:
            raise SystemExit("the agent does not say that its driver hangs")
        time.sleep(0.2)
    client.close()
    for path in ("metrics", "healthz"):
        took, _ = crowd(subject, f"/{path}", 1, rounds, 0.02)
        subject.note(f"hung_{path}_p99_ms", percentile(took, 99) * 1e3, "ms")
    world.clear()


def commands(folder: Path, world: World) -> dict[str, tuple[list[str], int, dict[str, str]]]:
    """How each exporter is started: command, port, environment."""
    simulated = {**os.environ, "LD_LIBRARY_PATH": str(build("simulator")), STATE_VARIABLE: str(world.path)}
    ports = [free_port() for _ in range(3)]
    config = folder / "agent.yaml"
    config.write_text(f"listen: 127.0.0.1:{ports[0]}\nstate_dir: {folder}/state\nrun_dir: {folder}/run\n")
    agent = [str(BIN / "gpuvigil"), "agent", "run", "--config", str(config)]
    nvitop = [str(BIN / "nvitop-exporter"), "--bind-address", "127.0.0.1", "--port", str(ports[1])]
    found = {"agent": (agent, ports[0], simulated), "nvitop_exporter": (nvitop, ports[1], simulated)}
    node_exporter = shutil.which("prometheus-node-exporter")
    if node_exporter is None:
        print("prometheus-node-exporter is not installed: its rows are left out", file=sys.stderr)
    else:
        command = [node_exporter, f"--web.listen-address=127.0.0.1:{ports[2]}", "--web.max-requests=0"]
        found["node_exporter"] = (command, ports[2], {**os.environ})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scrapes", type=int, default=12, help="scrapes of each exporter, 15 s apart")
    parser.add_argument("--rounds", type=int, default=200, help="scrapes of one client for the latencies")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-agent-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        world = stack.enter_context(World.create(folder / "sim.state", gpus=8))
        subjects = [
            stack.enter_context(running(each, command, port, env, folder / f"{each}.log"))
            for each, (command, port, env) in commands(folder, world).items()
        ]
        agent, *peers = subjects
        time.sleep(6)  # every collector has run, GPM has its second sample
        watch(subjects, args.scrapes)
        ask_again(agent, 200)
        for peer in peers:
            times = peer.rows["scrape_cpu_us_per_series"] / agent.rows["scrape_cpu_us_per_series"]
            agent.note(f"vs_{peer.name}", times, "times")
            both = [each.rows["cpu_ms_per_15_s"] / each.rows["series"] for each in (peer, agent)]
            agent.note(f"vs_{peer.name}_with_background", both[0] / both[1], "times, by cpu_ms_per_15_s a series")
        for subject in subjects:
            latencies(subject, args.rounds if subject is agent else args.rounds // 4)
        hung(agent, world, 100)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
