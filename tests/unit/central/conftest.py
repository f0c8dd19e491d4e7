"""A made-up Prometheus for what the real one will not do on demand."""

import contextlib
import http.server
import json
import threading
import time
import urllib.parse

import pytest

from alerts.central.promread import Reader
from alerts.central.settings import Prometheus


class FakePrometheus(http.server.ThreadingHTTPServer):
    """Answers range queries from `series`: {labels as tuple of pairs: function of time -> value or None}."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.series = {}
        self.silences = {}
        self.by_name = {}
        """Series of these queries alone, in place of `series`."""
        self.asked = []
        self.count = None
        """What `count(...)` says, if not the number of series."""
        self.shift = 0.0
        """Seconds by which the points of an answer are off the grid."""
        self.failure = None
        """(status, body) or a number of seconds to sleep before answering."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def reader(self, **settings):
        return Reader(Prometheus(url=self.url, **{"timeout": "5s", **settings}))


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        form = {key: value[0] for key, value in urllib.parse.parse_qs(self.rfile.read(length).decode()).items()}
        self.server.asked.append((self.path, form))
        failure = self.server.failure
        if isinstance(failure, tuple):
            return self.reply(*failure)
        if failure is not None:
            time.sleep(failure)
        query = form["query"]
        source = self.server.silences.get(query.split("(")[0], {}) if "gpuvigil_drill" in query else self.server.series
        if "maintenance" in query:
            source = {}
        source = self.server.by_name.get(query, source)
        if self.path.endswith("/query"):
            at = float(form.get("time", time.time()))
            if query.startswith("count("):
                number = len(source) if self.server.count is None else self.server.count
                result = [{"metric": {}, "value": [at, str(number)]}] if number else []
            else:
                result = [
                    {"metric": dict(key), "value": [at, str(f(at))]} for key, f in source.items() if f(at) is not None
                ]
            return self.reply(200, answer("vector", result))
        start, end, step = (float(form[name]) for name in ("start", "end", "step"))
        moments = [start + n * step for n in range(int((end - start) / step + 1e-9) + 1)]
        result = []
        for key, function in source.items():
            values = [[t + self.server.shift, str(function(t))] for t in moments if function(t) is not None]
            if values:
                result.append({"metric": {"__name__": "x", **dict(key)}, "values": values})
        return self.reply(200, answer("matrix", result))

    def reply(self, status, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)


def answer(kind, result):
    return {"status": "success", "data": {"resultType": kind, "result": result}}


@pytest.fixture
def prometheus():
    server = FakePrometheus()
    yield server
    server.shutdown()
    server.server_close()
