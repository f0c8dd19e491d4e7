"""Back-test, explanation and floors on a real Prometheus whose store holds three weeks of known history."""

import json
import shutil
import subprocess
import time
from datetime import datetime, timezone

import numpy as np
import pytest

from agent.cli import main
from alerts.detect.samples import sample
from bench.harness.processes import eventually, free_port, get, running

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not shutil.which("promtool"), reason="prometheus is not installed")]

STEP = 300
DAYS = 20
SPIKE = DAYS * 288 - 400
"""Row at which a spike of six points begins."""


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    """A configuration file, and the time of the spike."""
    folder = tmp_path_factory.mktemp("past")
    end = int(time.time()) // STEP * STEP - 2 * 3600
    values = sample("daily", DAYS * 288, STEP, seed=9)
    values[SPIKE : SPIKE + 6] += 200
    other = sample("noise", DAYS * 288, STEP, seed=9)
    times = end - STEP * np.arange(DAYS * 288)[::-1]
    lines = ["# TYPE load gauge\n"]
    for name, row in (("a", values), ("b", other)):
        lines += [f'load{{engine="{name}"}} {v:.4f} {t}\n' for t, v in zip(times, row, strict=True)]
    (folder / "load.om").write_text("".join(lines) + "# EOF\n")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=720h"]
    subprocess.run([*command, folder / "load.om", folder / "tsdb"], check=True, capture_output=True, timeout=300)
    port = free_port()
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    (folder / "central.yaml").write_text(
        f"prometheus: {{url: 'http://127.0.0.1:{port}'}}\n"
        "monitors:\n"
        "- {name: load, query: load, model: prophet_batched, step: 5m, min_dev_abs: 5, min_dev_rel: 0}\n"
        "- {name: robust, query: load, model: robust, step: 5m, min_dev_rel: 0}\n"
    )
    prometheus = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=60d",
    ]
    with running(prometheus, folder / "log"):
        eventually(lambda: get(f"http://127.0.0.1:{port}/-/ready"))
        yield folder / "central.yaml", int(times[SPIKE])


def iso(moment):
    return datetime.fromtimestamp(moment, timezone.utc).isoformat()


@pytest.mark.parametrize("monitor", ["load", "robust"])
def test_a_backtest_finds_the_spike_and_draws_it(past, capsys, tmp_path, monitor):
    config, spike = past
    span = ["--from", iso(spike - 86400), "--to", iso(spike + 86400)]
    arguments = ["detect", "backtest", "--monitor", monitor, "--config", str(config), *span]
    assert main([*arguments, "-o", "json", "--html", str(tmp_path / "chart.html")]) == 0
    rows = {row["series"]: row for row in json.loads(capsys.readouterr().out)["series"]}
    a, b = rows['{engine="a"}'], rows['{engine="b"}']
    hit = [alert for alert in a["alerted"] if alert[0] <= spike + STEP and alert[1] >= spike]
    assert hit
    assert a["highest"] > 3
    assert b["inside"] > 0.97
    assert a["scored"] == a["points"] == 577
    page = (tmp_path / "chart.html").read_text()
    assert page.count("<svg") == 2
    assert 'class="alert"' in page
    assert main(arguments) == 0
    assert '{engine="a"}' in capsys.readouterr().out


def test_a_backtest_says_the_same_whatever_comes_later(past, capsys):
    config, spike = past
    found = []
    for end in (spike + 6 * STEP, spike + 20 * STEP):
        span = ["--from", iso(spike - 3600), "--to", iso(end)]
        assert main(["detect", "backtest", "--monitor", "robust", "--config", str(config), *span, "-o", "json"]) == 0
        row = json.loads(capsys.readouterr().out)["series"][0]
        found.append([alert[0] for alert in row["alerted"] if alert[0] <= spike + 6 * STEP])
    assert found[0] == found[1]


def test_an_alert_is_explained(past, capsys):
    config, spike = past
    where = ["--monitor", "load", "--config", str(config), "--series", "engine=a", "-o", "json"]
    assert main(["detect", "explain", "--at", iso(spike + 2 * STEP), *where]) == 0
    (reason,) = json.loads(capsys.readouterr().out)["series"]
    assert reason["verdict"] == "an anomaly"
    assert reason["value"] > 200
    assert reason["expected"] < 100
    assert reason["decided by"] in ("the floor", "the model's interval")


def test_tuning_suggests_a_floor_that_leaves_few_alerts(past, capsys):
    config, spike = past
    span = ["--from", iso(spike - 2 * 86400), "--to", iso(spike + 86400)]
    assert main(["detect", "tune", "--monitor", "load", "--config", str(config), *span, "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rates = [row["alerts_per_day"] for row in found["floors"]]
    assert rates == sorted(rates, reverse=True)
    assert 0 < found["suggested"] < found["floors"][-1]["min_dev_abs"], "what hides everything is no suggestion"


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--monitor", "nobody"], 2, "there are: load, robust"),
        (["--monitor", "load", "--from", "yesterday"], 2, "ISO time"),
        (["--monitor", "load", "--from", "1h", "--to", "2h"], 2, "before"),
        (["--monitor", "load", "--from", "2001-01-01", "--to", "2001-01-02"], 3, "no points"),
    ],
)
def test_what_cannot_be_done_is_named(past, capsys, arguments, code, reason):
    assert main(["detect", "backtest", "--config", str(past[0]), *arguments]) == code
    assert reason in capsys.readouterr().err
