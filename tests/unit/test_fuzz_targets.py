"""Every fuzz target holds on its seeds and on what hypothesis makes of them; `./dev bench fuzz` goes further."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.harness.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_hold(name: str) -> None:
    assert TARGETS[name].seeds
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=20)
@given(data=st.data())
def test_seeds_cut_spoilt_and_joined_hold(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(TARGETS[name].seeds))
    at, much = data.draw(st.integers(0, len(seed))), data.draw(st.integers(0, 6))
    TARGETS[name].run(seed[:at] + data.draw(st.binary(max_size=6)) + seed[at + much :])
    TARGETS[name].run(seed[:at] + seed)
