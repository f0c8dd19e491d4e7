"""The query check on a real Prometheus: finds data where there is some, and names what is empty."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from agent.base.catalogue import Metric, load_all
from agent.base.errors import CannotTell
from bench.harness.processes import eventually, free_port, get, running
from dashboards.boards import load_all as load_boards
from dashboards.lib import Board, Json
from dashboards.query_check import check, substitute

NAMES = {
    "sensor": "core",
    "clock": "sm",
    "reason": "hw_thermal",
    "action": "RESET_GPU",
    "bound": "expected",
    "engine": "a",
    "job_id": "j",
    "source": "probe",
    "gpu": "0",
    "uuid": "GPU-1",
    "stat": "max",
}


def lines(metric: Metric, now: float, missing: str) -> Iterator[str]:
    if metric.stem == missing:
        return
    labels = {"job": "gpuvigil-agent", "cluster": "c", "node": "n"}
    labels |= {label: NAMES.get(label, "x") for label in metric.labels}
    extra = [{"le": "0.5"}, {"le": "+Inf"}] if metric.kind == "histogram" else [{}]
    if metric.stem == "gpuvigil_train_eta_deviation_ratio":
        extra = [{"bound": bound} for bound in ("expected", "low", "high")]
    kind = {"info": "gauge", "counter": "counter"}.get(metric.kind, metric.kind)
    if metric.dynamic:
        labels |= {"job_id": "j"}
    yield f"# TYPE {metric.stem if kind == 'counter' else metric.series[0].removesuffix('_bucket')} {kind}"
    for age in range(180, -1, -5):
        for more in extra:
            text = ",".join(f'{key}="{value}"' for key, value in (labels | more).items())
            name = metric.series[0]
            yield f"{name}{{{text}}} {1000 - age} {now - age:.3f}"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tsdb")
    for tool in ("promtool", "prometheus"):
        if not shutil.which(tool):
            pytest.fail(f"{tool} is missing: apt install prometheus")
    now = time.time()
    text = [line for metric in load_all().values() for line in lines(metric, now, "gpuvigil_train_loss")]
    text += ["# TYPE up gauge"]
    text += [f'up{{job="gpuvigil-agent",cluster="c",node="n"}} 1 {now - age:.3f}' for age in range(180, -1, -5)]
    source = folder / "data.om"
    source.write_text("\n".join([*text, "# EOF"]) + "\n")
    data = folder / "data"
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(source), str(data)],
        check=True,
        capture_output=True,
    )
    (folder / "prometheus.yml").write_text("global: {}\n")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, folder / "log"):
        eventually(lambda: get(f"{url}/-/ready"))
        yield url


@pytest.mark.parametrize("uid", ["gpuvigil-fleet", "gpuvigil-training"])
def test_only_the_metric_that_is_gone_is_named(prometheus: str, uid: str) -> None:
    board, dashboard = load_boards()[uid]
    problems = [finding for finding in check(prometheus, board, dashboard) if finding.problem]
    assert [finding.expression.expr.partition("{")[0] for finding in problems] == (
        ["gpuvigil_train_loss"] if uid == "gpuvigil-training" else []
    ), problems


def test_a_query_that_prometheus_refuses_is_named(prometheus: str) -> None:
    dashboard: Json = {
        "panels": [{"id": 1, "title": "p", "targets": [{"refId": "A", "expr": "rate(up)", "instant": True}]}],
        "templating": {"list": []},
        "annotations": {"list": []},
    }
    (finding,) = check(prometheus, Board("x", "x", "x"), dashboard)
    assert finding.problem.startswith("refused: ")


def test_no_prometheus_is_cannot_tell() -> None:
    board, dashboard = load_boards()["gpuvigil-fleet"]
    with pytest.raises(CannotTell, match="does not answer"):
        check("http://127.0.0.1:1", board, dashboard)


def test_a_variable_nobody_knows_is_refused() -> None:
    assert substitute('up{node=~"$node"}', {"node": ".+"}) == 'up{node=~".+"}'
    with pytest.raises(ValueError, match="left"):
        substitute('up{rack=~"$rack"}', {})
