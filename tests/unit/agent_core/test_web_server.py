"""The HTTP server against polite, rude, slow and broken clients; real sockets on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agent.base.errors import ConfigError
from agent.base.web import App, Server, holder, parse_address, text
from agent.base.web.connection import Connection


def read_exactly(sock, count):
    data = b""
    while len(data) < count and (chunk := sock.recv(count - len(data))):
        data += chunk
    return data


def one_answer(sock):
    """One keep-alive answer: status and body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            return None
        head += byte
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    return int(head.split()[1]), read_exactly(sock, length)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
        ("OPTIONS", "/healthz", 204),
        ("GET", "/nothing", 404),
        ("GET", "/healthz/", 404),
        ("DELETE", "/healthz", 405),
        ("GET", "/slow", 200),
        ("GET", "/below/any/thing", 200),
        ("GET", "/%ff", 400),
        ("GET", "/echo?" + "&".join("a=1" for _ in range(100)), 400),
        ("GET", "/" + "x" * 10000, 431),
    ],
)
def test_statuses(serve, method, path, status):
    answer = serve().get(path, method=method)
    assert answer.status == status
    if method == "HEAD":
        assert answer.body == b""
        assert answer.headers["content-length"] == "3"
    if status in (204, 405):
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


def test_a_handlers_failure_is_a_500_that_tells_nothing(serve, caplog):
    served = serve()
    answer = served.get("/broken")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "a secret detail" in caplog.text
    assert served.get("/healthz").status == 200


def test_bodies_are_limited_before_and_while_they_are_read(serve):
    served = serve()
    post = "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    good = served.ask(f"{post}Content-Length: 2\r\n\r\nhi".encode())
    assert json.loads(good.body)["body"] == "hi"
    assert served.ask(f"{post}Content-Length: 999999\r\n\r\n".encode()).status == 413
    chunk = b"400\r\n" + b"x" * 0x400 + b"\r\n"
    assert served.ask(f"{post}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 3).status == 413
    wrong = served.ask(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123456789")
    assert wrong.status == 405
    assert wrong.headers["allow"] == "GET, HEAD, OPTIONS"


def test_expect_100_continue_is_answered(serve):
    with serve().connect() as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert one_answer(sock) == (100, b"")
        sock.sendall(b"ok")
        assert one_answer(sock)[0] == 200


def test_many_requests_on_one_connection_and_pipelined(serve):
    with serve().connect() as sock:
        ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        slow = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
        for _ in range(3):
            sock.sendall(ask)
            assert one_answer(sock) == (200, b"ok\n")
        sock.sendall(ask + slow + ask + b"GET /below/x HTTP/1.1\r\nHost: x\r\n\r\n" + ask)
        bodies = [one_answer(sock)[1] for _ in range(5)]
        assert bodies == [b"ok\n", b"slow\n", b"ok\n", b"/below/x\n", b"ok\n"]


def raw_answer(sock, ask, body=True):
    """One answer as it came, but for its date."""
    sock.sendall(ask)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Date: ")]
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"Content-Length"))
    return lines, read_exactly(sock, length) if body else b""


@pytest.mark.parametrize("ask", ["GET /healthz", "GET /slow", "GET /nothing", "GET /below/x?y=1", "HEAD /healthz"])
def test_a_request_repeated_gets_the_same_answer_and_is_parsed_once(serve, monkeypatch, ask):
    parsed = []
    understand = Connection._understand
    monkeypatch.setattr(Connection, "_understand", lambda self, head: parsed.append(head) or understand(self, head))
    other = b"GET /below/z HTTP/1.1\r\nHost: x\r\n\r\n"
    whole = f"{ask} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    body = not ask.startswith("HEAD")
    with serve().connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = raw_answer(sock, whole, body)
        assert [raw_answer(sock, whole, body) for _ in range(3)] == [first] * 3
        assert len(parsed) == (1 if body else 4)
        assert raw_answer(sock, other)[1] == b"/below/z\n"
        assert raw_answer(sock, whole, body) == first
        # beginning as the known one does, but not the same
        longer = whole[:-2] + b"X-More: 1\r\n\r\n"
        assert raw_answer(sock, longer, body) == first
        sock.sendall(whole[:9])
        time.sleep(0.05)  # in two pieces
        assert raw_answer(sock, whole[9:], body) == first


