"""Central on a real Prometheus: warming up, scoring, forecasting, and living on while Prometheus is away."""

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.harness.processes import eventually, free_port, get, running

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")]

LIMIT = 240.0


class Target(http.server.ThreadingHTTPServer):
    """A page to scrape: a latency that is steady until told otherwise, a training job, a filling disk."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.begin = time.time()
        self.spike = 0.0
        self.drill = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            now, server = time.time(), self.server
            step = int((now - server.begin) / 0.5)
            page = f"""
latency_seconds{{engine="a",model="m"}} {0.1 + 0.001 * (int(now * 7) % 5) + server.spike}
latency_seconds{{engine="b",model="m"}} 0.2
simulated_watts{{synthetic="true"}} 7
gpuvigil_train_step{{job_id="j"}} {step}
gpuvigil_train_steps_planned{{job_id="j"}} 2000
gpuvigil_train_planned_seconds{{job_id="j"}} 500
gpuvigil_train_started_timestamp_seconds{{job_id="j"}} {server.begin}
gpuvigil_train_last_step_timestamp_seconds{{job_id="j"}} {server.begin + step * 0.5}
"""
            if server.drill:
                page += 'gpuvigil_drill_active{drill="d",scope="engine",engine="a"} 1\n'
            body = page.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


def backfill(folder):
    """A month of a disk that grows by 2 points a day and is at 80 % now, written into Prometheus' store."""
    hour = int(time.time()) // 3600
    lines = [
        f'used_ratio{{mountpoint="/"}} {0.8 - back / 1200 + 0.001 * (back % 5):.5f} {(hour - back) * 3600}\n'
        for back in range(30 * 24, -1, -1)
    ]
    (folder / "disk.om").write_text("# TYPE used_ratio gauge\n" + "".join(lines) + "# EOF\n")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=720h"]
    subprocess.run([*command, folder / "disk.om", folder / "tsdb"], check=True, capture_output=True, timeout=120)


@pytest.fixture
def house(tmp_path):
    """A target, a Prometheus that scrapes it each second, and central's configuration and addresses."""
    target = Target()
    prometheus, central = free_port(), free_port()
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "- job_name: gpuvigil-agent\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{target.server_port}'], labels: {{node: n1, cluster: c1}}}}]\n"
    )
    common = "step: 1s, fit_window: 5m, fit_every: 20s, min_history: 12s, min_dev_abs: 0.05"
    (tmp_path / "central.yaml").write_text(
        f"listen: 127.0.0.1:{central}\n"
        f"state_dir: {tmp_path / 'state'}\n"
        "mask_tail: 2s\n"
        f"prometheus: {{url: 'http://127.0.0.1:{prometheus}', timeout: 3s}}\n"
        "training: {every: 2s, step: 1s}\n"
        "monitors:\n"
        f"- {{name: by-prophet, query: latency_seconds, model: prophet, {common}}}\n"
        f"- {{name: by-ewma, query: latency_seconds, model: ewma, {common}}}\n"
        f"- {{name: simulated, query: simulated_watts, model: ewma, {common}}}\n"
        f"- {{name: simulated-too, query: simulated_watts, model: ewma, synthetic: include, {common}}}\n"
        f"- {{name: too-many, query: latency_seconds, model: ewma, series_limit: 1, {common}}}\n"
        "capacity:\n"
        "- {name: disk, query: used_ratio, every: 3s}\n"
    )
    backfill(tmp_path)
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{prometheus}",
    ]
    house = type("House", (), {})()
    house.target, house.prometheus, house.folder = target, command, tmp_path
    house.url, house.prometheus_url = f"http://127.0.0.1:{central}", f"http://127.0.0.1:{prometheus}"
    house.central = [sys.executable, "-m", "agent.cli", "central", "run", "--config", str(tmp_path / "central.yaml")]
    house.states = lambda: {m["name"]: m for m in json.loads(get(house.url + "/api/v1/monitors"))["monitors"]}

    def samples(name):
        families = text_string_to_metric_families(get(house.url + "/metrics"))
        return [sample for family in families for sample in family.samples if sample.name == name]

    house.samples = samples
    yield house
    target.shutdown()
    target.server_close()


