"""central.yaml: what the service reads, watches and serves."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from agent.base.config import Duration, Model
from alerts.detect.bands import Direction
from alerts.detect.design import Event
from alerts.detect.model import NAMES


def _known_model(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"must be one of {', '.join(NAMES)}, got {name!r}")
    return name


def _name(name: str) -> str:
    if not name or any(not (c.isalnum() or c in "-_.:") for c in name):
        raise ValueError(f"must be letters, digits and - _ . : only, got {name!r}")
    return name


Name = Annotated[str, AfterValidator(_name)]


_COUNTER = re.compile(r"\b[a-zA-Z_:][\w:]*_total\b")
_RATED = re.compile(r"\b(rate|irate|increase|resets|changes|count|absent)\s*\([^()]*$")


class Prometheus(Model):
    """How to read, and how much: the limits protect Prometheus and this process."""

    url: str = Field(default="http://127.0.0.1:9090", pattern=r"^https?://", description="Any PromQL API.")
    timeout: Duration = Field(default=30.0, gt=0, description="Deadline of one query.")
    concurrency: int = Field(default=2, ge=1, le=16, description="Queries at one time (the server's limit is 20).")
    points_per_query: int = Field(default=10_000, ge=10, le=11_000, description="Points a series in one query.")
    samples_per_query: int = Field(default=2_000_000, ge=1000, description="Samples in one answer; longer is split.")
    series_limit: int = Field(
        default=25_000,
        ge=1,
        description="More series than this in one monitor are refused; the default serves 1,000 nodes of 8 GPUs.",
    )
    username: str = Field(default="", description="Basic authentication.")
    password_file: str = Field(default="", description="File with the password.")
    bearer_token_file: str = Field(default="", description="File with a bearer token.")
    ca_file: str = Field(default="", description="Authority that signed the server's certificate.")


class Monitor(Model):
    """One question asked again and again: is this series as expected?"""

    name: Name
    query: str = Field(min_length=1, description="PromQL; its series are watched one by one.")
    model: Annotated[str, AfterValidator(_known_model)] = "ewma"
    step: Duration = Field(default=60.0, gt=0, description="Grid of the points.")
    fit_window: Duration = Field(default=14 * 86400.0, gt=0, description="History the model learns from.")
    fit_every: Duration = Field(default=3600.0, gt=0, description="Time between two fits.")
    infer_every: Duration = Field(default=0.0, ge=0, description="Time between two readings; 0: the step.")
    min_history: Duration = Field(default=86400.0, ge=0, description="Less than this is warming_up.")
    direction: Direction = "both"
    min_dev_abs: float = Field(default=0.0, ge=0, description="Least deviation that counts, in the metric's unit.")
    min_dev_rel: float = Field(default=0.05, ge=0, description="Least deviation that counts, as a share of yhat.")
    data_range: tuple[float, float] | None = Field(default=None, description="Values the metric can take.")
    interval: float = Field(default=0.99, gt=0.5, lt=1, description="Share of healthy values inside the bands.")
    daily: bool | None = Field(default=None, description="Daily cycle; unset: when two are in the history.")
    weekly: bool | None = Field(default=None, description="Weekly cycle; unset: when two are in the history.")
    growth: Literal["linear", "flat"] = "linear"
    multiplicative: bool = Field(default=False, description="Cycles scale the trend instead of adding to it.")
    span: int = Field(default=288, ge=2, description="Points over which online models forget.")
    peers_by: tuple[str, ...] = Field(
        default=(), description="model: peers compares series that agree in these labels."
    )
    synthetic: Literal["exclude", "include"] = "exclude"
    series_limit: int | None = Field(default=None, ge=1, description="Overrides prometheus.series_limit.")

    @model_validator(mode="after")
    def _fits(self) -> Monitor:
        if self.fit_window < 10 * self.step:
            raise ValueError(f"fit_window ({self.fit_window:g} s) must hold at least 10 steps of {self.step:g} s")
        if self.min_history > self.fit_window:
            raise ValueError("min_history is longer than fit_window, so the monitor would warm up for ever")
        if self.data_range is not None and self.data_range[0] >= self.data_range[1]:
            raise ValueError("data_range must be [low, high]")
        return self

    @property
    def raw_counter(self) -> str:
        """The counter that the query reads as if it were a gauge, "" if there is none."""
        for found in _COUNTER.finditer(self.query):
            if not _RATED.search(self.query[: found.start()]):
                return found.group()
        return ""

    @property
    def period(self) -> float:
        """Seconds between two readings."""
        return self.infer_every or self.step

    @property
    def length(self) -> int:
        """Points of the window."""
        return round(self.fit_window / self.step)


class TrainingJob(Model):
    """What is known of a job in advance."""

    job_id: str = Field(min_length=1)
    schedule: tuple[tuple[float, float], ...] = Field(
        default=(), description="Relative cost of a step from given steps on: [[0, 1], [720, 1.8]]."
    )

    @model_validator(mode="after")
    def _ordered(self) -> TrainingJob:
        steps = [step for step, _ in self.schedule]
        if steps and (steps[0] != 0 or steps != sorted(set(steps)) or any(cost <= 0 for _, cost in self.schedule)):
            raise ValueError("schedule must be [[0, cost], [step, cost], ...]: steps ascending, costs above 0")
        return self


class CalendarEvent(Model):
    """Days on which every series may differ: holidays, planned shutdowns."""

    name: Name
    dates: tuple[date, ...] = Field(min_length=1)
    before: int = Field(default=0, ge=0, le=30, description="Days before each date that count as well.")
    after: int = Field(default=0, ge=0, le=30, description="Days after each date that count as well.")

    def event(self) -> Event:
        """As the models take it."""
        epoch = date(1970, 1, 1)
        return Event(self.name, tuple((day - epoch).days for day in self.dates), self.before, self.after)


class Training(Model):
    """Training ETA, from the agents' progress metrics."""

    enabled: bool = True
    every: Duration = Field(default=30.0, gt=0, description="Time between two estimates.")
    step: Duration = Field(default=15.0, gt=0, description="Grid on which progress is read; the scrape interval.")
    history: Duration = Field(default=86400.0, gt=0, description="How far back progress is read at start.")
    selector: str = Field(default="", description='Label matchers, such as cluster="a", to watch some jobs only.')
    jobs: tuple[TrainingJob, ...] = ()


