"""The webhook sink records what it is sent, by receiver, and refuses what it cannot read."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.demo import sink


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    path = tmp_path / "pages.jsonl"
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "GpuLost.md").write_text("# GpuLost\n")
    (tmp_path / "secret.md").write_text("no")
    server = sink.serve(0, path, tmp_path / "books")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1], path
    server.shutdown()
    thread.join()
    server.server_close()
    server.RequestHandlerClass.pages.close()


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_records_by_receiver_with_both_clocks(place: tuple[int, Path]) -> None:
    port, path = place
    alert = {"status": "firing", "labels": {"alertname": "GpuLost", "node": "<n>"}, "annotations": {"summary": "gone"}}
    before = time.monotonic()
    assert ask(port, "POST", "/drill", json.dumps({"alerts": [alert]}).encode())[0] == 200
    assert ask(port, "POST", "/watchdog", b'{"alerts": []}')[0] == 200
    after = time.monotonic()

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["path"] for line in lines] == ["/drill", "/watchdog"]
    assert lines[0]["body"]["alerts"] == [alert]
    assert before <= lines[0]["monotonic"] <= lines[1]["monotonic"] <= after

    found = json.loads(ask(port, "GET", "/api/pages?path=/drill")[1])
    assert found["counts"] == {"/drill": 1, "/page": 0, "/ticket": 0, "/info": 0, "/watchdog": 1}
    assert found["pages"] == lines[:1]
    assert json.loads(ask(port, "GET", "/api/pages?since=1")[1])["pages"] == lines[1:]
    status, page = ask(port, "GET", "/")
    assert status == 200
    assert "GpuLost" in page
    assert "&lt;n&gt;" in page


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/nowhere", b"{}", 404),
        ("POST", "/page", b"{half", 400),
        ("POST", "/page", b"[]", 400),
        ("GET", "/nowhere", None, 404),
        ("GET", "/api/pages?since=x", None, 400),
    ],
)
def test_bad_requests_are_named_and_not_recorded(
    place: tuple[int, Path], method: str, path: str, body: bytes | None, status: int
) -> None:
    port, file = place
    got, text = ask(port, method, path, body)
    assert got == status
    assert json.loads(text)["error"]
    assert file.read_text() == ""


def test_a_body_over_the_limit_is_refused_unread(place: tuple[int, Path]) -> None:
    port, file = place
    assert ask(port, "POST", "/page", b"", **{"Content-Length": str(sink.BODY_LIMIT + 1)})[0] == 413
    assert file.read_text() == ""


def test_runbooks_are_shown_and_nothing_beside_them(place: tuple[int, Path]) -> None:
    port, _ = place
    assert ask(port, "GET", "/runbooks/GpuLost.md") == (200, "# GpuLost\n")
    for name in ("Other.md", "../secret.md", "%2e%2e/secret.md", ""):
        assert ask(port, "GET", f"/runbooks/{name}")[0] == 404