def test_a_repeated_request_is_not_taken_out_of_its_place(serve):
    """The bytes of the last request may also be the body or the rest of another."""
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with serve().connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            sock.sendall(ask)
            assert one_answer(sock) == (200, b"ok\n")
        sock.sendall(f"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {len(ask)}\r\n\r\n".encode())
        time.sleep(0.05)
        sock.sendall(ask)
        assert json.loads(one_answer(sock)[1])["body"] == ask.decode()
        sock.sendall(ask + b"GET /below/x HTTP/1.1\r\nX: ")  # the answer goes out while the next has begun
        assert one_answer(sock) == (200, b"ok\n")
        sock.sendall(ask)
        assert one_answer(sock) == (200, b"/below/x\n")


def test_large_answers_go_out_whole_and_the_next_request_waits_its_turn(serve):
    with serve().connect() as sock:
        big = b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n"
        sock.sendall(big + big + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)  # the answer does not fit the socket's buffers: the server has to wait for us
        assert len(one_answer(sock)[1]) == 15_000_001
        assert len(one_answer(sock)[1]) == 15_000_001
        assert one_answer(sock) == (200, b"ok\n")


def test_a_client_that_half_closes_gets_its_answer(serve):
    with serve().connect() as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert one_answer(sock) == (200, b"slow\n")
        assert sock.recv(1) == b""


def test_http_1_0_gets_its_answer_and_the_end(serve):
    answer = serve().ask(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"ok\n")


def test_300_idle_clients_cost_no_thread_and_no_answer(serve):
    served = serve()
    threads = threading.active_count()
    idle = [served.connect() for _ in range(300)]
    try:
        assert served.get("/healthz").status == 200
        assert threading.active_count() <= threads
        assert len(served.server.connections) >= 300
    finally:
        for sock in idle:
            sock.close()


def test_beyond_the_limit_the_quietest_goes_and_a_busy_scraper_stays(serve, until):
    served = serve(limits={"connections": 20})
    scraper = served.connect()
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    idle = []
    for _ in range(60):
        idle.append(served.connect())
        scraper.sendall(ask)
        assert one_answer(scraper) == (200, b"ok\n")
    until(lambda: len(served.server.connections) <= 20)
    assert served.server.refused["evicted"] >= 40
    for sock in (scraper, *idle):
        sock.close()


def test_slow_loris_is_dropped_however_busily_it_dribbles(serve):
    served = serve(limits={"request_seconds": 1.0})
    with served.connect() as sock:
        sock.settimeout(0.1)
        said = dribble(sock, b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 300)
    assert said is not None, "it went on for 30 s"
    assert said == b"" or said.startswith(b"HTTP/1.1 408")
    assert served.server.refused["deadline"] >= 1


def test_an_answer_that_takes_longer_than_a_request_may_is_given(serve):
    """Such as a password that waits for its turn to be hashed: the request was whole in time."""
    served = serve(limits={"request_seconds": 0.2})

    async def patient(request):
        await asyncio.sleep(2.5)  # the sweeper has looked twice
        return text("at last")

    served.server.app.route("/patient", patient)
    assert served.get("/patient").body == b"at last\n"


def test_a_client_that_is_never_done_is_counted_once(serve, until):
    served = serve(limits={"request_seconds": 0.5})
    with served.connect() as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nX: y")  # and neither more nor an end, even after the 408
        until(lambda: served.server.refused["deadline"])
        until(lambda: not served.server.connections)
    assert served.server.refused["deadline"] == 1


def dribble(sock, data):
    """Send a byte every 0.1 s; what the server said when it hung up, or None if it never did."""
    for byte in data:
        try:
            sock.sendall(bytes([byte]))
            return sock.recv(1000)
        except TimeoutError:
            continue
        except ConnectionError:
            return b""
    return None


def test_a_silent_client_is_dropped(serve):
    with serve(limits={"request_seconds": 0.5}).connect() as sock:
        assert sock.recv(1) == b""


def test_a_client_that_does_not_read_is_dropped(serve, until):
    served = serve(limits={"response_seconds": 0.5})
    with served.connect() as sock:
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: served.server.connections)
        until(lambda: not served.server.connections)


