"""A whole alerting chain on loopback: a page that tests write, Prometheus, Alertmanager, a sink that records.

Prometheus is Debian's; the slow tests run the same on Prometheus 3, built by Go's ordinary client.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import cli
from bench.harness.processes import free_port

ROOT = Path(__file__).parents[3]
PATIENCE = 60.0
"""Seconds to wait for what takes two or three: a busy machine is no failure."""
PROMETHEUS_3 = "v0.312.0"
"""The module's version of Prometheus 3.12."""


def wait_for(what: str, look: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """The first true answer of `look`; fails naming `what`."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if answer := look():
            return answer
        time.sleep(0.1)
    pytest.fail(f"not within {patience:.0f} s: {what}")


class _Handler(BaseHTTPRequestHandler):
    server: Exchange  # type: ignore[assignment]

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        body = self.server.page.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in body["alerts"]:
            self.server.received.append((self.path, alert))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Exchange(ThreadingHTTPServer):
    """Serves the page at any GET, records every alert that is posted, with its path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page = ""
        self.received: list[tuple[str, dict[str, Any]]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


@dataclass
class Chain:
    """The running chain, and how tests speak to it."""

    exchange: Exchange
    prometheus: str
    alertmanager: str
    _lines: dict[str, float] = field(default_factory=dict)

    wait_for = staticmethod(wait_for)

    def set(self, values: dict[str, float | None]) -> None:
        """Put series on the page; None takes one away."""
        for series, value in values.items():
            if value is None:
                self._lines.pop(series, None)
            else:
                self._lines[series] = value
        self.exchange.page = "".join(f"{series} {value:.17g}\n" for series, value in self._lines.items())

    def query(self, expr: str) -> list[dict[str, Any]]:
        url = f"{self.prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": expr})
        with urllib.request.urlopen(url, timeout=10) as response:
            found: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """What Alertmanager holds."""
        with urllib.request.urlopen(f"{self.alertmanager}/api/v2/alerts", timeout=10) as response:
            found: list[dict[str, Any]] = json.load(response)
        return found

    def post(self, alert: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"{self.alertmanager}/api/v2/alerts",
            data=json.dumps([alert]).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=10).close()

    def deliveries(self, uuid: str, name: str = "GpuLost") -> list[tuple[str, str, dict[str, Any]]]:
        """Path, status and alert of everything received about one GPU."""
        return [
            (path, alert["status"], alert)
            for path, alert in list(self.exchange.received)
            if alert["labels"].get("uuid") == uuid and alert["labels"]["alertname"] == name
        ]

    def delivered(self, uuid: str, path: str, status: str = "firing", name: str = "GpuLost") -> dict[str, Any]:
        """Wait until the alert about `uuid` came to `path`; returns it."""

        def look() -> dict[str, Any] | None:
            for where, state, alert in self.deliveries(uuid, name):
                if (where, state) == (path, status):
                    return alert
            return None

        found: dict[str, Any] = wait_for(f"{name} about {uuid} {status} at {path}", look)
        return found

    def evaluated(self, rounds: int = 3) -> None:
        """Wait until Prometheus has evaluated the GPU rules `rounds` times from now on."""
        counter = 'prometheus_rule_group_iterations_total{rule_group=~".*;gpuvigil-gpu"}'

        def count() -> float:
            found = self.query(counter)
            return float(found[0]["value"][1]) if found else 0.0

        start = wait_for("Prometheus scrapes itself", count)
        wait_for("rules are evaluated", lambda: count() >= start + rounds)


MakeChain = Callable[[str, str, Path], AbstractContextManager[Chain]]


