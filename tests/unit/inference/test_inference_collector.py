"""Engines on a bad day: hanging, dribbling, half a page, nonsense, keys; and the good days between."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, half, text, unannounced

from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import llm as m
from agent.base.catalogue.self import PARSE_ERRORS
from agent.base.collector import Context, PartialFailure
from agent.base.config import loads
from agent.base.errors import ConfigError
from agent.collectors.inference import Inference, InferenceSettings

DATA = Path(__file__).parents[2] / "data" / "metrics"
VLLM = (DATA / "vllm_0.32_after.prom").read_text()
LLAMA = (DATA / "llama_cpp_after.prom").read_text()


def inference(*engines: dict[str, Any], **settings: Any) -> Inference:
    quiet = [{"probe": {"enabled": False}, **one} for one in engines]
    model = InferenceSettings.model_validate({"engines": quiet, **settings})
    return Inference(model, Context("/nonexistent", ""))


def of(samples: list[Sample], metric: Metric, part: str = "") -> dict[tuple[str, ...], float]:
    return {s.labels: s.value for s in samples if s.metric is metric and s.part == part}


def until(collector: Inference, good: Callable[[list[Sample]], bool]) -> list[Sample]:
    """Collect until `good`; an engine that is slow is caught by a later run."""
    deadline = time.monotonic() + 30
    while True:
        samples = list(collector.collect())
        if good(samples):
            return samples
        assert time.monotonic() < deadline, samples
        time.sleep(0.02)


def test_one_run_reads_page_and_health(fake: FakeEngine) -> None:
    fake.answers |= {"/metrics": text(VLLM), "/health": text("")}
    samples = list(inference({"name": "a", "url": fake.url}).collect())
    assert of(samples, m.ENGINE_UP) == {("a",): 1}
    assert of(samples, m.HEALTH_OK) == {("a",): 1}
    assert of(samples, m.GENERATED_TOKENS) == {("a", "tiny"): 980}
    assert of(samples, m.ENGINE_INFO) == {("a", "vllm", fake.url): 1}
    assert of(samples, PARSE_ERRORS) == {("inference", "a"): 0}
    assert 0 < of(samples, m.SCRAPE_SECONDS)["a",] < 30


def test_a_hanging_engine_delays_no_other(fake: FakeEngine, other: FakeEngine) -> None:
    fake.answers |= {"/metrics": fake.hang, "/health": fake.hang}
    other.answers |= {"/metrics": text(LLAMA), "/health": text("{}")}
    collector = inference(
        {"name": "hung", "url": fake.url, "timeout": "500ms", "health_timeout": "400ms"},
        {"name": "good", "url": other.url, "model": "tiny"},
        patience="100ms",
    )
    samples = until(collector, lambda found: ("hung",) in of(found, m.ENGINE_UP))
    assert of(samples, m.ENGINE_UP) == {("hung",): 0, ("good",): 1}
    assert of(samples, m.HEALTH_OK) == {("hung",): 0, ("good",): 1}
    assert of(samples, m.HEALTH_SECONDS)["hung",] >= 0.4, "its limit, not the time of some earlier answer"
    assert {s.labels[0] for s in samples if s.metric is m.RUNNING} == {"good"}
    threads = threading.active_count()
    for _ in range(5):
        samples = list(collector.collect())
        assert of(samples, m.GENERATED_TOKENS) == {("good", "tiny"): 1061}
    assert threading.active_count() <= threads + 4, "no thread is left behind a round"


def test_an_engine_that_begins_to_hang_goes_absent(fake: FakeEngine) -> None:
    fake.answers |= {"/metrics": text(VLLM), "/health": text("")}
    collector = inference(
        {"name": "a", "url": fake.url, "timeout": "300ms", "health_timeout": "300ms"}, patience="50ms"
    )
    assert of(list(collector.collect()), m.RUNNING)
    fake.answers |= {"/metrics": fake.hang, "/health": fake.hang}
    samples = until(collector, lambda found: of(found, m.ENGINE_UP)["a",] == 0 and of(found, m.HEALTH_OK)["a",] == 0)
    assert not of(samples, m.RUNNING)
    assert not of(samples, m.TTFT, "count")
    fake.answers |= {"/metrics": text(VLLM), "/health": text("")}
    samples = until(collector, lambda found: of(found, m.ENGINE_UP)["a",] == 1)
    assert of(samples, m.RUNNING) == {("a", "tiny"): 0}


def test_a_dribbling_engine_is_cut_off_at_its_limit(fake: FakeEngine) -> None:
    fake.answers |= {"/metrics": fake.dribble, "/health": fake.dribble}
    collector = inference({"name": "a", "url": fake.url, "timeout": "400ms", "health_timeout": "400ms"})
    samples = until(collector, lambda found: ("a",) in of(found, m.ENGINE_UP))
    assert of(samples, m.ENGINE_UP) == {("a",): 0}
    assert of(samples, m.SCRAPE_SECONDS)["a",] < 20


def test_half_a_page_is_counted_and_never_zero(fake: FakeEngine) -> None:
    fake.answers |= {"/metrics": text(VLLM), "/health": text("")}
    collector = inference({"name": "a", "url": fake.url})
    whole = list(collector.collect())
    fake.answers["/metrics"] = half(VLLM)
    samples = list(collector.collect())
    assert of(samples, PARSE_ERRORS)["inference", "a"] == 1
    kept = [s for s in samples if s.metric is m.RUNNING]
    assert kept, "its family is whole: others follow it"
    for sample in samples:
        if sample.metric not in (m.SCRAPE_SECONDS, m.HEALTH_SECONDS, PARSE_ERRORS):
            assert sample in whole, "nothing on half a page differs from the whole one"
    fake.answers["/metrics"] = text(VLLM)
    assert of(list(collector.collect()), m.E2E, "count") == of(whole, m.E2E, "count")


def test_a_page_cut_at_a_line_end_is_noticed_by_what_is_missing(fake: FakeEngine) -> None:
    """No length announced, last line whole: only what the page used to have tells."""
    fake.answers |= {"/metrics": unannounced(LLAMA), "/health": text("")}
    collector = inference({"name": "a", "url": fake.url, "model": "m"})
    assert of(list(collector.collect()), PARSE_ERRORS)["inference", "a"] == 0
    lines = LLAMA.splitlines(keepends=True)
    fake.answers["/metrics"] = unannounced("".join(lines[:15]))
    samples = list(collector.collect())
    assert of(samples, PARSE_ERRORS)["inference", "a"] == 1
    assert not of(samples, m.RUNNING)


def test_nonsense_with_status_200_is_not_up(fake: FakeEngine) -> None:
    fake.answers |= {"/metrics": text("<html><body>Welcome</body></html>\n"), "/health": text("")}
    samples = list(inference({"name": "a", "url": fake.url}).collect())
    assert of(samples, m.ENGINE_UP) == {("a",): 0}
    assert of(samples, PARSE_ERRORS)["inference", "a"] == 1
    of_page = [s for s in samples if "model" in s.metric.labels and s.metric is not m.ENGINE_PROCESS]
    assert not of_page, "nothing of the page"


def test_why_a_page_could_not_be_had(fake: FakeEngine, other: FakeEngine) -> None:
    fake.answers |= {"/metrics": text("no", 501)}
    other.answers |= {"/metrics": text(LLAMA)}
    collector = inference(
        {"name": "status", "url": fake.url},
        {"name": "refused", "url": "http://127.0.0.1:9"},
        {"name": "wrong", "url": other.url, "kind": "vllm"},
    )
    samples = list(collector.collect())
    assert of(samples, m.SCRAPE_FAILURES) == {("status", "status"): 1, ("refused", "refused"): 1, ("wrong", "page"): 1}
    assert set(of(samples, m.ENGINE_UP).values()) == {0}


def test_another_model_after_a_restart(fake: FakeEngine) -> None:
    fake.answers |= {"/metrics": text(LLAMA), "/v1/models": text('{"data": [{"id": "first"}]}')}
    collector = inference({"name": "a", "url": fake.url})
    assert of(list(collector.collect()), m.RUNNING) == {("a", "first"): 0}
    fake.answers |= {"/metrics": text("", 503), "/v1/models": text('{"data": [{"id": "second"}]}')}
    list(collector.collect())
    fake.answers["/metrics"] = text(LLAMA)
    assert of(list(collector.collect()), m.RUNNING) == {("a", "second"): 0}


def test_the_probes_own_key_that_is_missing_is_told(fake: FakeEngine, tmp_path: Path) -> None:
    fake.answers |= {"/metrics": text(VLLM)}
    probe = {"period": "10s", "credential_file": str(tmp_path / "probe-key")}
    collector = inference({"name": "a", "url": fake.url, "probe": probe})
    failed = ""
    deadline = time.monotonic() + 30
    while not failed and time.monotonic() < deadline:
        try:
            list(collector.collect())
        except PartialFailure as failure:
            failed = str(failure)
        time.sleep(0.02)
    assert str(tmp_path / "probe-key") in failed
    collector.close()


@pytest.mark.parametrize("status", [204, 301, 404, 500, 503])
def test_health_is_2xx_and_nothing_else(fake: FakeEngine, status: int) -> None:
    fake.answers |= {"/metrics": text(LLAMA), "/healthz": text("", status)}
    samples = list(inference({"name": "a", "url": fake.url, "health_path": "/healthz"}).collect())
    assert of(samples, m.HEALTH_OK) == {("a",): float(status == 204)}


def test_a_page_of_20_megabytes_is_read_in_bounds(fake: FakeEngine) -> None:
    noise = "".join(f'vllm:foreign{{path="/v1/aaaaaaaaaaaaaaaaaaaaaaaa/{n}"}} 1.0\n' for n in range(300_000))
    assert len(noise) > 15 << 20
    fake.answers |= {"/metrics": text(noise + VLLM), "/health": text("")}
    samples = list(inference({"name": "a", "url": fake.url, "timeout": "30s"}, deadline="60s").collect())
    assert of(samples, m.GENERATED_TOKENS) == {("a", "tiny"): 980}
    samples = list(
        inference({"name": "a", "url": fake.url, "timeout": "30s", "page_limit": 1 << 20}, deadline="60s").collect()
    )
    assert not of(samples, m.GENERATED_TOKENS)
    assert of(samples, PARSE_ERRORS)["inference", "a"] == 1


def test_the_key_is_sent_and_never_shown(fake: FakeEngine, tmp_path: Path) -> None:
    fake.answers |= {"/metrics": text(LLAMA), "/health": text("")}
    key = tmp_path / "key"
    key.write_text("sesame-1234\n")
    collector = inference({"name": "a", "url": fake.url, "credential_file": str(key)})
    samples = list(collector.collect())
    assert {headers.get("Authorization") for _, headers, _ in fake.seen} == {"Bearer sesame-1234"}
    assert "sesame" not in repr(samples)
    key.unlink()
    with pytest.raises(PartialFailure, match="cannot be read") as failure:
        list(collector.collect())
    assert str(key) in str(failure.value)
    assert "sesame" not in str(failure.value)


def test_an_engine_that_names_no_model_is_asked_for_it(fake: FakeEngine) -> None:
    fake.answers |= {"/metrics": text(LLAMA), "/v1/models": text('{"data": [{"id": "tiny"}]}')}
    samples = list(inference({"name": "a", "url": fake.url}).collect())
    assert of(samples, m.RUNNING) == {("a", "tiny"): 0}


def test_a_load_time_outlives_the_agent(fake: FakeEngine, tmp_path: Path) -> None:
    fake.answers |= {"/metrics": text(LLAMA), "/health": text("loading", 503)}
    settings = InferenceSettings.model_validate(
        {"engines": [{"name": "a", "url": fake.url, "model": "m", "probe": {"enabled": False}}]}
    )
    context = Context(str(tmp_path), "")
    first = Inference(settings, context)
    assert not of(list(first.collect()), m.MODEL_LOAD)
    fake.answers["/health"] = text("")
    measured = of(list(first.collect()), m.MODEL_LOAD)
    assert measured["a",] > 0
    assert of(list(Inference(settings, context).collect()), m.MODEL_LOAD) == measured
    state = (tmp_path / "inference.json").read_text()
    (tmp_path / "inference.json").write_text(state.replace('"pid": ', '"pid": 9'))
    again = Inference(settings, context)
    assert not of(list(again.collect()), m.MODEL_LOAD), "another process: ready before we looked"
    (tmp_path / "inference.json").write_text('{"boot_id": 5, "engines": [7]}')
    assert not of(list(Inference(settings, context).collect()), m.MODEL_LOAD)


def test_no_engine_no_series() -> None:
    assert list(inference().collect()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("url: localhost:8000", r"config:4: engines\.0\.url: must be an http or https address"),
        ("url: http://me:secret@h", r"config:4: engines\.0\.url: must hold no password, got one"),
        ("kind: vlm", r"config:4: engines\.0\.kind: .*'auto'.*got 'vlm'"),
        ("health_path: healthz", r"config:4: engines\.0\.health_path: must begin with /"),
        ("timeout: 5", r"config:4: engines\.0\.timeout: must be a duration with a unit"),
    ],
)
def test_bad_settings_are_named(line: str, message: str) -> None:
    good = "url: http://localhost:8000"
    first = good if not line.startswith("url") else "model: m"
    with pytest.raises(ConfigError, match=message) as failure:
        loads(InferenceSettings, f"engines:\n- name: a\n  {first}\n  {line}\n", environ={})
    assert "secret" not in str(failure.value)


def test_engine_names_are_unique() -> None:
    text_ = "engines:\n- {name: a, url: 'http://h'}\n- {name: a, url: 'http://i'}\n"
    with pytest.raises(ConfigError, match="given twice: a"):
        loads(InferenceSettings, text_, environ={})
