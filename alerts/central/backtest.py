"""A monitor replayed on Prometheus' past, exactly as it would have run: for back-tests, explanations and floors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agent.base.errors import CannotTell, ConfigError
from alerts.central.fitting import options_of
from alerts.central.history import Bounds, History
from alerts.central.presets import monitors_of
from alerts.central.promread import Labels, Reader
from alerts.central.settings import Monitor, Settings
from alerts.detect.bands import Array, Bands, Floors
from alerts.detect.stream import How, Progress, replay


@dataclass(frozen=True, slots=True)
class Past:
    """What a monitor would have said.

    Attributes:
        monitor: its settings.
        keys: the series (N).
        times: (T,) from `begin` on; values, bands, scores: (T, N).
        why: what each series' model was, and for what reason (N).
    """

    monitor: Monitor
    keys: tuple[Labels, ...]
    times: Array
    values: Array
    bands: Bands
    scores: Array
    why: tuple[str, ...]

    def alerts(self, column: int) -> list[tuple[float, float, float]]:
        """Runs above 1 of a series as (first, last, highest score)."""
        found: list[tuple[float, float, float]] = []
        begin = None
        for row, score in enumerate([*self.scores[:, column].tolist(), math.nan]):
            if score > 1:
                begin = row if begin is None else begin
            elif begin is not None:
                top = float(np.nanmax(self.scores[begin:row, column]))
                found.append((float(self.times[begin]), float(self.times[row - 1]), top))
                begin = None
        return found


def find_monitor(settings: Settings, name: str) -> Monitor:
    """The monitor of that name.

    Raises:
        ConfigError: there is none; the text lists those there are.
    """
    known = {monitor.name: monitor for monitor in (*settings.monitors, *monitors_of(settings))}
    if name not in known:
        raise ConfigError(f"no monitor {name!r}; there are: {', '.join(sorted(known)) or 'none'}")
    return known[name]


def run(settings: Settings, monitor: Monitor, begin: float, end: float, progress: Progress) -> Past:
    """Read `fit_window` before `begin` up to `end` (Unix times) and replay it.

    Raises:
        CannotTell: Prometheus has nothing for that time.
        ReadError: it does not answer.
    """
    rows = math.ceil((end - begin + monitor.fit_window) / monitor.step)
    if begin >= end:
        raise ConfigError("--from must be before --to")
    span = monitor.model_copy(update={"fit_window": rows * monitor.step})
    bounds = Bounds(monitor.series_limit or settings.prometheus.series_limit, settings.mask_tail)
    history = History(span, Reader(settings.prometheus), bounds)
    history.update(end)
    times, values = history.ring.window()
    if not history.ring.series or np.isnan(values).all():
        raise CannotTell(f"Prometheus has no points for {monitor.name} at that time: {monitor.query}")
    first = int(np.argmax(~np.isnan(values).all(axis=1)))
    how = How(
        monitor.model,
        options_of(monitor, tuple(event.event() for event in settings.events)),
        Floors(monitor.min_dev_abs, monitor.min_dev_rel),
        monitor.direction,
        monitor.data_range,
        monitor.fit_window,
        monitor.fit_every,
        monitor.min_history,
    )
    found = replay(times[first:], values[first:], how, progress)
    shown = times[first:] >= begin
    return Past(
        monitor,
        tuple(history.ring.keys),
        times[first:][shown],
        values[first:][shown],
        Bands(*(part[shown] for part in found.bands)),
        found.scores[shown],
        found.why,
    )


@dataclass(frozen=True, slots=True)
class Tuning:
    """A floor, and the alerts a day and series that would have been left with it."""

    min_dev_abs: float
    alerts_per_day: float


def tune(past: Past) -> list[Tuning]:
    """What floors would have done: from none to the greatest deviation seen, in a dozen steps."""
    off = np.abs(past.values - past.bands.yhat)
    known = off[~np.isnan(past.scores)]
    if not len(known):
        raise CannotTell("nothing was scored in that time: too little history before it")
    half = np.maximum(past.bands.upper - past.bands.yhat, past.bands.yhat - past.bands.lower)
    days = max(float(past.times[-1] - past.times[0]) / 86400.0, 1e-9) * past.values.shape[1]
    floors = [0.0, *np.unique(np.quantile(known, [0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0]))]
    found = []
    for floor in floors:
        over = (past.scores > 1) & (off > np.maximum(half, floor))
        starts = over & ~np.concatenate([np.zeros((1, over.shape[1]), dtype=bool), over[:-1]])
        found.append(Tuning(float(floor), float(np.count_nonzero(starts)) / days))
    return found
