"""What is committed under deploy/ and docs/ is what the generators make, and the programs accept it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from agent.base import config
from agent.base.collector import Settings
from alerts.routing import build
from alerts.routing.settings import RoutingConfig
from alerts.rules import docs, render
from alerts.rules.thresholds import PROFILES

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy/prometheus"
ALERTMANAGER = ROOT / "deploy/alertmanager"


def test_rule_files_are_fresh() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in (PROMETHEUS / "rules").iterdir()}
    assert committed == render.rule_files(PROFILES["default"]), "run ./dev docs"


def test_alertmanager_file_is_fresh() -> None:
    settings = config.load(RoutingConfig, ALERTMANAGER / "routing.yaml", environ={})
    assert (ALERTMANAGER / "alertmanager.yml").read_text(encoding="utf-8") == build.text(settings), "run ./dev docs"


def test_pages_are_fresh() -> None:
    made = docs.pages()
    committed = {f"runbooks/{path.name}" for path in (ROOT / "docs/runbooks").iterdir()} | {"alerts.md"}
    assert committed == set(made), "run ./dev docs"
    for name, text in made.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, f"{name}: run ./dev docs"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here (apt: prometheus)")
def test_prometheus_accepts_its_configuration() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", str(PROMETHEUS / "prometheus.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout


def test_scraping_gives_what_the_rules_build_on() -> None:
    document = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in document["scrape_configs"]}
    assert set(jobs) == {"gpuvigil-agent", "gpuvigil-central"}
    assert jobs["gpuvigil-central"]["honor_labels"] is True
    # an external label would be part of every alert's identity
    assert "external_labels" not in document["global"]
    for target in yaml.safe_load((PROMETHEUS / "targets/agents.yml").read_text(encoding="utf-8")):
        assert set(target["labels"]) == {"cluster", "node"}
    assert document["global"]["scrape_interval"] == f"{PROFILES['default'].scrape:g}s"
    assert document["global"]["evaluation_interval"] == f"{PROFILES['default'].evaluation:g}s"


def test_building_again_removes_what_is_no_longer_made(tmp_path: Path) -> None:
    (tmp_path / "gpuvigil-old.yml").write_text("groups: []")
    (tmp_path / "mine.yml").write_text("groups: []")
    render.write(tmp_path, render.rule_files(PROFILES["default"]))
    assert not (tmp_path / "gpuvigil-old.yml").exists()
    assert (tmp_path / "mine.yml").exists()


def test_stale_floor_is_longer_than_the_usual_period() -> None:
    """AgentStale must not fire on a collector that runs as configured by default."""
    assert PROFILES["default"].stale_floor >= 2 * Settings().period