def test_central_watches_a_real_prometheus(house):
    log = house.folder / "log"
    with running(house.prometheus, log) as prometheus, running(house.central, log) as central:
        states = eventually(lambda: (s := house.states()) and "s of 12 s of" in s["by-ewma"]["why"] and s)
        assert states["by-ewma"]["state"] == "warming_up"
        assert not house.samples("gpuvigil_anomaly_score")

        slowest, worst = time.monotonic(), 0.0
        while time.monotonic() - slowest < LIMIT:  # Prophet's first import happens in here
            before = time.monotonic()
            assert get(house.url + "/healthz") == "ok\n"
            worst = max(worst, time.monotonic() - before)
            states = house.states()
            if all(states[name]["state"] == "ok" for name in ("by-prophet", "by-ewma", "disk", "training-eta")):
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"monitors did not become ok: {states}")
        assert worst < 5.0, "a fit must not stop the pages"

        assert states["too-many"]["state"] == "error"
        assert "2 series where at most 1 are allowed" in states["too-many"]["why"]
        assert states["simulated"]["state"] == "no_data"
        assert states["simulated"]["series"] == 0
        assert states["simulated-too"]["series"] == 1

        def scored():  # the first point after the fit has to come before there is a score
            scores = [s for s in house.samples("gpuvigil_anomaly_score") if "engine" in s.labels]
            found = {(s.labels["monitor"], s.labels["engine"]): s for s in scores}
            return found if set(found) == {(m, e) for m in ("by-prophet", "by-ewma") for e in "ab"} else None

        found = eventually(scored)
        assert found
        labels = found["by-prophet", "a"].labels
        assert labels["model"] == "prophet"
        assert labels["exported_model"] == "m"
        assert (labels["node"], labels["cluster"]) == ("n1", "c1")
        assert all(s.value < 1 for s in found.values())

        (eta,) = house.samples("gpuvigil_train_eta_seconds")
        true_end = house.target.begin + 1000
        assert eta.value == pytest.approx(true_end - time.time(), abs=30)
        deviations = {s.labels["bound"]: s for s in house.samples("gpuvigil_train_eta_deviation_ratio")}
        assert deviations["expected"].value == pytest.approx(1.0, abs=0.05)  # planned 500 s, takes 1,000 s
        assert deviations["expected"].labels["plan"] == "configured"
        assert deviations["low"].value <= deviations["expected"].value <= deviations["high"].value

        bounds = {s.labels["bound"]: s for s in house.samples("gpuvigil_capacity_exhaustion_seconds")}
        assert bounds["expected"].value == pytest.approx(10 * 86400, rel=0.1)
        assert bounds["low"].value <= bounds["expected"].value
        assert bounds["expected"].labels["monitor"] == "disk"
        (answer,) = house.samples("gpuvigil_capacity_state")
        assert answer.labels["state"] == "ok"

        house.target.spike = 1.0
        anomalous = {("by-prophet", "a"), ("by-ewma", "a")}

        def above_one():
            return {(s.labels["monitor"], s.labels["engine"]) for s in house.samples("gpuvigil_anomaly_score")
                    if "engine" in s.labels and s.value > 1}  # fmt: skip

        assert eventually(lambda: above_one() == anomalous)

        # a drill on engine a: neither learnt nor scored, while engine b goes on
        house.target.drill = True
        engines = eventually(
            lambda: (
                (e := {s.labels["engine"] for s in house.samples("gpuvigil_yhat") if "engine" in s.labels}) == {"b"}
                and e
            )
        )
        assert engines == {"b"}
        house.target.drill, house.target.spike = False, 0.0
        assert eventually(lambda: len(house.samples("gpuvigil_yhat")) == 5)

        # Prometheus hangs, then dies, then comes back
        prometheus.send_signal(signal.SIGSTOP)
        eventually(lambda: "timeout" in house.states()["by-ewma"]["why"])
        assert house.states()["by-ewma"]["state"] == "stale"
        eventually(lambda: not house.samples("gpuvigil_anomaly_score"))
        assert get(house.url + "/healthz") == "ok\n"
        prometheus.send_signal(signal.SIGCONT)
        eventually(lambda: house.states()["by-ewma"]["state"] == "ok")
        prometheus.terminate()
        prometheus.wait(30)
        eventually(lambda: "refused" in house.states()["by-ewma"]["why"])
        reasons = {s.labels["reason"] for s in house.samples("gpuvigil_central_read_errors_total")}
        assert {"timeout", "refused"} <= reasons
        outcomes = {s.labels["outcome"] for s in house.samples("gpuvigil_monitor_runs_total")}
        assert {"ok", "timeout", "refused", "budget"} <= outcomes
        assert central.poll() is None
        with running(house.prometheus, log):
            eventually(lambda: house.states()["by-prophet"]["state"] == "ok")
            central.terminate()
            assert central.wait(20) == 0
    assert "Traceback" not in log.read_text()


