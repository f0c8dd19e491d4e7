"""The life of the process: the web server's loop, the clock beside it, a clean end on SIGTERM."""

from __future__ import annotations

import asyncio
import html
import logging
import signal

from agent.base.errors import ConfigError
from agent.base.exposition import accepts_gzip, compress, negotiate
from agent.base.notify import Notifier
from agent.base.web import App, Request, Response, Server, as_json, format_address, page, parse_address, text
from alerts.central.service import Central

log = logging.getLogger(__name__)

SIGN_OF_LIFE = 5.0
"""Seconds between two signs of life to systemd, unless it wants them more often."""


def routes(central: Central) -> App:
    """What central answers, all of it from memory."""

    def metrics(request: Request) -> Response:
        form = negotiate(request.headers.get("accept", ""))
        body = central.page(form)
        if accepts_gzip(request.headers.get("accept-encoding", "")):
            return Response(200, compress(body), form.content_type, (("Content-Encoding", "gzip"),))
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


async def serve(central: Central) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    if central.settings.web_config_file:
        raise ConfigError("web_config_file: TLS and authentication are not there yet; put a proxy in front")
    notifier = Notifier()
    server = Server(routes(central))
    try:
        server.listen(*parse_address(central.settings.listen))
    except ValueError as error:
        raise ConfigError(f"listen: {error}") from None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server.start()
    central.start()
    where = ", ".join(format_address(*address) for address in server.addresses)
    log.info("central is up", extra={"listen": where, "monitors": len(central.watches)})
    notifier.ready(f"{len(central.watches)} monitors, listening on {where}")
    pause = min(notifier.watchdog_seconds / 3 or SIGN_OF_LIFE, SIGN_OF_LIFE)
    while not stop.is_set():
        if central.alive:
            notifier.alive()
        try:
            await asyncio.wait_for(stop.wait(), pause)
        except asyncio.TimeoutError:
            continue
    notifier.stopping()
    central.stop()
    await server.stop()
    log.info("central has stopped")
