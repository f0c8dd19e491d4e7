"""Logs as they lie there: gzipped, cut off, from another system, on standard input."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.base.errors import CannotTell
from alerts.log_lines import read

TEXT = "".join(f"step,{n},\u00e4\n" for n in range(2000))
LINES = TEXT.splitlines(keepends=True)


@pytest.mark.parametrize("data", [TEXT.encode(), gzip.compress(TEXT.encode()), TEXT.encode("utf-16")])
def test_a_log_is_read_as_it_lies_there(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "log").write_bytes(data)
    assert list(read(str(tmp_path / "log"))) == LINES


def test_a_gzipped_log_that_has_lost_its_end_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    data = gzip.compress(TEXT.encode())
    (tmp_path / "log").write_bytes(data[: len(data) // 2])
    found = list(read(str(tmp_path / "log")))
    assert 100 < len(found) < 2000
    assert found[:-1] == LINES[: len(found) - 1]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(gzip.compress(TEXT.encode())[:10] + b"no such block" * 9)
    for path in (tmp_path / "log", tmp_path, tmp_path / "none"):
        with pytest.raises(CannotTell, match=f"{path.name}: cannot be read: "):
            list(read(str(path)))


def test_standard_input_may_be_gzipped_too() -> None:
    rows = "".join(f"{n},100,{2 * n}\n" for n in range(1, 101))
    data = gzip.compress(f"step,total_steps,elapsed\n{rows}".encode())
    command = [sys.executable, "-m", "agent.cli", "detect", "eta", "-", "-o", "json"]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["eta_total"] == 200.0
