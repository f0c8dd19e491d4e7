"""What the agent answers over HTTP. Every answer comes from the newest snapshot: no disk, no driver, no wait."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape

from agent import __version__
from agent.base.catalogue import self as own
from agent.base.collector import Context
from agent.base.exposition import accepts_gzip, negotiate
from agent.base.web import App, HttpError, Request, Response, page, text
from agent.health.document import SHARED as HEALTH
from agent.snapshot import Snapshot

Newest = Callable[[], Snapshot]


def build_app(newest: Newest, node: str, cluster: str) -> App:
    """The routes; others may add theirs."""
    app = App()
    app.route("/metrics", lambda request: metrics(request, newest()))
    app.route("/healthz", lambda request: text("ok"))
    app.route("/readyz", lambda request: readyz(newest()))
    app.route("/", lambda request: landing(newest(), node, cluster))
    return app


def metrics(request: Request, snapshot: Snapshot) -> Response:
    """The page, in the format and coding that the client asks for; `?collect[]=gpu` takes a part."""
    only = request.query.get("collect[]", [])
    if unknown := sorted(set(only) - snapshot.blocks.keys() - {status.name for status in snapshot.statuses}):
        names = ", ".join(sorted(snapshot.blocks))
        raise HttpError(400, f"collect[]={unknown[0][:100]!r}: no such collector runs; there are {names}")
    form = negotiate(request.headers.get("accept", ""))
    zipped = accepts_gzip(request.headers.get("accept-encoding", ""))
    coding = (("Content-Encoding", "gzip"),) if zipped else ()
    body = snapshot.page(form, gzip=zipped, only=only)
    return Response(200, body, form.content_type, (("Vary", "Accept, Accept-Encoding"), *coding))


def readyz(snapshot: Snapshot) -> Response:
    """200 once every collector had its first run (or missed its deadline)."""
    if snapshot.waiting:
        return text(f"503: first run not finished: {', '.join(snapshot.waiting)}", 503)
    bad = [f"{each.name}: {each.error}" for each in snapshot.statuses if each.state != "ok"]
    return text("\n".join(["ready", *bad]))


def health(context: Context) -> Response:
    """The verdicts as JSON; 503 until the health collector has judged for the first time."""
    make = context.shared.get(HEALTH)
    if make is None:
        return text("503: the health collector has not judged yet", 503)
    return Response(200, json.dumps(make()).encode(), "application/json")


def landing(snapshot: Snapshot, node: str, cluster: str) -> Response:
    """A page for people: what runs here and how it stands."""
    simulated = snapshot.value(own.SIMULATED.stem) == 1
    loud = '<p class="loud">SIMULATED: the GPU values of this node come from a simulator.</p>' if simulated else ""
    rows = "".join(
        f'<tr><td>{escape(each.name)}<td class="{each.state}">{each.state}<td class="n">{each.series}'
        f'<td class="n">{"" if each.began is None else f"{snapshot.at - each.began:.1f} s"}<td>{escape(each.error)}'
        for each in snapshot.statuses
    )
    where = f"{escape(node)}{f' of {escape(cluster)}' if cluster else ''}"
    body = (
        f"<h1>gpuvigil agent</h1>{loud}<p>Node <b>{where}</b>, version {escape(__version__)}.</p>"
        '<ul><li><a href="metrics">metrics</a><li><a href="healthz">healthz</a><li><a href="readyz">readyz</a>'
        '<li><a href="api/v1/health">health</a></ul>'
        '<table><tr><th>collector<th>state<th class="n">series<th class="n">age<th>what is wrong'
        f"{rows}</table>"
    )
    return page(f"gpuvigil agent on {node}", body)
