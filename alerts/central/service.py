"""The service put together: settings -> watches -> clock -> page."""

from __future__ import annotations

import logging
import platform
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from agent import __version__
from agent.base.catalogue import Sample
from agent.base.catalogue import central as metrics
from agent.base.catalogue import self as own
from agent.base.errors import ConfigError
from agent.base.exposition import Families, Format, render
from alerts.central import usage
from alerts.central.capacity import CapacityWatch
from alerts.central.fitting import Fits, Source
from alerts.central.history import Bounds
from alerts.central.monitor import Watch
from alerts.central.page import Counters, families
from alerts.central.pool import Pool, Workers
from alerts.central.presets import monitors_of, resources_of
from alerts.central.promread import Reader, Tally
from alerts.central.schedule import BEAT, Clock
from alerts.central.settings import Monitor, Settings
from alerts.central.shard import Shard
from alerts.central.state import Store
from alerts.central.training import NAME as TRAINING
from alerts.central.training import TrainingWatch
from alerts.central.watching import KINDS, NOT_RUN, STATES, State, View, Watching
from alerts.detect.design import Event

log = logging.getLogger(__name__)

DEAD_AFTER = 15 * BEAT
"""Seconds without a sign of life after which the scheduler counts as dead."""
THREADS = 8
"""Turns that may run at one time; they mostly wait for Prometheus."""
STALE_TURNS = 3.0
"""Periods without a good turn after which what a watch said counts no more."""
NEED_RESTART = ("listen", "web_config_file", "state_dir", "executor", "workers")
"""Settings that are read at start alone."""
SAVE = "save state"
"""The clock's job that writes what has been learnt."""
SAVE_CHECK = 30.0
"""Seconds between two of its runs."""


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
        self._tally = Tally()
        self.workers = workers_of(settings)
        self.clock = Clock(THREADS, self._missed)
        self.store = Store(settings.state_dir)
        self.slots: dict[str, Slot] = {}
        self._started = False
        self._saved: dict[str, tuple[float, float]] = {}
        self.counters.set(metrics.CENTRAL_BUILD, 1.0, __version__, platform.python_version())
        self.counters.set(metrics.CENTRAL_UP, time.time())
        self.reader = self._new_reader(settings)
        self._build(settings)

    def start(self) -> None:
        for name in self.slots:
            self._schedule(name)
        self.clock.every(SAVE, min(self.settings.save_every, SAVE_CHECK), self.save, soon=False)
        self.clock.start()
        self._started = True

    def stop(self) -> None:
        self.clock.stop()
        self.save(all_of_them=True)
        self.store.close()
        self.workers.close()

    # --- configuration --------------------------------------------------------------------------------------

    def reload(self, load: Callable[[], Settings]) -> bool:
        """Take over a new configuration; one that is wrong changes nothing. Returns whether it was good.

        Watches whose settings are the same go on undisturbed; a change of `NEED_RESTART` is said and waits.
        """
        try:
            settings = load()
        except ConfigError as error:
            log.error("configuration refused, the old one stays: %s", error)
            self.counters.set(own.RELOAD_OK, 0.0)
            self.counters.count(metrics.CONFIG_RELOADS, "refused")
            return False
        for name in NEED_RESTART:
            if getattr(settings, name) != getattr(self.settings, name):
                log.warning("a changed setting needs a restart", extra={"setting": name})
        if settings.prometheus != self.settings.prometheus:
            self.reader = self._new_reader(settings)
        self._build(settings)
        self.counters.count(metrics.CONFIG_RELOADS, "ok")
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
                lambda m=monitor, b=limited: self._watch(m, b, events, settings),  # type: ignore[misc]
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

    def _new_reader(self, settings: Settings) -> Reader:
        parsed = partial(self.counters.observe, metrics.PARSE_SECONDS)
        return Reader(settings.prometheus, self._read, parsed, self._tally)

    def _watch(self, monitor: Monitor, bounds: Bounds, events: tuple[Event, ...], settings: Settings) -> Watch:
        fits = Fits(
            monitor,
            self.workers,
            events=events,
            deadline=settings.fit_deadline,
            observe=self._fitted,
            ready=self.clock.soon,
        )
        source = None if isinstance(self.workers, Pool) else partial(Source, settings.prometheus, bounds)
        return Watch(monitor, self.reader, fits, bounds, source=source)

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

    def save(self, *, all_of_them: bool = False) -> None:
        """Keep what has been read and learnt: of watches with a new fit, the others every `save_every`.

        Points can be read again, so an old copy costs one short query; a lost fit costs the fit.
        """
        for name, slot in list(self.slots.items()):
            watch = slot.watch
            if not hasattr(watch, "dump") or not watch.view.last_run:
                continue
            saved_at, saved_fit = self._saved.get(name, (0.0, 0.0))
            aged = watch.view.last_run - saved_at >= self.settings.save_every
            if aged or watch.view.fitted_at != saved_fit or (all_of_them and watch.view.last_run > saved_at):
                self._saved[name] = watch.view.last_run, watch.view.fitted_at
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

    def _fitted(self, name: str, seconds: float, outcome: str) -> None:
        self.counters.observe(metrics.FIT_SECONDS, seconds)
        self.counters.count(metrics.MONITOR_FITS, name, outcome)

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

    def _own(self) -> list[Sample]:
        """What central says of itself."""
        settings, watches = self.settings, [slot.watch for slot in self.slots.values()]
        entities = Counter(watch.kind for watch in watches)
        found = [
            metrics.SCHEDULER_UP.sample(float(self.alive)),
            metrics.SCHEDULER_ALIVE.sample(self.clock.last_beat),
            metrics.SHARD.sample(1.0, str(settings.member), str(settings.members), str(settings.replication)),
            metrics.FITS_PENDING.sample(sum(isinstance(w, Watch) and w.fits.under_way for w in watches)),
            metrics.READ_SERIES.sample(self._tally.series),
            metrics.READ_SAMPLES.sample(self._tally.samples),
            metrics.READ_BYTES.sample(self._tally.bytes),
            metrics.WORKERS_REPLACED.sample(self.workers.replaced),
            metrics.STATE_DROPPED.sample(self.store.dropped),
            *(metrics.CONFIG_ENTITIES.sample(entities[kind], kind) for kind in KINDS),
        ]
        if self.store.saved:
            found.append(metrics.STATE_SAVED.sample(self.store.saved))
        return found

    def page(self, form: Format) -> bytes:
        """The /metrics page, from memory alone."""
        found: list[Families] = []
        samples = [*self.counters.samples(), *self._own(), *usage.samples()]
        for name in list(self.slots):
            view = self.view(name)
            found.append(view.found)
            samples += [metrics.MONITOR_STATE.sample(float(view.state == state), name, state) for state in STATES]
            samples.append(metrics.MONITOR_SERIES.sample(view.series, name))
            samples.append(metrics.MONITOR_DURATION.sample(view.duration, name))
            samples.append(metrics.MONITOR_SCORED.sample(self.slots[name].watch.scored, name))
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


def workers_of(settings: Settings) -> Workers:
    """Who fits, by `executor`.

    Raises:
        ConfigError: Dask is asked for and not installed.
    """
    if settings.executor == "processes":
        return Pool(settings.workers)
    from alerts.central.dask_pool import DaskPool

    return DaskPool(settings.executor)


def _limited(bounds: Bounds, series_limit: int | None) -> Bounds:
    return Bounds(series_limit or bounds.series_limit, bounds.mask_tail, bounds.shard)