def _ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        pytest.fail(f"{process.args!r} ended with {process.returncode}")
    try:
        urllib.request.urlopen(f"{url}/-/ready", timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def prometheus_3() -> Path:
    """The folder of `prometheus` and `promtool` of Prometheus 3, built once into build/."""
    go = shutil.which("go")
    folder = ROOT / "build/prometheus-3.12"
    if not (folder / "bin/prometheus").exists():
        if go is None:
            pytest.skip("go is not here, which builds Prometheus 3 (https://go.dev/dl, 1.26 or later)")
        source = folder / "src"
        source.mkdir(parents=True, exist_ok=True)
        module = "github.com/prometheus/prometheus/cmd"
        tools = [f"{module}/prometheus", f"{module}/promtool"]
        if not (source / "go.mod").exists():
            subprocess.run([go, "mod", "init", "bed"], cwd=source, check=True)
        subprocess.run([go, "get", "-tool", *(f"{t}@{PROMETHEUS_3}" for t in tools)], cwd=source, check=True)
        subprocess.run([go, "build", "-o", f"{folder}/bin/", *tools], cwd=source, check=True)
    return folder / "bin"


@pytest.fixture(scope="module", params=["debian", pytest.param("3", marks=pytest.mark.slow)])
def prometheus(request: pytest.FixtureRequest) -> str:
    """The program: Debian's, or Prometheus 3 in the slow tests."""
    if request.param == "3":
        return str(request.getfixturevalue("prometheus_3") / "prometheus")
    path = shutil.which("prometheus")
    if path is None:
        pytest.skip("prometheus is not here (apt: prometheus)")
    return path


@contextmanager
def _chain(prometheus: str, agent: str, folder: Path) -> Iterator[Chain]:
    """Prometheus that scrapes `agent` by the demo's rules, and Alertmanager that sends all to the exchange."""
    alertmanager = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if alertmanager is None:
        pytest.skip("alertmanager is not here (apt: prometheus-alertmanager)")
    with _exchange() as exchange:
        ports = [free_port() for _ in range(2)]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        assert cli.main(["alerts", "rules", "build", "--profile", "demo", "-o", str(folder / "rules")]) == 0
        routing = ["alerts", "routing", "build", "--sink", f"http://{exchange.address}", "-o", str(folder / "am.yml")]
        assert cli.main(routing) == 0
        configuration = _configuration(agent or exchange.address, ports, folder)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        commands = {
            # first, or an alert that is sent before it listens is sent again a minute later
            urls[1]: [
                alertmanager,
                f"--config.file={folder}/am.yml",
                f"--storage.path={folder}/am",
                f"--web.listen-address=127.0.0.1:{ports[1]}",
                "--cluster.listen-address=",
            ],
            urls[0]: [
                prometheus,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{ports[0]}",
                # what fires in the first seconds, before it knows its Alertmanager, is sent again after this (1m)
                "--rules.alert.resend-delay=5s",
            ],
        }
        with ExitStack() as running, (folder / "log").open("wb") as log:
            for url, command in commands.items():
                process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "TZ": "UTC"})
                running.callback(process.wait, PATIENCE)
                running.callback(process.terminate)
                wait_for(f"{url} is ready", functools.partial(_ready, url, process))
            yield Chain(exchange, *urls)


@contextmanager
def _exchange() -> Iterator[Exchange]:
    exchange = Exchange()
    server = threading.Thread(target=exchange.serve_forever, kwargs={"poll_interval": 0.1})
    server.start()
    try:
        yield exchange
    finally:
        exchange.shutdown()
        server.join()
        exchange.server_close()


@pytest.fixture(scope="session")
def make_chain() -> MakeChain:
    """Starts a chain that scrapes the agent at an address."""
    return _chain


@pytest.fixture(scope="module")
def chain(prometheus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The chain on a page that tests write: nothing is held, everything goes to the sink."""
    with _chain(prometheus, "", tmp_path_factory.mktemp("chain")) as chain:
        yield chain


def _configuration(agent: str, ports: list[int], folder: Path) -> dict[str, Any]:
    def job(name: str, target: str, **labels: str) -> dict[str, Any]:
        return {"job_name": name, "static_configs": [{"targets": [target], "labels": labels}]}

    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules/*.yml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{ports[1]}"]}]}]},
        "scrape_configs": [
            job("gpuvigil-agent", agent, cluster="c1", node="n1"),
            job("prometheus", f"127.0.0.1:{ports[0]}"),
        ],
    }
