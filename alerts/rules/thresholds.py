"""Hold times, limits and windows of the rules: configuration, with two built-in profiles.

`default` suits a fleet scraped every 15 s; `demo` a machine scraped every second, where nothing is held.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from agent.base.config import Duration, Model

Profile = Literal["default", "demo"]
PLACEHOLDER: Final = "https://runbooks.example.org/gpuvigil"


def duration(seconds: float) -> str:
    """Seconds as Prometheus writes them: 90 -> "1m30s", 0.5 -> "500ms"."""
    left = round(seconds * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


class Timing(Model):
    """How long a condition must hold, and how long the alert outlives it."""

    hold: Duration = Field(default=0.0, ge=0, description="`for`: the condition must hold this long.")
    keep: Duration = Field(default=0.0, ge=0, description="`keep_firing_for`: against flapping.")


class Burn(Model):
    """One pair of windows of a burn-rate alert: both must burn `factor` times the error budget."""

    long: Duration = Field(gt=0)
    short: Duration = Field(gt=0)
    factor: float = Field(gt=0)


class Timings(Model):
    """Hold times, an entry an alert."""

    watchdog: Timing = Timing()
    gpu_lost: Timing = Timing(keep="5m")
    gpu_missing: Timing = Timing(hold="2m", keep="5m")
    gpu_driver_hung: Timing = Timing(keep="5m")
    gpu_xid: Timing = Timing(hold="30s", keep="5m")
    """Held for two scrapes: the Xid of a loss may be scraped before the loss itself, which is GpuLost's to tell."""
    gpu_fleet_fault: Timing = Timing(keep="5m")
    agent_down: Timing = Timing(hold="2m", keep="5m")
    agent_down_many: Timing = Timing(hold="1m", keep="5m")
    agent_absent: Timing = Timing(hold="5m")
    agent_stale: Timing = Timing(hold="1m")
    central_down: Timing = Timing(hold="5m")
    central_silent: Timing = Timing(hold="10m")
    central_stuck: Timing = Timing(hold="1m")
    central_restarting: Timing = Timing()
    central_config_refused: Timing = Timing(hold="5m")
    central_read_errors: Timing = Timing(hold="10m")
    central_monitor_broken: Timing = Timing(hold="30m")
    central_runs_missed: Timing = Timing(hold="10m")
    central_near_limit: Timing = Timing(hold="15m")
    series_anomalous: Timing = Timing()
    healthz_slow: Timing = Timing(hold="30s", keep="2m")
    ttft_burn_fast: Timing = Timing(hold="2m", keep="5m")
    ttft_burn_slow: Timing = Timing(hold="15m")
    training_eta_deviates: Timing = Timing(hold="10m", keep="30m")
    training_pace_drops: Timing = Timing(hold="10m", keep="30m")
    checkpoint_stale: Timing = Timing()
    disk_full_14d: Timing = Timing(hold="1h", keep="6h")
    resource_exhausted_14d: Timing = Timing(hold="1h", keep="6h")


class Links(Model):
    """Where the addresses in a page point."""

    runbooks: str = Field(default=PLACEHOLDER, pattern=r"^https?://", description="Folder of docs/runbooks/*.md.")
    dashboards: str = Field(default="http://localhost:3000", pattern=r"^https?://", description="Grafana.")


