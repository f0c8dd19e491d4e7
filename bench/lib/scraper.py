"""Clients that all ask at the same moment, in a process of their own: `scraper.py PORT PATH CLIENTS ROUNDS PAUSE`.

Prints one JSON object: `took` (seconds of each scrape), `cpu` (seconds this process used), `bytes` of the last answer.
Each client keeps its connection where the exporter does, asks as Prometheus does, and does not unpack what it gets.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time

ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PATIENCE = 60.0


class Client:
    """One connection."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._ask = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: Prometheus/2.42.0\r\nAccept: {ACCEPT}\r\n"
            "Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
        ).encode()
        self.sock: socket.socket | None = None
        self.head = self.body = b""
        self.began = self.took = 0.0

    def ask(self) -> socket.socket:
        self.head = self.body = b""
        self.began = time.perf_counter()
        if self.sock is None:
            self.sock = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(self._ask)
        return self.sock

    def read(self) -> bool:
        """Take what has come; whether that was the last of it."""
        assert self.sock is not None
        data = self.sock.recv(1 << 20)
        self.body += data
        if not self.head:
            head, blank, self.body = self.body.partition(b"\r\n\r\n")
            if not blank:
                if not data:
                    raise SystemExit(f"port {self._port}: the connection ended before an answer")
                self.body = head
                return False
            self.head = head.lower() + b"\r\n"
            if not self.head.startswith((b"http/1.1 200", b"http/1.0 200")):
                raise SystemExit(f"port {self._port}: {head[:100]!r}")
        length = re.search(rb"\r\ncontent-length: (\d+)", self.head)
        whole = not data
        if length:
            whole |= len(self.body) >= int(length.group(1))
        elif b"chunked" in self.head:
            whole |= self.body.endswith(b"\r\n0\r\n\r\n")
        if whole:
            self.took = time.perf_counter() - self.began
            if not data or b"connection: close" in self.head or self.head.startswith(b"http/1.0"):
                self.close()
        return whole

    def scrape(self) -> float:
        """Ask and wait; seconds it took."""
        self.ask()
        while not self.read():
            pass
        return self.took

    def text(self) -> bytes:
        """The last answer's page."""
        body = self.body
        if b"chunked" in self.head:
            rest, body = body, b""
            while size := int(rest.partition(b"\r\n")[0], 16):
                start = rest.index(b"\r\n") + 2
                body += rest[start : start + size]
                rest = rest[start + size + 2 :]
        if b"content-encoding: gzip" in self.head:
            import gzip

            return gzip.decompress(body)
        return body

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


def crowd(port: int, path: str, clients: int, rounds: int, pause: float) -> dict[str, object]:
    several = [Client(port, path) for _ in range(clients)]
    for client in several:
        client.scrape()  # connected and warm
    took: list[float] = []
    before = time.process_time()
    for _ in range(rounds):
        with selectors.DefaultSelector() as waiting:
            for client in several:
                waiting.register(client.ask(), selectors.EVENT_READ, client)
            while waiting.get_map():
                for key, _ in waiting.select(PATIENCE):
                    sock = key.data.sock
                    if key.data.read():
                        waiting.unregister(sock)
        took += [client.took for client in several]
        time.sleep(pause)
    return {"took": took, "cpu": time.process_time() - before, "bytes": len(several[0].body)}


if __name__ == "__main__":
    port, path, clients, rounds, pause = sys.argv[1:]
    print(json.dumps(crowd(int(port), path, int(clients), int(rounds), float(pause))))
