"""The streaming probe: one small completion a period, timed token by token.

It asks as `stream` knows for the path. Each probe's prompt begins with its own number, so that a prefix cache does not
answer for the engine.

A probe that times out or fails is counted by its result and leaves **no latency sample**: what was not
measured is not invented, neither as the time-out's length nor as an entry in `+Inf`. A rule on
latency therefore takes `gpuvigil_llm_probes_total{result!="ok"}` as bad requests beside the histogram's.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from agent.base.catalogue import Sample
from agent.base.catalogue import llm as m
from agent.base.errors import ConfigError
from agent.base.fetch import authorization, chunks, request
from agent.inference.histogram import E2E_EDGES, INTER_TOKEN_EDGES, TTFT_EDGES, Histogram
from agent.inference.stream import Stream, question, read_stream

SOURCE = "probe"

Result = Literal["ok", "error", "timeout"]
RESULTS: tuple[Result, ...] = ("ok", "error", "timeout")


@dataclass(frozen=True, slots=True)
class Request:
    """What a probe asks for."""

    url: str
    model: str
    prompt: str
    max_tokens: int
    timeout: float
    credential_file: Path | None = None
    ca_file: str | None = None


def complete(ask: Request, number: int) -> Stream:
    """Send one streamed completion and time it.

    Raises:
        TimeoutError: not finished in `ask.timeout` seconds.
        ConfigError: no key to be had from the credential file.
        OSError, http.client.HTTPException, EOFError, ValueError: no good answer.
    """
    body = question(urlsplit(ask.url).path, ask.model, f"[{number}] {ask.prompt}", ask.max_tokens)
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream", **authorization(ask.credential_file)}
    started = time.monotonic()
    with request(
        ask.url, ask.timeout, body=json.dumps(body).encode(), headers=headers, ca_file=ask.ca_file
    ) as response:
        if response.status != 200:
            raise ValueError(f"HTTP status {response.status}")
        return read_stream(chunks(response), started)


class Probe:
    """Keeps the histograms of one engine's probe and, once started, runs it in a thread of its own."""

    def __init__(self, engine: str, ask: Callable[[], Request], period: float) -> None:
        self.engine = engine
        self.problem = ""
        self.misconfigured = ""
        self._ask = ask
        self._period = period
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._number = 0
        self._results: dict[Result, int] = dict.fromkeys(RESULTS, 0)
        self._by_model: dict[str, tuple[Histogram, Histogram, Histogram]] = {}
        self._rate: tuple[str, float] | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=f"probe-{self.engine}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()

    def _loop(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self.once()
            due = max(due + self._period, time.monotonic())  # a missed turn is not made up for
            self._stop.wait(due - time.monotonic())

    def once(self) -> Result:
        """Run one probe and keep what it showed."""
        self._number += 1
        stream: Stream | None = None
        problem = model = misconfigured = ""
        result: Result = "error"
        try:
            ask = self._ask()
            model = ask.model
            stream = complete(ask, self._number)
            result = "ok" if stream.finished else "error"
            problem = "" if stream.finished else "the stream broke off"
        except TimeoutError:
            result, problem = "timeout", "no end in time"
        except ConfigError as error:
            problem = misconfigured = str(error)
        except Exception as error:  # whatever an engine sends is a failed probe, never the end of probing
            problem = str(error) or type(error).__name__
        with self._lock:
            self.problem, self.misconfigured = problem, misconfigured
            self._results[result] += 1
            self._rate = None
            if stream is not None and result == "ok":
                self._keep(model or stream.model, stream)
        return result

    def _keep(self, model: str, stream: Stream) -> None:
        ttft, inter, e2e = self._by_model.setdefault(
            model, (Histogram(TTFT_EDGES), Histogram(INTER_TOKEN_EDGES), Histogram(E2E_EDGES))
        )
        e2e.observe(stream.end)
        if not stream.tokens:
            return
        ttft.observe(stream.tokens[0])
        for before, after in zip(stream.tokens, stream.tokens[1:], strict=False):
            inter.observe(after - before)
        if stream.end > 0:
            self._rate = (model, stream.count / stream.end)

    def samples(self) -> Iterator[Sample]:
        with self._lock:
            found = [m.PROBES.sample(count, self.engine, result) for result, count in self._results.items()]
            for model, (ttft, inter, e2e) in self._by_model.items():
                labels = (self.engine, model, SOURCE)
                found += ttft.samples(m.TTFT, *labels)
                found += inter.samples(m.INTER_TOKEN, *labels)
                found += e2e.samples(m.E2E, *labels)
            if self._rate:
                found.append(m.PROBE_TOKENS_RATE.sample(self._rate[1], self.engine, self._rate[0]))
        yield from found
