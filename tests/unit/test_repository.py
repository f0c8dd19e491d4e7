"""What holds for the repository as a whole: locks, generated files, the wheel's content, the script `dev`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GPUVIGIL = [sys.executable, "-m", "agent.cli"]


def output(*command: str) -> str:
    return subprocess.run([*GPUVIGIL, *command], cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("lock", sorted(path.name for path in (ROOT / "requirements").glob("*.txt")))
def test_locks_are_hashed_and_name_no_host(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    assert "://" not in text
    pinned = re.findall(r"^[\w.-]+==\S+", text, re.M)
    assert pinned
    assert text.count("--hash=sha256:") >= len(pinned)


def test_the_node_agent_stays_small() -> None:
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "requirements/agent.txt").read_text(), re.M)
    assert set(pinned) == {
        *("annotated-types", "bcrypt", "h11", "nvidia-ml-py", "prometheus-client", "psutil", "pydantic"),
        *("pydantic-core", "pyyaml", "typing-extensions", "typing-inspection"),
    }


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("docs/metrics.md", ("metrics", "list", "-o", "markdown")),
        ("deploy/completions/gpuvigil.bash", ("completion", "bash")),
        ("deploy/completions/_gpuvigil", ("completion", "zsh")),
    ],
)
def test_generated_files_are_current(path: str, command: tuple[str, ...]) -> None:
    assert (ROOT / path).read_text() == output(*command), "run ./dev docs"


def test_the_wheel_carries_every_tracked_file_of_its_packages(tmp_path: Path) -> None:
    packages = ("agent", "alerts", "chaos", "dashboards")
    tracked = subprocess.run(
        ["git", "ls-files", *packages], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if name.startswith(packages)}
    assert {name for name in tracked if (ROOT / name).exists()} <= shipped
    assert not any(name.endswith((".so", ".o", ".pyc")) for name in shipped), "no binary is shipped"


def test_dev_is_posix_sh_and_lists_its_verbs() -> None:
    subprocess.run(["sh", "-n", str(ROOT / "dev")], check=True)
    said = subprocess.run([str(ROOT / "dev"), "help"], check=True, capture_output=True, text=True).stdout
    for verb in ("run", "test", "bench", "fmt", "lock", "docs", "wheel"):
        assert re.search(rf"^  {verb}\b", said, re.M), verb
    wrong = subprocess.run([str(ROOT / "dev"), "nonsense"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "unknown verb: nonsense" in wrong.stderr


@pytest.mark.parametrize(
    "noun", ["agent", "alerts", "central", "chaos", "checkpoint", "config", "dashboards", "doctor"]
)
def test_every_noun_explains_itself(noun: str) -> None:
    assert "usage: gpuvigil" in output(noun, "--help")
