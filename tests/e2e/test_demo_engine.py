"""The demo's LLM server is llama.cpp itself: health, metrics, streams; and its load is open loop."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from bench.harness.processes import free_port
from chaos.demo import load, tiny_model

pytestmark = pytest.mark.e2e


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("engine")
    model, port, pid_file = tiny_model.write(folder / "tiny.gguf"), free_port(), folder / "pid"
    command = [sys.executable, "-m", "chaos.demo.engine", "--model", str(model), "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--pid-file", str(pid_file)], stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert json.loads(get(port, "/health")) == {"status": "ok"}
            break
        except urllib.error.URLError:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert int(pid_file.read_text()) == process.pid
    yield port
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert not pid_file.exists()


def _metric(port: int, name: str) -> float:
    found = re.search(rf"^llamacpp:{name} (\S+)$", get(port, "/metrics"), re.MULTILINE)
    assert found, name
    return float(found[1])


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _send(port: int, count: int) -> load.Load:
    sender = load.Load("127.0.0.1", port, rate=50, limit=4, seed=5)
    running = asyncio.create_task(sender.run())
    deadline = time.monotonic() + 60
    while sender.outcomes["ok"] < count and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    await stopped(running)
    return sender


def test_streams_completions_under_load(engine: int) -> None:
    before = _metric(engine, "tokens_predicted_total")
    outcomes = asyncio.run(_send(engine, 10)).outcomes
    assert outcomes["ok"] >= 10
    assert outcomes["error"] == 0
    assert _metric(engine, "tokens_predicted_total") >= before + 10 * 8 * 0.5


def test_load_without_a_server_counts_errors_and_goes_on() -> None:
    async def send() -> load.Load:
        sender = load.Load("127.0.0.1", free_port(), rate=100, seed=5)
        running = asyncio.create_task(sender.run())
        deadline = time.monotonic() + 30
        while sender.outcomes["error"] < 5 and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert not running.done()
        await stopped(running)
        return sender

    outcomes = asyncio.run(send()).outcomes
    assert outcomes["error"] >= 5
    assert outcomes["ok"] == 0


def test_load_never_has_more_in_flight_than_its_limit() -> None:
    async def send() -> tuple[int, load.Load]:
        held = 0
        most = 0

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal held, most
            held += 1
            most = max(most, held)
            while await reader.read(1 << 16):
                pass
            held -= 1
            writer.close()

        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        sender = load.Load("127.0.0.1", port, rate=200, limit=3, timeout=0.5)
        running = asyncio.create_task(sender.run())
        deadline = time.monotonic() + 30
        while sender.outcomes["dropped"] < 10 and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await stopped(running)
        server.close()
        await server.wait_closed()
        while held:
            await asyncio.sleep(0.01)
        return most, sender

    most, sender = asyncio.run(send())
    assert sender.outcomes["dropped"] >= 10
    assert 1 <= most <= 3
