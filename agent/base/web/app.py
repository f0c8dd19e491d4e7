"""The route table."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from agent.base.web.message import Handler, HttpError, Request, Response, text

_log = logging.getLogger("gpuvigil.web")


@dataclass(frozen=True, slots=True)
class Route:
    """One path, or with a final slash everything below it."""

    path: str
    handler: Handler
    methods: tuple[str, ...]
    max_body: int

    @property
    def allow(self) -> str:
        every = {*self.methods, "OPTIONS"} | ({"HEAD"} if "GET" in self.methods else set())
        return ", ".join(sorted(every))


class App:
    """Paths and who answers them.

    A handler is a function of the request; it returns the response or a coroutine of it, and may
    raise `HttpError`. HEAD and OPTIONS need no handler of their own.
    """

    def __init__(self) -> None:
        self._exact: dict[str, Route] = {}
        self._below: list[Route] = []

    def route(self, path: str, handler: Handler, *, methods: Sequence[str] = ("GET",), max_body: int = 0) -> None:
        """Add a path; a path that ends in "/" (but "/" itself) answers for everything below it.

        `max_body` is the largest request body in bytes; larger ones get 413.
        """
        route = Route(path, handler, tuple(methods), max_body)
        if path != "/" and path.endswith("/"):
            self._below.append(route)
            self._below.sort(key=lambda each: -len(each.path))
        else:
            self._exact[path] = route

    def match(self, method: str, path: str) -> Route | Response:
        """The route that answers, or the answer that needs none: 404, 405, OPTIONS."""
        route = self._exact.get(path) or next((r for r in self._below if path.startswith(r.path)), None)
        if route is None:
            return text(f"404: there is no {path[:200]!r} here; see /", 404)
        if method == "OPTIONS":
            return Response(204, headers=(("Allow", route.allow),))
        if ("GET" if method == "HEAD" else method) not in route.methods:
            return text(f"405: {path} answers {route.allow}", 405, (("Allow", route.allow),))
        return route

    @property
    def paths(self) -> list[str]:
        """The exact paths: only those are worth a label."""
        return list(self._exact)

    def known(self, path: str) -> bool:
        """Whether the path is one of them."""
        return path in self._exact

    def begin(self, request: Request) -> Response | Handler:
        """The response if it can be given at once, else the handler whose coroutine must be awaited."""
        route = self.match(request.method, request.path)
        if isinstance(route, Response):
            return route
        if inspect.iscoroutinefunction(route.handler):
            return route.handler
        try:
            outcome = route.handler(request)
        except HttpError as error:
            return text(f"{error.status}: {error}", error.status, error.headers)
        except Exception:
            return _failed(request)
        if isinstance(outcome, Response):
            return outcome
        return lambda _: outcome

    async def finish(self, request: Request, handler: Handler) -> Response:
        """Await a handler that `begin` returned."""
        try:
            outcome = handler(request)
            return outcome if isinstance(outcome, Response) else await outcome
        except HttpError as error:
            return text(f"{error.status}: {error}", error.status, error.headers)
        except Exception:
            return _failed(request)


def _failed(request: Request) -> Response:
    _log.exception("request failed", extra={"path": request.path[:200]})
    return text("500: the request failed; see the log", 500)
