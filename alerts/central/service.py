"""The service put together: settings -> watches -> clock -> page."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from agent import __version__
from agent.base.catalogue import central as metrics
from agent.base.catalogue import self as own
from agent.base.errors import ConfigError
from agent.base.exposition import Families, Format, render
from alerts.central.capacity import CapacityWatch
from alerts.central.history import Bounds
from alerts.central.monitor import Watch
from alerts.central.page import Counters, families
from alerts.central.pool import Pool
from alerts.central.presets import monitors_of, resources_of
from alerts.central.promread import Reader
from alerts.central.schedule import BEAT, Clock
from alerts.central.settings import Settings
from alerts.central.shard import Shard
from alerts.central.state import Store
from alerts.central.training import NAME as TRAINING
from alerts.central.training import TrainingWatch
from alerts.central.watching import NOT_RUN, STATES, State, View, Watching

log = logging.getLogger(__name__)

DEAD_AFTER = 15 * BEAT
"""Seconds without a sign of life after which the scheduler counts as dead."""
THREADS = 8
"""Turns that may run at one time; they mostly wait for Prometheus."""
STALE_TURNS = 3.0
"""Periods without a good turn after which what a watch said counts no more."""
SAVE = "save state"
"""The clock's job that writes what has been learnt."""


class Kept(Protocol):
    """A watch whose points and forecast outlive a restart."""

    def dump(self) -> dict[str, Any]: ...
    def restore(self, found: dict[str, Any]) -> None: ...


@dataclass(slots=True)
class Slot:
    """A watch, how often it turns, the settings that made it and the model's name, if it has one."""

    watch: Watching
    period: float
    settings: str
    model: str = ""


