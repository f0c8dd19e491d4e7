"""promtool of Prometheus 3 on the rules, their cases and the configuration."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from alerts.rules import promtool
from alerts.rules.thresholds import PROFILES

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
ROOT = Path(__file__).parents[3]


def test_it_is_prometheus_3(prometheus_3: Path) -> None:
    done = subprocess.run([prometheus_3 / "promtool", "help"], capture_output=True, text=True, check=True)
    assert "promql" in done.stdout + done.stderr
    built = subprocess.run(
        ["go", "version", "-m", prometheus_3 / "promtool"], capture_output=True, text=True, check=True
    )
    assert "v0.312.0" in built.stdout


@pytest.mark.parametrize("profile", PROFILES)
def test_rules_are_accepted(prometheus_3: Path, profile: str) -> None:
    outcome = promtool.check(PROFILES[profile], str(prometheus_3 / "promtool"))  # type: ignore[index]
    assert outcome.good, outcome.text


def test_every_case_holds(prometheus_3: Path) -> None:
    outcome = promtool.run_cases(PROFILES["default"], str(prometheus_3 / "promtool"))
    assert outcome.good, outcome.text
    assert outcome.cases > 70


def test_configuration_is_accepted(prometheus_3: Path) -> None:
    done = subprocess.run(
        [prometheus_3 / "promtool", "check", "config", ROOT / "deploy/prometheus/prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
