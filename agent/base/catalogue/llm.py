"""Inference metrics: one vocabulary for vLLM, SGLang, TGI, llama.cpp, Triton and NIM.

`engine` is the name given in the configuration, `model` the served model, `source` is "native"
(the engine's own histogram, at its own edges) or "probe" (measured by the agent's stream).
"""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

ENGINE = ("engine",)
MODEL = ("engine", "model")
LATENCY = ("engine", "model", "source")

ENGINE_INFO = Metric(
    "gpuvigil_llm_engine", "info", "Kind and address of each engine.", labels=("engine", "kind", "url")
)
ENGINE_UP = Metric("gpuvigil_llm_engine_up", "gauge", "1 if the engine's metrics page answered.", labels=ENGINE)
SCRAPE_SECONDS = Metric(
    "gpuvigil_llm_engine_scrape_seconds", "gauge", "Time the engine's metrics page took.", "seconds", ENGINE
)
SCRAPE_FAILURES = Metric(
    "gpuvigil_llm_engine_scrape_failures",
    "counter",
    "Metrics pages that could not be had: refused, timeout, status, tls, connection, page (not one we know).",
    labels=(*ENGINE, "reason"),
)
HEALTH_OK = Metric(
    "gpuvigil_llm_health_ok", "gauge", "1 if the engine's health URL answered 2xx.", labels=ENGINE, vital=True
)
HEALTH_SECONDS = Metric(
    "gpuvigil_llm_health_seconds",
    "gauge",
    "Time the engine's health URL took (its limit when it hangs).",
    "seconds",
    ENGINE,
    vital=True,
)
MODEL_LOAD = Metric(
    "gpuvigil_llm_model_load_seconds", "gauge", "Process start to first ready, last start.", "seconds", ENGINE
)
ENGINE_GPU = Metric(
    "gpuvigil_llm_engine_gpu",
    "info",
    "Which engine runs on which GPU, by process.",
    labels=("engine", "gpu", "uuid", "synthetic", "pid"),
)
ENGINE_PROCESS = Metric(
    "gpuvigil_llm_engine_process",
    "info",
    "The engine's process, the model it serves (of several the first) and who runs it: systemd unit, Kubernetes pod, "
    "container or Slurm job.",
    labels=("engine", "model", "pid", "unit", "pod_uid", "container", "slurm_job"),
)

TTFT = Metric("gpuvigil_llm_ttft_seconds", "histogram", "Request sent to first token.", "seconds", LATENCY, vital=True)
INTER_TOKEN = Metric("gpuvigil_llm_inter_token_seconds", "histogram", "Between two tokens.", "seconds", LATENCY)
E2E = Metric("gpuvigil_llm_e2e_seconds", "histogram", "Request sent to last token.", "seconds", LATENCY)
QUEUE = Metric("gpuvigil_llm_queue_seconds", "histogram", "Waiting before prefill.", "seconds", LATENCY)
PREFILL = Metric("gpuvigil_llm_prefill_seconds", "histogram", "Prefill of a request.", "seconds", LATENCY)
DECODE = Metric("gpuvigil_llm_decode_seconds", "histogram", "Decode of a request.", "seconds", LATENCY)

RUNNING = Metric("gpuvigil_llm_requests_running", "gauge", "Requests being computed.", labels=MODEL)
WAITING = Metric("gpuvigil_llm_requests_waiting", "gauge", "Requests in the queue.", labels=MODEL)
REQUESTS = Metric(
    "gpuvigil_llm_requests",
    "counter",
    "Requests finished, by outcome as the engine names it.",
    labels=(*MODEL, "outcome"),
    vital=True,
)
PROMPT_TOKENS = Metric("gpuvigil_llm_prompt_tokens", "counter", "Prompt tokens processed.", labels=MODEL)
GENERATED_TOKENS = Metric("gpuvigil_llm_generated_tokens", "counter", "Tokens generated.", labels=MODEL)
KV_CACHE = Metric("gpuvigil_llm_kv_cache_usage_ratio", "gauge", "KV cache in use.", "ratio", MODEL)
PREEMPTIONS = Metric("gpuvigil_llm_preemptions", "counter", "Requests preempted or retracted.", labels=MODEL)
PREFIX_HITS = Metric("gpuvigil_llm_prefix_cache_hits", "counter", "Prefix cache hits, in tokens.", labels=MODEL)
PREFIX_QUERIES = Metric(
    "gpuvigil_llm_prefix_cache_queries", "counter", "Prefix cache look-ups, in tokens.", labels=MODEL
)

PROBES = Metric(
    "gpuvigil_llm_probes",
    "counter",
    "Streaming probes, by result: ok, error, timeout.",
    labels=("engine", "result"),
    vital=True,
)
PROBE_TOKENS_RATE = Metric(
    "gpuvigil_llm_probe_tokens_per_second", "gauge", "Tokens per second of the last good probe.", labels=MODEL
)