class Thresholds(Model):
    """Everything a site may tune in the rules."""

    scrape: Duration = Field(default=15.0, gt=0, description="Scrape interval the windows are made for.")
    evaluation: Duration = Field(default=15.0, gt=0, description="Rule evaluation interval the cases run at.")
    drill_grace: Duration = Field(
        default=60.0,
        gt=0,
        description="A drill's label outlives its entry by this, so that an alert ends before it changes its name.",
    )
    drill_memory: Duration = Field(
        default=3600.0, gt=0, description="How long the drill that stopped an agent is remembered while it is down."
    )
    maintenance_memory: Duration = Field(
        default=86400.0, gt=0, description="Longest time a node may be away with its maintenance flag still counting."
    )
    xid_window: Duration = Field(default=300.0, gt=0, description="An Xid counts this long.")
    xid_memory: Duration = Field(
        default=21600.0, gt=0, description="How long an agent may be away with its Xid counts remembered."
    )
    driver_stuck: Duration = Field(default=0.0, ge=0, description="Time past its deadline a driver call may take.")
    fleet_nodes: int = Field(default=5, ge=2, description="Nodes with one GPU fault that make it a fleet's.")
    agent_down_share: float = Field(default=0.05, gt=0, lt=1, description="Share of agents down that pages.")
    agent_down_nodes: int = Field(default=3, ge=2, description="Fewest agents down that page.")
    stale_periods: float = Field(default=3.0, gt=1, description="Periods a collector may miss.")
    stale_floor: Duration = Field(default=30.0, gt=0, description="No collector is stale before this.")
    healthz: Duration = Field(default=0.5, gt=0, description="Slowest good answer of an engine's health URL.")
    ttft: Duration = Field(default=1.0, gt=0, description="Slowest good first token; an edge of the histogram.")
    ttft_budget: float = Field(default=0.01, gt=0, lt=1, description="Share of requests that may be slower.")
    ttft_base: Duration = Field(default=300.0, gt=0, description="Window of the recorded rates.")
    ttft_interval: Duration = Field(default=30.0, gt=0, description="Evaluation interval of the burn rates.")
    ttft_slow_interval: Duration = Field(default=300.0, gt=0, description="The same for the windows of days.")
    ttft_fast: tuple[Burn, ...] = (
        Burn(long="1h", short="5m", factor=14.4),
        Burn(long="6h", short="30m", factor=6),
    )
    ttft_slow: tuple[Burn, ...] = (
        Burn(long="1d", short="2h", factor=3),
        Burn(long="3d", short="6h", factor=1),
    )
    ttft_requests: int = Field(default=100, ge=1, description="Fewest requests in the long window.")
    ttft_probes: int = Field(default=20, ge=1, description="Fewest probes in the long window.")
    eta_deviation: float = Field(default=0.15, gt=0, description="Deviation from the plan that alerts.")
    checkpoint_intervals: float = Field(default=1.5, gt=1, description="A checkpoint may be this many intervals old.")
    job_memory: Duration = Field(default=86400.0, gt=0, description="How long a pause of a job is remembered.")
    disk_horizon: Duration = Field(
        default=1209600.0, gt=0, description="A resource that is full sooner than this is a ticket."
    )
    disk_window: Duration = Field(default=259200.0, gt=0, description="History the straight line is drawn through.")
    disk_history: Duration = Field(default=86400.0, gt=0, description="Less history than this is no forecast.")
    disk_free: float = Field(default=0.4, gt=0, le=1, description="A share of free space above this never alerts.")
    central_memory: Duration = Field(
        default=86400.0, gt=0, description="How long a central service that is configured no more is missed."
    )
    central_window: Duration = Field(default=900.0, gt=0, description="Over which its errors and starts are counted.")
    central_restarts: int = Field(default=3, ge=1, description="Starts within the window that are no finding.")
    central_read_errors: float = Field(default=0.1, gt=0, lt=1, description="Share of its queries that may fail.")
    central_missed: int = Field(default=5, ge=1, description="Turns within the window that it may leave out.")
    central_near_limit: float = Field(default=0.85, gt=0, lt=1, description="Share of a limit that is near it.")
    anomaly_window: Duration = Field(
        default=1500.0, gt=0, description="A series above 1 for most of this is an anomaly: 3 of 5 steps of 5m."
    )
    anomaly_interval: Duration = Field(default=60.0, gt=0, description="Evaluation interval of the scores.")
    timings: Timings = Timings()
    links: Links = Links()


def _demo() -> Thresholds:
    held = {
        "agent_absent": "15s",  # until the first scrape no agent is there: that is a start, not a finding
        "gpu_xid": "5s",  # a scrape, an evaluation and up to three seconds in the agent lie between Xid and loss
        "central_silent": "15s",  # as agent_absent
        "central_monitor_broken": "1m",  # Prometheus and central begin together
        "central_near_limit": "5m",  # fitting all monitors at start takes a processor
    }
    return Thresholds(
        scrape="1s",
        evaluation="1s",
        drill_grace="5s",
        drill_memory="5m",
        maintenance_memory="1h",
        xid_window="30s",
        xid_memory="10m",
        fleet_nodes=5,
        stale_floor="5s",
        ttft_base="10s",
        ttft_interval="1s",
        ttft_slow_interval="5s",
        ttft_fast=(Burn(long="1m", short="10s", factor=14.4), Burn(long="3m", short="30s", factor=6)),
        ttft_slow=(Burn(long="6m", short="1m", factor=3), Burn(long="10m", short="2m", factor=1)),
        ttft_requests=20,
        ttft_probes=5,
        disk_window="30m",
        disk_history="20m",
        central_window="5m",
        anomaly_window="2m",
        anomaly_interval="5s",
        timings=Timings(**{name: Timing(hold=held.get(name, 0)) for name in Timings.model_fields}),
    )


PROFILES: Final[dict[Profile, Thresholds]] = {"default": Thresholds(), "demo": _demo()}
