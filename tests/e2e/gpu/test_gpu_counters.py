"""Counters are sums of steps: neither a reset of the source nor a lifted overlay is a jump, up or down."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.simulator.build import LIBRARY, build
from chaos.simulator.world import OVERLAY_VARIABLE, REAL_VARIABLE, STATE_VARIABLE, World

pytestmark = pytest.mark.e2e

ENERGY = "gpuvigil_gpu_energy_joules_total"
ECC = "gpuvigil_gpu_ecc_errors_total"
MOST_JOULES = 120 * 800.0
"""What a GPU uses within two minutes at the most; since its driver was loaded it is far more."""


def counters(page):
    return {
        key: value for key, value in page.series.items() if key[0].endswith("_total") and "call_errors" not in key[0]
    }


def falls(before, after):
    """Counters on both pages that are lower on the second."""
    return {key: (value, after[key]) for key, value in before.items() if key in after and after[key] < value}


def test_a_driver_whose_counters_begin_again(make_node, tmp_path):
    node = make_node(world={"gpus": 2})
    before = node.until_whole(2)
    World.create(tmp_path / "sim.state", gpus=2, replace=True, seed=1, start=time.time()).close()
    node.until(lambda page: page.one("gpuvigil_gpu_child_restarts_total"))
    after = node.until_whole(2)
    assert falls(counters(before), counters(after)) == {}
    for labels, joules in before.all(ENERGY).items():
        assert after.all(ENERGY)[labels] - joules < MOST_JOULES


@pytest.fixture
def overlaid(make_node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Has the next node read its driver through the overlay; the real one is a copy of the simulator."""
    real = tmp_path / "real" / LIBRARY
    real.parent.mkdir()
    shutil.copy(build("simulator") / LIBRARY, real)
    below = World.create(tmp_path / "real.state", gpus=2)
    monkeypatch.setenv(STATE_VARIABLE, str(below.path))
    overlay = World.create_overlay(tmp_path / "overlay.state", real)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build("overlay", real=real)))
    monkeypatch.setenv(REAL_VARIABLE, str(real))
    monkeypatch.setenv(OVERLAY_VARIABLE, str(overlay.path))
    assert os.environ[STATE_VARIABLE] == str(below.path)
    yield overlay
    overlay.close()
    below.close()


def test_an_overlay_that_is_lifted(make_node, overlaid):
    """Errors that an injection showed stay counted once: what comes after it counts from there."""
    node = make_node()
    before = node.until_whole(2)
    node.world.close()  # make_node's own: nobody lives in it
    overlaid.set("ecc_uncorrected", gpu=1, count=40, duration=60)
    overlaid.set("nvlink_errors", gpu=1, duration=60)
    seen = node.until(
        lambda page: sum(page.all(ECC, gpu="1").values()) >= sum(before.all(ECC, gpu="1").values()) + 40 and page
    )
    overlaid.clear()
    later = [node.page()]
    for _ in range(10):
        time.sleep(0.3)
        later.append(node.page())
    for page in later:
        assert falls(counters(seen), counters(page)) == {}
    assert sum(later[-1].all(ECC, gpu="1").values()) == sum(seen.all(ECC, gpu="1").values())
    for labels, joules in seen.all(ENERGY).items():
        assert later[-1].all(ENERGY)[labels] - joules < MOST_JOULES
