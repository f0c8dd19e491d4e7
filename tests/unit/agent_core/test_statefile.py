"""State on a disk that refuses: said for as long as it does, and over when it takes a file again."""

from __future__ import annotations

import pytest

from agent.base import statefile
from agent.base.catalogue import self as own
from agent.runner import Runner


@pytest.fixture(autouse=True)
def none_refused(monkeypatch):
    monkeypatch.setattr(statefile, "_refused", set())


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
