"""Messages, heartbeat, counters, inventory, bus ids and codes: the small parts under the child and its client."""

import math
import time
from array import array
from itertools import pairwise
from pathlib import Path

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.drillfile import boot_id
from agent.gpu import codes, wire
from agent.gpu.accumulate import Accumulator
from agent.gpu.inventory import Inventory, path_of
from agent.gpu.links import ChipLinks
from agent.gpu.node import GpuNode
from agent.gpu.pci import normalise, scan
from agent.gpu.pcie import COUNTERS
from agent.gpu.readings import (
    CALLS,
    FIELDS,
    GETTERS,
    GPM,
    LAZY_FIELDS,
    LIFETIME_ECC,
    LINK_ERRORS,
    NUMBER,
    P2P,
    STATS,
    THROTTLE_BITS,
    WINDOWED,
    throttle_fields,
)
from agent.gpu.series import FEATURES, SERIES
from agent.gpu.view import Settings


@given(st.lists(st.one_of(st.just(None), st.floats(allow_nan=True)), max_size=20), st.integers(1, 50))
def test_messages_survive_any_cutting(values: list[float | None], size: int) -> None:
    doubles = array("d", [math.nan if value is None else value for value in values])
    sent = wire.pack(wire.HELLO, {"version": 1}) + wire.pack_values(7, 123, 4.5, [doubles]) + wire.pack(wire.XID, [1])
    stream, heard = wire.Stream(), []
    for start in range(0, len(sent), size):
        heard += list(stream.feed(sent[start : start + size]))
    assert [kind for kind, _ in heard] == [wire.HELLO, wire.VALUES, wire.XID]
    frame = wire.unpack_values(heard[1][1])
    assert (frame.generation, frame.at_ns, frame.wall) == (7, 123, 4.5)
    assert frame.values.tobytes() == doubles.tobytes()


@given(st.binary(max_size=200))
def test_a_damaged_stream_is_an_error_or_waits(data: bytes) -> None:
    stream = wire.Stream()
    try:
        for kind, body in stream.feed(data):
            wire.unpack_values(body) if kind == wire.VALUES else wire.unpack(body)
    except wire.WireError:
        pass


def test_heartbeat_names_the_call_on_both_sides() -> None:
    fd = wire.Heartbeat.create()
    child, parent = wire.Heartbeat(fd), wire.Heartbeat(fd)
    assert parent.busy() == []
    lane = child.lane(wire.EVENTS)
    wire.begin(lane, NUMBER["nvmlEventSetWait_v2"], None, 5)
    wire.begin(child.lane(wire.SWEEP), NUMBER["nvmlDeviceGetFieldValues"], 3, 9)
    assert parent.busy() == [
        wire.Busy(wire.SWEEP, NUMBER["nvmlDeviceGetFieldValues"], 3, 9),
        wire.Busy(wire.EVENTS, NUMBER["nvmlEventSetWait_v2"], None, 5),
    ]
    lane[2] = 0
    assert len(parent.busy()) == 1
    lane.release()


@given(st.lists(st.floats(0, 1e15, allow_subnormal=False), min_size=1, max_size=30))
def test_totals_never_fall_and_add_up_the_steps(readings: list[float]) -> None:
    counter = Accumulator()
    totals = [counter.add("x", reading) for reading in readings]
    assert totals[0] == readings[0]
    assert all(after >= before for before, after in pairwise(totals))
    steps = sum(max(0.0, after - before) for before, after in pairwise(readings))
    assert totals[-1] == pytest.approx(readings[0] + steps)


def test_totals_outlive_a_restart_and_a_lifted_overlay() -> None:
    counter = Accumulator()
    counter.add("energy/GPU-a", 100)
    counter.add("energy/GPU-a", 900)
    again = Accumulator(counter.dump())  # the agent restarts
    assert again.add("energy/GPU-a", 950) == 950
    assert again.add("energy/GPU-a", 120) == 950  # an overlay is lifted, or the driver reloaded
    assert again.add("energy/GPU-a", 130) == 960
    again.rebase("energy/")  # a reboot while the agent was away
    assert again.add("energy/GPU-a", 40) == 1000


def test_damaged_totals_are_left_out() -> None:
    counter = Accumulator({"a": [1, 2], "b": "x", "c": [math.nan, 1], "d": [1]})
    assert counter.dump() == {"a": [1.0, 2.0]}


def gpu(uuid: str, index: int) -> dict[str, object]:
    return {"uuid": uuid, "index": index, "pci": f"0000:{index + 16:02x}:00", "model": "H100"}


def test_numbers_are_given_once(tmp_path: Path) -> None:
    inventory = Inventory(path_of(tmp_path, False))
    inventory.see([gpu("a", 0), gpu("b", 1)])
    inventory.see([gpu("b", 0), gpu("c", 1)])  # a is gone, b moved up, c is new and its index is taken
    again = Inventory(path_of(tmp_path, False))
    assert {uuid: known.gpu for uuid, known in again.known.items()} == {"a": 0, "b": 1, "c": 2}
    assert again.most == 3
    assert (again.at("0000:11:00"), again.with_index(0), again.label("c"), again.label("zz")) == ("c", "a", "2", "")
    assert Inventory(path_of(tmp_path, True)).known == {}


def test_most_is_what_was_known_at_once(tmp_path: Path) -> None:
    inventory = Inventory(path_of(tmp_path, False))
    inventory.see([gpu("a", 0), gpu("b", 1)])
    inventory.forget(["b"])
    assert (list(inventory.known), inventory.most) == (["a"], 1)


