"""Engine pages in our vocabulary: real pages, both generations of names, sums and refusals."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.base.catalogue import Sample
from agent.base.catalogue import llm as m
from agent.inference.mapping import ENGINES, WANTED, detect
from agent.inference.normalise import edge, normalise
from agent.inference.page import Page, read_page

DATA = Path(__file__).parents[2] / "data" / "metrics"


def page_of(text: str) -> Page:
    return read_page([text.encode()], WANTED)


def ours(page: Page, kind: str, model: str = "") -> list[Sample]:
    return list(normalise(page, ENGINES[kind], "e", model))


def one(samples: list[Sample], metric: object, part: str = "") -> Sample:
    found = [s for s in samples if s.metric is metric and s.part == part]
    assert len(found) == 1, found
    return found[0]


def recorded(name: str) -> Page:
    return page_of((DATA / name).read_text())


def test_vllm_page_has_what_its_own_page_says() -> None:
    text = (DATA / "vllm_0.32_after.prom").read_text()
    samples = ours(page_of(text), "vllm")
    theirs = {
        s.name + (f"|{s.labels['le']}" if "le" in s.labels else ""): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    for metric, stem in [
        (m.TTFT, "vllm:time_to_first_token_seconds"),
        (m.INTER_TOKEN, "vllm:inter_token_latency_seconds"),
        (m.E2E, "vllm:e2e_request_latency_seconds"),
        (m.QUEUE, "vllm:request_queue_time_seconds"),
        (m.PREFILL, "vllm:request_prefill_time_seconds"),
        (m.DECODE, "vllm:request_decode_time_seconds"),
    ]:
        buckets = {s.labels[-1]: s.value for s in samples if s.metric is metric and s.part == "bucket"}
        assert buckets == {
            key.partition("|")[2]: value for key, value in theirs.items() if key.startswith(f"{stem}_bucket|")
        }
        assert one(samples, metric, "count").value == theirs[f"{stem}_count"] > 0
        assert one(samples, metric, "sum").value == theirs[f"{stem}_sum"]
        assert one(samples, metric, "count").labels == ("e", "tiny", "native")
    assert one(samples, m.GENERATED_TOKENS).value == theirs["vllm:generation_tokens_total"] == 980
    assert {s.labels[2]: s.value for s in samples if s.metric is m.REQUESTS}["length"] == 9
    assert one(samples, m.KV_CACHE).labels == ("e", "tiny")


def test_llama_cpp_page() -> None:
    samples = ours(recorded("llama_cpp_after.prom"), "llama.cpp", "tiny")
    assert one(samples, m.GENERATED_TOKENS) == m.GENERATED_TOKENS.sample(1061, "e", "tiny")
    assert one(samples, m.RUNNING).value == 0
    assert not [s for s in samples if s.metric.kind == "histogram"], "llama.cpp has no latency histogram"
    assert not [s for s in samples if s.metric is m.KV_CACHE], "recent builds have none: absent, not zero"


@pytest.mark.parametrize(("name", "kind"), [("vllm_0.32_idle.prom", "vllm"), ("llama_cpp_idle.prom", "llama.cpp")])
def test_auto_finds_the_kind(name: str, kind: str) -> None:
    assert detect(recorded(name).samples) == kind


def test_auto_of_a_foreign_page_is_no_kind() -> None:
    assert detect(page_of("go_goroutines 7\nprocess_cpu_seconds_total 1\n").samples) is None


def histogram(name: str, counts: dict[str, int], labels: str = "", total: float = 1.0) -> str:
    comma = "," if labels else ""
    lines = [f'{name}_bucket{{{labels}{comma}le="{le}"}} {value}' for le, value in counts.items()]
    return "\n".join([*lines, f"{name}_sum{{{labels}}} {total}", f"{name}_count{{{labels}}} {counts['+Inf']}"]) + "\n"


OLD = "vllm:time_per_output_token_seconds"
NEW = "vllm:inter_token_latency_seconds"


def test_old_name_alone() -> None:
    samples = ours(page_of(histogram(OLD, {"0.5": 3, "+Inf": 4})), "vllm")
    assert one(samples, m.INTER_TOKEN, "count").value == 4


def test_old_and_new_name_at_once_count_once() -> None:
    text = histogram(OLD, {"0.5": 3, "+Inf": 4}) + histogram(NEW, {"0.5": 5, "+Inf": 6})
    text += "vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.25\n"
    samples = ours(page_of(text), "vllm")
    assert one(samples, m.INTER_TOKEN, "count").value == 6
    assert one(samples, m.KV_CACHE).value == 0.25


def test_a_cut_page_never_falls_back_to_the_old_name() -> None:
    page = page_of(histogram(OLD, {"0.5": 3, "+Inf": 4}) + "vllm:num_requests_running 3\nvllm:num_requests_wai")
    assert page.cut
    samples = ours(page, "vllm")
    assert not samples, "the running gauge may have more series, and the new name may be in the lost part"


def test_data_parallel_engines_add_up_and_the_fullest_cache_counts() -> None:
    text = "".join(
        histogram("vllm:time_to_first_token_seconds", {"0.25": 2, "+Inf": 3}, f'engine="{n}",model_name="a"', 0.5)
        for n in range(2)
    )
    for name, values in {"num_requests_running": (2, 3), "kv_cache_usage_perc": (0.2, 0.9)}.items():
        text += "".join(f'vllm:{name}{{engine="{n}",model_name="a"}} {value}\n' for n, value in enumerate(values))
    samples = ours(page_of(text), "vllm")
    assert one(samples, m.TTFT, "count").value == 6
    assert one(samples, m.TTFT, "sum").value == 1.0
    assert one(samples, m.RUNNING).value == 5
    assert one(samples, m.KV_CACHE).value == 0.9


def test_different_edges_are_never_added() -> None:
    text = histogram("vllm:time_to_first_token_seconds", {"0.25": 2, "+Inf": 3}, 'engine="0"')
    text += histogram("vllm:time_to_first_token_seconds", {"0.5": 2, "+Inf": 3}, 'engine="1"')
    assert not ours(page_of(text), "vllm")


def test_two_models_stay_apart() -> None:
    text = 'vllm:num_requests_running{model_name="a"} 1\nvllm:num_requests_running{model_name="b"} 2\n'
    assert {s.labels: s.value for s in ours(page_of(text), "vllm")} == {("e", "a"): 1, ("e", "b"): 2}


@pytest.mark.parametrize("missing", ["_sum", "_count", "+Inf"])
def test_a_histogram_with_a_part_missing_is_absent(missing: str) -> None:
    text = histogram("vllm:time_to_first_token_seconds", {"0.25": 2, "+Inf": 3})
    text = "".join(line for line in text.splitlines(keepends=True) if missing not in line)
    assert not ours(page_of(text), "vllm")


def test_not_a_number_is_absent() -> None:
    assert not ours(page_of("vllm:kv_cache_usage_perc NaN\n"), "vllm")


@pytest.mark.parametrize("values", [("100", "NaN"), ("NaN", "100"), ("1", "+Inf")])
def test_a_sum_of_which_a_part_is_no_number_is_absent(values: tuple[str, str]) -> None:
    """The part alone would look like a counter that was reset."""
    lines = [f'vllm:{{}}{{{{engine="{i}",model_name="m"}}}} {value}\n' for i, value in enumerate(values)]
    for name in ("generation_tokens_total", "kv_cache_usage_perc"):
        assert not ours(page_of("".join(line.format(name) for line in lines)), "vllm")
    buckets = "".join(f"vllm:time_to_first_token_seconds_{part} 1\n" for part in ('bucket{le="+Inf"}', "count"))
    assert not ours(page_of(buckets + "vllm:time_to_first_token_seconds_sum NaN\n"), "vllm")


def test_sglang_ranks_repeat_gauges_and_dp_ranks_add_up() -> None:
    text = "".join(
        f'sglang:num_running_reqs{{dp_rank="{dp}",model_name="a",priority="",tp_rank="{tp}"}} {4 + dp}\n'
        for dp, tps in {0: (0, 1, 2), 1: (10, 9, 8)}.items()
        for tp in tps
    )
    text += 'sglang:num_running_reqs{dp_rank="0",model_name="a",priority="7",tp_rank="0"} 3\n'
    assert one(ours(page_of(text), "sglang"), m.RUNNING).value == 4 + 5


def test_llama_cpp_prefix_look_ups_are_cached_and_computed_tokens() -> None:
    samples = ours(recorded("llama_cpp_after.prom"), "llama.cpp")
    assert one(samples, m.PREFIX_HITS).value == 621
    assert one(samples, m.PREFIX_QUERIES).value == 621 + 149
    assert not ours(page_of("llamacpp:prompt_tokens_cached_total 5\n"), "llama.cpp")[1:], "one part alone is no sum"


PAGES = {
    "sglang": ("sglang:token_usage 0.28\nsglang:num_queue_reqs 7\n", m.WAITING, 7),
    "tgi": ("tgi_queue_size 3\ntgi_request_mean_time_per_token_duration_count 9\n", m.WAITING, 3),
    "trtllm": ('trtllm_kv_cache_utilization{model_name="m",engine_type="trtllm"} 0.62\n', m.KV_CACHE, 0.62),
    "nim": ('num_requests_running{model_name="m"} 2.0\nprocess_open_fds 7\n', m.RUNNING, 2),
    "triton": (
        'nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 5\n'
        'nv_trt_llm_request_metrics{model="m",request_type="context",version="1"} 9\n',
        m.WAITING,
        5,
    ),
}


@pytest.mark.parametrize("kind", sorted(PAGES))
def test_the_other_engines(kind: str) -> None:
    text, metric, value = PAGES[kind]
    page = page_of(text)
    assert detect(page.samples) == kind
    assert one(ours(page, kind), metric).value == value


def test_nim_with_the_prefix_of_vllm() -> None:
    page = page_of(histogram("vllm:time_to_first_token_seconds", {"0.5": 3, "+Inf": 4}, 'model_name="m"'))
    assert one(ours(page, "nim"), m.TTFT, "count").labels == ("e", "m", "native")


def test_nim_counts_requests_by_why_they_ended() -> None:
    """As its page was recorded: the sum beside its parts, and failures apart."""
    labels = 'model_name="m"'
    text = f'request_finish_total{{finished_reason="length",{labels}}} 5.0\n'
    text += f'request_finish_total{{finished_reason="stop",{labels}}} 2.0\n'
    text += f"request_success_total{{{labels}}} 7.0\nrequest_failure_total{{{labels}}} 1.0\n"
    text += f"gpu_cache_usage_perc{{{labels}}} 0.25\n"
    text += histogram("time_per_output_token_seconds", {"0.01": 0, "0.025": 168, "+Inf": 169}, labels)
    page = page_of(text)
    assert detect(page.samples) == "nim"
    samples = ours(page, "nim")
    assert {s.labels[2]: s.value for s in samples if s.metric is m.REQUESTS} == {"length": 5, "stop": 2, "error": 1}
    assert one(samples, m.KV_CACHE).value == 0.25
    assert one(samples, m.INTER_TOKEN, "count").value == 169


def test_vllm_under_ray_serve() -> None:
    labels = 'Component="core_worker",WorkerId="6a",model_name="m"'
    for prefix in ("ray_vllm:", "ray_vllm_"):
        text = f"{prefix}num_requests_running{{{labels}}} 3.0\n"
        text += histogram(f"{prefix}time_per_output_token_seconds", {"0.05": 4, "+Inf": 299}, labels)
        page = page_of(text)
        assert detect(page.samples) == "vllm"
        assert one(ours(page, "vllm"), m.RUNNING) == m.RUNNING.sample(3, "e", "m")
        assert one(ours(page, "vllm"), m.INTER_TOKEN, "count").value == 299


def test_sglang_tokens_from_the_cache_are_part_of_its_prompt_tokens() -> None:
    text = 'sglang:prompt_tokens_total{model_name="m"} 100\n'
    text += "".join(
        f'sglang:cached_tokens_total{{cache_source="{source}",model_name="m"}} {tokens}\n'
        for source, tokens in {"device": 30, "host": 10}.items()
    )
    samples = ours(page_of(text), "sglang")
    assert one(samples, m.PREFIX_HITS).value == 40
    assert one(samples, m.PREFIX_QUERIES).value == one(samples, m.PROMPT_TOKENS).value == 100


@pytest.mark.parametrize("prefix", ["sglang:", "sglang_"])
def test_sglang_and_its_router(prefix: str) -> None:
    """The sum first, an edge less than SGLang's, and the old name for the time between tokens: as in its guide."""
    labels = 'model_name="meta-llama/Llama-3.1-8B-Instruct"'
    text = f"{prefix}time_to_first_token_seconds_sum{{{labels}}} 2.35e+06\n"
    text += f'{prefix}time_to_first_token_seconds_bucket{{le="0.001",{labels}}} 0.0\n'
    text += f'{prefix}time_to_first_token_seconds_bucket{{le="+Inf",{labels}}} 11008.0\n'
    text += f"{prefix}time_to_first_token_seconds_count{{{labels}}} 11008.0\n"
    text += histogram(f"{prefix}time_per_output_token_seconds", {"0.005": 1, "+Inf": 7400757}, labels)
    text += f"{prefix}generation_tokens_total{{{labels}}} 7.557572e+06\n{prefix}num_running_reqs{{{labels}}} 162.0\n"
    page = page_of(text)
    assert detect(page.samples) == "sglang"
    samples = ours(page, "sglang")
    assert one(samples, m.TTFT, "count").value == 11008
    assert [s.labels[-1] for s in samples if s.metric is m.TTFT and s.part == "bucket"] == ["0.001", "+Inf"]
    assert one(samples, m.INTER_TOKEN, "count").value == 7400757
    assert one(samples, m.GENERATED_TOKENS).value == 7557572
    assert one(samples, m.RUNNING).value == 162


