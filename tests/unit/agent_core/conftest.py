"""Throw-away metrics, collectors whose behaviour a test sets, and a server on a free port."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from agent.base.catalogue import CATALOGUE, Metric
from agent.base.collector import Context, Kind, Settings
from agent.base.web import App, Limits, Server, as_json, text


@pytest.fixture(scope="session")
def metric():
    """Metrics of every kind; gone from the catalogue when the tests are over."""
    made = SimpleNamespace(
        gauge=Metric("gpuvigil_test_level_ratio", "gauge", 'A "level", with \\ and\na new line.', "ratio", ("a", "b")),
        counter=Metric("gpuvigil_test_bytes", "counter", "A counter.", "bytes", ("a",)),
        info=Metric("gpuvigil_test", "info", "An info.", labels=("model",)),
        histogram=Metric("gpuvigil_test_wait_seconds", "histogram", "A histogram.", "seconds", ("a",), budget=12),
        small=Metric("gpuvigil_test_small", "gauge", "Small budget.", labels=("a",), budget=3),
        vital=Metric("gpuvigil_test_vital", "gauge", "Alerts go by it.", labels=("a",), vital=True),
        plain=Metric("gpuvigil_test_plain", "gauge", "No labels."),
    )
    yield made
    for each in vars(made).values():
        del CATALOGUE[each.stem]


class Puppet:
    """A collector that does what `script` says: a callable that yields samples, raises or waits."""

    def __init__(self, script):
        self.script = script
        self.running = self.most_running = self.runs = self.closed = 0

    def collect(self):
        self.running += 1
        self.runs += 1
        self.most_running = max(self.most_running, self.running)
        try:
            yield from self.script() or ()
        finally:
            self.running -= 1

    def close(self):
        self.closed += 1


@pytest.fixture
def puppet():
    """Make a `Kind` and the puppet behind it: `puppet("name", script)`."""

    def make(name, script):
        held = Puppet(script)
        return Kind(name, Settings, lambda settings, context: held, f"{name}."), held

    return make


@pytest.fixture
def context(tmp_path):
    return Context(str(tmp_path / "state"), str(tmp_path / "run"), "n1", "c1")


def wait_until(condition, seconds=20.0, what="the condition"):
    """Poll until the condition holds; its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true in {seconds} s")
        time.sleep(0.01)
    return value


@pytest.fixture
def until():
    return wait_until


def demo_app():
    app = App()
    app.route("/healthz", lambda request: text("ok"))
    app.route("/big", lambda request: text("x" * 15_000_000))
    app.route(
        "/echo",
        lambda request: as_json(
            {"body": request.body.decode("utf-8", "replace"), "query": request.query, "path": request.path}
        ),
        methods=("GET", "POST"),
        max_body=1000,
    )

    async def slow(request):
        await asyncio.sleep(0.05)
        return text("slow")

    def broken(request):
        raise RuntimeError("a secret detail")

    app.route("/slow", slow)
    app.route("/broken", broken)
    app.route("/below/", lambda request: text(request.path))
    return app


class Served:
    """A server in a thread with a loop of its own."""

    def __init__(self, server):
        self.server = server
        self.loop = asyncio.new_event_loop()
        server.listen("127.0.0.1", 0)
        self.port = server.addresses[0][1]
        self._thread = threading.Thread(target=self._live)
        self._up = threading.Event()
        self._thread.start()
        assert self._up.wait(20)

    def _live(self):
        async def live():
            self._stop = asyncio.Event()
            self.server.start()
            self._up.set()
            await self._stop.wait()
            await self.server.stop(grace=0.2)

        with asyncio.Runner(loop_factory=lambda: self.loop) if hasattr(asyncio, "Runner") else _Plain(self.loop) as run:
            run.run(live())

    def stop(self):
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def connect(self, timeout=20.0):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def ask(self, raw, timeout=20.0):
        """Send bytes, read until the server hangs up (or the answer's stated length is there)."""
        with self.connect(timeout) as sock:
            sock.sendall(raw)
            return read_answer(sock)

    def get(self, path, *headers, method="GET"):
        lines = "".join(f"{each}\r\n" for each in headers)
        return self.ask(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{lines}Connection: close\r\n\r\n".encode())


class _Plain:
    """asyncio.Runner for Python 3.10."""

    def __init__(self, loop):
        self._loop = loop

    def __enter__(self):
        return self

    def run(self, coroutine):
        return self._loop.run_until_complete(coroutine)

    def __exit__(self, *_):
        self._loop.close()


def read_answer(sock):
    """Status, headers (lower case), body, of a connection that the server closes."""
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return parse_answer(data)


def parse_answer(data):
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return SimpleNamespace(status=int(first.split()[1]) if first else 0, headers=headers, body=body)


@pytest.fixture
def serve():
    """Start a server: `serve(limits=..., guard=...)`; stopped at the end."""
    running = []

    def start(app=None, **settings):
        limits = Limits(**settings.pop("limits", {}))
        served = Served(Server(app or demo_app(), limits, **settings))
        running.append(served)
        return served

    yield start
    for served in running:
        served.stop()