def test_a_killed_service_goes_on_where_it_was_and_a_reload_disturbs_nobody(house):
    log, settings = house.folder / "log", house.folder / "central.yaml"
    settings.write_text(settings.read_text() + "save_every: 1s\n")
    with running(house.prometheus, log):
        with running(house.central, log) as central:
            eventually(lambda: house.states()["by-prophet"]["state"] == "ok")
            fitted = house.states()["by-prophet"]["fitted_at"]
            time.sleep(3)
            central.kill()
            central.wait()
        with running(house.central, log) as central:
            eventually(lambda: house.states()["by-prophet"]["state"] == "ok", 20)
            again = house.states()
            assert again["by-prophet"]["fitted_at"] >= fitted
            assert "state restored" in log.read_text()
            eventually(lambda: house.states()["by-ewma"]["state"] == "ok")  # an online model learns from the points

            good = settings.read_text()
            settings.write_text(good + "colour: red\n")
            central.send_signal(signal.SIGHUP)
            eventually(lambda: house.samples("gpuvigil_config_last_reload_successful")[0].value == 0)
            assert house.states()["by-ewma"]["state"] == "ok"
            more = good.replace(
                "capacity:", "- {name: new, query: up, model: ewma, step: 1s, fit_window: 5m}\ncapacity:"
            )
            settings.write_text(more.replace("fit_window: 5m}", "fit_window: 5m, min_history: 20s}"))
            eventually(lambda: "new" in house.states())  # it is seen without a signal
            assert house.samples("gpuvigil_config_last_reload_successful")[0].value == 1
            assert house.states()["by-ewma"]["state"] == "ok"
            settings.write_text(good)
            eventually(lambda: "new" not in house.states())
            eventually(lambda: house.states()["by-ewma"]["state"] == "ok")
    assert "Traceback" not in log.read_text()


def test_workers_end_when_the_service_is_killed(house):
    log = house.folder / "log"
    with running(house.prometheus, log), running(house.central, log) as central:
        children = f"/proc/{central.pid}/task/{central.pid}/children"

        def workers():
            names = {}
            for task in os.listdir(f"/proc/{central.pid}/task"):
                with open(children.replace(f"task/{central.pid}", f"task/{task}")) as file:
                    for pid in file.read().split():
                        with open(f"/proc/{pid}/cmdline") as line:
                            names[pid] = line.read()
            return {pid for pid, name in names.items() if "spawn_main" in name}

        found = eventually(workers)
        central.kill()
        central.wait()
        eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in found))


def test_an_address_in_use_is_named(house):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", int(house.url.rpartition(":")[2])))
        sock.listen()
        result = subprocess.run(house.central, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "in use by pid" in result.stderr
