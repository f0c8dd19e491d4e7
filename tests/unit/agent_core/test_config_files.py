"""agent.yaml, its example, its environment and the commands that check, show and describe it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from agent.base.config import format_duration, loads, parse_duration
from agent.base.errors import ConfigError
from agent.base.web.webconfig import WebConfig
from agent.cli import main
from agent.settings import AgentConfig, agent_model, kinds, load_config, loads_config

EXAMPLE = Path(__file__).parents[3] / "deploy" / "agent.yaml"


def test_an_empty_file_runs_every_collector():
    config = loads_config("", environ={})
    assert set(config.enabled()) == set(kinds())
    assert config.listen == "127.0.0.1:9840"


def test_the_example_says_nothing_until_uncommented_and_is_right_then():
    assert load_config(EXAMPLE, environ={}) == loads_config("", environ={})
    text = re.sub(r"^#(?! )|^#(?=  )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    config = loads_config(text, environ={})
    assert config.node == "gpu-node-17"
    assert config.collectors.gpu.expected == 8
    assert [engine.kind for engine in config.collectors.inference.engines] == ["vllm", "llama.cpp"]
    missing = set(AgentConfig.model_fields) - set(yaml.safe_load(text))
    assert missing == set(), "every top-level setting is shown"


def test_a_collector_may_be_switched_off():
    config = loads_config("collectors: {gpu: {enabled: false}}", environ={})
    assert "gpu" not in config.enabled()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tick: 1s\nlisten: localhost", r"config:2: listen: must be host:port .*got 'localhost'"),
        ("colectors: {}", r"config:1: colectors: unknown key; allowed: .*collectors"),
        ("collectors:\n  gpu:\n    perod: 1s", r"config:3: collectors\.gpu\.perod: unknown key; allowed: .*period"),
        ("tick: 5", r"config:1: tick: must be a duration with a unit"),
        ("tick: 1h", r"config:1: tick: .*less than or equal to 15"),
        ("log: {level: loud}", r"log\.level: .*'debug', 'info', 'warning' or 'error', got 'loud'"),
        ("collectors: {gpu: {enabled: maybe}}", r"collectors\.gpu\.enabled: .*got 'maybe'"),
        ("tick: 1s\ntick: 2s", r"config:2: key 'tick' is given twice"),
        ("- a", r"config:1: must be a mapping"),
        ("a: [", r"config:\d"),
        ("tick: 1s\nlisten: \x01", r"config:2: the character '\\x01' is not allowed"),
        ("node: 2001-99-99", r"config:1: .*month"),
        ("node: !!int x", r"config:1: .*int"),
        ("node: " + "[" * 5000, r"config:1: .*recursion"),
        ("? [a]\n: b", r"config:1"),
        ("collectors: 5", r"config:1: collectors: must be a mapping of settings, got int"),
        ("collectors:\n  gpu: [a]", r"config:2: collectors\.gpu: must be a mapping of settings, got list"),
        ("prometheus_url: prom:9090", r"config:1: prometheus_url: must be an http or https address .*got 'prom:9090'"),
        (
            "alertmanager_urls:\n- http://a:9093\n- b:9093",
            r"config:3: alertmanager_urls\.1: must be an http .*'b:9093'",
        ),
        ("alertmanager_urls: ['http:///x']", r"alertmanager_urls\.0: must be an http or https address"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text, problem):
    with pytest.raises(ConfigError, match=problem):
        loads_config(text, environ={})


@pytest.mark.parametrize(
    "text",
    [
        "---\n# all in comments\n",
        "null",
        "collectors:\n",
        "collectors:\n  gpu:\n  inference:\n",
        "log:\ncollectors: {}",
    ],
)
def test_a_section_in_which_all_is_commented_out_has_its_defaults(text):
    assert loads_config(text, environ={}) == loads_config("", environ={})


def test_a_section_that_may_be_left_out_is_left_out_where_it_is_null():
    assert loads(WebConfig, "tls_server_config:\nhttp_server_config:\n", environ={}).tls_server_config is None
    assert loads_config("collectors: {chassis: {redfish: null}}", environ={}).collectors.chassis.redfish is None


def test_the_environment_overrides_the_file_and_is_named_when_wrong():
    config = loads_config("tick: 2s", environ={"GPUVIGIL_TICK": "3s", "GPUVIGIL_COLLECTORS__GPU__EXPECTED": "8"})
    assert config.collectors.gpu.expected == 8
    assert config.tick == 3
    assert loads_config("tick: 2s", environ={"GPUVIGIL_SIM_STATE": "x"}).tick == 2, "the simulator's own"
    for name, value in (
        ("GPUVIGIL_COLLECTORS__GPU__EXPECTED", "many"),
        ("GPUVIGIL_LISTEN", "junk"),
        ("GPUVIGIL_FOO", "1"),
        ("GPUVIGIL_COLLECTORS__GPV", "{expected: 8}"),
    ):
        with pytest.raises(ConfigError, match=f"environment {name}"):
            loads_config("", environ={name: value})
    with pytest.raises(ConfigError, match="set by another variable"):
        loads_config("", environ={"GPUVIGIL_LOG": "x", "GPUVIGIL_LOG__LEVEL": "info"})


def test_mistakes_are_told_in_the_order_of_the_file():
    text = "".join(f"wrong{number}: 1\n" for number in range(12))
    with pytest.raises(ConfigError) as error:
        loads_config(text, environ={})
    assert [int(line.split(":")[1]) for line in str(error.value).splitlines()] == list(range(1, 13))


@pytest.mark.parametrize("kind", ["agent", "central"])
def test_the_kind_of_a_file_is_told_by_its_name(kind, capsys):
    assert main(["config", "check", str(EXAMPLE.with_name(f"{kind}.yaml"))]) == 0


@pytest.mark.parametrize("seconds", [0, 0.25, 0.0001, 1, 15, 60, 90, 3600, 86400, 90061, 1209600])
def test_durations_are_read_back(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


def test_config_check_is_for_scripts(tmp_path, capsys):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("tick: 1s\n")
    bad.write_text("tick: 1s\nlisten: nowhere\n")
    assert main(["config", "check", str(good)]) == 0
    assert main(["config", "check", str(bad)]) == 2
    assert f"{bad}:2: listen:" in capsys.readouterr().err
    assert main(["config", "check", str(tmp_path / "none.yaml")]) == 2
    assert main(["config", "check", "--kind", "web", str(good)]) == 2


@pytest.mark.parametrize(
    ("web", "said"),
    [
        ("tls_server_config: {cert_file: no.pem, key_file: no.key}", "no.pem"),
        ("basic_auth_users: {a: b}", "web.yaml:1: basic_auth_users"),
    ],
)
def test_config_check_finds_what_would_keep_the_agent_from_starting(tmp_path, capsys, web, said):
    """The web configuration and the files that it names, too, by itself or from agent.yaml."""
    file, config = tmp_path / "web.yaml", tmp_path / "agent.yaml"
    config.write_text(f"web_config_file: {file}\n")
    assert main(["config", "check", str(config)]) == 0, "a file is often checked elsewhere than it is used"
    assert "was not checked" in capsys.readouterr().err
    file.write_text(web)
    for checked in (file, config):
        assert main(["config", "check", str(checked)]) == 2
        assert said in capsys.readouterr().err
    file.write_text("basic_auth_users: {}\n")
    assert main(["config", "check", str(config)]) == 0


def test_config_show_can_be_read_back(tmp_path, capsys):
    assert main(["config", "show"]) == 0
    shown = capsys.readouterr().out
    assert loads_config(shown, environ={}) == loads_config("", environ={})


def test_config_show_hides_passwords(tmp_path, capsys):
    path = tmp_path / "agent.yaml"
    path.write_text("prometheus_url: http://user:hunter2@prometheus:9090\n")
    assert main(["config", "show", "--config", str(path), "-o", "json"]) == 0
    assert "hunter2" not in capsys.readouterr().out


def test_config_schema_describes_every_setting_with_its_unit(capsys):
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == set(agent_model().model_fields)
    period = schema["$defs"]["DrillSettings"]["properties"]["period"]
    assert (period["type"], period["default"]) == ("string", "2s")
    assert all("description" in each for each in schema["properties"].values())
