"""Which name of which engine means what: the tables that map engines to our vocabulary.

A rule lists an engine's names for one thing, newest first; the first present wins, so that old and new
names on one page are not counted twice. Names come from recorded pages (vLLM, llama.cpp) and from the engines'
sources and guides: vllm/v1/metrics/loggers.py, sglang/srt/observability/metrics_collector.py, TGI's
docs/source/reference/metrics.md and its router, Triton's docs/user_guide/metrics.md,
tensorrt_llm/metrics/collector.py, NIM's observability guide.

What an engine does not have stays absent. Counters of total time (Triton) are not dressed up as histograms;
a mean per request (TGI's and TensorRT-LLM's time per token) is no time between tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from agent.base.catalogue import Metric
from agent.base.catalogue import llm as m

EngineKind = Literal["auto", "llama.cpp", "vllm", "sglang", "tgi", "triton", "trtllm", "nim"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One metric of ours from an engine's page.

    Args:
        metric: the target; for a histogram `names` are its stems, else whole sample names.
        names: the engine's names, newest first.
        factor: multiplies values and edges into our unit.
        combine: how series that differ in other labels become one; KV caches give the fullest.
        where: only series with these label values; a label that is missing altogether does not exclude.
        ranks: series that differ in a rank of these alone repeat one another: the lowest rank's counts.
        plus: a second sample name whose value is added, for what an engine gives in two parts.
        outcome: for requests by outcome: a fixed word, or `{label}` to take the page's own.
    """

    metric: Metric
    names: tuple[str, ...]
    factor: float = 1.0
    combine: Literal["sum", "max"] = "sum"
    where: Mapping[str, str] = field(default_factory=dict)
    ranks: tuple[str, ...] = ()
    plus: str = ""
    outcome: str = ""

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Every sample name the rule reads."""
        if self.metric.kind != "histogram":
            return (*self.names, self.plus) if self.plus else self.names
        return tuple(f"{name}_{part}" for name in self.names for part in ("bucket", "sum", "count"))


@dataclass(frozen=True, slots=True)
class Engine:
    """How one kind of engine is reached and read."""

    rules: tuple[Rule, ...]
    prefix: str
    metrics_path: str = "/metrics"
    health_path: str = "/health"


def _vllm(*prefixes: str, finished: tuple[str, ...] = ("request_success_total",)) -> tuple[Rule, ...]:
    """VLLM's names; NIM has the same without a prefix (the latest with it) and keeps some of the old ones.

    Args:
        prefixes: newest first.
        finished: counters of requests by why they ended, likewise.
    """

    def names(*stems: str) -> tuple[str, ...]:
        return tuple(prefix + stem for stem in stems for prefix in prefixes)

    return (
        Rule(m.TTFT, names("time_to_first_token_seconds")),
        Rule(m.INTER_TOKEN, names("inter_token_latency_seconds", "time_per_output_token_seconds")),
        Rule(m.E2E, names("e2e_request_latency_seconds")),
        Rule(m.QUEUE, names("request_queue_time_seconds")),
        Rule(m.PREFILL, names("request_prefill_time_seconds")),
        Rule(m.DECODE, names("request_decode_time_seconds")),
        Rule(m.RUNNING, names("num_requests_running")),
        Rule(m.WAITING, names("num_requests_waiting")),
        Rule(m.REQUESTS, names(*finished), outcome="{finished_reason}"),
        Rule(m.PROMPT_TOKENS, names("prompt_tokens_total")),
        Rule(m.GENERATED_TOKENS, names("generation_tokens_total")),
        Rule(m.KV_CACHE, names("kv_cache_usage_perc", "gpu_cache_usage_perc"), combine="max"),
        Rule(m.PREEMPTIONS, names("num_preemptions_total")),
        Rule(m.PREFIX_HITS, names("prefix_cache_hits_total", "gpu_prefix_cache_hits_total")),
        Rule(m.PREFIX_QUERIES, names("prefix_cache_queries_total", "gpu_prefix_cache_queries_total")),
    )


_RANKS = ("tp_rank", "pp_rank", "moe_ep_rank", "pid")
_WHOLE = {"priority": ""}  # with priorities on, SGLang shows the total under the empty one, and each beside it


def _sglang(*stems: str) -> tuple[str, ...]:
    """SGLang's names; its router, which joins the pages of many, writes an underscore for the colon."""
    return tuple(prefix + stem for stem in stems for prefix in ("sglang:", "sglang_"))


