"""A webhook sink: it takes what Alertmanager would send to people, writes it down and shows it.

Each receiver has a path (/drill, /page, /ticket, /watchdog). Every delivery becomes one line of a
JSONL file with the wall clock and the monotonic clock, so that a drill can time its page.
"""

from __future__ import annotations

import argparse
import html
import json
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PATHS = ("/drill", "/page", "/ticket", "/info", "/watchdog")
BODY_LIMIT = 1 << 20
KEPT = 1000


class Pages:
    """Deliveries in the order received, in memory (the last `KEPT`) and in a JSONL file (all)."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8")
        self._recent: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.counts = dict.fromkeys(PATHS, 0)

    def close(self) -> None:
        self._file.close()

    def add(self, path: str, body: dict[str, Any]) -> int:
        """Record one delivery; returns its number, from 1."""
        with self._lock:
            self.counts[path] += 1
            number = sum(self.counts.values())
            record = {
                "id": number,
                "path": path,
                "received": time.time(),
                "monotonic": time.monotonic(),
                "body": body,
            }
            self._recent.append(record)
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            return number

    def since(self, number: int, path: str | None = None) -> list[dict[str, Any]]:
        """Deliveries after `number`, of one path if given."""
        with self._lock:
            return [r for r in self._recent if r["id"] > number and path in (None, r["path"])]


class Handler(BaseHTTPRequestHandler):
    """POST /<receiver>; GET / (a page), /api/pages?since=N&path=/drill, /runbooks/<Alert>.md, /healthz."""

    pages: Pages
    runbooks: Path | None
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        length = self.headers.get("Content-Length", "")
        if path not in PATHS:
            self.close_connection = True
            return self._answer(404, {"error": f"no receiver {path}; there are {', '.join(PATHS)}"})
        if not length.isdigit() or int(length) > BODY_LIMIT:
            self.close_connection = True
            return self._answer(413, {"error": f"a Content-Length of at most {BODY_LIMIT} bytes is required"})
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            return self._answer(400, {"error": f"not JSON: {error}"})
        if not isinstance(body, dict):
            return self._answer(400, {"error": "not a webhook: a JSON object is expected"})
        return self._answer(200, {"id": self.pages.add(path, body)})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/healthz":
            return self._answer(200, {"status": "ok"})
        if url.path == "/api/pages":
            query = parse_qs(url.query)
            since = query.get("since", ["0"])[0]
            if not since.isdigit():
                return self._answer(400, {"error": f"since must be a number, got {since!r}"})
            found = self.pages.since(int(since), query.get("path", [None])[0])
            return self._answer(200, {"counts": self.pages.counts, "pages": found})
        if url.path.startswith("/runbooks/"):
            return self._runbook(url.path.removeprefix("/runbooks/"))
        if url.path == "/":
            return self._answer(200, render(self.pages))
        return self._answer(404, {"error": "there is /, /api/pages and /healthz"})

    def _runbook(self, name: str) -> None:
        """A runbook as text; only names that stand in the folder itself."""
        known = {path.name: path for path in self.runbooks.glob("*.md")} if self.runbooks else {}
        if name not in known:
            return self._answer(404, {"error": f"no runbook {name}"})
        return self._answer(200, known[name].read_text(encoding="utf-8"), "text/markdown")

    def _answer(self, status: int, content: dict[str, Any] | str, kind: str = "text/html") -> None:
        text = content if isinstance(content, str) else json.dumps(content) + "\n"
        kind = kind if isinstance(content, str) else "application/json"
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the JSONL file is the log."""


def render(pages: Pages) -> str:
    """The status page: one row an alert, newest first."""
    rows = []
    for record in reversed(pages.since(0)):
        for alert in record["body"].get("alerts", []):
            labels = alert.get("labels", {})
            cells = (
                time.strftime("%H:%M:%S", time.localtime(record["received"])),
                record["path"],
                alert.get("status", ""),
                labels.get("alertname", ""),
                labels.get("node", ""),
                alert.get("annotations", {}).get("summary", ""),
            )
            rows.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
    counts = " &middot; ".join(f"{path} <b>{count}</b>" for path, count in pages.counts.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        "<title>Pages received</title><style>body{font:15px system-ui;margin:2em;max-width:70em}"
        "td,th{padding:.3em .8em;text-align:left;border-bottom:1px solid #ddd}table{border-collapse:collapse}</style>"
        f"<h1>Pages received</h1><p>{counts}</p><table><tr><th>Time<th>Receiver<th>Status<th>Alert<th>Node<th>Summary"
        f"</tr>{''.join(rows)}</table></html>"
    )


def serve(port: int, path: Path, runbooks: Path | None = None) -> ThreadingHTTPServer:
    """A bound server on 127.0.0.1 (port 0: any free one) that writes to `path`; the caller runs it."""
    handler = type("BoundHandler", (Handler,), {"pages": Pages(path), "runbooks": runbooks})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    return server


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.demo.sink", description=__doc__)
    parser.add_argument("--port", type=int, default=9843, help="TCP port on 127.0.0.1")
    parser.add_argument("--file", type=Path, required=True, help="JSONL file that pages are appended to")
    parser.add_argument("--runbooks", type=Path, help="folder of runbooks to show under /runbooks/")
    args = parser.parse_args(argv)
    server = serve(args.port, args.file, args.runbooks)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"sink on 127.0.0.1:{args.port}", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
