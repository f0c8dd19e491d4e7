"""What the agent's pages say, from snapshots made for the purpose."""

from __future__ import annotations

import gzip

import pytest

from agent.base.catalogue import self as own
from agent.base.web import HttpError, Request
from agent.endpoints import build_app, landing, metrics, readyz
from agent.intake import gather
from agent.snapshot import Snapshot, Status


def snapshot(*statuses, **blocks):
    return Snapshot(0.0, {name: gather(samples) for name, samples in blocks.items()}, statuses)


def test_ready_once_every_collector_had_its_turn():
    waiting = readyz(snapshot(Status("gpu", "starting"), Status("host", "ok")))
    assert (waiting.status, waiting.body) == (503, b"503: first run not finished: gpu\n")
    done = readyz(snapshot(Status("gpu", "late", "hangs"), Status("host", "ok")))
    assert (done.status, done.body) == (200, b"ready\ngpu: hangs\n"), "one bad source does not unready the node"


@pytest.mark.parametrize(("value", "loud"), [(1, True), (0, False), (None, False)])
def test_simulated_is_said_loudly(value, loud):
    samples = [own.SIMULATED.sample(value)] if value is not None else []
    body = landing(snapshot(gpu=samples), "n1", "").body.decode()
    assert ("SIMULATED" in body) is loud


def test_names_and_errors_are_shown_as_text_not_as_html():
    body = landing(snapshot(Status("x", "failed", "<script>alert(1)</script>")), "<b>n1", "c&c").body.decode()
    assert "<script>" not in body
    assert "<b>n1" not in body
    assert "c&amp;c" in body


def test_pages_are_made_once_for_each_variant(metric):
    shot = snapshot(a=[metric.plain.sample(1)], b=[metric.counter.sample(2, "x")])
    ask = Request("GET", "/metrics", headers={"accept-encoding": "gzip"})
    first, second = metrics(ask, shot), metrics(ask, shot)
    assert first.body is second.body
    assert gzip.decompress(first.body) == metrics(Request("GET", "/metrics"), shot).body
    assert ("Content-Encoding", "gzip") in first.headers
    part = metrics(Request("GET", "/metrics", query={"collect[]": ["b"]}), shot).body
    assert b"gpuvigil_test_bytes_total" in part
    assert b"gpuvigil_test_plain" not in part
    with pytest.raises(HttpError, match="no such collector runs; there are a, b"):
        metrics(Request("GET", "/metrics", query={"collect[]": ["c"]}), shot)


def test_filters_nobody_repeats_do_not_fill_the_memory(metric):
    names = [f"c{n}" for n in range(40)]
    shot = snapshot(**{name: [metric.plain.sample(1)] for name in names})
    for first in names:
        for second in names:
            metrics(Request("GET", "/metrics", query={"collect[]": [first, second]}), shot)
    assert len(shot._made) <= 16


def test_the_routes():
    app = build_app(lambda: snapshot(), "n1", "c1")
    assert app.paths == ["/metrics", "/healthz", "/readyz", "/"]
