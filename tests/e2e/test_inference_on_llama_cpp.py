"""The inference collector on llama.cpp's own server: start, probes, death and return."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import llm as m
from agent.base.catalogue.self import PARSE_ERRORS
from agent.base.collector import Context
from agent.collectors.inference import Inference, InferenceSettings
from agent.gpu.node import SHARED
from bench.harness.processes import free_port
from chaos.demo import tiny_model

pytestmark = pytest.mark.e2e


def of(samples: list[Sample], metric: Metric, part: str = "") -> dict[tuple[str, ...], float]:
    return {s.labels: s.value for s in samples if s.metric is metric and s.part == part}


def until(collector: Inference, good: Callable[[list[Sample]], bool]) -> list[Sample]:
    deadline = time.monotonic() + 90
    while True:
        samples = list(collector.collect())
        if good(samples):
            return samples
        assert time.monotonic() < deadline, samples
        time.sleep(0.1)


def test_an_engine_starts_answers_dies_and_returns(tmp_path: Path) -> None:
    model = tiny_model.write(tmp_path / "tiny.gguf")
    port = free_port()
    command = [sys.executable, "-m", "chaos.demo.engine", "--model", str(model), "--port", str(port), "--name", "tiny"]
    processes: dict[str, list[tuple[int, int | None]]] = {"GPU-3": []}
    gpu = SimpleNamespace(
        label="true",
        inventory=SimpleNamespace(label=lambda uuid: uuid.removeprefix("GPU-")),
        client=SimpleNamespace(processes=lambda: processes),
    )
    engine = {"name": "demo", "url": f"http://127.0.0.1:{port}", "probe": {"period": "200ms", "timeout": "20s"}}
    settings = InferenceSettings.model_validate({"engines": [engine]})
    collector = Inference(settings, Context(str(tmp_path), "", shared={SHARED: gpu}))
    try:
        samples = list(collector.collect())
        assert of(samples, m.ENGINE_UP) == {("demo",): 0}
        assert not of(samples, m.RUNNING)

        with (tmp_path / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)
        processes["GPU-3"].append((server.pid, None))
        try:
            until(collector, lambda found: of(found, m.PROBES)["demo", "ok"] >= 5)
            samples = until(  # an answer in time: a busy machine may miss it once
                collector, lambda found: of(found, m.HEALTH_OK) == of(found, m.ENGINE_UP) == {("demo",): 1}
            )
            assert of(samples, m.ENGINE_INFO) == {("demo", "llama.cpp", engine["url"]): 1}
            assert of(samples, m.ENGINE_GPU) == {("demo", "3", "GPU-3", "true", str(server.pid)): 1}
            assert 0 < of(samples, m.MODEL_LOAD)["demo",] < 90
            assert set(of(samples, m.TTFT, "count")) == {("demo", "tiny", "probe")}, "the first probe's, too"
            assert of(samples, m.TTFT, "count")["demo", "tiny", "probe"] >= 5
            assert (
                of(samples, m.E2E, "sum")["demo", "tiny", "probe"]
                >= of(samples, m.TTFT, "sum")["demo", "tiny", "probe"]
            )
            assert of(samples, m.INTER_TOKEN, "count")["demo", "tiny", "probe"] > 5
            samples = until(collector, lambda found: of(found, m.GENERATED_TOKENS)["demo", "tiny"] >= 5 * 16)
            assert of(samples, PARSE_ERRORS) == {("inference", "demo"): 0}
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait(30)

        samples = until(collector, lambda found: of(found, m.ENGINE_UP)["demo",] == 0)
        assert not of(samples, m.RUNNING)
        assert not of(samples, m.GENERATED_TOKENS)
        counted = of(samples, m.TTFT, "count")["demo", "tiny", "probe"]
        errors = of(samples, m.PROBES)["demo", "error"]
        samples = until(collector, lambda found: of(found, m.PROBES)["demo", "error"] > errors)
        assert of(samples, m.TTFT, "count")["demo", "tiny", "probe"] == counted, "a failed probe is no latency"
        assert not of(samples, m.ENGINE_GPU)

        with (tmp_path / "log").open("ab") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until(collector, lambda found: of(found, m.TTFT, "count")["demo", "tiny", "probe"] > counted)
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait(30)
    finally:
        collector.close()
