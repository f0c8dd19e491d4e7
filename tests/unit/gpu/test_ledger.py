"""Both sources merged: each Xid counted once, nothing lost, nothing counted twice over a restart."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.health.ledger import MOST_OWNERS, NOBODY, WINDOW_S, Event, Ledger
from agent.health.xid_lines import XidLine, parse

UUID, PCI, T = "GPU-a", "0000:1a:00", 1_700_000_000.0


def nvml(xid: int, at: float = T, pci: str = PCI, uuid: str = UUID, **more: Any) -> dict[str, Any]:
    return {"uuid": uuid, "pci": pci, "xid": xid, "time": at, "uptime": at - T, "gi": None, "ci": None, **more}


def printed(ledger: Ledger, text: str, at: float = T, uuid: str = UUID, uptime: float | None = None) -> Event | None:
    return ledger.from_kernel(line(text), uuid, at, at - T if uptime is None else uptime, False)


def line(text: str) -> XidLine:
    said = parse(f"NVRM: Xid (PCI:{PCI}): {text}")
    assert isinstance(said, XidLine)
    return said


def counts(ledger: Ledger) -> dict[int, int]:
    return {xid: count for (_, _, xid, _), count in ledger.codes.items()}


@pytest.mark.parametrize("kernel_first", [True, False])
@pytest.mark.parametrize("gap", [0.0, 0.1, WINDOW_S])
def test_two_tellings_are_one_event(kernel_first: bool, gap: float) -> None:
    ledger = Ledger("boot")
    tell = [
        lambda at: ledger.from_driver(nvml(79, at, gi=3), False),
        lambda at: printed(ledger, "79, pid=7, name=python, GPU has fallen off the bus.", at),
    ]
    for number, source in enumerate(reversed(tell) if kernel_first else tell):
        source(T + number * gap)
    assert counts(ledger) == {79: 1}
    assert ledger.actions[UUID, False, "RESTART_BM"] == 1
    (event,) = ledger.events
    assert (event.pid, event.name, event.gi) == (7, "python", 3)
    assert set(event.sources) == {"nvml", "kernel"}
    assert event.time == T


def test_later_is_another_event() -> None:
    ledger = Ledger("boot")
    for at in (T, T + WINDOW_S + 0.1):
        ledger.from_driver(nvml(79, at), False)
    assert counts(ledger) == {79: 2}


@pytest.mark.parametrize("kernel_first", [True, False])
@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_clock_set_between_two_tellings_makes_no_second_event(kernel_first: bool, step: float) -> None:
    ledger = Ledger("boot")
    for number, from_kernel in enumerate((kernel_first, not kernel_first)):
        at, uptime = T + number * step, 100.0 + number
        if from_kernel:
            printed(ledger, "79, GPU has fallen off the bus.", at, uptime=uptime)
        else:
            ledger.from_driver(nvml(79, at, uptime=uptime), False)
    assert counts(ledger) == {79: 1}
    (event,) = ledger.events
    assert (event.time, event.uptime) == (T, 100.0)


def test_a_clock_set_back_does_not_make_one_of_two_events() -> None:
    ledger = Ledger("boot")
    for uptime in (100.0, 200.0):
        ledger.from_driver(nvml(79, T, uptime=uptime), False)
    assert counts(ledger) == {79: 2}


def test_the_same_second_of_another_boot_is_another_event() -> None:
    first = Ledger("boot")
    first.from_driver(nvml(79, T, uptime=100.0), False)
    first.from_driver(nvml(154, T, uptime=100.0), False)
    second = Ledger.restore(json.loads(json.dumps(first.dump())), "next boot")
    second.from_driver(nvml(79, T + 3600, uptime=100.0), False)
    assert [event.xid for event in second.settle(101.0)] == [154]
    assert counts(second) == {79: 2, 154: 1}


def test_a_clock_that_is_set_does_not_end_the_wait_for_the_text() -> None:
    ledger = Ledger("boot")
    ledger.from_driver(nvml(154, T, uptime=100.0), False)
    assert ledger.settle(101.0) == []
    told = "154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"
    event = printed(ledger, told, T + 3600, uptime=101.0)
    assert event is not None
    assert event.action == "RESTART_BM"
    assert counts(ledger) == {154: 1}


def test_an_endless_repeat_counts_once_a_window() -> None:
    ledger = Ledger("boot")
    for second in range(60):
        printed(ledger, "119, Timeout after 6s of waiting for RPC response", T + second)
    assert counts(ledger) == {119: 10}


def test_a_late_kernel_line_meets_its_old_event() -> None:
    ledger = Ledger("boot")
    ledger.from_driver(nvml(31, T), False)
    ledger.from_driver(nvml(31, T + 100), False)
    printed(ledger, "31, pid=9, name=x, MMU Fault", T + 1)
    assert counts(ledger) == {31: 2}
    assert ledger.events[0].pid == 9


def test_code_that_waits_for_its_text() -> None:
    ledger = Ledger("boot")
    assert ledger.from_driver(nvml(154), False) is None
    assert not ledger.settle(1.0)
    event = printed(ledger, "154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)", T + 1)
    assert event is not None
    assert event.action == "RESTART_BM"
    assert counts(ledger) == {154: 1}


def test_code_whose_text_never_comes_is_counted_by_the_catalogue() -> None:
    ledger = Ledger("boot")
    ledger.from_driver(nvml(149), False)
    (event,) = ledger.settle(WINDOW_S + 0.1)
    assert event.action == "WORKFLOW_NVLINK"
    assert counts(ledger) == {149: 1}


def test_unknown_place_is_still_counted_and_learns_its_gpu() -> None:
    ledger = Ledger("boot")
    printed(ledger, "79, GPU has fallen off the bus.", uuid="")
    assert ledger.actions[f"PCI-{PCI}", False, "RESTART_BM"] == 1


def test_45_is_information() -> None:
    ledger = Ledger("boot")
    printed(ledger, "45, pid=1, name=a, Ch 00000008")
    assert ledger.actions[UUID, False, "IGNORE"] == 1


def test_a_log_that_names_too_many_gpus_is_capped() -> None:
    ledger = Ledger("boot")
    for number in range(1000):
        ledger.from_driver(
            nvml(number, pci=f"0000:{number % 256:02x}:{number // 256:02x}", uuid=f"GPU-{number}"), False
        )
    ledger.settle(60.0)
    assert len({uuid for uuid, *_ in ledger.actions}) == MOST_OWNERS + 1
    assert sum(ledger.actions.values()) == 1000
    assert sum(count for (uuid, *_), count in ledger.actions.items() if uuid == NOBODY) == 1000 - MOST_OWNERS


EVENTS = st.lists(
    st.tuples(st.sampled_from([13, 45, 79, 119, 149, 154]), st.floats(0, 600), st.booleans()), max_size=40
).map(lambda rows: sorted(rows, key=lambda row: row[1]))


@given(EVENTS, st.integers(0, 40))
def test_a_restart_changes_nothing(events: list[tuple[int, float, bool]], cut: int) -> None:
    def play(restart_at: int | None) -> Ledger:
        ledger = Ledger("boot")
        for number, (xid, at, kernel) in enumerate(events):
            if number == restart_at:
                ledger = Ledger.restore(json.loads(json.dumps(ledger.dump())), "boot")
            if kernel:
                printed(ledger, f"{xid}, text", T + at)
            else:
                ledger.from_driver(nvml(xid, T + at), False)
        ledger.settle(10_000.0)
        return ledger

    whole, cut_in_two = play(None), play(cut)
    assert cut_in_two.actions == whole.actions
    assert cut_in_two.codes == whole.codes
    assert list(cut_in_two.events) == list(whole.events)


@given(EVENTS)
def test_every_event_is_within_the_window_of_a_counted_one(events: list[tuple[int, float, bool]]) -> None:
    ledger = Ledger("boot")
    for xid, at, kernel in events:
        if kernel:
            printed(ledger, f"{xid}, text", T + at)
        else:
            ledger.from_driver(nvml(xid, T + at), False)
    ledger.settle(10_000.0)
    for xid, at, _ in events:
        assert any(event.xid == xid and abs(event.time - T - at) <= WINDOW_S for event in ledger.events)
    assert sum(ledger.actions.values()) == len(ledger.events) <= len(events)


@pytest.mark.parametrize("stored", [{"actions": [[1]]}, {"events": [{"uuid": "x"}]}, {"codes": 5}, {"last": [["a"]]}])
def test_a_damaged_ledger_says_so(stored: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a ledger"):
        Ledger.restore(stored, "boot")
