"""State on a disk that refuses: said for as long as it does, and over when it takes a file again."""

from __future__ import annotations

import os

import pytest

from agent.base import statefile
from agent.base.catalogue import self as own
from agent.health import baseline, document
from agent.health.engine import Settled
from agent.runner import Runner


@pytest.fixture(autouse=True)
def none_refused(monkeypatch):
    monkeypatch.setattr(statefile, "_refused", {})


def writable(runner):
    return runner.snapshot().value(own.STATE_WRITABLE.stem)


def test_a_refused_file_is_on_the_page_until_it_is_written(tmp_path, context):
    runner = Runner({}, context)
    assert writable(runner) == 1
    (tmp_path / "folder").write_text("a file where the folder should be")
    path = tmp_path / "folder" / "state.json"
    assert not statefile.save(path, {})
    assert writable(runner) == 0
    assert statefile.save(tmp_path / "other.json", {})
    assert writable(runner) == 0, "another file's success is not this one's"
    (tmp_path / "folder").unlink()
    assert statefile.save(path, {})
    assert writable(runner) == 1


def test_what_was_refused_is_written_once_the_disk_takes_it(tmp_path):
    (tmp_path / "folder").write_text("a file where the folder should be")
    path = tmp_path / "folder" / "state.json"
    assert not statefile.save(path, {"old": 1})
    assert not statefile.save(path, {"new": 1})
    (tmp_path / "other").write_text("another")
    assert not statefile.save(tmp_path / "other" / "state.json", {})
    (tmp_path / "other").unlink()
    statefile.catch_up()
    assert statefile.load(tmp_path / "other" / "state.json") == {}
    assert not statefile.writable()
    (tmp_path / "folder").unlink()
    statefile.catch_up()
    assert statefile.writable()
    assert statefile.load(path) == {"new": 1}
    assert [each.name for each in path.parent.iterdir()] == ["state.json"]


def test_what_was_refused_never_replaces_what_is_newer(tmp_path, monkeypatch):
    (tmp_path / "folder").write_text("a file where the folder should be")
    path = tmp_path / "folder" / "state.json"
    assert not statefile.save(path, {"old": 1})
    (tmp_path / "folder").unlink()

    def sync(descriptor):  # catching up is interrupted by the owner, who writes something newer
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        assert statefile.save(path, {"new": 1})

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(statefile.threading, "get_ident", iter(range(9)).__next__)  # as if by another thread
    statefile.catch_up()
    assert statefile.load(path) == {"new": 1}
    assert [each.name for each in path.parent.iterdir()] == ["state.json"]


def test_what_root_signs_off_the_agents_user_can_read(tmp_path):
    """`set-healthy` and `baseline write` are run by root, some with a umask that shuts everybody else out."""
    old = os.umask(0o077)
    try:
        assert document.add_settled(tmp_path, Settled("", 1.0, "root", "tested"))
        assert baseline.write(tmp_path, baseline.Baseline(1.0, "root", "nvml", {}))
        assert statefile.save(tmp_path / "own.json", {})
    finally:
        os.umask(old)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == {"settled.json": 0o644, "baseline.json": 0o644, "own.json": 0o600}


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5.0),
        (-0.5, -0.5),
        (True, None),
        ("5", None),
        (None, None),
        (float("nan"), None),
        (10**400, None),
        ([], None),
    ],
)
def test_a_number_is_a_finite_number(value, number):
    assert statefile.number(value) == number
