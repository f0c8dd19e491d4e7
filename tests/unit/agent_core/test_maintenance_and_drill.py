"""The maintenance flag and drill.json: what is set is on the page, what is garbled is reported."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from agent import maintenance
from agent.base import drillfile
from agent.base.collector import Context
from agent.base.errors import VigilError
from agent.cli import main
from agent.collectors.drill import DrillCollector, DrillSettings
from agent.collectors.maintenance import MaintenanceCollector, MaintenanceSettings


def exported(folder):
    collector = MaintenanceCollector(MaintenanceSettings(), Context(str(folder), str(folder)))
    (sample,) = collector.collect()
    return sample.value


def test_none_is_zero_and_one_is_its_end(tmp_path):
    assert exported(tmp_path) == 0
    window = maintenance.switch_on(tmp_path, 7200, "new fan", 1000.0)
    assert exported(tmp_path) == window.until == 8200
    assert maintenance.switch_off(tmp_path)
    assert not maintenance.switch_off(tmp_path)
    assert exported(tmp_path) == 0


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"until": "x"}', '{"until": 1e999, "why": "", "by": "", "set_at": 0}', "\x00",
             '{"until": 9e12, "why": "for ever", "by": "", "set_at": 0}']
)  # fmt: skip
def test_a_garbled_file_is_an_error_not_silence(tmp_path, text):
    (tmp_path / maintenance.NAME).write_text(text)
    with pytest.raises(ValueError, match=r"maintenance\.json"):
        exported(tmp_path)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / maintenance.NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        exported(tmp_path)


@pytest.mark.parametrize(("seconds", "why"), [(0, "x"), (-1, "x"), (31 * 86400, "x"), (60, " ")])
def test_windows_need_an_end_and_a_reason(tmp_path, seconds, why):
    with pytest.raises(VigilError):
        maintenance.switch_on(tmp_path, seconds, why, 0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_old_window(tmp_path, monkeypatch):
    maintenance.switch_on(tmp_path, 60, "old", 0.0)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(VigilError, match="No space left"):
        maintenance.switch_on(tmp_path, 60, "new", 0.0)
    assert maintenance.read(tmp_path).why == "old"
    assert [each.name for each in tmp_path.iterdir()] == [maintenance.NAME]


def test_the_command(tmp_path, capsys):
    config = tmp_path / "agent.yaml"
    config.write_text(f"state_dir: {tmp_path}/state\n")
    common = ["--config", str(config), "-o", "json"]

    def run(*words):
        code = main(["agent", "maintenance", *words, *common])
        return code, json.loads(capsys.readouterr().out)

    assert run("status") == (0, {"active": False})
    code, said = run("on", "--for", "90m", "--why", "swap GPU 3")
    assert code == 0
    assert said["active"] is True
    assert said["until"] == pytest.approx(time.time() + 5400, abs=60)
    assert run("status")[1]["why"] == "swap GPU 3"
    assert run("off") == (0, {"active": False, "was_set": True})
    assert main(["agent", "maintenance", "on", "--for", "90", "--why", "x", *common]) == 2
    assert "duration with a unit" in capsys.readouterr().err
    for wrong in (("0s", "x"), ("400d", "x"), ("1h", "")):
        assert main(["agent", "maintenance", "on", "--for", wrong[0], "--why", wrong[1], *common]) == 2
        assert "maintenance" in capsys.readouterr().err
    Path(tmp_path, "state", maintenance.NAME).write_text("?")
    assert main(["agent", "maintenance", "status", *common]) == 1
    assert "not a maintenance file" in capsys.readouterr().err


@pytest.fixture
def drill(tmp_path):
    """Write drill.json and collect: samples as {(stem, labels): value}."""
    boot = drillfile.boot_id()

    def collect(*entries, now=1000.0):
        drillfile.write(tmp_path, [drillfile.Entry(*entry, expires, boot) for *entry, expires in entries])
        collector = DrillCollector(DrillSettings(), Context("", str(tmp_path)), clock=lambda: now)
        return {(sample.metric.stem, sample.labels): sample.value for sample in collector.collect()}

    return collect


def test_each_target_of_a_drill_is_a_series_with_the_key_of_its_scope(drill):
    found = drill(
        ("d1", "drill", "gpu", "GPU-1", 1100.0),
        ("d1", "drill", "engine", "chat", 1200.0),
        ("d1", "drill", "job", "train", 1100.0),
        ("d2", "real", "node", "", 1300.0),
        ("d3", "drill", "gpu", "GPU-9", 999.0),
    )
    active, expires = "gpuvigil_drill_active", "gpuvigil_drill_expires_timestamp_seconds"
    assert found == {
        (active, ("d1", "drill", "gpu", "GPU-1", "", "")): 1,
        (active, ("d1", "drill", "engine", "", "chat", "")): 1,
        (active, ("d1", "drill", "job", "", "", "train")): 1,
        (active, ("d2", "real", "node", "", "", "")): 1,
        (expires, ("d1",)): 1200.0,
        (expires, ("d2",)): 1300.0,
    }


def test_where_the_boot_is_not_known_a_drill_ends_by_its_time(tmp_path):
    drillfile.write(tmp_path, [drillfile.Entry("d1", "drill", "node", "", 1100.0, "boot")])
    assert [entry.drill for entry in drillfile.read(tmp_path, 1000.0, "")] == ["d1"]
    assert drillfile.read(tmp_path, 1101.0, "") == drillfile.read(tmp_path, 1000.0, "another boot") == []


def test_no_file_is_no_drill_and_a_strange_one_is_an_error(drill, tmp_path):
    assert drill() == {}
    with pytest.raises(ValueError, match="scope 'rack'"):
        drill(("d1", "drill", "rack", "r1", 1100.0))
    (tmp_path / drillfile.NAME).write_text("{}")
    collector = DrillCollector(DrillSettings(), Context("", str(tmp_path)))
    with pytest.raises(ValueError, match="not a drill file"):
        list(collector.collect())
