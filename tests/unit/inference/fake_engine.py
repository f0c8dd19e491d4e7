"""An HTTP server that does what real engines do only on a bad day."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


def text(body: str | bytes, status: int = 200) -> Answer:
    data = body.encode() if isinstance(body, str) else body

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        to.send_header("Content-Length", str(len(data)))
        to.end_headers()
        to.wfile.write(data)

    return answer


def half(body: str, announced: bool = True) -> Answer:
    """The first half of `body`; the length of all of it is announced, or none is."""

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        if announced:
            to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body[: len(body) // 2].encode())

    return answer


def unannounced(body: str) -> Answer:
    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.end_headers()
        to.wfile.write(body.encode())

    return answer


def events(*parts: str | float) -> Answer:
    """A stream: strings are `data:` events sent as one chunk each, numbers are pauses in seconds."""

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.send_header("Transfer-Encoding", "chunked")
        to.end_headers()
        for part in parts:
            if isinstance(part, str):
                data = f"data: {part}\n\n".encode()
                to.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            else:
                time.sleep(part)
        to.wfile.write(b"0\r\n\r\n")

    return answer


class FakeEngine:
    """Answers `answers[path]` (404 else), remembers requests; `hang` and `dribble` last until closed."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self._over = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                fake.seen.append((self.path, dict(self.headers), self.rfile.read(length)))
                self.close_connection = True
                with suppress(OSError):
                    fake.answers.get(self.path, text("no", 404))(self)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def hang(self, to: BaseHTTPRequestHandler) -> None:
        self._over.wait(60)

    def dribble(self, to: BaseHTTPRequestHandler) -> None:
        """One byte at a time, for ever: each read succeeds, the whole never ends."""
        to.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not self._over.wait(0.02):
            to.wfile.write(b"#")

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@contextmanager
def running() -> Iterator[FakeEngine]:
    engine = FakeEngine()
    try:
        yield engine
    finally:
        engine.close()
