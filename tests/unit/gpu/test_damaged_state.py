"""State files that are JSON, but not of ours in one place: that part starts afresh, and what reads it goes on."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.collector import Context, PartialFailure
from agent.collectors.health import Health, HealthSettings
from agent.collectors.xid import XidCollector, XidSettings
from agent.gpu.accumulate import Accumulator
from agent.gpu.inventory import Inventory
from agent.health import baseline, document
from agent.health.engine import Engine
from agent.health.journal import JournalLog
from agent.intake import Intake
from agent.node.ledger import Ledger as Energy

GPU = {"uuid": "GPU-a", "gpu": 0, "index": 0, "pci": "0000:11:00", "model": "H100"}
EVENT = {
    **{"uuid": "GPU-a", "pci": "0000:11:00", "xid": 79, "shown": "79", "action": "RESTART_BM", "fatal": True},
    **{"time": 1e9, "uptime": 5.0, "boot_id": "b", "text": "", "sources": ["kernel"], "synthetic": False},
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield way
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*way, key))


def damaged(whole: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The document with anything at all in one place, or a further key."""

    def put(chosen: tuple[tuple[Any, ...], Any]) -> dict[str, Any]:
        way, value = chosen
        found = copy.deepcopy(whole)
        place: Any = found
        for key in way[:-1]:
            place = place[key]
        place[way[-1]] = value
        return found

    return st.tuples(st.sampled_from([way for way in places(whole) if way]), ANYTHING).map(put)


def counters(path: Path) -> None:
    Accumulator(json.loads(path.read_text())["counters"]).add("energy/GPU-a", 5.0)


def energy(path: Path) -> None:
    ledger = Energy(path, "b")
    ledger.step("node", 5.0)
    ledger.add("node", 1.0)


def inventory(path: Path) -> None:
    found = Inventory(path)
    found.see([{"uuid": "GPU-b", "index": 0, "pci": "0000:12:00", "model": "H100"}])
    assert found.label("GPU-b")


def settled(path: Path) -> None:
    for each in document.read_settled(path.parent):
        assert isinstance(each.uuid, str)


def signed(path: Path) -> None:
    try:
        found = baseline.read(path.parent)
    except ValueError as error:
        if "not a baseline" not in str(error):
            raise
        return
    assert found is not None
    list(map(str, baseline.compare(found.inventory, {"driver": "", "gpus": {"GPU-a": {}}, "hcas": {}})))


def memory(path: Path) -> None:
    try:
        Engine.restore(json.loads(path.read_text()), "b").dump()
    except ValueError as error:
        if "not a memory of verdicts" not in str(error):
            raise


FILES: list[tuple[str, dict[str, Any], Callable[[Path], None]]] = [
    ("gpu-counters-nvml.json", {"boot_id": "b", "counters": {"energy/GPU-a": [1.0, 2.0]}}, counters),
    ("energy.json", {"boot_id": "b", "totals": {"node": 1.0}, "raw": {"node": 1.0}}, energy),
    ("gpus-nvml.json", {"gpus": [GPU], "most": 1, "forgotten": ["GPU-c"]}, inventory),
    ("settled.json", {"settled": [["GPU-a", 1e9, "root", "tested"]]}, settled),
    (
        "baseline.json",
        {
            **{"version": 1, "written": 1e9, "by": "root", "backend": "nvml"},
            "inventory": {"driver": "1", "gpus": {"GPU-a": {"pci": "0000:11:00"}}, "hcas": {"mlx5_0": {"rates": []}}},
        },
        signed,
    ),
    (
        "health-nvml.json",
        {
            "memory": [["xid", "GPU-a", 2, "RESTART_BM", 1e9, {"kernel": []}]],
            **{"settled": [["GPU-a", 1e9, "root", "x"]], "settled_at": {"GPU-a": 1e9}},
            "marks": {"GPU-a": {"ecc.uncorrected.volatile": 1.0}},
        },
        memory,
    ),
]


@pytest.mark.parametrize(("name", "whole", "use"), FILES, ids=[name for name, _, _ in FILES])
def test_a_file_wrong_in_one_place_does_not_stop_its_reader(
    name: str, whole: dict[str, Any], use: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / name

    @settings(max_examples=60, deadline=None)
    @given(damaged(whole))
    def check(document: dict[str, Any]) -> None:
        path.write_text(json.dumps(document))
        use(path)

    path.write_text(json.dumps(whole))
    use(path)
    check()


@pytest.fixture(scope="module")
def ledger() -> dict[str, Any]:
    return {
        "actions": [["GPU-a", False, "RESTART_BM", 1]],
        "codes": [["GPU-a", False, 79, "RESTART_BM", 1]],
        "last": [["GPU-a", False, 79, 1e9]],
        **{"events": [EVENT], "waiting": [EVENT]},
        "cursor": {"boot_id": "b", "seq": 1, "inode": 5, "offset": 3, "usec": 7},
        **{"buses": {"0000:11:00": "GPU-a"}, "kinds": {"oom_kill": 1}},
        "switches": [["0", "1", "2", "3", "4", 5]],
    }


def test_xids_are_told_whatever_their_file_holds(ledger: dict[str, Any], tmp_path: Path) -> None:
    """The first run may say what is lost; the second tells the Xid that came meanwhile."""
    kmsg, state = tmp_path / "kmsg", tmp_path / "xids-nvml.json"

    @settings(max_examples=60, deadline=None)
    @given(damaged(ledger))
    def check(content: dict[str, Any]) -> None:
        kmsg.write_text("3,1,1000000,-;NVRM: Xid (PCI:0000:11:00): 79, GPU has fallen off the bus.\n")
        state.write_text(json.dumps(content))
        JournalLog("b", content["cursor"])
        collector = XidCollector(XidSettings(kmsg=kmsg, source="kmsg"), Context(str(tmp_path), str(tmp_path)))
        collector._started -= 3600.0  # nobody will say which driver it is
        try:
            list(collector.collect())
        except PartialFailure as failure:
            if "counting from 0" not in str(failure):
                raise
        intake = Intake()
        intake.begin()
        intake.take(collector.collect())
        families = intake.end()
        assert sum(families["gpuvigil_gpu_xid_events"].values) >= 1
        collector.close()

    check()


def test_verdicts_are_given_whatever_was_kept_of_the_sign_off(tmp_path: Path) -> None:
    (tmp_path / "health-nvml.json").write_text('{"signed_off": {"a": 1}, "engine": 5}')
    collector = Health(HealthSettings(), Context(str(tmp_path), str(tmp_path)))
    with pytest.raises(PartialFailure, match="judging afresh"):
        collector._restore(False)
    assert collector._signed_off == 0.0
