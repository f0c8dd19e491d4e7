"""One HTTP/1.1 connection: h11 on an asyncio transport, with a deadline for everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs, unquote

import h11

from agent.base.web.app import Route
from agent.base.web.message import Handler, HttpError, Request, Response, text
from agent.base.web.tls import has_allowed_name

if TYPE_CHECKING:
    from agent.base.web.server import Server

_HEAD_LIMIT = 8192  # bytes of request line and headers
_LINGER_SECONDS = 2.0


class Connection(asyncio.Protocol):
    """Reads requests one after the other, answers each by the server's app.

    `deadline` (loop time) is when the server drops the connection: a request has to be whole, and
    its answer taken, within a fixed time, however busily the client dribbles.
    """

    def __init__(self, server: Server) -> None:
        self.deadline = server.now() + server.limits.request_seconds
        self.greeting: asyncio.Task[None] | None = None
        """The handshake under way."""
        self.busy = False
        """An answer is being prepared or sent."""
        self.dying = False
        """Dropped; its end is on the way."""
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)
        self._transport: asyncio.Transport | None = None
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._most_body = 0
        self._reading = False
        self._task: asyncio.Task[None] | None = None
        self._peer = ""
        self.lingering = False
        self._piece = b""
        """The request being read, as long as it came in one piece."""
        self._request: Request | None = None
        self._known: tuple[bytes, h11.Request, Request] | None = None
        """The last request that a client may well repeat: its bytes, and what they mean."""
        self._repeated = False
        """The request being answered is that one again; h11 has not seen it."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)  # so that resume_writing means: all is sent
        address = transport.get_extra_info("peername")
        self._peer = str(address[0]) if isinstance(address, tuple) else ""
        allowed = self._server.allowed_names
        if allowed is not None and not has_allowed_name(transport.get_extra_info("peercert"), allowed):
            self._server.refused["handshake"] += 1
            return self.abort()
        if self.dying:  # dropped during its handshake
            self._transport.abort()
        return None

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        if data and not self._reading:
            self._reading = True
            self.deadline = self._server.now() + self._server.limits.request_seconds
            self._piece = data
            if self._known is not None and data == self._known[0] and not self.busy and self._drained:
                return self._repeat(*self._known[1:])
        elif data:
            self._piece = b""
        try:
            if data:
                self._http.receive_data(data)
            self._advance()
        except h11.RemoteProtocolError as error:
            self._refuse(HttpError(error.error_status_hint, f"not a proper HTTP/1.1 request: {error}"))

    def eof_received(self) -> bool:
        return self.busy and not self.lingering  # a client that half-closes still gets its answer

    def resume_writing(self) -> None:
        if self.busy and self._task is None and not self.lingering and self._transport is not None:
            self._transport.resume_reading()
            self._rest()
            self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self.close()  # Python 3.10 warns of a TLS transport that only its peer closed
        self._server.forget(self)

    # what the server does

    def expire(self) -> None:
        """The deadline has passed: say so to a client that is still asking, and drop it."""
        if self._reading and not self.busy:
            self._refuse(HttpError(408, "the request was not whole in time"))
        else:
            self.abort()

    def backlog(self) -> int:
        """Bytes of answers that the client has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def abort(self) -> None:
        self.dying = True
        if self._transport is not None:
            self._transport.abort()
        elif self.greeting is not None:
            self.greeting.cancel()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # HTTP

    def _advance(self) -> None:
        while not self.busy:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                    self._write(self._http.send(go_on) or b"")
                return
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return self.close()
            if isinstance(event, h11.Request):
                self._head, self._body = event, bytearray()
                if len(event.target) + sum(len(name) + len(value) for name, value in event.headers) > _HEAD_LIMIT:
                    return self._refuse(HttpError(431, f"request line and headers exceed {_HEAD_LIMIT} bytes"))
                self._check_head(event)
            elif isinstance(event, h11.Data):
                self._body += event.data
                if self._head is not None and len(self._body) > self._most_body:
                    return self._too_large(self._server.app.match(self._head.method.decode("ascii"), _path(self._head)))
            elif isinstance(event, h11.EndOfMessage) and self._head is not None:
                self._dispatch(self._head)
        return None

    def _check_head(self, head: h11.Request) -> None:
        """Find out how large a body may be; refuse one that announces itself as larger before it is read."""
        route = self._server.app.match(head.method.decode("ascii"), _path(head))
        self._most_body = route.max_body if isinstance(route, Route) else 0
        length = next((value for name, value in head.headers if name == b"content-length"), b"0")
        if int(length) > self._most_body:
            self._too_large(route)

    def _too_large(self, route: Route | Response) -> None:
        if isinstance(route, Response):  # 404 or 405 says more
            self._refuse(HttpError(route.status, route.body.decode().partition(": ")[2].strip(), route.headers))
        else:
            self._refuse(HttpError(413, f"the body is larger than {self._most_body} bytes"))

    @property
    def _drained(self) -> bool:
        """Whether h11 has used up all that came."""
        return not self._http.trailing_data[0]

    def _repeat(self, head: h11.Request, request: Request) -> None:
        """Answer a scraper that asks, byte for byte, what it asked last: there is nothing to parse."""
        self._repeated = True
        self._head = head
        self._begin(request)

    def _dispatch(self, head: h11.Request) -> None:
        self.busy = True
        try:
            request = self._understand(head)
        except HttpError as error:
            return self._refuse(error)
        return self._begin(request)

    def _begin(self, request: Request) -> None:
        self.busy = True
        self._request = request
        outcome = self._server.begin(request)
        if isinstance(outcome, Response):
            return self._respond(outcome)
        assert self._transport is not None
        self._transport.pause_reading()
        self.deadline = self._server.now() + self._server.limits.response_seconds
        self._task = asyncio.get_running_loop().create_task(self._later(request, outcome))
        return None

    async def _later(self, request: Request, handler: Handler) -> None:
        response = await self._server.app.finish(request, handler)
        self._task = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._respond(response)
            if not self.busy:
                self.data_received(b"")

    def _understand(self, head: h11.Request) -> Request:
        try:
            target = head.target.decode("ascii")
            path, _, query = target.partition("?")
            return Request(
                head.method.decode("ascii"),
                unquote(path, errors="strict"),
                parse_qs(query, keep_blank_values=True, max_num_fields=64, errors="strict") if query else {},
                {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
                bytes(self._body),
                self._peer,
            )
        except ValueError:
            raise HttpError(400, "the address or its query is malformed") from None

    def _respond(self, response: Response) -> None:
        head = self._head
        self.busy = True
        reply = self._server.now() + self._server.limits.response_seconds
        self.deadline = reply
        headers = [
            ("Content-Type", response.content_type),
            *([("Content-Length", str(len(response.body)))] if response.status != 204 else []),
            ("Date", _date(self._server.wall)),
            ("X-Content-Type-Options", "nosniff"),
            *self._server.headers,
            *response.headers,
        ]
        self._server.count(_path(head) if head is not None else "", response.status)
        if not (self._send_again if self._repeated else self._send)(response, headers):
            return self._hang_up()
        if self.backlog():
            assert self._transport is not None
            self._transport.pause_reading()
            self._server.unread.add(self)
        else:
            self._rest()
        return None

    def _send(self, response: Response, headers: list[tuple[str, str]]) -> bool:
        """Send by h11; whether the connection is kept."""
        start = h11.Response(status_code=response.status, headers=headers, reason=_REASONS.get(response.status, b""))
        out = self._http.send(start) or b""
        if response.body and (self._head is None or self._head.method != b"HEAD"):
            out += self._http.send(h11.Data(data=response.body)) or b""
        out += self._http.send(h11.EndOfMessage()) or b""
        self._write(out)
        return self._http.our_state is h11.DONE

    def _send_again(self, response: Response, headers: list[tuple[str, str]]) -> bool:
        """Send what h11 would send on a connection that is kept."""
        lines = [f"HTTP/1.1 {response.status} ".encode() + _REASONS.get(response.status, b"")]
        lines += [f"{name}: {value}".encode("ascii") for name, value in headers]
        self._write(b"\r\n".join([*lines, b"", response.body]))
        return True

    def _rest(self) -> None:
        """The answer is out: wait for the next request."""
        if self._piece and not self._repeated and self._head is not None and self._request is not None:
            plain = self._head.method == b"GET" and not self._request.body and self._drained
            self._known = (self._piece, self._head, self._request) if plain else None
        self._piece = b""
        self.busy = self._reading = self._repeated = False
        self._head = self._request = None
        self.deadline = self._server.now() + self._server.limits.idle_seconds
        self._server.touch(self)
        if self._http.their_state is h11.DONE and self._http.our_state is h11.DONE:
            self._http.start_next_cycle()

    def _refuse(self, error: HttpError) -> None:
        """Answer with an error and hang up."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return self.close()
        answer = text(f"{error.status}: {error}", error.status, (*error.headers, ("Connection", "close")))
        return self._respond(answer)

    def _hang_up(self) -> None:
        """Close after the answer; unread input is thrown away for a moment, lest a reset overtake the answer."""
        self.lingering = self.busy = True
        if self._transport is not None and self._transport.can_write_eof() and self._reading:
            self.deadline = self._server.now() + _LINGER_SECONDS
            self._transport.write_eof()
        else:
            self.close()

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)


_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}


def _path(head: h11.Request) -> str:
    return head.target.partition(b"?")[0].decode("ascii", "replace")


_last_date = (0, "")


def _date(wall: Callable[[], float]) -> str:
    """The Date header, made once a second."""
    global _last_date
    now = int(wall())
    if _last_date[0] != now:
        _last_date = (now, formatdate(now, usegmt=True))
    return _last_date[1]
