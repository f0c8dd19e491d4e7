"""`metrics list`, docs/metrics.md and shell completion."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from agent import completion_cli
from agent.base.catalogue import load_all
from agent.cli import main
from agent.metrics_cli import markdown

ROOT = Path(__file__).parents[3]


def declared():
    return [metric for metric in load_all().values() if not metric.stem.startswith("gpuvigil_test")]


def test_metrics_list_has_every_metric(capsys):
    assert main(["metrics", "list", "-o", "json"]) == 0
    names = {each["name"] for each in json.loads(capsys.readouterr().out)}
    assert names >= {metric.name for metric in declared()}
    assert main(["metrics", "list", "no_such_metric"]) == 1


def test_the_page_in_docs_is_current():
    assert (ROOT / "docs" / "metrics.md").read_text() == markdown(declared()), "run: ./dev docs"


@pytest.fixture
def parser():
    made = argparse.ArgumentParser(prog="gpuvigil")
    nouns = made.add_subparsers()
    agent = nouns.add_parser("agent").add_subparsers()
    once = agent.add_parser("once")
    once.add_argument("--format", choices=("text", "openmetrics"))
    once.add_argument("--config", metavar="FILE")
    nouns.add_parser("doctor").add_argument("-o", dest="output", choices=("text", "json"))
    return made


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ([""], {"agent", "doctor", "-h", "--help"}),
        (["ag"], {"agent"}),
        (["agent", ""], {"once", "-h", "--help"}),
        (["agent", "once", "--"], {"--help", "--format", "--config"}),
        (["agent", "once", "--format", ""], {"text", "openmetrics"}),
        (["agent", "once", "--format", "o"], {"openmetrics"}),
        (["agent", "once", "--config", ""], set()),
        (["doctor", "-o", "j"], {"json"}),
    ],
)
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(parser, tmp_path, typed, offered):
    script = tmp_path / "completion.bash"
    script.write_text(completion_cli.script(parser, "bash"))
    words = " ".join(f"'{word}'" for word in ["gpuvigil", *typed])
    ask = f'source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _gpuvigil; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "--norc", "-c", ask], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_of_the_real_commands_is_sound(shell, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "'agent maintenance')" in text
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True)