class Capacity(Model):
    """One resource that can run out."""

    name: Name
    query: str = Field(min_length=1, description="Share of the resource in use, 0 to 1 (or up to limit).")
    limit: float = Field(default=1.0, gt=0, description="Value at which it is exhausted.")
    horizon: Duration = Field(default=14 * 86400.0, gt=0, description="How far ahead to look.")
    history: Duration = Field(default=30 * 86400.0, gt=0, description="How far back to read.")
    step: Duration = Field(default=3600.0, gt=0, description="Grid of the points.")
    every: Duration = Field(default=3600.0, gt=0, description="Time between two forecasts.")
    min_history: Duration = Field(default=2 * 86400.0, ge=0, description="Less than this is warming_up.")
    synthetic: Literal["exclude", "include"] = "exclude"
    series_limit: int | None = Field(default=None, ge=1, description="Overrides prometheus.series_limit.")

    @property
    def length(self) -> int:
        """Points of the window."""
        return max(round(self.history / self.step), 1)


class Settings(Model):
    """The whole of central.yaml."""

    listen: str = Field(default="127.0.0.1:9841", description="Address and port of the service.")
    web_config_file: str = Field(default="", description="TLS and authentication of the service.")
    state_dir: str = Field(default="/var/lib/gpuvigil-central", description="Where learnt state is kept.")
    save_every: Duration = Field(
        default=1800.0, gt=0, description="Time between two writes of a monitor's; a new fit is written soon."
    )
    member: int = Field(default=0, ge=0, description="Number of this member, from 0, where several share the work.")
    members: int = Field(default=1, ge=1, le=1000, description="How many members share the work.")
    replication: int = Field(default=1, ge=1, description="How many members watch each series.")
    presets: tuple[Literal["gpu", "inference", "node", "training", "detail"], ...] | None = Field(
        default=None, description="Ready monitors; unset: all but detail where no monitor is written."
    )
    fit_deadline: Duration = Field(default=900.0, gt=0, description="A fit that takes longer hangs; it is ended.")
    executor: str = Field(
        default="processes",
        pattern=r"^(processes|dask(\+tls)?://[^\s/:]+:\d+)$",
        description="Who fits: processes here, or a Dask scheduler (dask://host:port) whose workers read Prometheus.",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes that fit models here.")
    mask_tail: Duration = Field(default=120.0, ge=0, description="Points left out after a drill or maintenance ends.")
    prometheus: Prometheus = Prometheus()
    training: Training = Training()
    events: tuple[CalendarEvent, ...] = ()
    monitors: tuple[Monitor, ...] = ()
    capacity: tuple[Capacity, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> Settings:
        seen: set[str] = set()
        for name in [m.name for m in self.monitors] + [c.name for c in self.capacity]:
            if name in seen:
                raise ValueError(f"two monitors are called {name!r}: names must differ")
            seen.add(name)
        if self.member >= self.members:
            raise ValueError(f"member {self.member}: members are numbered from 0, and there are {self.members}")
        return self
