"""promtool's word on the rules: syntax on both profiles, and every declared case."""

from __future__ import annotations

import shutil

import pytest

from agent.base.errors import CannotTell
from alerts.rules import promtool, registry
from alerts.rules.thresholds import PROFILES

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here (apt: prometheus)")


@needs_promtool
@pytest.mark.parametrize("profile", PROFILES)
def test_promtool_accepts_the_rules(profile: str) -> None:
    outcome = promtool.check(PROFILES[profile])  # type: ignore[index]
    assert outcome.good, outcome.text
    assert "SUCCESS" in outcome.text


@needs_promtool
@pytest.mark.parametrize("name", sorted({alert.name for alert in registry.alerts(PROFILES["default"])}))
def test_cases(name: str) -> None:
    outcome = promtool.run_cases(PROFILES["default"], only=name)
    assert outcome.good, outcome.text
    assert outcome.cases == sum(len(a.cases) for a in registry.alerts(PROFILES["default"]) if a.name == name)


@needs_promtool
def test_a_wrong_expectation_is_found_out() -> None:
    """The cases were declared for these thresholds: with others some must fail, or they prove nothing."""
    other = PROFILES["default"].model_copy(update={"healthz": 0.8})
    outcome = promtool.run_cases(other, only="HealthzSlow")
    assert not outcome.good
    assert "slow: fires after the hold" in outcome.text


def test_no_promtool_is_said_with_the_fix() -> None:
    with pytest.raises(CannotTell, match="apt install prometheus"):
        promtool.check(PROFILES["default"], promtool="promtool-that-is-not-here")
