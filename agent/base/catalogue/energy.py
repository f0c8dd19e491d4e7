"""Energy of the node and what it cost. One kilowatt-hour is 3.6 million joules."""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

SYNTHETIC = ("synthetic",)

NODE = Metric(
    "gpuvigil_energy_node_joules",
    "counter",
    "Energy of the node, kept across restarts (3.6 million joules are a kWh); by a meter of the whole machine, or as "
    "the sum of its metered parts.",
    "joules",
    ("source", "synthetic"),
)
CPU = Metric("gpuvigil_energy_cpu_joules", "counter", "Energy of CPU packages and memory (RAPL).", "joules", ("zone",))
PUE = Metric(
    "gpuvigil_energy_pue_ratio",
    "gauge",
    "Facility energy for each joule of IT equipment; measured, or configured.",
    "ratio",
    ("source",),
)
FACILITY = Metric(
    "gpuvigil_energy_facility_joules",
    "counter",
    "Energy of the node with its share of cooling and losses.",
    "joules",
    SYNTHETIC,
)
CO2E = Metric(
    "gpuvigil_energy_co2e_grams",
    "counter",
    "Greenhouse gases of the facility energy at the configured grid factor.",
    "grams",
    SYNTHETIC,
)
COST = Metric("gpuvigil_energy_cost", "counter", "Price of the facility energy.", labels=("currency", *SYNTHETIC))
ENGINE = Metric(
    "gpuvigil_energy_llm_joules",
    "counter",
    "Energy of the GPUs that an engine's processes held; a GPU's is shared equally by the engines on it.",
    "joules",
    ("engine", "model", *SYNTHETIC),
)
PER_1000_TOKENS = Metric(
    "gpuvigil_energy_per_1000_tokens_joules",
    "gauge",
    "GPU energy for 1,000 generated tokens over the last minutes.",
    "joules",
    ("engine", "model", *SYNTHETIC),
)
PER_STEP = Metric(
    "gpuvigil_energy_per_step_joules",
    "gauge",
    "This node's energy for one training step over the last minutes, while one job alone trains here.",
    "joules",
    ("job_id", *SYNTHETIC),
)
