"""Stands for an LLM engine: answers /metrics with a file as it is at that moment, and everything else with 200."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Engine(BaseHTTPRequestHandler):
    page: Path

    def do_GET(self) -> None:
        body = self.page.read_bytes() if self.path == "/metrics" else b"ok\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    Engine.page = Path(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Engine).serve_forever()
