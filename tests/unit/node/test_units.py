"""Systemd units: systemctl's output, its absence, its errors, and a systemctl that hangs."""

import os
from pathlib import Path

import pytest

from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, PartialFailure
from agent.collectors.units import Units, UnitsSettings, states

SHOWN = """NRestarts=2
Id=nvidia-fabricmanager.service
LoadState=loaded
ActiveState=failed

NRestarts=0
Id=docker.service
LoadState=loaded
ActiveState=active

NRestarts=0
Id=slurmd.service
LoadState=not-found
ActiveState=inactive

Id=nvidia-persistenced.service
LoadState=loaded
ActiveState=activating
"""


def of(samples: list[Sample], metric: Metric) -> dict[str, float]:
    return {s.labels[0]: s.value for s in samples if s.metric is metric}


def test_states() -> None:
    samples = list(states(SHOWN))
    assert of(samples, m.UNIT_ACTIVE) == {
        "nvidia-fabricmanager.service": 0,
        "docker.service": 1,
        "nvidia-persistenced.service": 0,
    }
    assert of(samples, m.UNIT_FAILED)["nvidia-fabricmanager.service"] == 1
    assert of(samples, m.UNIT_RESTARTS) == {"nvidia-fabricmanager.service": 2, "docker.service": 0}


def units(tmp_path: Path, script: str, **settings: object) -> Units:
    command = tmp_path / "systemctl"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    return Units(UnitsSettings.model_validate({"command": [str(command)], **settings}), Context("", ""))


def test_what_is_asked(tmp_path: Path) -> None:
    collector = units(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/asked; echo Id=a.service; echo LoadState=loaded')
    samples = list(collector.collect())
    assert of(samples, m.UNIT_ACTIVE) == {"a.service": 0}
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:3] == ["show", "--property=Id,LoadState,ActiveState,NRestarts", "--"]
    assert "nvidia-fabricmanager.service" in asked


def test_a_systemctl_that_hangs_is_a_timeout(tmp_path: Path) -> None:
    collector = units(tmp_path, "exec sleep 60", timeout="200ms")
    with pytest.raises(PartialFailure, match="did not answer") as failure:
        list(collector.collect())
    assert failure.value.reason == "timeout"


def test_errors_are_told_and_no_systemd_is_none(tmp_path: Path) -> None:
    with pytest.raises(PartialFailure, match="Access denied"):
        list(units(tmp_path, "echo Access denied >&2; exit 1").collect())
    booted = "echo 'System has not been booted with systemd as init system (PID 1).' >&2; exit 1"
    assert list(units(tmp_path, booted).collect()) == []
    missing = Units(UnitsSettings(command=[os.fspath(tmp_path / "none")]), Context("", ""))
    assert list(missing.collect()) == []
    assert list(Units(UnitsSettings(units=[]), Context("", "")).collect()) == []
