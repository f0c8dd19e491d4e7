"""`gpuvigil alerts rules ...` as a user meets it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from agent import cli
from agent.base.errors import Exit


def test_list_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["alerts", "rules", "list", "-o", "json"]) == Exit.GOOD
    rows = json.loads(capsys.readouterr().out)
    lost = next(row for row in rows if row["alert"] == "GpuLost")
    assert (lost["severity"], lost["scope"], lost["for_seconds"]) == ("page", "gpu", 0)


def test_list_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["alerts", "rules", "list"]) == Exit.GOOD
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["ALERT", "SEVERITY", "SCOPE"]
    assert any(line.split()[:3] == ["GpuXid", "ticket", "gpu"] for line in lines)


def test_build_with_a_file_keeps_the_profile_where_the_file_is_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "t.yaml"
    config.write_text("healthz: 250ms\ntimings: {healthz_slow: {keep: 7s}}\nlinks: {runbooks: https://r.example.org}\n")
    arguments = ["alerts", "rules", "build", "--profile", "demo", "--config", str(config), "-o", str(tmp_path / "out")]
    assert cli.main(arguments) == Exit.GOOD
    captured = capsys.readouterr()
    assert "placeholder" not in captured.err
    built = yaml.safe_load((tmp_path / "out/gpuvigil-inference.yml").read_text())
    [rule] = built["groups"][0]["rules"]
    assert "> 0.25" in rule["expr"]
    assert rule["keep_firing_for"] == "7s"
    assert "for" not in rule, "the demo holds nothing, and the file did not say otherwise"
    assert rule["annotations"]["runbook_url"] == "https://r.example.org/HealthzSlow.md"
    assert str(tmp_path / "out/gpuvigil-inference.yml") in captured.out.splitlines()


def test_build_says_that_runbook_links_lead_nowhere_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["alerts", "rules", "build", "-o", str(tmp_path)]) == Exit.GOOD
    assert "links.runbooks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("helthz: 1s", "t.yaml:1: helthz: unknown key; allowed: "),
        ("healthz: 0.5", "t.yaml:1: healthz: must be a duration with a unit"),
        ("timings:\n  gpu_lost: {hold: -5s}", "t.yaml:2: timings.gpu_lost.hold"),
        ("links: {runbooks: ftp://x}", "t.yaml:1: links.runbooks"),
    ],
)
def test_bad_thresholds_are_refused_with_file_and_line(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "t.yaml"
    config.write_text(text)
    assert cli.main(["alerts", "rules", "build", "--config", str(config), "-o", str(tmp_path / "o")]) == Exit.USAGE
    assert told in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here (apt: prometheus)")
def test_check_and_one_alerts_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["alerts", "rules", "check", "--profile", "demo"]) == Exit.GOOD
    assert cli.main(["alerts", "rules", "test", "--only", "Watchdog"]) == Exit.GOOD
    assert "1 cases" in capsys.readouterr().out


def test_without_promtool_it_cannot_tell(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["alerts", "rules", "check", "--promtool", "no-such-promtool"]) == Exit.UNKNOWN
    assert "apt install prometheus" in capsys.readouterr().err


def test_docs_go_where_they_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runbooks").mkdir()
    (tmp_path / "runbooks/Gone.md").write_text("old")
    assert cli.main(["alerts", "rules", "docs", "-o", str(tmp_path)]) == Exit.GOOD
    assert not (tmp_path / "runbooks/Gone.md").exists()
    text = (tmp_path / "runbooks/GpuLost.md").read_text()
    for heading in ("## Meaning", "## Impact", "## Diagnosis", "## Mitigation", "## Condition"):
        assert heading in text


def test_cases_of_an_unknown_alert_are_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["alerts", "rules", "test", "--only", "GpuLst"]) == Exit.USAGE
    assert "there are: AgentAbsent," in capsys.readouterr().err
