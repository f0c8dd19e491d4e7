"""One collection without a daemon keeps to what a daemon's page keeps to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from agent import oneshot
from agent.base.exposition import TEXT
from agent.oneshot import collect_once


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
