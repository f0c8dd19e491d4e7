"""A request and its answer, as handlers see them."""

from __future__ import annotations

import html
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer: str = ""
    """Address of the client."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. `headers` come beside Content-Type and Content-Length."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Response | Awaitable[Response]]
"""Answers a request; never blocks: what waits is a coroutine."""


class HttpError(Exception):
    """Ends a request with a status and one line of text."""

    def __init__(self, status: int, text: str = "", headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text or HTTPStatus(status).phrase)
        self.status = status
        self.headers = headers


def text(body: str, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status, f"{body}\n".encode(), headers=headers)


def as_json(document: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(document, ensure_ascii=False).encode() + b"\n", "application/json")


def page(title: str, body: str, status: int = 200) -> Response:
    """A small HTML page; `body` is HTML, whose values the caller has escaped (`html.escape`)."""
    document = (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><main>{body}</main></html>\n"
    )
    policy = ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
    return Response(status, document.encode(), "text/html; charset=utf-8", (policy,))


_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:0}"
    "main{max-width:60rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8884}th.n,td.n{text-align:right}"
    ".loud{background:#b00020;color:#fff;padding:.6rem 1rem;font-weight:600}"
    ".ok{color:#1a7f37}.failed,.late{color:#b00020;font-weight:600}.starting{color:#9a6700}"
)
