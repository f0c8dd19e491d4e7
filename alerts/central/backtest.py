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
from alerts.detect.quality import runs
from alerts.detect.stream import How, Progress, replay

LASTING = 3
"""Points of an alert that is taken for a true incident, as the rule on scores asks for 3 of 5 steps."""


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
    """A floor, and what it would have left.

    Attributes:
        min_dev_abs: the floor.
        alerts: short ones, of all series; `alerts_per_day` is the same a day and series.
        incidents: alerts of `LASTING` points or more, of all series.
    """

    min_dev_abs: float
    alerts: int
    alerts_per_day: float
    incidents: int


def tune(past: Past) -> list[Tuning]:
    """What floors would have done: from none to the greatest deviation outside incidents, in a dozen steps.

    An incident's own deviations are no measure of what is usual: among them no floor is looked for.
    """
    off = np.abs(past.values - past.bands.yhat)
    known = ~np.isnan(past.scores) & ~np.isnan(off)
    if not known.any():
        raise CannotTell("nothing was scored in that time: too little history before it")
    half = np.maximum(past.bands.upper - past.bands.yhat, past.bands.yhat - past.bands.lower)
    shows = known & (past.scores > 1) & (off > half)
    short, lasting = [], []
    for column in range(shows.shape[1]):
        for begin, end in runs(shows[:, column]):
            peak = float(off[begin:end, column].max())
            if end - begin >= LASTING:
                lasting.append(peak)
                known[begin:end, column] = False
            else:
                short.append(peak)
    usual = off[known] if known.any() else np.zeros(1)
    days = max(float(past.times[-1] - past.times[0]) / 86400.0, 1e-9) * past.values.shape[1]
    floors: list[float] = [
        0.0,
        *np.unique(np.quantile(usual, [0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1.0])).tolist(),
    ]
    left = [(sum(peak > floor for peak in short), sum(peak > floor for peak in lasting)) for floor in floors]
    return [
        Tuning(floor, alerts, alerts / days, incidents) for floor, (alerts, incidents) in zip(floors, left, strict=True)
    ]


def suggested(rows: list[Tuning], wanted_per_week: float = 1.0) -> Tuning:
    """The lowest floor that leaves so few short alerts a week and series, and every incident.

    One alert in all is always allowed. Where no floor does both, the one with the fewest alerts that hides no incident.
    """
    # The last row is the greatest deviation outside incidents: that floor would have hidden short true alerts as well.
    usable = [row for row in rows[:-1] if row.incidents == rows[0].incidents] or rows[:1]
    fewest = min(usable, key=lambda row: row.alerts)
    return next(
        (row for row in usable if row.alerts <= 1 or row.alerts_per_day * 7 <= wanted_per_week),
        fewest,
    )
