"""Reports by POST to a Unix socket: for jobs whose log nobody can read, and for those that have none.

    curl --unix-socket /run/gpuvigil/training.sock http://localhost/progress -d '{"job_id": "a", "step": 10}'

The object is that of the `json` log format, with the `job_id` of a configured job. Only who may write to the
socket may report; a report is small, and a client that dawdles is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

import h11

from agent.base.trainlog import Progress
from agent.base.trainlog.jsonlines import record
from agent.base.trainlog.text import parse_json
from agent.training.clock import believed
from agent.training.run import RANKS, Run

BODY_LIMIT: Final = 64 * 1024
_CLIENTS: Final = 64
_SECONDS: Final = 5.0
_QUEUE: Final = 4096


class ReportSource:
    """The reports of one job: put in by the socket's thread, taken out by the collector's."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Progress, float]] = deque(maxlen=_QUEUE)
        self._begun = False
        self._last_step: dict[int | None, int] = {}
        self.unparsed = 0

    def put(self, report: Progress, arrived: float) -> None:
        self._queue.append((report, arrived))

    def poll(self, run: Run, now: float) -> None:
        """As every source; a job that has not reported in this life of the agent is not there."""
        while self._queue:
            report, arrived = self._queue.popleft()
            self._begun = True
            step = report.step or 0
            if step < self._last_step.get(report.rank, 0):
                self._last_step.clear()
                run.new_file()
            if len(self._last_step) > RANKS:
                self._last_step.clear()
            self._last_step[report.rank] = step
            at = believed(report.time, arrived)
            run.take(report, arrived if at is None else at)
        if not self._begun:
            raise FileNotFoundError(errno.ENOENT, "the job has not reported yet")

    def state(self) -> dict[str, Any]:
        return {"unparsed": self.unparsed}

    def restore(self, state: dict[str, Any]) -> None:
        self.unparsed = int(state.get("unparsed", 0))


class Socket:
    """Listens in a thread of its own until `close`."""

    def __init__(self, path: Path, mode: int, sources: dict[str, ReportSource]) -> None:
        """`mode`: permissions of the socket file.

        Raises:
            OSError: the socket cannot be made.
        """
        self.path = path
        self._sources = sources
        self._socket = _bind(path, mode)
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(_CLIENTS)
        self._thread = threading.Thread(target=self._serve, name="training-reports", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_unix_server(self._client, sock=self._socket))
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._loop.run_until_complete(_end_all())
            self._loop.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._slots:
                await asyncio.wait_for(self._exchange(reader, writer), _SECONDS)
        except (asyncio.TimeoutError, OSError, h11.LocalProtocolError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16 * 1024)
        try:
            status, text = await self._answer(connection, reader)
        except h11.RemoteProtocolError as error:
            status, text = error.error_status_hint, str(error)
        body = text.encode()
        headers = [("Content-Length", str(len(body))), ("Connection", "close"), ("Content-Type", "text/plain")]
        writer.write(connection.send(h11.Response(status_code=status, headers=headers)) or b"")
        writer.write((connection.send(h11.Data(body)) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        await writer.drain()

    async def _answer(self, connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[int, str]:
        method, body = b"", b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(16 * 1024))
            elif isinstance(event, h11.Request):
                method = event.method
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_LIMIT:
                    return 413, f"a report is at most {BODY_LIMIT} bytes\n"
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return 400, "the request was cut off\n"
        if method != b"POST":
            return 405, "reports come by POST\n"
        return self.accept(body, time.time())

    def accept(self, body: bytes, arrived: float) -> tuple[int, str]:
        """Take in all reports of a request or none; the status and text of the answer."""
        taken: list[tuple[ReportSource, Progress]] = []
        try:
            objects = _objects(body)
        except ValueError:
            return 400, "a report is a JSON object; several are a list, or one a line\n"
        for values in objects:
            source = self._sources.get(str(values.get("job_id", ""))) if isinstance(values, dict) else None
            if source is None:
                return 404, "job_id must be that of a job without a log in agent.yaml, collectors.training.jobs\n"
            found = record(values)
            if found is None:
                source.unparsed += 1
                return 400, "a report needs a whole number as its step\n"
            taken.append((source, found))
        if not taken:
            return 400, "there is no report in the request\n"
        for source, found in taken:
            source.unparsed += bool(found.damaged)
            source.put(found, arrived)
        damaged = sorted(set().union(*(found.damaged for _, found in taken)))
        return 200, f"{len(taken)} taken\n" + (f"no numbers, left out: {', '.join(damaged)}\n" if damaged else "")


async def _end_all() -> None:
    """Cancel every exchange under way and let its connection be closed."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _objects(body: bytes) -> list[Any]:
    text = body.decode("utf-8")
    try:
        whole = parse_json(text)
    except ValueError:
        return [parse_json(line) for line in text.splitlines() if line.strip()]
    return whole if isinstance(whole, list) else [whole]


def _bind(path: Path, mode: int) -> socket.socket:
    """A listening socket at `path`; one left behind by a dead agent is replaced, one in use is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(errno.EEXIST, "is there and is not a socket", str(path))
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink()
            else:
                raise OSError(errno.EADDRINUSE, "is in use by another agent", str(path))
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(str(path))
        os.chmod(path, mode)
        made.listen(64)
    except OSError as error:
        made.close()
        raise OSError(error.errno, error.strerror, str(path)) from None
    made.setblocking(False)
    return made
