"""Who may ask, and how often: basic authentication and the rate limit of a web configuration."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from agent.base.web.app import App
from agent.base.web.message import Handler, Request, Response, text

_MOST_WAITING = 16
_MOST_KNOWN = 256
_REALM = ("WWW-Authenticate", 'Basic realm="gpuvigil", charset="UTF-8"')


class RateLimiter:
    """A token bucket: one request is earned every `interval` seconds, `burst` may be saved up."""

    def __init__(self, interval: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def take(self) -> bool:
        """Whether a request may pass now."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) / self._interval)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class BasicAuth:
    """Checks user and password against bcrypt hashes.

    A pair that was right is remembered by a keyed digest, so that only its first request costs a hash. One that is
    wrong, or whose user does not exist, takes the time of a hash every time; hashes are computed one at a time,
    aside from the event loop, and when too many wait the rest is told to come back later.
    """

    def __init__(self, users: Mapping[str, str]) -> None:
        import bcrypt

        self._check = bcrypt.checkpw
        self._users = {user: text.encode() for user, text in users.items()}
        dearest = max(int(text[4:6]) for text in users.values())
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16).hex().encode(), bcrypt.gensalt(dearest))
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, None] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")
        self._waiting = 0

    def knows(self, header: str) -> bool:
        """Whether this `Authorization` header was found right before."""
        return self._digest(header) in self._known

    async def verify(self, header: str) -> bool | None:
        """Whether user and password are right; None if too many are waiting to be checked."""
        pair = _pair(header)
        if pair is None:
            return False
        if self._waiting >= _MOST_WAITING:
            return None
        self._waiting += 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(self._pool, self._compare, *pair)
        finally:
            self._waiting -= 1
        if right:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[self._digest(header)] = None
        return right

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _compare(self, user: str, password: bytes) -> bool:
        stored = self._users.get(user)
        # bcrypt reads 72 bytes and no NUL; anything else cannot be right, but takes its time all the same
        usable = len(password) <= 72 and b"\0" not in password
        right = self._check(password if usable else b"-", stored if stored is not None and usable else self._nobody)
        return right and stored is not None and usable

    def _digest(self, header: str) -> bytes:
        return hmac.digest(self._key, header.encode("utf-8", "replace"), hashlib.sha256)


def _pair(header: str) -> tuple[str, bytes] | None:
    scheme, _, coded = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
        return (user.decode("utf-8"), password) if colon else None
    except ValueError:  # not base64, or not UTF-8 in it
        return None


class Guard:
    """Stands before an app: first the rate limit, then the password."""

    def __init__(self, app: App, limiter: RateLimiter | None, auth: BasicAuth | None) -> None:
        self._app = app
        self._limiter = limiter
        self._auth = auth

    def __call__(self, request: Request) -> Response | Handler | None:
        if self._limiter is not None and not self._limiter.take():
            return text("429: too many requests", 429, (("Retry-After", "1"),))
        if self._auth is None:
            return None
        header = request.headers.get("authorization", "")
        if not header:
            return text("401: user and password are wanted", 401, (_REALM,))
        return None if self._auth.knows(header) else self._ask

    async def _ask(self, request: Request) -> Response:
        assert self._auth is not None
        right = await self._auth.verify(request.headers["authorization"])
        if right is None:
            return text("503: too many passwords are being checked", 503, (("Retry-After", "2"),))
        if not right:
            return text("401: user or password is wrong", 401, (_REALM,))
        outcome = self._app.begin(request)
        return outcome if isinstance(outcome, Response) else await self._app.finish(request, outcome)

    def close(self) -> None:
        if self._auth is not None:
            self._auth.close()
