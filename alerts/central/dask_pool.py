"""Workers on other machines, by a Dask scheduler: the optional `executor: dask://host:port`.

`dask scheduler` runs anywhere, `dask worker tcp://HOST:PORT --nthreads 1` wherever gpuvigil[dask] is installed. A task
is a query and a time range: workers read Prometheus themselves. A worker that dies loses its tasks to the others, and
Dask gives up on one that has killed several; its monitor then says so and asks again later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from agent.base.errors import ConfigError, VigilError

try:
    from distributed import Client
except ImportError:
    raise ConfigError('executor: dask://... needs the package: pip install "gpuvigil[dask]"') from None

log = logging.getLogger(__name__)

CONNECT = 5.0
"""Seconds in which the scheduler must answer."""
AGAIN = 15.0
"""Seconds after which one that did not is asked again: turns must not queue up behind it."""

T = TypeVar("T")


class SchedulerAway(VigilError):
    """No Dask scheduler answers at the address, or it has no worker."""


class DaskPool:
    """Workers of one Dask scheduler; it may come, go and come back."""

    def __init__(self, address: str) -> None:
        """`address`: dask://host:port, or dask+tls://host:port with certificates from Dask's own configuration."""
        scheme, _, place = address.partition("://")
        self.address = ("tls://" if scheme == "dask+tls" else "tcp://") + place
        self.replaced = 0
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._executor: Executor | None = None
        self._ask_at = 0.0
        for name in ("distributed", "distributed.client"):  # what they would say, in tracebacks, is said by us
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def submit(self, work: Callable[..., T], /, *args: object) -> Future[T]:
        """Run `work(*args)` on a worker; without a scheduler the future fails at once."""
        with self._lock:
            try:
                executor = self._connected()
                if self._client is not None and not self._client.nthreads():
                    raise SchedulerAway(f"the Dask scheduler at {self.address} has no worker")
                return executor.submit(work, *args)
            except SchedulerAway as error:
                return _failed(error)
            except (OSError, RuntimeError, ValueError) as error:
                self._drop()
                return _failed(SchedulerAway(f"no Dask scheduler answers at {self.address}: {error}"))

    def restart(self) -> None:
        """Start all workers of the scheduler anew; what they had in hand fails and is asked for again."""
        with self._lock:
            self.replaced += 1
            if self._client is not None:
                try:
                    self._client.restart(timeout=CONNECT, wait_for_workers=False)
                except (OSError, RuntimeError) as error:
                    log.warning("Dask's workers could not be restarted: %s", error)

    def close(self) -> None:
        """Leave the scheduler; its workers belong to it."""
        with self._lock:
            self._drop()

    def _connected(self) -> Executor:
        if self._client is not None and self._client.status == "running" and self._executor is not None:
            return self._executor
        self._drop()
        now = time.monotonic()
        if now < self._ask_at:
            raise SchedulerAway(f"no Dask scheduler answers at {self.address}")
        self._ask_at = now + AGAIN
        self._client = Client(self.address, timeout=CONNECT, set_as_default=False, name="gpuvigil-central")
        # Each fit is asked for on its own: Dask must not take two that look alike for one.
        self._executor = self._client.get_executor(pure=False)
        self._ask_at = 0.0
        log.info("Dask's scheduler answers", extra={"scheduler": self.address})
        return self._executor

    def _drop(self) -> None:
        client, self._client, self._executor = self._client, None, None
        if client is not None:
            client.close(timeout=CONNECT)


def _failed(error: Exception) -> Future[Any]:
    failed: Future[Any] = Future()
    failed.set_exception(error)
    return failed
