"""HTTP with one deadline for all of it: headers, body, TLS; and credentials that come from files."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_engine import FakeEngine, events, half, text

from agent.base.errors import ConfigError
from agent.base.fetch import authorization, chunks, request, up_to


@contextmanager
def serving(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server that treats its one client as `behave` says."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            try:
                client, _ = server.accept()
                with client:
                    behave(client)
            except OSError:
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
    thread.join(20)


def dribble(data: bytes, pause: float) -> Callable[[socket.socket], None]:
    def behave(client: socket.socket) -> None:
        for byte in data:
            client.sendall(bytes([byte]))
            time.sleep(pause)

    return behave


HEADER = b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 2000 + b"\r\n\r\n"


def test_a_header_that_dribbles_ends_at_the_deadline() -> None:
    start = time.monotonic()
    with serving(dribble(HEADER, 0.02)) as address, pytest.raises(TimeoutError), request(f"http://{address}", 0.4):
        pass
    assert time.monotonic() - start < 20, "each byte came in time, the whole would take 40 s"


def test_the_body_and_its_length(fake: FakeEngine) -> None:
    fake.answers |= {"/a?b=c": text("body"), "/cut": half("x" * 1000), "/chunked": events("one", "two")}
    with request(f"{fake.url}/a?b=c", 20) as response:
        assert (response.status, up_to(chunks(response), 4)) == (200, b"body")
    with request(f"{fake.url}/a?b=c", 20) as response, pytest.raises(ValueError, match="longer than 3"):
        up_to(chunks(response), 3)
    with request(f"{fake.url}/cut", 20) as response, pytest.raises(EOFError, match="500 of 1000"):
        list(chunks(response))
    with request(f"{fake.url}/chunked", 20) as response:
        assert b"".join(chunks(response)) == b"data: one\n\ndata: two\n\n"


def test_a_chunked_body_that_breaks_off() -> None:
    def behave(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nff\r\nhalf")

    with serving(behave) as address, request(f"http://{address}", 20) as response, pytest.raises(EOFError):
        list(chunks(response))


def test_a_connection_that_is_refused() -> None:
    with pytest.raises(ConnectionRefusedError), request("http://127.0.0.1:9", 5):
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = [
        "-keyout",
        str(folder / "key.pem"),
        "-out",
        str(folder / "cert.pem"),
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*command, *names, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return folder


def test_tls_is_checked_and_bounded(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    def behave(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            tls.recv(4096)
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsafe")

    signed = str(certificate / "cert.pem")
    with serving(behave) as address:
        url = f"https://localhost:{address.rpartition(':')[2]}"
        with request(url, 20, ca_file=signed) as response:
            assert up_to(chunks(response), 10) == b"safe"
    with serving(behave) as address:
        url = f"https://localhost:{address.rpartition(':')[2]}"
        with pytest.raises(ssl.SSLCertVerificationError), request(url, 20):
            pass
    with serving(lambda client: time.sleep(1)) as address:
        url = f"https://localhost:{address.rpartition(':')[2]}"
        with pytest.raises(TimeoutError), request(url, 0.3, ca_file=signed):
            pass


def test_credentials(tmp_path: Path) -> None:
    file = tmp_path / "key"
    assert authorization(None) == {}
    with pytest.raises(ConfigError, match=r"key: cannot be read"):
        authorization(file)
    file.write_text("abc\n")
    assert authorization(file) == {"Authorization": "Bearer abc"}
    with pytest.raises(ConfigError, match=r"must hold user:password on one line"):
        authorization(file, basic=True)
    file.write_text("user:pass:word")
    assert authorization(file, basic=True) == {"Authorization": "Basic dXNlcjpwYXNzOndvcmQ="}
    for wrong in ("", "two\nlines"):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match=r"must hold one key on one line"):
            authorization(file)
