"""Xids on the simulated node: either source alone, both at once, over a restart, in a flood."""

import time

import pytest

pytestmark = pytest.mark.e2e

TOTAL = "gpuvigil_gpu_xid_events_total"
CODES = "gpuvigil_gpu_xid_codes_total"


def bus(node, gpu):
    return node.world.gpus[gpu].bus_id.lower().rpartition(".")[0]


def write(node, text, *, facility=0, level=3):
    usec = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    with node.kmsg.open("a") as file:
        file.write(f"{facility * 8 + level},1,{usec},-;{text}\n")


def settle():
    """Longer than the time between an event and its telling by the other source."""
    time.sleep(1.5)


def test_series_exist_at_zero_before_the_first_event(make_node):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    page = node.until(lambda page: page.all(TOTAL))
    assert len(page.all(TOTAL)) == 2 * 8
    assert set(page.all(TOTAL).values()) == {0}
    assert not page.all(CODES)


def test_both_sources_are_one_event(make_node):
    node = make_node()
    node.until_whole()
    node.world.set("xid", gpu=3, code=79, kmsg=node.kmsg)
    node.until(lambda page: page.one(TOTAL, gpu="3", action="RESTART_BM"))
    settle()
    page = node.page()
    assert page.one(TOTAL, gpu="3", action="RESTART_BM") == 1
    assert page.one(CODES, gpu="3", xid="79") == 1
    assert page.one("gpuvigil_gpu_xid_last_timestamp_seconds", gpu="3", xid="79") == pytest.approx(time.time(), abs=30)
    (event,) = node.xid._ledger.events
    assert set(event.sources) == {"nvml", "kernel"}


def test_event_alone(make_node):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    node.world.set("xid", gpu=1, code=48)
    page = node.until(lambda page: page.one(CODES, gpu="1", xid="48"))
    assert page.one(TOTAL, gpu="1", action="RESET_GPU") == 1


def test_kernel_line_counts_while_the_driver_hangs(make_node):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    node.world.set("hang", gpu=0)
    node.world.set("hang", gpu=1)
    node.until(lambda page: page.failed == "driver_hung")
    write(node, f"NVRM: Xid (PCI:{bus(node, 0)}): 119, pid=1, name=nvidia-smi, Timeout after 6s of waiting")
    page = node.until(lambda page: page.one(CODES, gpu="0", xid="119"))
    assert page.one(TOTAL, gpu="0", action="RESET_GPU") == 1


def test_kernel_line_names_its_gpu_when_there_is_no_driver_since_start(make_node):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    node.stop()
    node.world.set("driver_unloaded")
    node.start()
    write(node, f"NVRM: Xid (PCI:{bus(node, 1)}): 79, GPU has fallen off the bus.")
    page = node.until(lambda page: page.all(CODES, xid="79"))
    assert page.one(CODES, gpu="1", xid="79") == 1


def test_fallen_off_in_three_lines_without_an_xid(make_node):
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    write(node, f"NVRM: The NVIDIA GPU {bus(node, 0)}.0")
    write(node, "NVRM: (PCI ID: 10de:2330) installed in this system has")
    write(node, "NVRM: fallen off the bus and is not responding to commands.")
    page = node.until(lambda page: page.one(CODES, xid="79"))
    assert page.one(TOTAL, action="RESTART_BM") == 1


def test_nothing_lost_and_nothing_twice_over_a_restart(make_node):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    node.world.set("xid", gpu=0, code=31, kmsg=node.kmsg)
    node.until(lambda page: page.one(CODES, gpu="0", xid="31"))
    settle()
    node.page()
    node.stop()
    write(node, f"NVRM: Xid (PCI:{bus(node, 1)}): 94, pid=9, name=python, Contained: SM (0x1). RST: No, D-RST: No")
    node.start()
    page = node.until(lambda page: page.one(CODES, gpu="1", xid="94"))
    assert page.one(CODES, gpu="0", xid="31") == 1
    assert page.one(TOTAL, gpu="0", action="RESTART_APP") == 1
    assert page.one(TOTAL, gpu="1", action="RESTART_APP") == 1


def test_recovery_action_line_decides_the_action(make_node):
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    node.world.set("xid", gpu=0, code=154, kmsg=node.kmsg)
    page = node.until(lambda page: page.one(CODES, xid="154"))
    assert page.one(TOTAL, action="RESET_GPU") == 1


def test_a_flood_is_read_in_pieces_and_nothing_is_missed(make_node):
    """100,000 lines: mostly noise, with one Xid of each of several codes among them."""
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    usec = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    place = bus(node, 0)
    lines = [f"6,{n},{usec},-;usb 1-1: device descriptor read/64, error -71 ({n})" for n in range(100_000)]
    for position, code in ((1, 13), (25_000, 31), (50_000, 48), (75_000, 63), (99_999, 79)):
        lines[position] = f"3,{position},{usec},-;NVRM: Xid (PCI:{place}): {code}, pid=1, name=x, text"
    with node.kmsg.open("a") as file:
        file.write("\n".join(lines) + "\n")
    page = node.until(lambda page: page.one("gpuvigil_kernel_log_records_total") == 100_000)
    assert {dict(key)["xid"]: value for key, value in page.all(CODES).items()} == {
        "13": 1, "31": 1, "48": 1, "63": 1, "79": 1,
    }  # fmt: skip
    assert page.one("gpuvigil_kernel_log_lost_records_total") == 0


def test_a_flood_of_xids_makes_no_flood_of_series(make_node):
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    usec = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    with node.kmsg.open("a") as file:
        for n in range(30_000):
            file.write(f"3,{n},{usec},-;NVRM: Xid (PCI:{n % 256:04x}:{n // 256:02x}:00): {n}, made up\n")
    page = node.until(lambda page: page.one("gpuvigil_kernel_log_records_total") == 30_000)
    assert len(page.all(CODES)) <= 128
    assert len(page.all(TOTAL)) <= 8 * 40
    assert sum(page.all(TOTAL).values()) == pytest.approx(30_000, abs=10)


def test_switch_errors_and_kernel_trouble(make_node):
    node = make_node(world={"gpus": 1})
    page = node.until(lambda page: page.all("gpuvigil_kernel_events_total"))
    assert set(page.all("gpuvigil_kernel_events_total").values()) == {0}
    write(node, "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 48 LTSSM Fault Up")
    write(node, "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Data {0x50610002, 0x10100030}")
    write(node, "INFO: task nvidia-smi:2024 blocked for more than 120 seconds.", facility=0)
    write(node, "INFO: task faked:1 blocked for more than 120 seconds.", facility=1)
    page = node.until(lambda page: page.one("gpuvigil_kernel_log_records_total") == 4)
    assert (
        page.one("gpuvigil_nvswitch_sxid_events_total", switch="nvidia-nvswitch1", sxid="20034", severity="fatal") == 1
    )
    assert page.one("gpuvigil_kernel_events_total", kind="hung_task") == 1
    node.restart()
    page = node.until(lambda page: page.all("gpuvigil_kernel_events_total"))
    assert page.one("gpuvigil_kernel_events_total", kind="hung_task") == 1
    assert page.one("gpuvigil_nvswitch_sxid_events_total", switch="nvidia-nvswitch1") == 1
