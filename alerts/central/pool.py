"""Worker processes that fit models, so that neither the scheduler nor the pages ever wait for one."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

log = logging.getLogger(__name__)

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "STAN_NUM_THREADS")

T = TypeVar("T")


def one_thread() -> None:
    """Keep numerical libraries to one thread in this process and its children; call before numpy loads."""
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")


class Workers(Protocol):
    """Who fits models: `concurrent.futures`, with an end to what hangs."""

    replaced: int
    """Times the workers were replaced."""

    def submit(self, work: Callable[..., T], /, *args: object) -> Future[T]:
        """Run `work(*args)`, a function importable by name, in a worker; never raises."""

    def restart(self) -> None:
        """End the workers, whatever they do: one hangs. What they had in hand fails and is asked for again."""

    def close(self) -> None:
        """Drop what waits and end the workers."""


class Pool:
    """A process pool that outlives the death of its workers, behind `concurrent.futures`.

    A worker that dies takes all tasks in flight with it; they fail with `BrokenProcessPool`, a new pool is made,
    and whoever asked asks again on its next turn.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._executor: Executor | None = None
        self.replaced = 0

    def submit(self, work: Callable[..., T], /, *args: object) -> Future[T]:
        """Run `work(*args)`, a function importable by name, in a worker."""
        with self._lock:
            if self._executor is None:
                self._executor = self._new()
            try:
                return self._executor.submit(work, *args)
            except BrokenProcessPool:
                log.warning("a worker died; starting new ones")
                self._executor.shutdown(wait=False, cancel_futures=True)
                self.replaced += 1
                self._executor = self._new()
                return self._executor.submit(work, *args)

    def restart(self) -> None:
        """End the workers, whatever they do: one hangs. What they had in hand fails and is asked for again."""
        self.close()
        self.replaced += 1

    def close(self) -> None:
        """Drop what waits and end the workers, whatever they do."""
        with self._lock:
            if self._executor is not None:
                workers = list((getattr(self._executor, "_processes", None) or {}).values())
                self._executor.shutdown(wait=False, cancel_futures=True)
                for worker in workers:
                    worker.kill()
                self._executor = None

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
        )


def _start_worker() -> None:
    one_thread()
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    os.nice(5)


def _end_with_parent() -> None:
    """A worker whose service was killed would wait for tasks for ever: it holds both ends of its own queue."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
