"""Where alerts go: built from routing.yaml, judged by amtool."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import cli
from agent.base import config
from agent.base.errors import CannotTell, ConfigError
from alerts.routing import amtool, build
from alerts.routing.settings import RoutingConfig, sink
from alerts.rules import registry
from alerts.rules.thresholds import PROFILES

needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None, reason="amtool is not here (apt: prometheus-alertmanager)"
)

FULL = """
channels:
  hook: {webhook: {url: "http://127.0.0.1:9/page", bearer_token_file: /secrets/hook}}
  basic: {webhook: {url: "http://127.0.0.1:9/b", username: u, password_file: /secrets/b}}
  mail: {email: {to: a@example.org, sender: b@example.org, smarthost: "m:587", username: u, password_file: /secrets/m}}
  talk: {slack: {api_url_file: /secrets/slack, channel: "#x"}}
  duty: {pagerduty: {routing_key_file: /secrets/pd}}
  wecom: {wechat: {corp_id: c, agent_id: "1", api_secret_file: SECRET, to_party: "2"}}
receivers: {page: [duty, hook], ticket: [mail, basic], drill: [talk, wecom], watchdog: [hook]}
teams:
  serving: {match: {scope: engine}, page: [talk]}
  east: {match: {cluster: "=~east-.*"}, page: [hook], ticket: [mail]}
