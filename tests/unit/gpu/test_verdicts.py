"""Judgement: states by component, the walk over Xids and reboots, memory of the engine."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.health.baseline import compare, hcas
from agent.health.engine import Engine, Settled, of_gpu
from agent.health.evidence import Minute
from agent.health.ledger import Event, Trouble
from agent.health.verdict import INSPECT, Facts, State, Verdict, judge_gpu, worst
from agent.health.xid_catalogue import look_up
from agent.health.xid_state import LOOK_BACK_S, judge_xids

NOW, UUID = 1_700_000_000.0, "GPU-a"


def event(xid: int, ago: float = 60.0, boot: str = "boot3", **more: Any) -> Event:
    entry = look_up(xid)
    return Event(
        UUID, "0000:1a:00", xid, NOW - ago, False, ("kernel",), boot, entry.action, str(xid),
        fatal=entry.gravity == "fatal", **more,
    )  # fmt: skip


def state(*events: Event, boot: str = "boot3", settled: float = 0.0, remaps: bool = True) -> tuple[State, str]:
    found = judge_xids(events, NOW, boot, settled, remaps)
    return found.state, found.action


@pytest.mark.parametrize(
    ("xid", "expected"),
    [
        (79, (State.UNHEALTHY, "RESTART_BM")),
        (48, (State.UNHEALTHY, "RESET_GPU")),
        (119, (State.UNHEALTHY, "RESET_GPU")),
        (74, (State.DEGRADED, "WORKFLOW_NVLINK")),
        (54, (State.DEGRADED, "CHECK_MECHANICALS")),
        (13, (State.HEALTHY, "")),
        (45, (State.HEALTHY, "")),
        (94, (State.HEALTHY, "")),
        (63, (State.HEALTHY, "")),
        (64, (State.HEALTHY, "")),
        (4711, (State.HEALTHY, "")),
    ],
)
def test_one_xid(xid: int, expected: tuple[State, str]) -> None:
    assert state(event(xid)) == expected


def test_a_failed_remapping_counts_where_the_gpu_does_not_say_itself() -> None:
    assert state(event(64), remaps=False) == (State.UNHEALTHY, "RESET_GPU")


def test_the_strongest_decides_and_of_equals_the_later() -> None:
    assert state(event(79, 50), event(74, 40)) == (State.UNHEALTHY, "RESTART_BM")
    assert state(event(48, 50), event(79, 40)) == (State.UNHEALTHY, "RESTART_BM")
    assert state(event(74, 50), event(48, 40)) == (State.UNHEALTHY, "RESET_GPU")


def test_a_reboot_cures_what_a_reboot_cures() -> None:
    assert state(event(79, boot="boot2")) == (State.HEALTHY, "")
    assert state(event(48, boot="boot2")) == (State.HEALTHY, "")
    assert state(event(54, boot="boot2")) == (State.DEGRADED, "CHECK_MECHANICALS")


def test_the_same_xid_after_two_reboots_means_inspection() -> None:
    twice = (event(79, 3000, "boot1"), event(79, 2000, "boot2"))
    assert state(*twice) == (State.HEALTHY, "")
    assert state(*twice, event(79, 1000, "boot3")) == (State.UNHEALTHY, INSPECT)
    assert state(*twice, event(119, 1000, "boot3")) == (State.UNHEALTHY, "RESET_GPU")
    assert state(event(79, 3000), event(79, 2000), event(79, 1000)) == (State.UNHEALTHY, "RESTART_BM")


def test_inspection_outlives_reboots() -> None:
    boots = [event(79, 4000 - n * 1000, f"boot{n}") for n in range(3)]
    assert state(*boots, boot="boot9") == (State.UNHEALTHY, INSPECT)


def test_set_healthy_and_age_end_it() -> None:
    assert state(event(79, 60), settled=NOW - 30) == (State.HEALTHY, "")
    assert state(event(79, 60), settled=NOW - 90) == (State.UNHEALTHY, "RESTART_BM")
    assert state(event(79, LOOK_BACK_S + 1)) == (State.HEALTHY, "")


def test_an_application_error_under_several_applications_points_at_the_gpu() -> None:
    same = [event(31, 60 + n, pid=7) for n in range(5)]
    assert state(*same) == (State.HEALTHY, "")
    assert state(*(event(31, 60 + n, pid=n) for n in range(3))) == (State.DEGRADED, INSPECT)


def test_the_drivers_line_decides() -> None:
    told = replace(event(154), action="RESTART_BM", recovery=2, fatal=True)
    assert state(told) == (State.UNHEALTHY, "RESTART_BM")
    assert state(replace(event(154), action="IGNORE", recovery=0)) == (State.HEALTHY, "")


EVENTS = st.builds(
    event,
    st.sampled_from([13, 31, 45, 48, 54, 63, 74, 79, 94, 119, 4711]),
    st.floats(0, LOOK_BACK_S - 1),
    st.sampled_from(["boot1", "boot2", "boot3"]),
    pid=st.one_of(st.none(), st.integers(1, 4)),
)


@given(st.lists(EVENTS, max_size=12), st.randoms())
def test_the_walk_does_not_depend_on_the_order_of_arrival(events: list[Event], random: Any) -> None:
    mixed = list(events)
    random.shuffle(mixed)
    times = [each.time for each in events]
    if len(set(times)) == len(times):
        assert judge_xids(events, NOW, "boot3", 0, True) == judge_xids(mixed, NOW, "boot3", 0, True)


@given(st.lists(EVENTS, max_size=12))
def test_what_is_not_healthy_has_an_action(events: list[Event]) -> None:
    found = judge_xids(events, NOW, "boot3", 0, True)
    assert found.state is State.HEALTHY or (found.action and found.reason and found.event)


def facts(present: bool | None = True, **readings: float) -> Facts:
    keys = {key.replace("__", "."): value for key, value in readings.items()}
    return Facts(UUID, "0", present, readings=keys)


def verdict(found: Facts, component: str) -> Verdict:
    (one,) = [each for each in judge_gpu(found) if each.component == component]
    return one


@pytest.mark.parametrize(
    ("found", "component", "expected", "action"),
    [
        (facts(False), "presence", State.UNHEALTHY, "RESTART_BM"),
        (facts(None), "presence", State.UNKNOWN, ""),
        (replace(facts(None), refused=True), "presence", State.UNKNOWN, ""),
        (replace(facts(None), stuck=("nvmlX", 20.0)), "presence", State.UNHEALTHY, "RESTART_BM"),
        (facts(power=300), "presence", State.HEALTHY, ""),
        (facts(), "presence", State.UNKNOWN, ""),  # listed, and every call about it is refused
        (facts(recovery_action=0), "recovery", State.HEALTHY, ""),
        (facts(recovery_action=4), "recovery", State.UNHEALTHY, "RESET_GPU"),
        (facts(recovery_action=99), "recovery", State.UNHEALTHY, "CONTACT_SUPPORT"),
        (facts(remap_pending=0), "memory", State.HEALTHY, ""),
        (facts(remap_pending=1), "memory", State.DEGRADED, "RESET_GPU"),
        (facts(remap_pending=1, remap_failure=1), "memory", State.UNHEALTHY, INSPECT),
        (facts(remap_pending=0, remap_banks__none=1), "memory", State.UNHEALTHY, INSPECT),
        (facts(ecc__uncorrected__volatile=3), "memory", State.DEGRADED, "RESET_GPU"),
        (facts(nvlink_links=18, nvlink_active=17), "nvlink", State.UNHEALTHY, "WORKFLOW_NVLINK"),
        (facts(nvlink_links=18, nvlink_active=math.nan), "nvlink", State.HEALTHY, ""),
        (facts(fabric_state=3, fabric_status=0), "fabric", State.HEALTHY, ""),
        (facts(fabric_state=2, fabric_status=0), "fabric", State.DEGRADED, "RESTART_FM"),
        (facts(fabric_state=3, fabric_status=5), "fabric", State.UNHEALTHY, "RESTART_FM"),
        (facts(pcie_degraded=1, pcie_width=4, pcie_width_max=16), "pcie", State.DEGRADED, "CHECK_MECHANICALS"),
        (replace(facts(), throttled={"hw_thermal": 0.6}), "thermal", State.DEGRADED, "CHECK_COOLING"),
        (replace(facts(), throttled={"hw_thermal": 0.4}), "thermal", State.HEALTHY, ""),
        (replace(facts(), throttled={"hw_power_brake": 1.0}), "power", State.DEGRADED, "CHECK_MECHANICALS"),
    ],
)
def test_components(found: Facts, component: str, expected: State, action: str) -> None:
    one = verdict(found, component)
    assert (one.state, one.action) == (expected, action)
    assert bool(one.reason) == (expected is not State.HEALTHY)


def test_nothing_is_said_of_what_the_gpu_does_not_tell() -> None:
    assert [each.component for each in judge_gpu(facts())] == ["presence"]
    assert [each.component for each in judge_gpu(facts(False, recovery_action=1))] == ["presence"]


def test_worst() -> None:
    assert worst([]) is State.UNKNOWN
    assert worst([State.HEALTHY, State.UNKNOWN]) is State.UNKNOWN
    assert worst([State.DEGRADED, State.UNKNOWN, State.HEALTHY]) is State.DEGRADED
    assert worst([State.UNHEALTHY, State.UNKNOWN]) is State.UNHEALTHY


def judged(engine: Engine, found: Facts, *events: Event, now: float = NOW) -> dict[str, Verdict]:
    return {each.component: each for each in engine.judge([found], [], events, Minute([]), now)}


def test_the_drivers_action_comes_first() -> None:
    engine = Engine("boot3")
    bad = list(judged(engine, facts(recovery_action=2), event(48)).values())
    whole = of_gpu(bad, UUID)
    assert (whole.state, whole.action) == (State.UNHEALTHY, "RESTART_BM")
    assert "Xid 48" in whole.reason


def test_a_whole_gpu_says_why_it_is_unknown_and_since_when_it_is_what_it_is() -> None:
    def part(component: str, state: State, since: float, reason: str = "") -> Verdict:
        return Verdict(component, state, reason, "", UUID, "0", since)

    good = [part("xid", State.HEALTHY, 5.0), part("power", State.HEALTHY, 9.0)]
    whole = of_gpu(good, UUID)
    assert (whole.state, whole.reason, whole.since) == (State.HEALTHY, "", 9.0)
    whole = of_gpu([*good, part("presence", State.UNKNOWN, 7.0, "nobody may look")], UUID)
    assert (whole.state, whole.reason, whole.since) == (State.UNKNOWN, "nobody may look", 7.0)
    whole = of_gpu([*good, part("fabric", State.DEGRADED, 3.0, "slow"), part("nvlink", State.UNHEALTHY, 2.0, "down")],
                   UUID)  # fmt: skip
    assert (whole.state, whole.reason, whole.since) == (State.UNHEALTHY, "down; slow", 2.0)


def test_since_and_evidence_are_those_of_the_change() -> None:
    engine = Engine("boot3")
    assert judged(engine, facts(remap_pending=0))["memory"].since == NOW
    first = judged(engine, facts(remap_pending=1), event(63, 5), now=NOW + 10)["memory"]
    later = judged(engine, facts(remap_pending=1), now=NOW + 500)["memory"]
    assert first.since == later.since == NOW + 10
    assert [line["xid"] for line in later.evidence["kernel"]] == ["63"]


def test_kernel_lines_of_the_last_minute_are_evidence() -> None:
    engine = Engine("boot3")
    said = [
        Trouble(NOW - 300, "io_error", "long ago"),
        Trouble(NOW - 20, "pcie_aer", "pcieport 0000:15:01.0: AER: Multiple Corrected error received"),
    ]
    (lost,) = (
        each for each in engine.judge([facts(False)], [], [], Minute([]), NOW, said) if each.component == "presence"
    )
    assert [line["kind"] for line in lost.evidence["trouble"]] == ["pcie_aer"]
    json.dumps(engine.dump())


def test_unknown_keeps_what_was_known() -> None:
    engine = Engine("boot3")
    judged(engine, facts(False))
    assert judged(engine, facts(None), now=NOW + 100)["presence"].state is State.UNKNOWN
    assert judged(engine, facts(False), now=NOW + 200)["presence"].since == NOW


def test_a_restart_keeps_the_memory() -> None:
    engine = Engine("boot3")
    judged(engine, facts(False), event(79))
    engine.settle([Settled("", NOW - 10, "me", "why")], {})
    again = Engine.restore(json.loads(json.dumps(engine.dump())), "boot3")
    assert again.settled == engine.settled
    assert judged(again, facts(False), now=NOW + 50)["presence"].since == NOW
    with pytest.raises(ValueError, match="not a memory"):
        Engine.restore({"memory": [[1]]}, "boot3")


def test_set_healthy_settles_counts_but_not_conditions() -> None:
    engine = Engine("boot3")
    bad = facts(ecc__uncorrected__volatile=3)
    assert judged(engine, bad, event(79))["xid"].state is State.UNHEALTHY
    engine.settle([Settled(UUID, NOW, "me", "replaced")], {UUID: bad})
    now = judged(engine, bad, event(79))
    assert now["xid"].state is now["memory"].state is State.HEALTHY
    assert judged(engine, facts(ecc__uncorrected__volatile=4))["memory"].state is State.DEGRADED
    assert judged(engine, facts(ecc__uncorrected__volatile=1))["memory"].state is State.DEGRADED  # a new driver's count
    assert judged(engine, facts(ecc__uncorrected__volatile=3, remap_pending=1))["memory"].state is State.DEGRADED


def test_a_clock_set_back_after_set_healthy_hides_nothing() -> None:
    """Declared healthy while the clock was an hour ahead: what happens now is later all the same."""
    engine = Engine("boot3")
    engine.settle([Settled(UUID, NOW + 3600, "me", "replaced")], {})
    assert judged(engine, facts(), now=NOW)["xid"].state is State.HEALTHY
    new = event(79, -5)  # five seconds from NOW
    assert judged(engine, facts(), new, now=NOW + 10)["xid"].state is State.UNHEALTHY
    again = Engine.restore(json.loads(json.dumps(engine.dump())), "boot3")
    again.settle(engine.settled, {})  # the file that people write still says the hour ahead
    assert judged(again, facts(), new, now=NOW + 20)["xid"].state is State.UNHEALTHY


def test_what_was_not_recorded_at_sign_off_is_no_difference() -> None:
    gpu = {"pci": "0000:1a:00", "model": "H100"}
    was = {"driver": "580", "gpus": {"a": gpu}}
    assert list(compare(was, {"driver": "580", "gpus": {"a": {**gpu, "inforom": "G520.0200.00.05"}}})) == []


def test_xids_of_a_gpu_nobody_ever_saw_are_judged() -> None:
    engine = Engine("boot3")
    stranger = replace(event(79), uuid="PCI-0000:99:00")
    found = engine.judge([facts()], [], [stranger], Minute([]), NOW)
    assert any(each.uuid == "PCI-0000:99:00" and each.state is State.UNHEALTHY for each in found)


def test_baseline_says_what_changed(tmp_path: Any) -> None:
    gpu = {"pci": "0000:1a:00", "model": "H100", "vbios": "96", "serial": "1", "memory": 8e10, "links": 18.0}
    was = {"driver": "580", "gpus": {"a": gpu, "b": gpu}, "hcas": {"mlx5_0": {"firmware": "28.1", "rates": ["400"]}}}
    now = {"driver": "590", "gpus": {"a": {**gpu, "vbios": "97", "links": 17.0}, "c": gpu}, "hcas": {}}
    assert list(compare(was, was)) == []
    assert [str(each) for each in compare(was, now)] == [
        "driver: 580 -> 590",
        "gpu a vbios: 96 -> 97",
        "gpu a links: 18.0 -> 17.0",
        "gpu b: gone (was H100)",
        "gpu c: new (H100)",
        "hca mlx5_0: gone (was mlx5_0)",
    ]
    port = tmp_path / "class/infiniband/mlx5_0/ports/1"
    port.mkdir(parents=True)
    (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    (port / "state").write_text("4: ACTIVE\n")
    (port.parents[1] / "fw_ver").write_text("28.39.1002\n")
    up = hcas(tmp_path)
    card = {"firmware": "28.39.1002", "board": "", "rates": ["400 Gb/sec (4X NDR)"], "states": ["ACTIVE"]}
    assert up == {"mlx5_0": card}
    (port / "state").write_text("1: DOWN\n")
    (difference,) = compare({"driver": "580", "hcas": up}, {"driver": "580", "hcas": hcas(tmp_path)})
    assert str(difference) == "hca mlx5_0 states: ['ACTIVE'] -> ['DOWN']"
    assert hcas(tmp_path / "nowhere") == {}