def test_triton_counts_tokens_by_the_sums_of_its_lengths() -> None:
    text = "".join(
        histogram(f"nv_llm_{way}_token_len", {"10": 1, "+Inf": 3}, f'model="m",response_metric_type="{kind}"', total)
        for way, kind, total in (("input", "total_input_tokens", 120.0), ("output", "total_output_tokens", 480.0))
    )
    samples = ours(page_of(text), "triton")
    assert one(samples, m.PROMPT_TOKENS) == m.PROMPT_TOKENS.sample(120, "e", "m")
    assert one(samples, m.GENERATED_TOKENS) == m.GENERATED_TOKENS.sample(480, "e", "m")


def test_a_mean_per_request_is_no_time_between_tokens() -> None:
    for kind, name in {
        "tgi": "tgi_request_mean_time_per_token_duration",
        "trtllm": "trtllm_time_per_output_token_seconds",
    }.items():
        assert not [s for s in ours(page_of(histogram(name, {"0.5": 3, "+Inf": 4})), kind)], kind


def test_triton_milliseconds_become_seconds() -> None:
    text = histogram("nv_inference_first_response_histogram_ms", {"100": 2, "500": 3, "+Inf": 3}, 'model="m"', 420.0)
    samples = ours(page_of(text), "triton")
    assert [s.labels[-1] for s in samples if s.part == "bucket"] == ["0.1", "0.5", "+Inf"]
    assert one(samples, m.TTFT, "sum").value == pytest.approx(0.42)


def test_edges_are_written_one_way() -> None:
    assert [edge(x) for x in (1, 0.025, 2560.0, float("inf"))] == ["1.0", "0.025", "2560.0", "+Inf"]


def test_every_rule_fits_its_metric() -> None:
    for kind, engine in ENGINES.items():
        for rule in engine.rules:
            assert rule.metric in vars(m).values(), kind
            assert bool(rule.outcome) == (rule.metric is m.REQUESTS), (kind, rule.names)
