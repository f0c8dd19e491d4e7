"""The streaming probe: what is timed, what is counted, and what is never invented."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_engine import FakeEngine, events, half, text
from hypothesis import given
from hypothesis import strategies as st

from agent.base.catalogue import llm as m
from agent.inference.histogram import TTFT_EDGES, Histogram
from agent.inference.probe import Probe, Request
from agent.inference.stream import events as read_events
from agent.inference.stream import read_stream

DATA = Path(__file__).parents[2] / "data" / "metrics"
PATH = "/v1/completions"


def token(word: str, finish: str | None = None) -> str:
    reason = f'"{finish}"' if finish else "null"
    return f'{{"choices": [{{"index": 0, "text": "{word}", "finish_reason": {reason}}}]}}'


GOOD = (token("a"), token("b"), token("", "length"), '{"choices": [], "usage": {"completion_tokens": 5}}', "[DONE]")


def probe(fake: FakeEngine, timeout: float = 20.0, **more: object) -> Probe:
    ask = Request(fake.url + PATH, "tiny", "Hello", 16, timeout, **more)  # type: ignore[arg-type]
    return Probe("a", lambda: ask, period=15.0)


def results(one: Probe) -> dict[str, float]:
    return {s.labels[1]: s.value for s in one.samples() if s.metric is m.PROBES}


def counts(one: Probe) -> dict[str, float]:
    return {s.metric.stem: s.value for s in one.samples() if s.part == "count"}


def test_a_recorded_stream_of_vllm() -> None:
    body = (DATA / "vllm_0.32_stream.txt").read_bytes()
    stream = read_stream([body], time.monotonic())
    assert len(stream.tokens) == stream.count == 21, "an empty text is a token too: half a character, or a special one"
    assert stream.finished


@given(st.integers(1, 60))
def test_the_stream_may_be_cut_into_chunks_anywhere(size: int) -> None:
    body = (DATA / "vllm_0.32_stream.txt").read_bytes()[:3000]
    whole = list(read_events([body]))
    assert len(whole) > 5
    assert list(read_events(body[at : at + size] for at in range(0, len(body), size))) == whole


def test_times_are_those_of_arrival() -> None:
    now = 100.0

    def body() -> Iterator[bytes]:
        nonlocal now
        for after, event in zip((0.25, 0.5, 0.125, 0.125, 0.0), GOOD, strict=True):
            now += after
            yield f"data: {event}\n\n".encode()

    stream = read_stream(body(), 100.0, clock=lambda: now)
    assert stream.tokens == (0.25, 0.75)
    assert stream.end == 1.0
    assert stream.count == 5, "the engine's own count of tokens"
    assert stream.finished


def test_a_good_probe(fake: FakeEngine) -> None:
    fake.answers[PATH] = events(*GOOD)
    one = probe(fake)
    assert [one.once(), one.once()] == ["ok", "ok"]
    assert results(one) == {"ok": 2, "error": 0, "timeout": 0}
    assert counts(one) == {m.TTFT.stem: 2, m.INTER_TOKEN.stem: 2, m.E2E.stem: 2}
    assert {s.labels[:3] for s in one.samples() if s.metric is m.TTFT} == {("a", "tiny", "probe")}
    prompts = [body for _, _, body in fake.seen]
    assert prompts[0] != prompts[1], "a prefix cache may not answer for the engine"
    assert b'"stream": true' in prompts[0]


def test_a_model_that_was_not_known_yet_is_the_one_that_answers(fake: FakeEngine) -> None:
    """An engine that just came up answers a completion though it would not list its models a moment before."""
    fake.answers[PATH] = events(
        '{"model": "tiny", ' + token("a")[1:], '{"model": 7, ' + token("b", "stop")[1:], "[DONE]"
    )
    ask = Request(fake.url + PATH, "", "Hello", 16, 20.0)
    one = Probe("a", lambda: ask, period=15.0)
    assert one.once() == "ok"
    assert {s.labels[:3] for s in one.samples() if s.metric is m.TTFT} == {("a", "tiny", "probe")}
    assert {s.labels for s in one.samples() if s.metric is m.PROBE_TOKENS_RATE} == {("a", "tiny")}


def delta(content: str, finish: str | None = None) -> str:
    return f'{{"choices": [{{"delta": {{{content}}}, "finish_reason": {json.dumps(finish)}}}]}}'


CHAT = (
    delta('"role": "assistant", "content": ""'),
    delta('"reasoning_content": "hm"'),
    delta('"content": ""'),
    delta('"content": "hello"'),
    delta("", "stop"),
    "[DONE]",
)


def test_a_chat_is_asked_with_messages_and_its_first_chunk_is_no_token(fake: FakeEngine) -> None:
    fake.answers["/v1/chat/completions"] = events(*CHAT)
    ask = Request(fake.url + "/v1/chat/completions", "r1", "Hello", 16, 20.0)
    one = Probe("a", lambda: ask, 15.0)
    assert one.once() == "ok"
    assert counts(one) == {m.TTFT.stem: 1, m.INTER_TOKEN.stem: 2, m.E2E.stem: 1}
    body = json.loads(fake.seen[0][2])
    assert body["messages"] == [{"role": "user", "content": "[1] Hello"}]
    assert "prompt" not in body


def test_triton_is_asked_by_its_generate_extension(fake: FakeEngine) -> None:
    path = "/v2/models/ensemble/generate_stream"
    fake.answers[path] = events(*(json.dumps({"model_name": "ensemble", "text_output": word}) for word in "ab"))
    ask = Request(fake.url + path, "", "Hello", 16, 20.0)
    one = Probe("a", lambda: ask, 15.0)
    assert one.once() == "ok"
    assert counts(one) == {m.TTFT.stem: 1, m.INTER_TOKEN.stem: 1, m.E2E.stem: 1}
    assert {s.labels[1] for s in one.samples() if s.metric is m.TTFT} == {"ensemble"}
    assert json.loads(fake.seen[0][2])["text_input"] == "[1] Hello"
    fake.answers[path] = events(json.dumps({"error": "no such model"}))
    assert one.once() == "error"


def test_a_slow_first_token_is_in_its_bucket(fake: FakeEngine) -> None:
    fake.answers[PATH] = events(0.3, *GOOD)
    one = probe(fake)
    assert one.once() == "ok"
    buckets = {s.labels[-1]: s.value for s in one.samples() if s.metric is m.TTFT and s.part == "bucket"}
    assert buckets["0.25"] == 0
    assert buckets["20.0"] == buckets["+Inf"] == 1
    assert list(buckets)[:-1] == [repr(edge) for edge in TTFT_EDGES]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (events(token("a")), "error"),  # broke off: no [DONE], no reason
        (events('{"error": {"message": "no"}}'), "error"),
        (events("{not json"), "error"),
        (events('{"choices": "x"}'), "error"),
        (events('{"choices": ["x"]}'), "error"),
        (text("unauthorized", 401), "error"),
        (half("data: " + token("a") * 9), "error"),
        (text(b"\xff\xfe\x00"), "error"),
    ],
)
def test_a_bad_answer_is_counted_and_leaves_no_latency(fake: FakeEngine, answer: object, result: str) -> None:
    fake.answers[PATH] = answer  # type: ignore[assignment]
    one = probe(fake)
    assert one.once() == result
    assert results(one)[result] == 1
    assert counts(one) == {}
    assert not [s for s in one.samples() if s.metric is m.PROBE_TOKENS_RATE]
    assert one.problem


def test_a_hang_is_a_timeout_and_leaves_no_latency(fake: FakeEngine) -> None:
    fake.answers[PATH] = events(*GOOD)
    one = probe(fake, timeout=0.4)
    assert one.once() == "ok"
    for hang in (fake.hang, fake.dribble, events(token("a"), 5.0, *GOOD)):
        fake.answers[PATH] = hang
        assert one.once() == "timeout"
    assert results(one) == {"ok": 1, "error": 0, "timeout": 3}
    assert counts(one)[m.TTFT.stem] == 1
    assert not [s for s in one.samples() if s.metric is m.PROBE_TOKENS_RATE], "no rate of an older probe"


def test_no_server_is_an_error() -> None:
    ask = Request("http://127.0.0.1:9/v1/completions", "", "x", 1, 2.0)
    one = Probe("a", lambda: ask, 15.0)
    assert one.once() == "error"


def test_the_key_comes_from_its_file(fake: FakeEngine, tmp_path: Path) -> None:
    fake.answers[PATH] = events(*GOOD)
    one = probe(fake, credential_file=tmp_path / "key")
    assert one.once() == "error"
    assert not fake.seen, "nothing is sent without the key"
    (tmp_path / "key").write_text("first\n")
    assert one.once() == "ok"
    (tmp_path / "key").write_text("second\n")
    assert one.once() == "ok"
    assert [headers["Authorization"] for _, headers, _ in fake.seen] == ["Bearer first", "Bearer second"]


def test_its_thread_probes_and_ends(fake: FakeEngine) -> None:
    fake.answers[PATH] = events(*GOOD)
    ask = Request(fake.url + PATH, "tiny", "Hello", 16, 20.0)
    one = Probe("a", lambda: ask, period=0.01)
    one.start()
    deadline = time.monotonic() + 30
    while results(one)["ok"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    one.close()
    assert one._thread is not None
    one._thread.join(20)
    assert not one._thread.is_alive()


@given(st.lists(st.floats(0, 10_000, allow_nan=False), max_size=50))
def test_histogram_buckets_count_what_is_at_most_their_edge(values: list[float]) -> None:
    histogram = Histogram(TTFT_EDGES)
    for value in values:
        histogram.observe(value)
    samples = list(histogram.samples(m.TTFT, "a", "m", "probe"))
    buckets = {float(s.labels[-1]): s.value for s in samples if s.part == "bucket"}
    assert buckets == {upper: sum(v <= upper for v in values) for upper in (*TTFT_EDGES, float("inf"))}
    assert [s.value for s in samples if s.part == "sum"] == [pytest.approx(sum(values))]
