"""One collection without a daemon keeps to what a daemon's page keeps to."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest

from agent import oneshot
from agent.base import statefile
from agent.base.exposition import TEXT
from agent.gpu import release
from agent.oneshot import collect_once


@pytest.fixture
def look(puppet, metric, tmp_path, monkeypatch):
    """Look once with a collector that keeps state; `state.json` as it is afterwards."""

    def script():
        seen = statefile.load(tmp_path / "state.json").get("runs", 0)
        statefile.save(tmp_path / "state.json", {"runs": seen + 1})
        return [metric.counter.sample(seen, "a")]

    monkeypatch.setattr(oneshot, "kinds", lambda: {"keeper": puppet("keeper", script)[0]})
    kind = puppet("keeper", script)[0]

    def once():
        config = SimpleNamespace(
            state_dir=str(tmp_path), run_dir=str(tmp_path), node="n", cluster="", series_budget=1000,
            enabled=lambda: {"keeper": kind.settings(deadline="20s")},
        )  # fmt: skip
        collect_once(config)
        return (tmp_path / "state.json").read_text()

    return once


def test_one_look_after_the_other_keeps_what_it_learnt(look):
    assert [look(), look()] == ['{"runs": 1}', '{"runs": 2}']


def test_a_look_beside_a_running_agent_leaves_its_files_alone(look, tmp_path):
    """A job's prolog would wind the agent's state back, and take its place in what `agent gpu release` asks."""
    (tmp_path / release.ANSWER).write_text(json.dumps({"released": False, "pid": os.getppid()}))
    for content in ('{"runs": 7}', "{half"):
        (tmp_path / "state.json").write_text(content)
        assert look() == content
    assert statefile.save(tmp_path / "state.json", {}), "afterwards state is kept again"
    assert (tmp_path / "state.json").read_text() == "{}"


@pytest.mark.parametrize("excess", range(8))
def test_one_look_has_no_more_series_than_agreed(metric, puppet, tmp_path, monkeypatch, excess):
    scripts = {
        "large": lambda: [metric.gauge.sample(1, str(n), "") for n in range(90)],
        "small": lambda: [metric.counter.sample(1, str(n)) for n in range(30)],
    }
    kinds = {name: puppet(name, script)[0] for name, script in scripts.items()}
    monkeypatch.setattr(oneshot, "kinds", lambda: kinds)
    config = SimpleNamespace(
        state_dir=str(tmp_path),
        run_dir=str(tmp_path),
        node="n",
        cluster="",
        enabled=lambda: {name: kind.settings(deadline="20s") for name, kind in kinds.items()},
    )

    def series(budget):
        page = collect_once(SimpleNamespace(**vars(config), series_budget=budget)).page(TEXT).decode()
        return sum(not line.startswith("#") for line in page.splitlines())

    every = series(1000)
    budget = every - 1 - excess
    assert series(budget) <= budget
