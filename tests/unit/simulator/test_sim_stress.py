"""Eight readers and a writer at once, under the sanitizers and valgrind: no race, no leak, no torn state."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from chaos.simulator import build as builder
from chaos.simulator.world import World

HERE = Path(__file__).parent
FLAGS = {
    "plain": [],
    "address": ["-fsanitize=address,undefined", "-fsanitize=float-cast-overflow", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}


def compile_stress(output: Path, flags: list[str], sources: list[Path]) -> Path:
    """stress.c with the library's and the control's sources, in one program."""
    warnings = ["-std=gnu11", "-O1", "-g", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror"]
    command = ["cc", *warnings, *flags, f"-I{builder.SOURCES}", "-o", str(output), str(HERE / "stress.c")]
    subprocess.run([*command, *map(str, sources), "-lm", "-lpthread", "-ldl"], check=True)
    return output


def program(kind: str, folder: Path) -> Path:
    sources = dict.fromkeys((*builder.sources("simulator"), *builder.sources("control")))
    return compile_stress(folder / f"stress-{kind}", FLAGS[kind], list(sources))


def run(
    command: list[str], folder: Path, seconds: int, rounds: int = 100, further: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    state = folder / "state"
    World.create(state, profile="h100", gpus=4, workload="training").close()
    # A sanitizer's finding ends the program with a code of its own.
    settings = {"ASAN_OPTIONS": "detect_leaks=1", "TSAN_OPTIONS": "halt_on_error=1:exitcode=66"}
    return subprocess.run(
        [*command, str(state), str(seconds), str(rounds), *further],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=seconds + 300,
        check=False,
    )


def assert_clean(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.endswith("rounds\n")
    assert result.stderr == ""


@pytest.mark.parametrize("kind", ["address", "thread"])
def test_a_second_of_stress_is_clean(tmp_path: Path, kind: str) -> None:
    assert_clean(run([str(program(kind, tmp_path))], tmp_path, seconds=1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLAGS)
def test_half_a_minute_of_stress_is_clean(tmp_path: Path, kind: str) -> None:
    assert_clean(run([str(program(kind, tmp_path))], tmp_path, seconds=30, rounds=2000))


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLAGS)
def test_the_overlay_is_clean_too(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a simulator as the real library, built with the same sanitizer; both worlds change at once."""
    real = builder.build("simulator", flags=FLAGS[kind], into=tmp_path / "real") / builder.LIBRARY
    sources = list(dict.fromkeys((*builder.sources("overlay"), *builder.sources("control"))))
    sources.append(builder._forwarding(tmp_path, builder._symbols(real)))
    stress = compile_stress(tmp_path / "stress", FLAGS[kind], sources)
    state, overlay = tmp_path / "state", tmp_path / "overlay"
    plain = tmp_path / "plain" / builder.LIBRARY  # the survey's Python has no sanitizer in it
    plain.parent.mkdir()
    shutil.copy(builder.build() / builder.LIBRARY, plain)
    World.create(tmp_path / "state0", profile="h100", gpus=4).close()
    monkeypatch.setenv("GPUVIGIL_SIM_STATE", str(tmp_path / "state0"))
    World.create_overlay(overlay, plain).close()
    monkeypatch.setenv("GPUVIGIL_SIM_REAL", str(real))
    monkeypatch.setenv("GPUVIGIL_SIM_OVERLAY", str(overlay))
    assert_clean(run([str(stress)], tmp_path, seconds=10, rounds=100, further=[str(overlay)]))
    assert state.exists()


@pytest.mark.slow
def test_valgrind_finds_no_error_and_no_leak(tmp_path: Path) -> None:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("valgrind is not installed: apt install valgrind")
    options = ["-q", "--error-exitcode=67", "--leak-check=full", "--show-leak-kinds=definite,indirect,possible"]
    options += ["--errors-for-leak-kinds=definite,indirect", "--fair-sched=yes"]
    assert_clean(run([valgrind, *options, str(program("plain", tmp_path))], tmp_path, seconds=10, rounds=40))