"""


@pytest.fixture
def full(tmp_path: Path) -> RoutingConfig:
    secret = tmp_path / "wecom"
    secret.write_text("s3cret\n")
    return config.loads(RoutingConfig, FULL.replace("SECRET", str(secret)), environ={})


@needs_amtool
def test_amtool_accepts_every_channel_and_route(full: RoutingConfig) -> None:
    assert amtool.problems(build.text(full)) == []


@needs_amtool
def test_amtool_accepts_the_sink() -> None:
    assert amtool.problems(build.text(sink("http://127.0.0.1:9843"))) == []


@needs_amtool
@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"alertname": "HealthzSlow", "severity": "page", "scope": "engine"}, ["page", "serving-page"]),
        ({"alertname": "GpuLost", "severity": "page", "cluster": "east-1"}, ["page", "east-page"]),
        ({"alertname": "GpuLost", "severity": "page", "cluster": "west-1"}, ["page"]),
        ({"alertname": "DiskFull14d", "severity": "ticket", "cluster": "east-1"}, ["ticket", "east-ticket"]),
        ({"alertname": "HealthzSlow", "severity": "ticket", "scope": "engine"}, ["ticket"]),
        # a drill reaches no team either, however their labels match
        ({"alertname": "HealthzSlow", "severity": "page", "scope": "engine", "drill": "d"}, ["drill"]),
        ({"alertname": "GpuLost", "severity": "page", "cluster": "east-1", "synthetic": "true"}, ["drill"]),
    ],
)
def test_teams_are_told_besides(
    full: RoutingConfig, tmp_path: Path, labels: dict[str, str], receivers: list[str]
) -> None:
    path = tmp_path / "am.yml"
    path.write_text(build.text(full))
    assert amtool.receivers(path, labels) == receivers


@needs_amtool
@pytest.mark.parametrize("alert", registry.alerts(PROFILES["default"]), ids=lambda a: f"{a.name}-{a.severity}")
def test_every_alert_reaches_the_receiver_of_its_severity(alert: Any, tmp_path: Path) -> None:
    path = tmp_path / "am.yml"
    path.write_text(build.text(sink("http://127.0.0.1:9")))
    labels = {"alertname": alert.name, **alert.labels, "cluster": "c", "node": "n"}
    wanted = {"page": "page", "ticket": "ticket", "info": "null", "none": "watchdog"}[alert.severity]
    assert amtool.receivers(path, labels) == [wanted]


@needs_amtool
def test_a_broken_route_is_found() -> None:
    document = build.alertmanager(sink("http://127.0.0.1:9"))
    document["route"]["routes"] = [one for one in document["route"]["routes"] if one["receiver"] != "drill"]
    found = amtool.problems(yaml.safe_dump(document))
    assert any("should reach drill" in problem for problem in found)


@needs_amtool
def test_what_amtool_refuses_is_reported() -> None:
    [problem] = amtool.problems("route: {receiver: nobody}\nreceivers: []\n")
    assert "nobody" in problem


def test_drills_go_at_the_pace_and_in_the_groups_of_pages(full: RoutingConfig) -> None:
    routes = build.alertmanager(full)["route"]["routes"]
    [page] = [route for route in routes if route["receiver"] == "page"]
    for drill in (route for route in routes if route["receiver"] == "drill"):
        assert drill["group_by"] == [*page["group_by"], "drill"]
        for pace in ("group_wait", "group_interval", "repeat_interval"):
            assert drill[pace] == page[pace]


def test_only_drills_say_drill_in_their_title(full: RoutingConfig) -> None:
    for receiver in build.alertmanager(full)["receivers"]:
        text = yaml.safe_dump(receiver)
        assert ("[DRILL]" in text) == (receiver["name"] == "drill")


def test_inhibitions_need_a_fault_and_keep_drills_apart() -> None:
    for rule in build.INHIBITIONS:
        assert "drill" in rule["equal"]
        assert "cluster" in rule["equal"]
        by_name = any(one.startswith("alertname=") for one in rule["target_matchers"])
        assert by_name or 'fault!=""' in rule["target_matchers"]


def test_wechats_secret_is_in_a_file_for_its_owner_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret, source, built = tmp_path / "wecom", tmp_path / "routing.yaml", tmp_path / "am.yml"
    secret.write_text("s3cret\n")
    source.write_text(FULL.replace("SECRET", str(secret)))
    built.write_text("older, readable by all")
    assert cli.main(["alerts", "routing", "build", "--config", str(source), "-o", str(built)]) == 0
    assert stat.S_IMODE(built.stat().st_mode) == 0o600
    assert "s3cret" in built.read_text()
    assert "s3cret" not in "".join(capsys.readouterr())


def test_building_without_a_file_is_said_loudly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = tmp_path / "am.yml"
    assert cli.main(["alerts", "routing", "build", "--sink", "http://127.0.0.1:7/", "-o", str(built)]) == 0
    assert "every alert goes to the webhook sink at http://127.0.0.1:7" in capsys.readouterr().err
    document = yaml.safe_load(built.read_text())
    urls = {one["name"]: one["webhook_configs"][0]["url"] for one in document["receivers"] if one["name"] != "null"}
    assert urls == {duty: f"http://127.0.0.1:7/{duty}" for duty in ("page", "ticket", "drill", "watchdog")}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("chanels: {}", "unknown key; allowed: channels"),
        ("channels: {a: {}}\nreceivers: {page: [a], ticket: [a], drill: [a]}", "exactly one of webhook"),
        (
            'channels: {a: {webhook: {url: "http://x"}}}\nreceivers: {page: [b], ticket: [a], drill: [a]}',
            "receivers.page: no channel ['b']",
        ),
        ('channels: {a: {webhook: {url: "ftp://x"}}}\nreceivers: {page: [a], ticket: [a], drill: [a]}', "routing:1"),
        ('channels: {a: {webhook: {url: "http://x"}}}\nreceivers: {ticket: [a], drill: [a]}', "page: is required"),
    ],
)
def test_bad_routing_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.loads(RoutingConfig, text, name="routing", environ={})
    assert told in str(error.value)


def test_a_secret_that_is_not_there_names_its_file(full: RoutingConfig, tmp_path: Path) -> None:
    (tmp_path / "wecom").unlink()
    with pytest.raises(ConfigError, match=r"api_secret_file .*wecom: cannot be read"):
        build.text(full)


def test_no_amtool_is_said_with_the_fix() -> None:
    with pytest.raises(CannotTell, match="apt install prometheus-alertmanager"):
        amtool.problems("", amtool="amtool-that-is-not-here")
