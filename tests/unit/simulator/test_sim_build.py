"""The library is built on first use, once, from the sources that are there; and it says what it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.base.errors import ConfigError, VigilError
from chaos.simulator import build as builder

QUICK = ["-O0"]
"""Three times as fast to compile, for tests of the building alone."""


def test_a_second_build_uses_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = builder.build(into=tmp_path, flags=QUICK)
    made = (folder / builder.LIBRARY).stat().st_mtime_ns
    monkeypatch.setenv("CC", "/bin/false")  # nothing may be compiled any more
    assert builder.build(into=tmp_path, flags=QUICK) == folder
    assert (folder / builder.LIBRARY).stat().st_mtime_ns == made
    with pytest.raises(VigilError, match="failed"):
        builder.build(into=tmp_path, flags=[*QUICK, "-DOTHER"])
    with pytest.raises(VigilError, match="failed"):
        builder.build(into=tmp_path, flags=QUICK)  # the failure did not leave a stamp that vouches for an old build


def test_changed_sources_are_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "csrc"
    shutil.copytree(builder.SOURCES, copy)
    monkeypatch.setattr(builder, "SOURCES", copy)
    folder = builder.build(into=tmp_path / "out", flags=QUICK)
    first = (folder / "stamp").read_text()
    with open(copy / "abi.h", "a", encoding="ascii") as header:
        header.write("/* another comment */\n")
    assert builder.build(into=tmp_path / "out", flags=QUICK) == folder
    assert (folder / "stamp").read_text() != first


def test_builders_at_the_same_time_take_turns(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from chaos.simulator.build import build; "
    program += "print(build(into=Path(sys.argv[1]), flags=sys.argv[2:]))"
    with ThreadPoolExecutor(3) as pool:
        results = list(
            pool.map(
                lambda _: (
                    subprocess.run(
                        [sys.executable, "-c", program, str(tmp_path), *QUICK],
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout
                ),
                range(3),
            )
        )
    assert len(set(results)) == 1
    assert sorted(entry.name for entry in (tmp_path / "simulator").iterdir()) == [
        ".lock",
        builder.CONTROL,
        builder.LIBRARY,
        "stamp",
    ]


def test_without_a_compiler_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VigilError, match="apt install gcc libc6-dev"):
        builder.build(into=tmp_path)
    monkeypatch.setenv("CC", "/absent/cc")
    with pytest.raises(VigilError, match="/absent/cc"):
        builder.build(into=tmp_path)


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="simulator, overlay"):
        builder.build("stimulator", into=tmp_path)


def test_installed_it_builds_in_the_users_cache(tmp_path: Path) -> None:
    """From a copy of the packages alone, as a wheel would install them."""
    site = tmp_path / "site"
    root = Path(builder.__file__).parents[2]
    for name in ("agent", "chaos"):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").touch()
    for part in (
        "agent/base/errors.py",
        "agent/base/__init__.py",
        "chaos/simulator/__init__.py",
        "chaos/simulator/build.py",
    ):
        target = site / part
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / part).read_bytes())
    shutil.copytree(builder.SOURCES, site / "chaos" / "simulator" / "csrc")
    result = subprocess.run(
        [sys.executable, "-c", "from chaos.simulator.build import build; print(build())"],
        env={**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path / "cache" / "gpuvigil" / "sim" / "simulator")


def test_no_binary_is_among_the_sources() -> None:
    files = [source for source in builder.SOURCES.rglob("*") if source.is_file()]
    assert {source.suffix for source in files} == {".c", ".h", ".def"}
    for source in files:
        source.read_text(encoding="ascii")
    used = {*builder.sources("simulator"), *builder.sources("overlay"), *builder.sources("control")}
    assert {source for source in files if source.suffix == ".c"} == used, "every file belongs to a target"
