"""A real agent whose clients ask for more than it gives: too often, and over too many connections."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from agent.base.web.server import Limits
from agent.settings import kinds
from bench.harness.node import Page

pytestmark = pytest.mark.e2e

BURST = 5


class Agent:
    """`gpuvigil agent run` with one collector and a rate limit; ends with the block."""

    def __init__(self, folder: Path) -> None:
        self.web = folder / "web.yaml"
        self.limit(BURST)
        config = folder / "agent.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "listen": "127.0.0.1:0",
                    "state_dir": str(folder / "state"),
                    "run_dir": str(folder / "run"),
                    "web_config_file": str(self.web),
                    "collectors": {name: {"enabled": name == "host"} for name in kinds()},
                }
            )
        )
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", "agent", "run", "--config", str(config)], stderr=log
            )
        found = self.until(lambda: re.search(r"address=127\.0\.0\.1:(\d+)", self._log.read_text()))
        self.port = int(found[1])

    def limit(self, burst: int) -> None:
        new = self.web.with_suffix(".new")
        new.write_text(f"rate_limit: {{interval: 1h, burst: {burst}}}\n")
        new.replace(self.web)

    def until(self, seen: Callable[[], re.Match[str] | Page | None]) -> re.Match[str] | Page:
        end = time.monotonic() + 60
        while (found := seen()) is None:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.1)
        return found

    def page(self) -> Page | None:
        """None where it is refused."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(client):
            client.request("GET", "/metrics")
            answer = client.getresponse()
            text = answer.read().decode()
        return Page(text) if answer.status == 200 else None

    def end(self) -> None:
        self._process.terminate()
        try:
            assert self._process.wait(30) == 0
        finally:
            self._process.kill()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    one = Agent(tmp_path)
    yield one
    one.end()


def refused(page: Page) -> float:
    return page.value("gpuvigil_agent_http_requests_total", path="/metrics", code="429") or 0.0


def evicted(page: Page) -> float:
    return page.value("gpuvigil_agent_http_connections_dropped_total", reason="evicted") or 0.0


@pytest.mark.parametrize("one_connection", [True, False])
def test_who_asks_too_often_gets_429_until_the_limit_is_lifted(agent: Agent, one_connection: bool) -> None:
    client = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=20)
    answers = []
    for _ in range(BURST + 3):
        client.request("GET", "/metrics")
        answer = client.getresponse()
        answers.append((answer.status, answer.headers.get("Retry-After")))
        answer.read()
        if not one_connection:
            client.close()  # opens again by itself
    client.close()
    assert answers == [(200, None)] * BURST + [(429, "1")] * 3
    agent.limit(1000)

    def counted() -> Page | None:
        page = agent.page()
        return page if page is not None and refused(page) >= 3 else None

    agent.until(counted)


def test_one_connection_too_many_costs_the_quietest_and_nobody_who_asks(agent: Agent) -> None:
    agent.limit(1000)
    agent.until(agent.page)
    most, more = Limits().connections, 40
    crowd = []
    try:
        for _ in range(most + more):
            crowd.append(socket.create_connection(("127.0.0.1", agent.port), timeout=20))
        page = agent.until(lambda: page if (page := agent.page()) and evicted(page) >= more else None)
        assert isinstance(page, Page)
        assert 0 < (page.value("gpuvigil_agent_http_connections") or 0) <= most
        with contextlib.suppress(ConnectionResetError):
            assert crowd[0].recv(1) == b""
        crowd[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert crowd[-1].recv(12) == b"HTTP/1.1 200"
    finally:
        for each in crowd:
            each.close()