ENGINES: Final[Mapping[EngineKind, Engine]] = {
    "vllm": Engine(_vllm("vllm:", "ray_vllm:", "ray_vllm_"), "vllm:"),  # under Ray Serve its page is Ray's
    "llama.cpp": Engine(
        (
            Rule(m.RUNNING, ("llamacpp:requests_processing",)),
            Rule(m.WAITING, ("llamacpp:requests_deferred",)),
            Rule(m.PROMPT_TOKENS, ("llamacpp:prompt_tokens_total",)),
            Rule(m.GENERATED_TOKENS, ("llamacpp:tokens_predicted_total",)),
            Rule(m.KV_CACHE, ("llamacpp:kv_cache_usage_ratio",), combine="max"),
            Rule(m.PREFIX_HITS, ("llamacpp:prompt_tokens_cached_total",)),
            Rule(
                m.PREFIX_QUERIES,
                ("llamacpp:prompt_tokens_cached_total",),
                plus="llamacpp:prompt_tokens_total",  # llama.cpp counts cached and computed tokens apart
            ),
        ),
        "llamacpp:",
    ),
    "sglang": Engine(
        (
            Rule(m.TTFT, _sglang("time_to_first_token_seconds")),
            Rule(m.INTER_TOKEN, _sglang("inter_token_latency_seconds", "time_per_output_token_seconds")),
            Rule(m.E2E, _sglang("e2e_request_latency_seconds")),
            Rule(m.QUEUE, _sglang("queue_time_seconds")),
            Rule(m.RUNNING, _sglang("num_running_reqs"), where=_WHOLE, ranks=_RANKS),
            Rule(m.WAITING, _sglang("num_queue_reqs"), where=_WHOLE, ranks=_RANKS),
            Rule(m.REQUESTS, _sglang("num_requests_total"), outcome="finished"),
            Rule(m.REQUESTS, _sglang("num_aborted_requests_total"), outcome="abort"),
            Rule(m.PROMPT_TOKENS, _sglang("prompt_tokens_total")),
            Rule(m.GENERATED_TOKENS, _sglang("generation_tokens_total")),
            Rule(m.KV_CACHE, _sglang("token_usage"), combine="max"),
            Rule(m.PREEMPTIONS, _sglang("num_retracted_requests_total")),
            Rule(m.PREFIX_HITS, _sglang("cached_tokens_total")),
            Rule(m.PREFIX_QUERIES, _sglang("prompt_tokens_total")),  # which counts cached ones, too
        ),
        "sglang:",
    ),
    "tgi": Engine(
        (
            Rule(m.E2E, ("tgi_request_duration",)),
            Rule(m.QUEUE, ("tgi_request_queue_duration",)),
            Rule(m.RUNNING, ("tgi_batch_current_size",)),
            Rule(m.WAITING, ("tgi_queue_size",)),
            Rule(m.REQUESTS, ("tgi_request_success",), outcome="ok"),
            Rule(m.REQUESTS, ("tgi_request_failure",), outcome="error"),
            Rule(m.PROMPT_TOKENS, ("tgi_request_input_length_sum",)),
            Rule(m.GENERATED_TOKENS, ("tgi_request_generated_tokens_sum",)),
        ),
        "tgi_",
    ),
    "triton": Engine(
        (
            Rule(m.TTFT, ("nv_inference_first_response_histogram_ms",), factor=0.001),
            Rule(m.RUNNING, ("nv_trt_llm_request_metrics",), where={"request_type": "scheduled"}),
            Rule(
                m.WAITING,
                ("nv_trt_llm_request_metrics",),
                where={"request_type": "waiting"},
            ),
            Rule(m.WAITING, ("nv_inference_pending_request_count",)),
            Rule(m.REQUESTS, ("nv_inference_request_success",), outcome="ok"),
            Rule(m.REQUESTS, ("nv_inference_request_failure",), outcome="error"),
            Rule(m.PROMPT_TOKENS, ("nv_llm_input_token_len_sum",)),
            Rule(m.GENERATED_TOKENS, ("nv_llm_output_token_len_sum",)),
            Rule(
                m.KV_CACHE,
                ("nv_trt_llm_kv_cache_block_metrics",),
                where={"kv_cache_block_type": "fraction"},
                combine="max",
            ),
        ),
        "nv_",
        health_path="/v2/health/ready",
    ),
    "trtllm": Engine(
        (
            Rule(m.TTFT, ("trtllm_time_to_first_token_seconds",)),
            Rule(m.E2E, ("trtllm_e2e_request_latency_seconds",)),
            Rule(m.QUEUE, ("trtllm_request_queue_time_seconds",)),
            Rule(m.PREFILL, ("trtllm_request_prefill_time_seconds",)),
            Rule(m.DECODE, ("trtllm_request_decode_time_seconds",)),
            Rule(m.RUNNING, ("trtllm_num_requests_running",)),
            Rule(m.WAITING, ("trtllm_num_requests_waiting",)),
            Rule(m.REQUESTS, ("trtllm_request_success_total",), outcome="{finished_reason}"),
            Rule(m.REQUESTS, ("trtllm_request_error_total",), outcome="error"),
            Rule(m.PROMPT_TOKENS, ("trtllm_prompt_tokens_total",)),
            Rule(m.GENERATED_TOKENS, ("trtllm_generation_tokens_total",)),
            Rule(m.KV_CACHE, ("trtllm_kv_cache_utilization",), combine="max"),
            Rule(m.PREFIX_HITS, ("trtllm_prompt_cached_tokens_total",)),
        ),
        "trtllm_",
        metrics_path="/prometheus/metrics",
    ),
    "nim": Engine(
        (
            *_vllm("", finished=("request_finish_total", "request_success_total")),  # the latter may be their sum
            Rule(m.REQUESTS, ("request_failure_total",), outcome="error"),
            *_vllm("vllm:"),
        ),
        "",
        metrics_path="/v1/metrics",
        health_path="/v1/health/ready",
    ),
}
"""By kind, in the order in which `auto` looks; NIM, having no prefix, comes last."""

WANTED: Final[frozenset[bytes]] = frozenset(
    name.encode() for engine in ENGINES.values() for rule in engine.rules for name in rule.sample_names
)
"""Every sample name that any rule reads."""


def detect(names: Mapping[str, object]) -> EngineKind | None:
    """The kind whose names stand on a page with these wanted sample names; None if no kind's do."""
    for kind, engine in ENGINES.items():
        if any(name in names for rule in engine.rules for name in rule.sample_names):
            return kind
    return None