def test_answers_nobody_reads_cannot_fill_the_memory(serve, until):
    served = serve(limits={"backlog_bytes": 5_000_000})
    hungry = [served.connect() for _ in range(4)]
    for sock in hungry:
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    until(lambda: sum(c.backlog() for c in list(served.server.connections)) > 5_000_000)
    assert served.get("/healthz").status == 503
    for sock in hungry:
        sock.close()
    until(lambda: served.get("/healthz").status == 200)


def test_a_flood_of_bad_requests_hurts_nobody(serve):
    served = serve()
    for junk in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\r\n" * 50, b"GET / HTTP/9.9\r\n\r\n") * 25:
        with served.connect() as sock:
            sock.sendall(junk)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    assert served.get("/healthz").status == 200


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.text(max_size=200).map(lambda t: f"GET /{t} HTTP/1.1\r\nHost: x\r\n\r\n".encode()),
        st.builds(
            lambda m, h, b: m.encode() + b" /echo HTTP/1.1\r\n" + h.encode() + b"\r\n\r\n" + b,
            st.sampled_from(["GET", "POST", "HEAD", "PUT"]),
            st.lists(st.sampled_from(["Host: x", "Content-Length: 5", "Content-Length: -1", "Content-Length: x",
                                      "Transfer-Encoding: chunked", "Expect: 100-continue", "Connection: close",
                                      "X:" + "y" * 3000, "Upgrade: h2c", "Content-Length: " + "9" * 5000])
            ).map("\r\n".join),
            st.binary(max_size=50),
        ),
    )
)  # fmt: skip
def test_whatever_comes_the_server_answers_or_hangs_up_and_lives_on(shared_server, data):
    with shared_server.connect(timeout=30) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            got = b""
            while chunk := sock.recv(65536):
                got += chunk
        except ConnectionError:
            got = b""
    assert got == b"" or got.startswith(b"HTTP/1.1 ")
    assert b" 500 " not in got.partition(b"\r\n")[0]
    assert shared_server.get("/healthz").status == 200


@pytest.fixture(name="shared_server", scope="module")
def one_server_for_all_examples(request):
    helpers = sys.modules[request.config.pluginmanager.get_plugin(str(request.path.parent / "conftest.py")).__name__]
    served = helpers.Served(Server(helpers.demo_app()))
    yield served
    served.stop()


def test_a_port_in_use_names_its_holder(serve):
    served = serve()
    other = Server(App())
    with pytest.raises(ConfigError, match=rf"in use by pid {os.getpid()} \("):
        other.listen("127.0.0.1", served.port)
    assert other.addresses == []


def test_the_holder_in_another_process_is_named_with_its_program():
    code = "import socket,time\ns=socket.create_server(('127.0.0.1',0))\nprint(s.getsockname()[1],flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", code, "password"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    said = holder(int(child.stdout.readline()))
    child.communicate(b"\n")
    assert f"pid {child.pid} (python" in said
    assert "password" not in said


def test_an_address_that_is_not_ours_is_a_clear_error():
    with pytest.raises(ConfigError, match=r"listen: 192\.0\.2\.1:0"):
        Server(App()).listen("192.0.2.1", 0)


@pytest.mark.parametrize("bad", ["9840", "a:b", "x:99999", "::1:80", "h:-1", ""])
def test_bad_addresses_are_refused(bad):
    with pytest.raises(ValueError, match=r"host:port|brackets"):
        parse_address(bad)


def test_good_addresses():
    assert [parse_address(each) for each in ("127.0.0.1:1", ":2", "[::1]:3")] == [("127.0.0.1", 1), ("", 2), ("::1", 3)]


def test_paths_that_are_not_ours_share_one_label(serve):
    served = serve()
    for n in range(50):
        served.get(f"/scan/{n}")
    assert served.server.answered == {("other", 404): 50}


def test_a_guard_comes_first(serve):
    served = serve(guard=lambda request: text("no", 403) if request.path == "/echo" else None)
    assert served.get("/echo").status == 403
    assert served.get("/healthz").status == 200


def test_stop_ends_open_connections(serve):
    served = serve()
    with served.connect() as sock:
        served.loop.call_soon_threadsafe(served._stop.set)
        assert sock.recv(1) == b""
