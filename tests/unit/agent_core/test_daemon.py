"""The agent as a process: readiness, reload, watchdog, clean stop. Runs the real command."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

QUIET = "listen: 127.0.0.1:0\nstate_dir: {0}/state\nrun_dir: {0}/run\ntick: 100ms\ncollectors:\n{1}"


def quiet_config(folder, listen="127.0.0.1:0", **over):
    """A configuration on which only the drill collector runs."""
    from agent.settings import kinds

    lines = [f"  {name}: {{enabled: {'true' if name in ('drill', 'maintenance') else 'false'}}}\n" for name in kinds()]
    text = QUIET.format(folder, "".join(lines)).replace("127.0.0.1:0", listen)
    for key, value in over.items():
        text = re.sub(rf"^{key}: .*$", f"{key}: {value}", text, flags=re.MULTILINE)
    return text


class Agent:
    def __init__(self, config, env=None):
        self.config = config
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "agent", "run", "--config", str(config)],
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            text=True,
        )
        self.log = []

    def wait_for(self, pattern):
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"the agent ended before {pattern!r}: {''.join(self.log)}")

    def listening(self):
        self.port = int(self.wait_for(r"address=127\.0\.0\.1:(\d+)").group(1))
        return self.port

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            return answer.read().decode()

    def ready(self):
        try:
            return self.get("/readyz").startswith("ready")
        except urllib.error.HTTPError as not_yet:
            with not_yet:
                said = not_yet.read().decode()
        if not said.startswith("503: first run not finished"):
            raise AssertionError(said)
        return False

    def value(self, name):
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name == name:
                    return sample.value
        return None

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        rest = self.process.communicate(timeout=30)[1]
        self.log.append(rest)
        return self.process.returncode


@pytest.fixture
def agent(tmp_path):
    started = []

    def start(env=None, **over):
        config = tmp_path / "agent.yaml"
        config.write_text(quiet_config(tmp_path, **over))
        started.append(Agent(config, env))
        return started[-1]

    yield start
    for each in started:
        each.end(signal.SIGKILL)
        each.process.stderr.close()


@pytest.fixture
def notify(tmp_path):
    """A systemd that listens: the datagrams as dictionaries."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)

        def receive(key):
            while True:
                said = dict(line.split("=", 1) for line in sock.recv(4096).decode().splitlines())
                if key in said:
                    return said

        receive.env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
        yield receive


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops_cleanly(agent, until, number):
    running = agent()
    running.listening()
    assert running.get("/healthz") == "ok\n"
    until(running.ready)
    assert running.value("gpuvigil_config_last_reload_successful") == 1
    assert "gpuvigil agent" in running.get("/")
    assert running.end(number) == 0
    assert "stopping" in "".join(running.log)


def test_it_speaks_to_systemd(agent, notify):
    running = agent(env=notify.env)
    assert "listening on" in notify("READY")["STATUS"]
    running.listening()
    assert notify("WATCHDOG")["WATCHDOG"] == "1", "fed by the tick"
    assert "collectors" in notify("STATUS")["STATUS"]
    running.process.send_signal(signal.SIGHUP)
    assert int(notify("RELOADING")["MONOTONIC_USEC"]) > 0
    notify("READY")
    running.process.send_signal(signal.SIGTERM)
    notify("STOPPING")
    assert running.end() == 0


def test_a_bad_reload_keeps_the_old_configuration_and_says_so(agent, until):
    running = agent()
    running.listening()
    good = running.config.read_text()
    running.config.write_text(good + "colectors: {}\n")
    running.process.send_signal(signal.SIGHUP)
    line = running.wait_for("reload refused").string
    assert f"{running.config}:" in line
    assert "colectors" in line
    until(lambda: running.value("gpuvigil_config_last_reload_successful") == 0)
    assert running.get("/healthz") == "ok\n"
    running.config.write_text(good.replace("  maintenance: {enabled: true}", "  maintenance: {enabled: false}"))
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.value("gpuvigil_config_last_reload_successful") == 1)
    until(lambda: 'collector="maintenance"' not in running.get("/metrics"))


def test_what_cannot_change_while_running_is_refused_by_name(agent, until):
    running = agent()
    running.listening()
    running.config.write_text(running.config.read_text().replace("127.0.0.1:0", "127.0.0.1:1"))
    running.process.send_signal(signal.SIGHUP)
    assert "listen: a change needs a restart" in running.wait_for("reload refused").string


def test_a_port_in_use_ends_it_with_the_holder_and_code_2(agent):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        running = agent(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        assert running.end(0) == 2
    assert f"in use by pid {os.getpid()} (" in "".join(running.log)


def test_a_bad_configuration_ends_it_with_code_2(agent):
    running = agent(tick="5")
    assert running.end(0) == 2
    assert "tick: must be a duration with a unit" in "".join(running.log)


def test_metrics_part_by_part(agent, until):
    running = agent()
    running.listening()
    until(running.ready)
    part = running.get("/metrics?collect[]=maintenance")
    assert "gpuvigil_node_maintenance_until_timestamp_seconds 0.0" in part
    assert "gpuvigil_build_info" not in part
    with pytest.raises(urllib.error.HTTPError) as refused:
        running.get("/metrics?collect[]=nonsense")
    assert refused.value.code == 400
    assert "maintenance" in refused.value.read().decode()
    refused.value.close()


def test_maintenance_set_on_the_command_line_is_on_the_page(agent, until):
    running = agent()
    running.listening()
    command = [sys.executable, "-m", "agent.cli", "agent", "maintenance"]
    config = ["--config", str(running.config)]
    subprocess.run([*command, "on", "--for", "2h", "--why", "fan", *config], check=True, capture_output=True)
    name = "gpuvigil_node_maintenance_until_timestamp_seconds"
    until(lambda: (running.value(name) or 0) > 0)
    subprocess.run([*command, "off", *config], check=True, capture_output=True)
    until(lambda: running.value(name) == 0)
    (running.config.parent / "state" / "maintenance.json").write_text("{garbled")
    until(lambda: running.value(name) is None)
    assert 'gpuvigil_collector_success{collector="maintenance"} 0.0' in running.get("/metrics")
