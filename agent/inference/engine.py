"""One engine as the agent sees it: page, health, process and probe, each asked aside."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.base.aside import Aside
from agent.base.catalogue import Sample
from agent.base.catalogue import llm as m
from agent.base.errors import ConfigError
from agent.base.fetch import authorization, chunks, request, up_to
from agent.inference import container, process
from agent.inference.mapping import ENGINES, WANTED, detect
from agent.inference.normalise import normalise, served_model
from agent.inference.owner import owner
from agent.inference.page import Page, read_page
from agent.inference.probe import Probe, Request
from agent.inference.settings import EngineSettings
from agent.node.lent import Usage

GpuProcess = tuple[int, str, str, str]
"""What the gpu collector lends: (pid, gpu label, uuid, synthetic)."""

LISTENER_RETRY = 120.0
"""Seconds between two searches for the listening process: each walks every process of the node."""
MODELS_LIMIT = 1 << 20
GRACE = 1.0


class NotAPage(Exception):
    """The engine answered, but not with a metrics page that we know."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a page said, in our vocabulary."""

    samples: tuple[Sample, ...]


class Engine:
    """Holds what is known of one engine between two runs of the collector."""

    def __init__(
        self,
        settings: EngineSettings,
        proc: Path = Path("/proc"),
        listed: Callable[[], Iterable[GpuProcess]] = tuple,
    ) -> None:
        """`listed` gives the processes that hold a GPU now."""
        self.name = settings.name
        self._listed = listed
        self.parse_errors = 0
        self.failures: Counter[str] = Counter()
        """Pages that could not be had, by reason."""
        self._settings = settings
        self._proc = proc
        self._model = settings.model
        self._kind = settings.kind
        self._known: frozenset[str] = frozenset()
        self._pid: process.Process | None = None
        self._searched = -LISTENER_RETRY
        self._pid_problem = ""
        self.load = process.LoadTimer()
        self._page: Aside[Reading] = Aside(f"page-{self.name}", self._read)
        self._health: Aside[bool] = Aside(f"health-{self.name}", self._look)
        self._probe = Probe(self.name, self._ask, settings.probe.period) if settings.probe.enabled else None

    @property
    def asides(self) -> list[Aside[Any]]:
        return [self._page, self._health]

    def kick(self) -> None:
        self._page.kick()
        self._health.kick()
        if self._probe:
            self._probe.start()

    def close(self) -> None:
        if self._probe:
            self._probe.close()

    def problems(self) -> Iterator[str]:
        """What the user has to mend in the configuration."""
        outcome = self._page.last
        if outcome and isinstance(outcome.error, ConfigError):
            yield str(outcome.error)
        if self._pid_problem:
            yield self._pid_problem
        if self._probe and self._probe.misconfigured:
            yield self._probe.misconfigured

    def samples(self) -> Iterator[Sample]:
        yield m.ENGINE_INFO.sample(1, self.name, self._kind if self._kind != "auto" else "", self._settings.url)
        yield from self._of_page()
        yield from self._of_health()
        if self.load.seconds is not None:
            yield m.MODEL_LOAD.sample(self.load.seconds, self.name)
        if self._probe:
            yield from self._probe.samples()

    def _of_page(self) -> Iterator[Sample]:
        page, pending = self._page.last, self._page.pending or 0.0
        overdue = pending > self._settings.timeout + GRACE  # a name look-up knows no deadline
        if page is None and not overdue:
            return
        reading = page.value if page and not overdue else None
        yield m.ENGINE_UP.sample(float(reading is not None), self.name)
        yield m.SCRAPE_SECONDS.sample(max(page.seconds if page else 0.0, pending), self.name)
        for reason, count in list(self.failures.items()):
            yield m.SCRAPE_FAILURES.sample(count, self.name, reason)
        if reading:
            yield from reading.samples

    def _of_health(self) -> Iterator[Sample]:
        health, pending = self._health.last, self._health.pending or 0.0
        overdue = pending > self._settings.health_timeout + GRACE
        if health is None and not overdue:
            return
        yield m.HEALTH_OK.sample(float(bool(health and health.value and not overdue)), self.name)
        # A look that already lasts longer than the last one did is the newer truth.
        yield m.HEALTH_SECONDS.sample(max(health.seconds if health else 0.0, pending), self.name)

    def placement(self, listed: Iterable[GpuProcess]) -> Iterator[Sample]:
        """The engine's process, who runs it, and which of the GPUs lent here its processes hold."""
        engine = self._pid
        if engine is None:
            return
        yield m.ENGINE_PROCESS.sample(1, self.name, self._model, str(engine.pid), *owner(engine.pid, self._proc))
        for pid, gpu, uuid, synthetic in listed:
            if process.descends(pid, engine.pid, self._proc):
                yield m.ENGINE_GPU.sample(1, self.name, gpu, uuid, synthetic, str(pid))

    def usage(self, listed: Iterable[GpuProcess]) -> Usage:
        """Tokens generated and GPUs held, for the energy collector."""
        page = self._page.last
        tokens = [s.value for s in page.value.samples if s.metric is m.GENERATED_TOKENS] if page and page.value else []
        held = {
            uuid
            for pid, _, uuid, _ in listed
            if self._pid is not None and process.descends(pid, self._pid.pid, self._proc)
        }
        return self.name, self._model, sum(tokens) if tokens else None, frozenset(held)

    def _paths(self) -> tuple[str, str]:
        usual = ENGINES.get(self._kind) or ENGINES["vllm"]
        return self._settings.metrics_path or usual.metrics_path, self._settings.health_path or usual.health_path

    def _read(self) -> Reading:
        one = self._settings
        url = one.metrics_url or one.url + self._paths()[0]
        headers = {"Accept": "text/plain;version=0.0.4", **authorization(one.credential_file)}
        try:
            with request(url, one.timeout, headers=headers, ca_file=one.ca_file) as response:
                if response.status != 200:
                    raise NotAPage(f"HTTP status {response.status}")
                page = read_page(chunks(response), WANTED, one.page_limit)
        except (OSError, http.client.HTTPException, NotAPage) as error:
            self.failures[_reason(error)] += 1
            self._known, self._model = frozenset(), one.model  # the next page may be another version's or model's
            raise
        return self._understand(page)

    def _understand(self, page: Page) -> Reading:
        """What a page says; counts it where it is not whole or says nothing."""
        kind = detect(page.samples) if self._settings.kind == "auto" else self._settings.kind
        names = frozenset(page.samples)
        missing = bool(self._known - names)
        self.parse_errors += page.errors + (page.cut or missing)
        if not page.cut:
            self._known |= names
        found: tuple[Sample, ...] = ()
        if kind is not None and names:
            self._kind = kind
            self._model = self._model or served_model(page) or self._ask_model()
            found = tuple(normalise(page, ENGINES[kind], self.name, self._model))
        if not found:
            self.parse_errors += not (page.errors or page.cut or missing)
            self.failures["page"] += 1
            raise NotAPage("no metric of a known engine")
        return Reading(found)

    def _ask_model(self) -> str:
        """The first model that the engine lists; nothing if it does not say."""
        one = self._settings
        try:
            headers = authorization(one.credential_file)
            with request(one.url + "/v1/models", one.timeout, headers=headers, ca_file=one.ca_file) as response:
                if response.status != 200:
                    return ""
                text = up_to(chunks(response), MODELS_LIMIT)
            return str(json.loads(text)["data"][0]["id"])
        except (OSError, http.client.HTTPException, EOFError, ValueError, LookupError, TypeError):
            return ""

    def _look(self) -> bool:
        """Ask the health URL; whatever it says, look at the process too."""
        one = self._settings
        state, answered, ready = process.State.UNKNOWN, False, False
        try:
            headers = authorization(one.credential_file)
            with request(one.url + self._paths()[1], one.health_timeout, headers=headers, ca_file=one.ca_file) as got:
                answered, ready = True, 200 <= got.status < 300
            state = process.State.READY if ready else process.State.STARTING
        except ConnectionRefusedError:
            state = process.State.STARTING
            self._searched = -LISTENER_RETRY  # whoever listens next is somebody new
            raise
        finally:
            self._pid = self._find(search=answered)
            self.load.look(self._pid, state)
        return ready

    def _find(self, search: bool) -> process.Process | None:
        """The engine's process: the pid file's, the one known already, or the listener if we may `search`."""
        if self._settings.pid_file:
            try:
                pid = process.from_pid_file(self._settings.pid_file)
                self._pid_problem = ""
            except ConfigError as error:
                pid, self._pid_problem = None, str(error)
            return process.identify(pid, self._proc) if pid else None
        if self._pid and process.identify(self._pid.pid, self._proc) == self._pid:
            return self._pid
        now = time.monotonic()
        if not search or now - self._searched < LISTENER_RETRY:
            return None
        self._searched = now
        pid = self._listener()
        return process.identify(pid, self._proc) if pid else None

    def _listener(self) -> int | None:
        """Who listens at the engine's address, on this node or in a container of it."""
        host, port = process.address(self._settings.url)
        pid = process.listener(self._settings.url)
        if pid is not None:
            target = container.target_of_proxy(pid, self._proc)
            if target is None:
                return pid
            host, port = target
        return container.engine(host, port, [one[0] for one in self._listed()], self._proc)

    def _ask(self) -> Request:
        one = self._settings
        model = self._model = self._model or self._ask_model()  # the page's thread may forget it meanwhile
        return Request(
            url=one.url + one.completions_path,
            model=model,
            prompt=one.probe.prompt,
            max_tokens=one.probe.max_tokens,
            timeout=one.probe.timeout,
            credential_file=one.probe.credential_file or one.credential_file,
            ca_file=one.ca_file,
        )


def _reason(error: Exception) -> str:
    """One word for a page that could not be had."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ssl.SSLError):
        return "tls"
    return "status" if isinstance(error, NotAPage) else "connection"
