"""What the agent says of itself."""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

COLLECTOR = ("collector",)

BUILD = Metric("gpuvigil_build", "info", "Version of the agent.", labels=("version", "python"))
START_TIME = Metric("gpuvigil_agent_start_timestamp_seconds", "gauge", "When the agent started.", "seconds")
SIMULATED = Metric("gpuvigil_agent_simulated", "gauge", "1 if GPU values come from the simulator, 0 if from a driver.")
TICK_TIME = Metric(
    "gpuvigil_agent_snapshot_timestamp_seconds", "gauge", "When the page you read was rendered.", "seconds"
)
SUCCESS = Metric("gpuvigil_collector_success", "gauge", "1 if the collector's last run was whole.", labels=COLLECTOR)
DURATION = Metric(
    "gpuvigil_collector_duration_seconds", "gauge", "Time of the last finished run.", "seconds", COLLECTOR
)
LAST_SUCCESS = Metric(
    "gpuvigil_collector_last_success_timestamp_seconds", "gauge", "When it last succeeded.", "seconds", COLLECTOR
)
PERIOD = Metric("gpuvigil_collector_period_seconds", "gauge", "Its configured period.", "seconds", COLLECTOR)
STUCK = Metric(
    "gpuvigil_collector_stuck_seconds",
    "gauge",
    "How long its present run is past the deadline; else 0.",
    "seconds",
    COLLECTOR,
)
ERRORS = Metric(
    "gpuvigil_collector_errors", "counter", "Failed runs, by reason.", labels=(*COLLECTOR, "reason"), budget=32
)
PARSE_ERRORS = Metric(
    "gpuvigil_agent_parse_errors", "counter", "Input that did not parse, by source.", labels=(*COLLECTOR, "source")
)
DROPPED = Metric(
    "gpuvigil_agent_dropped_samples",
    "counter",
    "Samples dropped: undeclared, invalid, duplicate or over budget.",
    labels=(*COLLECTOR, "reason"),
)
SERIES = Metric("gpuvigil_agent_series", "gauge", "Samples on the page.")
RELOAD_OK = Metric("gpuvigil_config_last_reload_successful", "gauge", "1 if the last configuration load was good.")
RELOAD_TIME = Metric(
    "gpuvigil_config_last_reload_success_timestamp_seconds", "gauge", "When a configuration was last loaded.", "seconds"
)
CPU_SECONDS = Metric("gpuvigil_agent_cpu_seconds", "counter", "CPU time of the agent, child included.", "seconds")
RSS = Metric("gpuvigil_agent_resident_memory_bytes", "gauge", "Resident memory, child included.", "bytes")
STATE_WRITABLE = Metric(
    "gpuvigil_agent_state_writable", "gauge", "1 if what outlives a restart could be written the last time."
)
HTTP_REQUESTS = Metric(
    "gpuvigil_agent_http_requests", "counter", "Requests answered, by path and status.", labels=("path", "code")
)
HTTP_CONNECTIONS = Metric("gpuvigil_agent_http_connections", "gauge", "Connections open.")
HTTP_REFUSED = Metric(
    "gpuvigil_agent_http_connections_dropped",
    "counter",
    "Connections dropped: evicted for a newer one, past a deadline, failed handshake.",
    labels=("reason",),
)
