"""Verdicts on the machine around the GPUs, from what the collectors of its parts really read."""

import time

import pytest

from agent.base.catalogue import hardware as m
from agent.base.collector import Context, Settings
from agent.collectors.edac import Edac
from agent.collectors.storage import Storage, StorageSettings
from agent.health import machine
from agent.health.engine import Engine, Settled
from agent.health.verdict import State
from agent.node.sysfs import SysSettings

MC = "devices/system/edac/mc/mc0/"
MD = "block/md0/md/"
WELL = {
    f"{MC}ce_count": "3\n",
    f"{MC}ue_count": "0\n",
    f"{MD}array_state": "clean\n",
    f"{MD}level": "raid1\n",
    f"{MD}raid_disks": "2\n",
    f"{MD}degraded": "0\n",
    "class/nvme/nvme0/state": "live\n",
    "class/nvme/nvme0/model": "A drive\n",
}


class Machine:
    """A tree of sysfs, and the collectors that read it."""

    def __init__(self, root):
        self.root, self.context = root, Context(str(root), str(root))
        self.parts = (
            Edac(SysSettings(sys=root), self.context),
            Storage(StorageSettings(sys=root, dev=root), self.context),
        )
        self.write(WELL)

    def write(self, files):
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def judge(self, marks=None, later=0.0):
        for part in self.parts:
            list(part.collect())
        lent = machine.lent_by(self.context)
        return {each.component: each for each in machine.judge(lent, marks or {}, time.monotonic() + later)}


@pytest.fixture
def node(tmp_path):
    return Machine(tmp_path)


def test_a_machine_with_nothing_wrong_is_healthy_and_what_it_has_not_got_is_not_judged(node):
    verdicts = node.judge()
    assert {name: each.state for name, each in verdicts.items()} == {
        "host_memory": State.HEALTHY,
        "raid": State.HEALTHY,
        "drives": State.HEALTHY,
    }


@pytest.mark.parametrize(
    ("file", "text", "component", "state", "reason"),
    [
        (f"{MC}ue_count", "2\n", "host_memory", State.DEGRADED, "2 uncorrectable errors of host memory (mc0)"),
        (f"{MD}degraded", "1\n", "raid", State.DEGRADED, "md0 lacks 1 of its disks"),
        (f"{MD}dev-sda1/state", "faulty\n", "raid", State.DEGRADED, "md0 has 1 faulty disks"),
        (f"{MD}array_state", "inactive\n", "raid", State.UNHEALTHY, "md0 is inactive"),
        (f"{MD}array_state", "broken\n", "raid", State.UNHEALTHY, "md0 is broken"),
        ("class/nvme/nvme0/state", "resetting\n", "drives", State.DEGRADED, "nvme0 is resetting"),
        ("class/nvme/nvme0/state", "dead\n", "drives", State.UNHEALTHY, "nvme0 is dead"),
    ],
)
def test_each_trouble_finds_its_component_and_ends_with_it(node, file, text, component, state, reason):
    node.write({file: text})
    verdict = node.judge()[component]
    assert (verdict.state, verdict.reason, verdict.action) == (state, reason, "HARDWARE_INSPECTION")
    (node.root / file).unlink()
    node.write(WELL)
    assert node.judge()[component].state is State.HEALTHY


def test_correctable_errors_are_no_trouble(node):
    node.write({f"{MC}ce_count": "900\n"})
    assert node.judge()["host_memory"].state is State.HEALTHY


@pytest.mark.parametrize(
    ("sample", "component", "state"),
    [
        (m.NVME_WARNING.sample(1, "nvme0", "spare"), "drives", State.DEGRADED),
        (m.NVME_WARNING.sample(1, "nvme0", "read_only"), "drives", State.UNHEALTHY),
        (m.NVME_WARNING.sample(0, "nvme0", "read_only"), "drives", State.HEALTHY),
        (m.COOLANT_LEAK.sample(1, "redfish:1", "CDU"), "coolant", State.UNHEALTHY),
        (m.COOLANT_LEAK.sample(0, "redfish:1", "CDU"), "coolant", State.HEALTHY),
    ],
)
def test_what_drives_and_detectors_say_themselves(tmp_path, sample, component, state):
    context = Context(str(tmp_path), str(tmp_path))
    assert list(machine.lend(context, "some", Settings(), [sample])) == [sample]
    found = list(machine.judge(machine.lent_by(context), {}, time.monotonic()))
    assert [(each.component, each.state) for each in found] == [(component, state)]


def test_many_troubles_are_counted_and_the_worst_stands_for_all(tmp_path):
    context = Context(str(tmp_path), str(tmp_path))
    samples = [m.RAID_MISSING.sample(1, f"md{each}") for each in range(7)] + [
        m.RAID_INFO.sample(1, "md9", "", "broken", "")
    ]
    list(machine.lend(context, "storage", Settings(), samples))
    (verdict,) = machine.judge(machine.lent_by(context), {}, time.monotonic())
    assert (verdict.state, verdict.reason.count(";")) == (State.UNHEALTHY, 5)
    assert verdict.reason.endswith("3 more")


def test_what_is_no_longer_told_is_unknown_and_what_is_switched_off_not_judged(node):
    assert {each.state for each in node.judge(later=1e4).values()} == {State.UNKNOWN}
    for part in node.parts:
        part.close()
    assert list(machine.judge(machine.lent_by(node.context), {}, time.monotonic())) == []


def test_a_leak_is_not_over_when_its_detector_falls_silent(tmp_path):
    context = Context(str(tmp_path), str(tmp_path))

    def state(samples):
        list(machine.lend(context, "chassis", Settings(), samples))
        (verdict,) = machine.judge(machine.lent_by(context), {}, time.monotonic())
        return verdict.state

    assert state([m.COOLANT_LEAK.sample(1, "redfish:1", "CDU")]) is State.UNHEALTHY
    assert state([m.CHASSIS_READ.sample(0, "redfish")]) is State.UNKNOWN
    assert state([m.COOLANT_LEAK.sample(0, "redfish:1", "CDU")]) is State.HEALTHY


def test_settled_errors_of_host_memory_count_again_when_more_come(node):
    engine = Engine("boot")
    node.write({f"{MC}ue_count": "2\n"})
    assert node.judge(engine.marks(""))["host_memory"].state is State.DEGRADED
    lent = machine.lent_by(node.context)
    engine.settle([Settled("GPU-1", 1.0, "me", "another part")], {"": machine.facts(lent)})
    assert node.judge(engine.marks(""))["host_memory"].state is State.DEGRADED
    engine.settle([Settled("", 2.0, "me", "module replaced")], {"": machine.facts(lent)})
    assert node.judge(engine.marks(""))["host_memory"].state is State.HEALTHY
    kept = Engine.restore(engine.dump(), "boot")
    assert node.judge(kept.marks(""))["host_memory"].state is State.HEALTHY
    node.write({f"{MC}ue_count": "3\n"})
    assert node.judge(kept.marks(""))["host_memory"].reason == "1 uncorrectable errors of host memory (mc0)"
