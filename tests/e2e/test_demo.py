"""The demo as a user starts it: the drill's result, then each process killed, and what the rest says.

One run for the whole module, so the tests go from the result over the kills to the clean end, in order.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from chaos.engine.drill import SHIPPED

pytestmark = pytest.mark.e2e
PATIENCE = 90.0


@dataclass
class Demo:
    process: subprocess.Popen[str]
    build: Path
    errors: Path
    result: dict[str, Any]

    def url(self, part: str) -> str:
        return str(self.result["urls"][part]).removesuffix("/metrics").removesuffix("/v1/completions")

    def said(self) -> str:
        return self.errors.read_text()

    def pid(self, part: str) -> int:
        if part == "engine":  # started again after a drill
            return int((self.build / "demo" / "engine.pid").read_text())
        return int(self.result["pids"][part])

    def kill(self, part: str) -> None:
        os.kill(self.pid(part), signal.SIGKILL)
        until(lambda: f"DIED: {part} was killed by SIGKILL; the rest goes on" in self.said(), f"{part} named as dead")

    def metrics(self) -> str:
        return get(self.url("agent") + "/metrics")

    def sample(self, pattern: str) -> float | None:
        """The value of the first sample whose name and labels match, None if there is none."""
        found = re.search(rf"^{pattern} (\S+)", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else None

    def query(self, expression: str) -> list[dict[str, Any]]:
        asked = urllib.parse.urlencode({"query": expression})
        found = json.loads(get(f"{self.url('prometheus')}/api/v1/query?{asked}"))["data"]["result"]
        return list(found)

    def firing(self) -> set[str]:
        alerts = json.loads(get(self.url("prometheus") + "/api/v1/alerts"))["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def pages(self, path: str) -> list[dict[str, Any]]:
        return list(json.loads(get(f"{self.url('sink')}/api/pages?path={path}"))["pages"])


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def until(true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError, urllib.error.URLError):
            if true():
                return
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    build = tmp_path_factory.mktemp("build")
    errors = build / "stderr"
    command = [sys.executable, "-m", "chaos.demo", "--ports", "auto", "--build", str(build), "-o", "json"]
    with errors.open("w") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, errors.read_text()
        yield Demo(process, build, errors, json.loads(line))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        process.stdout.close()


def test_the_drill_passes_with_every_mark_in_order(demo: Demo) -> None:
    drill = demo.result["drill"]
    assert (drill["verdict"], drill["reasons"]) == ("pass", []), demo.said()
    assert list(drill["timeline"]) == ["injected", "seen", "firing", "paged", "undone", "resolved"]
    times = list(drill["timeline"].values())
    assert times[0] == 0
    assert times == sorted(times)
    assert demo.result["simulated"] is True
    assert demo.result["not_up"] == {}
    assert all(demo.result["chain"].values())
    assert demo.result["series"] > 800
    assert "SIMULATED" in demo.said()


def test_the_page_says_what_where_and_what_to_do(demo: Demo) -> None:
    labels, annotations = demo.result["page"]["labels"], demo.result["page"]["annotations"]
    assert labels["alertname"] == "GpuLost"
    assert (labels["node"], labels["gpu"], labels["synthetic"]) == ("demo-node", "3", "true")
    assert labels["drill"] == demo.result["drill"]["id"]
    assert re.fullmatch(r"GPU-[0-9a-f-]{36}", labels["uuid"])
    assert labels["action"]
    assert annotations["runbook_url"].endswith("GpuLost.md")
    assert annotations["dashboard_url"].startswith("http")
    assert labels["uuid"] in annotations["description"]
    received = [alert for page in demo.pages("/drill") for alert in page["body"]["alerts"]]
    assert any(a["labels"] == labels and a["status"] == "firing" for a in received)
    assert any(a["labels"] == labels and a["status"] == "resolved" for a in received)
    # The Xid that comes with the loss is named in its page and is none of its own; the loss can show a scrape sooner.
    told = [alert["annotations"]["description"] for alert in received if alert["labels"] == labels]
    assert any("Xid: 79" in description for description in told)
    assert "GpuXid" not in {a["labels"]["alertname"] for a in received}
    assert demo.pages("/page") == []


def test_the_runbook_of_the_page_opens(demo: Demo) -> None:
    assert "GpuLost" in get(demo.result["page"]["annotations"]["runbook_url"])


def test_the_report_is_one_page_without_outside_parts(demo: Demo) -> None:
    page = Path(demo.result["drill"]["report"])
    text = page.read_text()
    assert all(word in text for word in ("<svg", "PASS", "simulated", demo.result["page"]["labels"]["uuid"]))
    assert not re.search(r'(src|<link[^>]*href)="?http', text)
    assert json.loads(page.with_suffix(".json").read_text())["timeline"] == demo.result["drill"]["timeline"]


def test_every_address_answers(demo: Demo) -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        get(demo.url("agent") + path)
    assert json.loads(get(demo.url("engine") + "/health")) == {"status": "ok"}
    for part in ("sink", "prometheus", "alertmanager", "central"):
        get(demo.url(part) + ("/healthz" if part == "central" else "/"))


@pytest.mark.parametrize("part", ["agent", "central"])
def test_promtool_accepts_the_live_page(demo: Demo, part: str) -> None:
    page = get(demo.url(part) + "/metrics")
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_engine_is_placed_on_its_gpu_again_after_the_drill(demo: Demo) -> None:
    pid, uuid = demo.pid("engine"), demo.result["page"]["labels"]["uuid"]
    place = rf'gpuvigil_llm_engine_gpu_info\{{engine="tiny-llm",gpu="3",uuid="{uuid}".*pid="{pid}"\}}'
    until(lambda: demo.sample(place) == 1, "the engine's process shown on GPU 3")


def test_latencies_are_measured_and_training_goes_on(demo: Demo) -> None:
    for name in ("ttft", "inter_token", "e2e"):
        assert demo.sample(rf'gpuvigil_llm_{name}_seconds_count\{{engine="tiny-llm".*source="probe"\}}')
    step = demo.sample(r'gpuvigil_train_step\{job_id="demo-train"\}')
    assert step
    until(lambda: (demo.sample(r'gpuvigil_train_step\{job_id="demo-train"\}') or 0) > step, "training makes steps")
    assert (demo.sample(r'gpuvigil_train_loss\{job_id="demo-train"\}') or 99) < 3.5
    until(lambda: demo.sample(r'gpuvigil_checkpoint_last_complete_step\{job_id="demo-train"\}'), "a checkpoint")


def test_monitors_with_little_history_are_warming_up(demo: Demo) -> None:
    def states() -> dict[str, str]:
        monitors = json.loads(get(demo.url("central") + "/api/v1/monitors"))["monitors"]
        return {monitor["name"]: monitor["state"] for monitor in monitors}

    until(lambda: states().get("disk_root") == "warming_up", f"the disk forecast warming up: {states()}")
    # before the first probes and steps are in Prometheus there is "no_data"
    until(lambda: states()["inference_ttft_p95"] in ("warming_up", "ok"), f"TTFT judged or warming up: {states()}")
    until(lambda: states()["training-eta"] in ("warming_up", "ok"), f"the ETA judged or warming up: {states()}")


def test_a_drill_killed_in_its_middle_ends_by_itself_and_is_recovered(demo: Demo) -> None:
    text = (SHIPPED / "gpu-lost.yaml").read_text().replace("max_duration: 2m", "max_duration: 20s\nhold: 8s")
    drill, target = demo.build / "short.yaml", demo.build / "demo" / "target.yaml"
    drill.write_text(text.replace("detected_within: 60s", "detected_within: 10s"))
    lost = r'gpuvigil_gpu_up\{gpu="3".*\}'
    command = [sys.executable, "-m", "agent.cli", "chaos"]
    run = [*command, "run", str(drill), "--target", str(target), "--report", str(demo.build)]
    with subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as injector:
        assert injector.stderr is not None
        said = ""
        while "injected:" not in said and (line := injector.stderr.readline()):
            said += line
        assert "injected:" in said, said
        until(lambda: demo.sample(lost) == 0, "GPU 3 lost")
        injector.kill()
    assert demo.sample(lost) == 0, "nobody has undone it yet"
    until(lambda: demo.sample(lost) == 1, "the fault ends by its own duration")
    until(lambda: demo.sample(r'gpuvigil_llm_health_ok\{engine="tiny-llm"\}') == 1, "the engine started again")

    again = subprocess.run(run, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "is unfinished: gpuvigil chaos recover" in again.stdout
    for said in ("unfinished drills taken back", "nothing to recover"):
        recover = subprocess.run(
            [*command, "recover", "--target", str(target)], capture_output=True, text=True, check=False
        )
        assert (recover.returncode, said in recover.stderr) == (0, True), recover.stderr


def test_nvml_child_killed_is_replaced_and_its_series_come_back(demo: Demo) -> None:
    restarts = r"gpuvigil_gpu_child_restarts_total\{.*\}"
    before = demo.sample(restarts)
    assert before is not None
    (child,) = psutil.Process(demo.pid("agent")).children()
    child.kill()
    until(lambda: (demo.sample(restarts) or 0) > before, "a new child")
    up = re.compile(r"^gpuvigil_gpu_up\{.*\} (\S+)$", re.MULTILINE)
    until(lambda: up.findall(demo.metrics()) == ["1.0"] * 8, "eight GPUs from the new child")
    assert not child.is_running()


def test_engine_killed_is_unhealthy_and_its_values_absent(demo: Demo) -> None:
    running = r'gpuvigil_llm_requests_running\{engine="tiny-llm".*\}'
    assert demo.sample(running) is not None
    demo.kill("engine")
    until(lambda: demo.sample(r'gpuvigil_llm_health_ok\{engine="tiny-llm"\}') == 0, "health not ok")
    until(lambda: demo.sample(r'gpuvigil_llm_engine_up\{engine="tiny-llm"\}') == 0, "engine not up")
    assert demo.sample(running) is None
    until(lambda: "gpuvigil_llm_engine_gpu_info" not in demo.metrics().replace("# ", ""), "no process on GPU 3", 30)
    until(lambda: demo.sample(r'gpuvigil_gpu_processes\{gpu="3".*\}') == 0, "no process counted on GPU 3", 30)
    until(lambda: "HealthzSlow" in demo.firing(), "HealthzSlow")


@pytest.mark.parametrize("part", ["load", "training", "central"])
def test_others_killed_are_named_and_the_agent_goes_on(demo: Demo, part: str) -> None:
    demo.kill(part)
    before = demo.sample("gpuvigil_agent_snapshot_timestamp_seconds")
    assert before
    until(lambda: (demo.sample("gpuvigil_agent_snapshot_timestamp_seconds") or 0) > before, "fresh pages")
    if part == "central":
        until(lambda: "CentralDown" in demo.firing(), "CentralDown")


def test_agent_killed_fires_agent_down_and_leaves_no_frozen_series(demo: Demo) -> None:
    agent = psutil.Process(demo.pid("agent"))
    children = agent.children()
    assert demo.query("gpuvigil_gpu_up")
    demo.kill("agent")
    until(lambda: "AgentDown" in demo.firing(), "AgentDown")
    until(lambda: not demo.query("gpuvigil_gpu_up"), "series gone")
    assert "GpuLost" not in demo.firing()
    alerts = {"AgentDown"}
    until(
        lambda: alerts <= {a["labels"]["alertname"] for p in demo.pages("/ticket") for a in p["body"]["alerts"]},
        "AgentDown delivered",
    )
    assert psutil.wait_procs(children, timeout=30)[1] == []


@pytest.mark.parametrize("part", ["alertmanager", "sink", "prometheus"])
def test_alerting_killed_is_named_and_the_demo_stays(demo: Demo, part: str) -> None:
    demo.kill(part)
    assert demo.process.poll() is None


def test_ends_cleanly_and_leaves_nothing_running(demo: Demo) -> None:
    pids = demo.result["pids"]
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0, demo.said()
    assert "all parts have stopped" in demo.said()
    assert [name for name, pid in pids.items() if psutil.pid_exists(pid)] == []