def test_damaged_inventory_starts_afresh(tmp_path: Path) -> None:
    path = path_of(tmp_path, False)
    path.write_text("{")
    assert Inventory(path).known == {}
    path.write_text('{"gpus": [{"uuid": 1}]}')
    assert Inventory(path).known == {}


@pytest.mark.parametrize("text", ["00000000:1A:00.0", "0000:1A:00.0", "0:1a:0.0", "1A:00.0", "0000:1a:00"])
def test_bus_ids_have_one_form(text: str) -> None:
    assert normalise(text) == "0000:1a:00"


def test_no_bus_id() -> None:
    assert normalise("nonsense") == normalise("") == ""


def test_gpus_on_the_bus(tmp_path: Path) -> None:
    for name, vendor, kind in (
        ("0000:1a:00.0", "0x10de", "0x030200"),
        ("0000:1b:00.0", "0x10de", "0x030000"),
        ("0000:1c:00.0", "0x10de", "0x068000"),  # an NVSwitch is a bridge
        ("0000:1d:00.0", "0x8086", "0x030000"),
    ):
        device = tmp_path / "bus/pci/devices" / name
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor + "\n")
        (device / "class").write_text(kind + "\n")
    (tmp_path / "bus/pci/devices/0000:1e:00.0").mkdir()
    assert scan(tmp_path) == ["0000:1a:00", "0000:1b:00"]
    assert scan(tmp_path / "nowhere") is None


def test_codes_are_nvmls() -> None:
    ours = {name: value for name, value in vars(codes).items() if isinstance(value, int)}
    for name, value in ours.items():
        theirs = "NVML_SUCCESS" if name == "SUCCESS" else f"NVML_ERROR_{name}"
        assert getattr(pynvml, theirs) == value
    assert codes.name(15) == "gpu_is_lost"
    assert codes.name(12345) == "12345"


def test_every_reading_has_a_series() -> None:
    keys = {field.key for field in (*FIELDS, *LAZY_FIELDS, *LIFETIME_ECC, *throttle_fields((580, 95)), *GPM)}
    keys |= {part.key for get in GETTERS for part in get.parts}
    keys |= {f"{key}.{stat}" for key in WINDOWED for stat in STATS}
    keys |= {f"throttle.{word}" for word in THROTTLE_BITS.values()}
    keys |= {f"nvlink_errors.{kind}" for kind in LINK_ERRORS.values()}
    keys |= {f"p2p.{word}" for word in P2P}
    keys |= {entry.key for entry in (ChipLinks.COUNT, *ChipLinks.OF_A_LINK)}
    keys |= {"dram_bytes", "dram_peak", "nvlink_links", "nvlink_active", "processes", "pcie_degraded", "inforom_valid"}
    dynamic = {key for key in SERIES if key.startswith(("mig.", "link_"))}
    assert keys <= set(SERIES)
    assert set(SERIES) - dynamic - keys == {"ecc_at.corrected.cbu", "ecc_ever.corrected.cbu"}  # it corrects nothing
    assert set(FEATURES.values()) <= keys


def test_every_call_has_a_number() -> None:
    assert len(NUMBER) == len(set(NUMBER.values())) == len(CALLS)
    assert {get.name for get in GETTERS} <= set(NUMBER)


def test_field_ids_are_nvmls() -> None:
    names = {
        3: "ECC_SBE_VOL_TOTAL", 6: "ECC_DBE_AGG_TOTAL", 31: "RETIRED_PENDING", 74: "PERF_POLICY_POWER",
        82: "MEMORY_TEMP", 83: "TOTAL_ENERGY_CONSUMPTION", 94: "PCIE_REPLAY_COUNTER",
        17: "ECC_DBE_VOL_CBU", 12: "ECC_DBE_VOL_DEV", 173: "PCIE_COUNT_CORRECTABLE_ERRORS",
        183: "PCIE_COUNT_LANE_ERROR",
        188: "POWER_MAX_LIMIT", 194: "TEMPERATURE_SLOWDOWN_TLIMIT",
        138: "NVLINK_THROUGHPUT_DATA_TX", 139: "NVLINK_THROUGHPUT_DATA_RX", 144: "REMAPPED_PENDING",
        18: "ECC_SBE_AGG_L1", 28: "ECC_DBE_AGG_CBU", 23: "ECC_DBE_AGG_DEV",
        170: "C2C_LINK_COUNT", 171: "C2C_LINK_GET_STATUS", 172: "C2C_LINK_GET_MAX_BW", 231: "C2C_LINK_ERROR_INTR",
        233: "C2C_LINK_ERROR_REPLAY_B2B", 197: "PCIE_COUNT_TX_BYTES", 198: "PCIE_COUNT_RX_BYTES",
        269: "CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN", 270: "CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN",
        271: "CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",
        145: "REMAPPED_FAILURE", 185: "POWER_AVERAGE", 190: "POWER_CURRENT_LIMIT", 230: "GET_GPU_RECOVERY_ACTION",
    }  # fmt: skip
    known = (*FIELDS, *LAZY_FIELDS, *LIFETIME_ECC, *COUNTERS, *throttle_fields((615, 71)), ChipLinks.COUNT)
    ids = {field.id for field in (*known, *ChipLinks.OF_A_LINK)}
    for number, name in names.items():
        assert getattr(pynvml, f"NVML_FI_DEV_{name}") == number
        assert number in ids


def test_clock_of_the_page_is_monotonic() -> None:
    assert abs(time.monotonic_ns() / 1e9 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 1


def test_without_a_boot_id_gpus_are_read_all_the_same(tmp_path: Path) -> None:
    """A process tree of processes alone (ProcSubset=pid, some containers) has none."""
    assert boot_id(tmp_path) == ""
    assert GpuNode(Settings(), tmp_path, tmp_path).synthetic is None
