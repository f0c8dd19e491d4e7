"""central.yaml: defaults that need no file, errors with file and line, presets that Prometheus accepts."""

import json
import shutil
import subprocess

import pytest

from agent.base.config import loads
from agent.base.errors import ConfigError
from agent.cli import main
from alerts.central.presets import NAMES, monitors_of, resources_of
from alerts.central.settings import Settings


def load(text):
    return loads(Settings, text, name="central.yaml", environ={})


def test_a_newcomer_writes_no_monitor():
    settings = load("")
    names = [m.name for m in monitors_of(settings)] + [r.name for r in resources_of(settings)]
    assert len(names) == len(set(names)) > 10
    assert "disk" in names
    assert "power-budget" in names


def test_whoever_writes_one_gets_what_is_asked_for():
    own = "monitors:\n- {name: a, query: x}\n"
    assert monitors_of(load(own)) == ()
    some = load(own + "presets: [node]\n")
    assert {"cpu-utilization", "memory-available"} <= {m.name for m in monitors_of(some)}
    assert "gpu-power" not in {m.name for m in monitors_of(some)}
    taken = load("monitors:\n- {name: cpu-utilization, query: x}\npresets: [node]\n")
    assert "cpu-utilization" not in {m.name for m in monitors_of(taken)}


@pytest.mark.skipif(not shutil.which("promtool"), reason="prometheus is not installed")
def test_every_preset_is_promql(tmp_path):
    settings = load(f"presets: [{', '.join(NAMES)}]")
    rules = "groups:\n- name: presets\n  rules:\n"
    for number, made in enumerate((*monitors_of(settings), *resources_of(settings))):
        rules += f"  - record: preset:{number}\n    expr: |\n      {made.query}\n"
    (tmp_path / "rules.yml").write_text(rules)
    result = subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("monitors:\n- {name: a, query: x, model: profet}", r"central.yaml:2: monitors.0.model: must be one of auto"),
        ("monitors:\n- {name: a, query: x, step: 5}", r"central.yaml:2: monitors.0.step: must be a duration"),
        ("monitors:\n- {name: a, query: x}\n- {name: a, query: y}", r"two monitors are called 'a'"),
        ("monitors:\n- {name: a, query: x, min_history: 30d}", r"warm up for ever"),
        ("monitors:\n- {name: a, query: x, synthetic: maybe}", r"central.yaml:2: monitors.0.synthetic"),
        ("monitors:\n- {name: a, query: x, data_range: [1, 0]}", r"data_range must be"),
        ("monitors:\n- {name: 'a b', query: x}", r"must be letters"),
        ("colour: red", r"central.yaml:1: colour: unknown key; allowed: capacity"),
        ("prometheus: {url: localhost}", r"central.yaml:1: prometheus.url"),
        ("members: 2\nmember: 2", r"numbered from 0"),
        ("training: {jobs: [{job_id: j, schedule: [[5, 1]]}]}", r"schedule must be"),
        ("presets: [gpus]", r"central.yaml:1: presets.0"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text, reason):
    with pytest.raises(ConfigError, match=reason):
        load(text)


def test_events_are_dates():
    (event,) = load("events:\n- {name: holiday, dates: [1970-01-11, 1970-01-21], after: 1}\n").events
    assert event.event().days == (10, 20)


def test_check_asks_prometheus_for_every_query(prometheus, tmp_path, capsys):
    prometheus.series = {(("a", "1"),): lambda t: 1.0}
    path = tmp_path / "central.yaml"
    path.write_text(f"prometheus: {{url: '{prometheus.url}'}}\nmonitors:\n- {{name: good, query: x}}\n")
    assert main(["central", "check", "--config", str(path)]) == 0
    assert "good: 1 series" in capsys.readouterr().out
    assert main(["central", "check", "--config", str(path), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"queries": [{"name": "good", "result": "good", "series": 1}]}
    assert main(["central", "check", "--config", str(path), "--offline", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"monitors": 1, "capacity": 0}
    assert main(["central", "check", "--config", str(path), "--offline"]) == 0
    prometheus.failure = (400, {"status": "error", "error": "parse error at char 3"})
    assert main(["central", "check", "--config", str(path)]) == 1
    assert "parse error at char 3" in capsys.readouterr().out
    assert main(["central", "check", "--config", str(path), "-o", "json"]) == 1
    assert "parse error at char 3" in json.loads(capsys.readouterr().out)["queries"][0]["error"]


def test_a_counter_that_is_read_as_a_gauge_is_warned_of(prometheus, tmp_path, capsys):
    prometheus.series = {(("a", "1"),): lambda t: 1.0}
    path = tmp_path / "central.yaml"
    path.write_text(
        f"prometheus: {{url: '{prometheus.url}'}}\nmonitors:\n"
        "- {name: raw, query: requests_total}\n- {name: fine, query: 'rate(requests_total{a=\"b\"}[5m])'}\n"
    )
    assert main(["central", "check", "--config", str(path)]) == 0
    err = capsys.readouterr().err
    assert "raw" in err
    assert "rate(" in err
    assert "fine" not in err


def test_the_shipped_configuration_is_good(request, capsys):
    path = request.config.rootpath / "deploy/central.yaml"
    assert main(["central", "check", "--config", str(path), "--offline"]) == 0


def test_monitors_without_a_service_cannot_be_told(capsys):
    assert main(["central", "monitors", "--url", "http://127.0.0.1:1"]) == 3
    assert "127.0.0.1:1" in capsys.readouterr().err
