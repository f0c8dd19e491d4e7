"""Runs promtool over what was built."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent.base.errors import CannotTell
from alerts.rules import render
from alerts.rules.cases import case_files
from alerts.rules.thresholds import Thresholds

LIMIT_S = 600


@dataclass(frozen=True, slots=True)
class Outcome:
    """What promtool said; `cases` counts the tests it was given."""

    good: bool
    text: str
    cases: int = 0


def find(promtool: str | None = None) -> str:
    """The path of promtool.

    Raises:
        CannotTell: it is not installed.
    """
    path = shutil.which(promtool or "promtool")
    if path is None:
        raise CannotTell(f"{promtool or 'promtool'} is not here: apt install prometheus (it comes along)")
    return str(Path(path).resolve())


def run(*arguments: str, promtool: str | None = None, folder: Path | None = None) -> Outcome:
    done = subprocess.run(
        [find(promtool), *arguments], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    return Outcome(done.returncode == 0, done.stdout + done.stderr)


def check(t: Thresholds, promtool: str | None = None) -> Outcome:
    """`promtool check rules` on the rules built with `t`."""
    with tempfile.TemporaryDirectory() as folder:
        built = render.write(Path(folder), render.rule_files(t))
        return run("check", "rules", *(str(path) for path in built), promtool=promtool)


def run_cases(t: Thresholds, promtool: str | None = None, only: str = "") -> Outcome:
    """`promtool test rules` on every declared case, or those of the alert `only`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        render.write(folder, render.rule_files(t))
        files = case_files(t, only)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        outcome = run("test", "rules", *files, promtool=promtool, folder=folder)
        return Outcome(outcome.good, outcome.text, sum(text.count("\n- name: ") for text in files.values()))
