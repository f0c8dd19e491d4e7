"""Reading any PromQL API: chunked range queries within a budget of points, and errors with a name."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import urllib3

from agent.base.errors import VigilError
from alerts.central.settings import Prometheus

Labels = tuple[tuple[str, str], ...]
"""A series' labels without its name, sorted: its identity."""


class ReadError(VigilError):
    """A query gave no answer. `reason` is one word: refused, timeout, bad_query, unavailable, bad_answer, budget."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self._parts = (reason, detail)

    def __reduce__(self) -> tuple[type[ReadError], tuple[str, str]]:
        return ReadError, self._parts  # it comes back from workers


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one series: grid rows (K,) as multiples of the step since the epoch, and values (K,)."""

    labels: Labels
    rows: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


@dataclass(slots=True)
class Tally:
    """What reading has cost so far."""

    queries: int = 0
    series: int = 0
    samples: int = 0
    bytes: int = 0


class Reader:
    """Asks Prometheus. Safe to use from several threads; at most `settings.concurrency` queries at once.

    Args:
        settings: address and budgets.
        observe: called with the seconds and the outcome ("ok" or a reason) of each query.
        parsed: called with the seconds that decoding an answer took.
        tally: where to add up what reading costs; it outlives a reader of other settings.
    """

    def __init__(
        self,
        settings: Prometheus,
        observe: Callable[[float, str], None] = lambda seconds, outcome: None,
        parsed: Callable[[float], None] = lambda seconds: None,
        tally: Tally | None = None,
    ) -> None:
        self._settings = settings
        self._observe = observe
        self._parsed = parsed
        self._room = threading.BoundedSemaphore(settings.concurrency)
        self.tally = tally or Tally()
        kwargs: dict[str, Any] = {"ca_certs": settings.ca_file} if settings.ca_file else {}
        self._pool = urllib3.PoolManager(maxsize=settings.concurrency, retries=False, **kwargs)

    def instant(self, query: str, at: float | None = None) -> list[tuple[Labels, float]]:
        """The value of each series of `query` now, or at Unix time `at`."""
        fields = {"query": query} | ({"time": f"{at:.3f}"} if at is not None else {})
        return [(_labels(r["metric"]), float(r["value"][1])) for r in self._ask("query", fields, "vector")]

    def count(self, query: str, limit: int, at: float | None = None) -> int:
        """Number of series of `query`.

        Raises:
            ReadError: "budget" with the number when there are more than `limit`.
        """
        try:
            answer = self.instant(f"count({query})", at)
        except ReadError as error:
            if error.reason == "bad_query":
                self.instant(query, at)  # refused as well, with positions and words of the query as it was written
            raise
        number = int(answer[0][1]) if answer else 0
        if number > limit:
            raise ReadError("budget", f"{number} series where at most {limit} are allowed (series_limit): {query}")
        return number

    def range(self, query: str, first: int, last: int, step: float, series: int) -> Iterable[list[Series]]:
        """Chunks, in order of time, of `query` on grid rows `first..last` (both included).

        Args:
            query: PromQL.
            first: first row: Unix time / step.
            last: last row.
            step: seconds a row.
            series: how many series are expected, to keep each answer within the budget of samples.
        """
        rows = min(self._settings.points_per_query, max(self._settings.samples_per_query // max(series, 1), 1))
        while first <= last:
            until = min(first + rows - 1, last)
            fields = {
                "query": query,
                "start": f"{first * step:.3f}",
                "end": f"{until * step:.3f}",
                "step": f"{step:.3f}",
                "timeout": f"{self._settings.timeout:g}s",
            }
            yield [_series(result, step) for result in self._ask("query_range", fields, "matrix")]
            first = until + 1

    def _ask(self, path: str, fields: Mapping[str, str], kind: str) -> list[Any]:
        outcome = "ok"
        with self._room:
            begin = time.monotonic()
            try:
                return self._answer(path, fields, kind)
            except ReadError as error:
                outcome = error.reason
                raise
            finally:
                self._observe(time.monotonic() - begin, outcome)

    def _answer(self, path: str, fields: Mapping[str, str], kind: str) -> list[Any]:
        url = f"{self._settings.url.rstrip('/')}/api/v1/{path}"
        try:
            response = self._pool.request(
                "POST",
                url,
                fields=dict(fields),
                encode_multipart=False,
                headers=self._credentials(),
                timeout=urllib3.Timeout(total=self._settings.timeout),
            )
        except urllib3.exceptions.NewConnectionError as error:  # a TimeoutError in name only
            raise ReadError("refused", f"{url}: {error}") from None
        except urllib3.exceptions.TimeoutError:
            raise ReadError("timeout", f"{url}: no answer within {self._settings.timeout:g} s") from None
        except urllib3.exceptions.HTTPError as error:
            raise ReadError("refused", f"{url}: {error}") from None
        body = response.data
        self.tally.queries += 1
        self.tally.bytes += len(body)
        if response.status in (401, 403):
            raise ReadError(
                "denied", f"{url}: HTTP {response.status}; check username, password_file, bearer_token_file"
            )
        begin = time.monotonic()
        try:
            document = json.loads(body)
            if document["status"] != "success":
                reason = "bad_query" if response.status in (400, 422) else "unavailable"
                raise ReadError(reason, f"{url}: {document.get('error', 'no reason given')} ({fields['query']})")
            data = document["data"]
            if data["resultType"] != kind:
                raise ReadError("bad_query", f"a {data['resultType']} where series are needed: {fields['query']}")
            found: list[Any] = data["result"]
        except (ValueError, KeyError, TypeError):
            reason = "unavailable" if response.status >= 500 else "bad_answer"
            raise ReadError(reason, f"{url}: HTTP {response.status}, and no PromQL answer") from None
        self._parsed(time.monotonic() - begin)
        self.tally.series += len(found)
        self.tally.samples += sum(len(r["values"]) for r in found) if kind == "matrix" else len(found)
        return found

    def _credentials(self) -> dict[str, str]:
        settings = self._settings
        if settings.bearer_token_file:
            return {"Authorization": f"Bearer {_secret(settings.bearer_token_file)}"}
        if settings.username:
            password = _secret(settings.password_file) if settings.password_file else ""
            return dict(urllib3.make_headers(basic_auth=f"{settings.username}:{password}"))
        return {}


def _secret(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ReadError("denied", f"{path}: cannot be read: {error.strerror}") from None


def _labels(metric: Mapping[str, str]) -> Labels:
    return tuple(sorted((key, value) for key, value in metric.items() if key != "__name__"))


def _series(result: Mapping[str, Any], step: float) -> Series:
    """Points by their own time, never by position: a missing step is simply absent from the answer.

    Raises:
        ReadError: the points lie between the steps that were asked for.
    """
    pairs = result["values"]
    times = np.array([pair[0] for pair in pairs], dtype=np.float64)
    rows = np.rint(times / step).astype(np.int64)
    if len(times) and np.abs(times - rows * step).max() > max(0.01 * step, 0.002):
        raise ReadError("bad_answer", f"points that are not on the grid of {step:g} s: does a proxy change the step?")
    values = np.array([float(pair[1]) for pair in pairs])
    values[~np.isfinite(values)] = math.nan
    return Series(_labels(result["metric"]), rows, values)
