"""What the central service writes: forecasts, scores, ETA, exhaustion, and its own state.

The metrics marked dynamic carry the labels of the series they speak of, plus `monitor` and
`model`; central is scraped with honor_labels.
"""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

MONITOR = ("monitor", "model")

YHAT = Metric("gpuvigil_yhat", "gauge", "Expected value.", labels=MONITOR, dynamic=True)
YHAT_LOWER = Metric("gpuvigil_yhat_lower", "gauge", "Lower edge of the interval.", labels=MONITOR, dynamic=True)
YHAT_UPPER = Metric("gpuvigil_yhat_upper", "gauge", "Upper edge of the interval.", labels=MONITOR, dynamic=True)
SCORE = Metric(
    "gpuvigil_anomaly_score",
    "gauge",
    "0 at yhat, 1 at the interval's edge, above 1 outside.",
    labels=MONITOR,
    dynamic=True,
)
MONITOR_STATE = Metric(
    "gpuvigil_monitor_state",
    "gauge",
    "1 for the monitor's present state: ok, warming_up, no_data, stale, error.",
    labels=("monitor", "state"),
)
MONITOR_SERIES = Metric("gpuvigil_monitor_series", "gauge", "Series the monitor reads.", labels=("monitor",))
MONITOR_RUNS = Metric("gpuvigil_monitor_runs", "counter", "Runs by outcome.", labels=("monitor", "outcome"))
MONITOR_LAST_RUN = Metric(
    "gpuvigil_monitor_last_run_timestamp_seconds", "gauge", "When it last ended well.", "seconds", ("monitor",)
)
MONITOR_DURATION = Metric(
    "gpuvigil_monitor_duration_seconds", "gauge", "Time of its last run.", "seconds", ("monitor",)
)

TRAIN_FINISH = Metric(
    "gpuvigil_train_finish_timestamp_seconds",
    "gauge",
    "When the job is expected to end.",
    "seconds",
    ("job_id",),
    dynamic=True,
)
TRAIN_ETA = Metric("gpuvigil_train_eta_seconds", "gauge", "Time left until then.", "seconds", ("job_id",), dynamic=True)
TRAIN_DEVIATION = Metric(
    "gpuvigil_train_eta_deviation_ratio",
    "gauge",
    "Expected total time against the plan, minus 1; positive is late. bound: expected, low, high; "
    "plan: configured, or learned when none is.",
    "ratio",
    ("job_id", "bound", "plan"),
    dynamic=True,
)
TRAIN_PACE = Metric(
    "gpuvigil_train_pace_deviation_ratio",
    "gauge",
    "Time per step now against that when the pace had settled, minus 1; positive is slower.",
    "ratio",
    ("job_id",),
    dynamic=True,
)
EXHAUSTION = Metric(
    "gpuvigil_capacity_exhaustion_seconds",
    "gauge",
    "Time until the resource runs out; absent when no end is in sight within the horizon. "
    "bound: low (10 %), expected, high (90 %).",
    "seconds",
    ("monitor", "bound"),
    dynamic=True,
)
CAPACITY_STATE = Metric(
    "gpuvigil_capacity_state",
    "gauge",
    "1 for the answer in force: ok (a date stands), none (no end in sight), disagree (one method alone sees an end), "
    "warming_up.",
    labels=("monitor", "state"),
    dynamic=True,
)
CAPACITY_ERROR = Metric(
    "gpuvigil_capacity_error_ratio",
    "gauge",
    "By how much the growth foreseen three days ago missed that which came, as a share of the limit.",
    "ratio",
    ("monitor",),
    dynamic=True,
)

CENTRAL_BUILD = Metric(
    "gpuvigil_central_build", "info", "Version of the central service.", labels=("version", "python")
)
CENTRAL_UP = Metric("gpuvigil_central_start_timestamp_seconds", "gauge", "When central started.", "seconds")
SCHEDULER_ALIVE = Metric(
    "gpuvigil_central_scheduler_tick_timestamp_seconds", "gauge", "When the scheduler's thread last turned.", "seconds"
)
JOBS_MISSED = Metric(
    "gpuvigil_central_jobs_missed", "counter", "Runs the scheduler missed or skipped.", labels=("reason",)
)
MONITOR_FITTED = Metric(
    "gpuvigil_monitor_fitted_timestamp_seconds", "gauge", "When its model was last fitted.", "seconds", ("monitor",)
)
MONITOR_FITS = Metric(
    "gpuvigil_monitor_fits",
    "counter",
    "Fits by outcome: ok, short (too little history), failed, deadline.",
    labels=("monitor", "outcome"),
)
MONITOR_SCORED = Metric("gpuvigil_monitor_scored_points", "counter", "Points that got a score.", labels=("monitor",))
SCHEDULER_UP = Metric(
    "gpuvigil_central_scheduler_alive", "gauge", "1 while the scheduler turns; 0 when its thread is dead or stuck."
)
CONFIG_ENTITIES = Metric(
    "gpuvigil_central_config_entities", "gauge", "What is configured: monitor, capacity, training.", labels=("kind",)
)
CONFIG_RELOADS = Metric(
    "gpuvigil_central_config_reloads", "counter", "Reloads of the configuration: ok, refused.", labels=("outcome",)
)
SHARD = Metric(
    "gpuvigil_central_shard",
    "info",
    "Which part of the series is this member's.",
    labels=("member", "members", "replication"),
)
FITS_PENDING = Metric("gpuvigil_central_fits_pending", "gauge", "Fits that a worker has or that wait for one.")
FIT_SECONDS = Metric("gpuvigil_central_fit_seconds", "histogram", "Time of one fit, waiting included.", "seconds", ())
READ_SAMPLES = Metric("gpuvigil_central_read_samples", "counter", "Samples read from Prometheus.")
READ_SERIES = Metric("gpuvigil_central_read_series", "counter", "Series in Prometheus' answers.")
READ_BYTES = Metric("gpuvigil_central_read_bytes", "counter", "Bytes read from Prometheus.", "bytes")
READ_SECONDS = Metric("gpuvigil_central_read_seconds", "histogram", "Time of one Prometheus query.", "seconds", ())
PARSE_SECONDS = Metric(
    "gpuvigil_central_parse_seconds", "histogram", "Time to decode one of Prometheus' answers.", "seconds", ()
)
READ_ERRORS = Metric("gpuvigil_central_read_errors", "counter", "Queries that failed, by reason.", labels=("reason",))
WORKERS_REPLACED = Metric("gpuvigil_central_workers_replaced", "counter", "Times the worker processes were replaced.")
STATE_DROPPED = Metric("gpuvigil_central_state_dropped", "counter", "Kept state that could not be used.")
STATE_SAVED = Metric("gpuvigil_central_state_saved_timestamp_seconds", "gauge", "When state was last kept.", "seconds")
CPU_SECONDS = Metric(
    "gpuvigil_central_cpu_seconds", "counter", "CPU time, workers on this machine included.", "seconds"
)
CPUS = Metric("gpuvigil_central_cpus", "gauge", "Processors that central may use.")
RSS = Metric("gpuvigil_central_resident_memory_bytes", "gauge", "Resident memory, workers included.", "bytes")
MEMORY_LIMIT = Metric(
    "gpuvigil_central_memory_limit_bytes", "gauge", "Memory that central may use: its unit's limit, or all.", "bytes"
)
OPEN_FILES = Metric("gpuvigil_central_open_files", "gauge", "File descriptors open.")
OPEN_FILES_LIMIT = Metric("gpuvigil_central_open_files_limit", "gauge", "File descriptors that may be open.")