class Central:
    """Everything but the web server. `start` returns at once; `stop` does not wait for runs under way."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counters = Counters()
        self.pool = Pool(settings.workers)
        self.clock = Clock(THREADS, self._missed)
        self.store = Store(settings.state_dir)
        self.slots: dict[str, Slot] = {}
        self._started = False
        self._saved: dict[str, float] = {}
        self.counters.set(metrics.CENTRAL_BUILD, 1.0, __version__, platform.python_version())
        self.counters.set(metrics.CENTRAL_UP, time.time())
        self.reader = Reader(settings.prometheus, self._read)
        self._build(settings)

    def start(self) -> None:
        for name in self.slots:
            self._schedule(name)
        self.clock.every(SAVE, self.settings.save_every, self.save, soon=False)
        self.clock.start()
        self._started = True

    def stop(self) -> None:
        self.clock.stop()
        self.save()
        self.store.close()
        self.pool.close()

    # --- configuration --------------------------------------------------------------------------------------

    def reload(self, load: Callable[[], Settings]) -> bool:
        """Take over a new configuration; one that is wrong changes nothing. Returns whether it was good.

        Watches whose settings are the same go on undisturbed. `listen`, `state_dir`, `workers` need a restart.
        """
        try:
            settings = load()
        except ConfigError as error:
            log.error("configuration refused, the old one stays: %s", error)
            self.counters.set(own.RELOAD_OK, 0.0)
            return False
        if settings.prometheus != self.settings.prometheus:
            self.reader = Reader(settings.prometheus, self._read)
        self._build(settings)
        log.info("configuration reloaded", extra={"monitors": len(self.slots)})
        return True

    def _build(self, settings: Settings) -> None:
        bounds = Bounds(
            settings.prometheus.series_limit,
            settings.mask_tail,
            Shard(settings.member, settings.members, settings.replication),
        )
        common = f"{settings.prometheus!r} {bounds!r}"
        wanted: dict[str, Slot] = {}

        def keep(name: str, period: float, text: str, make: Callable[[], Watching], model: str = "") -> None:
            old = self.slots.get(name)
            text = f"{text} {common}"
            if old is not None and old.settings == text:
                wanted[name] = old
            else:
                wanted[name] = Slot(self._restored(make(), text), period, text, model)

        events = tuple(event.event() for event in settings.events)
        for monitor in (*settings.monitors, *monitors_of(settings)):
            if monitor.raw_counter:
                log.warning("reads a counter as a gauge", extra={"monitor": monitor.name, "of": monitor.raw_counter})
            limited = _limited(bounds, monitor.series_limit)
            keep(
                monitor.name,
                monitor.period,
                f"{monitor!r} {events!r}",
                lambda m=monitor, b=limited: Watch(
                    m,
                    self.reader,
                    self.pool.submit,
                    b,
                    events=events,
                    fit_deadline=settings.fit_deadline,
                    restart=self.pool.restart,
                ),  # type: ignore[misc]
                monitor.model,
            )
        for resource in (*settings.capacity, *resources_of(settings)):
            limited = _limited(bounds, resource.series_limit)
            keep(
                resource.name,
                resource.every,
                repr(resource),
                lambda r=resource, b=limited: CapacityWatch(r, self.reader, b),  # type: ignore[misc]
            )
        if settings.training.enabled:
            training = settings.training
            keep(TRAINING, training.every, repr(training), lambda: TrainingWatch(training, self.reader, bounds))
        old, self.slots, self.settings = self.slots, wanted, settings
        if self._started:
            for name in old.keys() - wanted.keys():
                self.clock.remove(name)
            for name in [name for name in wanted if wanted[name] is not old.get(name)]:
                self._schedule(name)
        self.store.keep_only(list(wanted))
        self.counters.set(own.RELOAD_OK, 1.0)
        self.counters.set(own.RELOAD_TIME, time.time())

    def _restored(self, watch: Watching, settings: str) -> Watching:
        if hasattr(watch, "restore"):
            kept = self.store.load(watch.name, settings)
            if kept is not None:
                try:
                    watch.restore(kept)
                    log.info("state restored", extra={"monitor": watch.name})
                except (KeyError, TypeError, ValueError) as error:
                    log.warning("kept state does not fit: %s", error, extra={"monitor": watch.name})
                    self.store.dropped += 1
        return watch

    def save(self) -> None:
        """Keep what has been read and learnt; only of watches that had a good turn since."""
        for name, slot in list(self.slots.items()):
            watch = slot.watch
            if hasattr(watch, "dump") and watch.view.last_run > self._saved.get(name, 0.0):
                self._saved[name] = watch.view.last_run
                with watch.paused():
                    document = watch.dump()
                self.store.save(name, slot.settings, document)

    # --- turns ----------------------------------------------------------------------------------------------

    def _schedule(self, name: str) -> None:
        slot = self.slots[name]

        def run() -> None:
            outcome = "crashed"
            try:
                outcome = slot.watch.turn()
            finally:
                self.counters.count(metrics.MONITOR_RUNS, name, outcome)

        self.clock.every(name, slot.period, run)

    def _read(self, seconds: float, outcome: str) -> None:
        self.counters.observe(metrics.READ_SECONDS, seconds)
        if outcome != "ok":
            self.counters.count(metrics.READ_ERRORS, outcome)

    def _missed(self, job: str, reason: str) -> None:
        self.counters.count(metrics.JOBS_MISSED, reason)
        log.warning("a run did not take place as planned", extra={"monitor": job, "reason": reason})

    # --- what is served -------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the scheduler still turns."""
        return self.clock.silent_for < DEAD_AFTER

    def view(self, name: str) -> View:
        """What is shown of a watch: its last view, or that it is stale when its turns fail to come.

        A turn that waits in a queue behind a hanging Prometheus must not leave old values on the page.
        """
        slot = self.slots[name]
        view = slot.watch.view
        quiet = time.time() - view.last_run if view.last_run else 0.0
        if quiet > STALE_TURNS * slot.period + self.settings.prometheus.timeout:
            why = view.why if view.state in ("stale", "error") else f"no turn has ended well for {quiet:.0f} s"
            state: State = "error" if view.state == "error" else "stale"
            return View(state, why, view.series, view.last_run, view.duration, view.fitted_at)
        return view

    def waiting(self) -> list[str]:
        """Names of the watches that have not had their first turn."""
        return [name for name, slot in self.slots.items() if slot.watch.view.why == NOT_RUN]

    def page(self, form: Format) -> bytes:
        """The /metrics page, from memory alone."""
        found: list[Families] = []
        samples = self.counters.samples()
        samples.append(metrics.SCHEDULER_ALIVE.sample(self.clock.last_beat))
        samples.append(metrics.READ_SAMPLES.sample(self.reader.tally.samples))
        samples.append(metrics.READ_BYTES.sample(self.reader.tally.bytes))
        samples.append(metrics.WORKERS_REPLACED.sample(self.pool.replaced))
        samples.append(metrics.STATE_DROPPED.sample(self.store.dropped))
        for name in list(self.slots):
            view = self.view(name)
            found.append(view.found)
            samples += [metrics.MONITOR_STATE.sample(float(view.state == state), name, state) for state in STATES]
            samples.append(metrics.MONITOR_SERIES.sample(view.series, name))
            samples.append(metrics.MONITOR_DURATION.sample(view.duration, name))
            if view.last_run:
                samples.append(metrics.MONITOR_LAST_RUN.sample(view.last_run, name))
            if view.fitted_at:
                samples.append(metrics.MONITOR_FITTED.sample(view.fitted_at, name))
        return render([families((), samples), *found], form)

    def monitors(self) -> list[dict[str, Any]]:
        """The state of every watch."""
        found = []
        for name, slot in list(self.slots.items()):
            view = self.view(name)
            entry: dict[str, Any] = {
                "name": name,
                "state": view.state,
                "why": view.why,
                "series": view.series,
                "last_run": view.last_run or None,
                "duration_seconds": round(view.duration, 4),
                "period_seconds": slot.period,
            }
            if slot.model:
                entry |= {"model": slot.model, "fitted_at": view.fitted_at or None}
            found.append(entry)
        return found


def _limited(bounds: Bounds, series_limit: int | None) -> Bounds:
    return Bounds(series_limit or bounds.series_limit, bounds.mask_tail, bounds.shard)
