"""The life of the process: the web server's loop, the clock beside it, a clean end on SIGTERM."""

from __future__ import annotations

import asyncio
import html
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from agent.base.errors import ConfigError
from agent.base.exposition import accepts_gzip, compress, negotiate
from agent.base.notify import Notifier
from agent.base.web import (
    App,
    Request,
    Response,
    Server,
    WebSecurity,
    as_json,
    format_address,
    page,
    parse_address,
    text,
)
from alerts.central.service import Central
from alerts.central.settings import Settings

log = logging.getLogger(__name__)

SIGN_OF_LIFE = 5.0
"""Seconds between two signs of life to systemd, unless it wants them more often."""


def routes(central: Central) -> App:
    """What central answers, all of it from memory."""

    async def metrics(request: Request) -> Response:
        form = negotiate(request.headers.get("accept", ""))
        # Hundreds of thousands of series take seconds to render: in a thread, so that /healthz never waits.
        body = await asyncio.to_thread(central.page, form)
        if accepts_gzip(request.headers.get("accept-encoding", "")):
            packed = await asyncio.to_thread(compress, body)
            return Response(200, packed, form.content_type, (("Content-Encoding", "gzip"),))
        return Response(200, body, form.content_type)

    def healthz(request: Request) -> Response:
        if central.alive:
            return text("ok")
        return text(f"the scheduler has been silent for {central.clock.silent_for:.0f} s", 503)

    def readyz(request: Request) -> Response:
        waiting = central.waiting()
        return text(f"not run yet: {', '.join(waiting)}", 503) if waiting else text("ready")

    def index(request: Request) -> Response:
        rows = "".join(
            f"<tr><td>{html.escape(entry['name'])}<td>{entry['state']}<td class=n>{entry['series']}"
            f"<td>{html.escape(entry['why'])}</tr>"
            for entry in central.monitors()
        )
        head = "<tr><th>monitor<th>state<th>series<th>why</tr>"
        links = '<p><a href="/metrics">metrics</a> <a href="/api/v1/monitors">monitors</a></p>'
        return page("gpuvigil central", f"<h1>gpuvigil central</h1>{links}<table>{head}{rows}</table>")

    app = App()
    app.route("/", index)
    app.route("/metrics", metrics)
    app.route("/healthz", healthz)
    app.route("/readyz", readyz)
    app.route("/api/v1/monitors", lambda request: as_json({"monitors": central.monitors()}))
    return app


class Process:
    """Central as a process: server, signals, configuration that is looked at again."""

    def __init__(self, central: Central, load: Callable[[], Settings], watched: Path | None) -> None:
        self._central = central
        self._load = load
        self._watched = watched
        self._seen = _content(watched)
        self._server = Server(routes(central))
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            ConfigError: the address cannot be listened on, or the web configuration is wrong.
        """
        notifier, loop = Notifier(), asyncio.get_running_loop()
        try:
            self._server.listen(*parse_address(self._central.settings.listen))
        except ValueError as error:
            raise ConfigError(f"listen: {error}") from None
        watching = None
        if self._central.settings.web_config_file:
            security = WebSecurity(self._server, self._central.settings.web_config_file)
            watching = loop.create_task(security.watch())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.run_in_executor(None, self._reload))
        self._server.start()
        self._central.start()
        where = ", ".join(format_address(*address) for address in self._server.addresses)
        log.info("central is up", extra={"listen": where, "monitors": len(self._central.slots)})
        notifier.ready(f"{len(self._central.slots)} monitors, listening on {where}")
        await self._until_stopped(notifier)
        notifier.stopping()
        if watching is not None:
            watching.cancel()
        await self._server.stop()
        await asyncio.to_thread(self._central.stop)
        log.info("central has stopped")

    async def _until_stopped(self, notifier: Notifier) -> None:
        pause = min(notifier.watchdog_seconds / 3 or SIGN_OF_LIFE, SIGN_OF_LIFE)
        while not self._stop.is_set():
            self._central.clock.follow()
            if self._central.alive:
                notifier.alive()
            try:
                await asyncio.wait_for(self._stop.wait(), pause)
            except asyncio.TimeoutError:
                content = await asyncio.to_thread(_content, self._watched)
                if content is not None and content != self._seen:
                    self._seen = content
                    await asyncio.to_thread(self._reload)

    def _reload(self) -> None:
        self._central.reload(self._load)


def _content(path: Path | None) -> bytes | None:
    """The file's content: time stamps lie where a file is mounted or restored."""
    try:
        return path.read_bytes() if path is not None else None
    except OSError:
        return None
