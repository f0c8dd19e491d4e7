"""Faults laid over a driver that is real for all the agent can see, and what the kernel tells of its slots."""

import time

import pytest

pytestmark = pytest.mark.e2e

REPLAYS = "gpuvigil_gpu_pcie_replays_total"
ECC = "gpuvigil_gpu_ecc_errors_total"
AER = "gpuvigil_gpu_pcie_aer_errors_total"


def test_without_a_fault_it_is_the_driver(overlaid):
    page = overlaid.until_whole(2)
    page = overlaid.until(lambda page: page.all("gpuvigil_gpu_dram_bandwidth_ratio"))
    assert page.one("gpuvigil_agent_simulated") == 0
    assert page.one("gpuvigil_gpu_expected") == 2  # counted on the PCI bus
    assert not [name for name, labels in page.series if "synthetic" in dict(labels)]
    uuids = {dict(key)["uuid"] for key in page.all("gpuvigil_gpu_up")}
    assert uuids == {gpu.uuid for gpu in overlaid.real.gpus}
    assert page.one("gpuvigil_gpu_energy_joules_total", gpu="0") > 0


def test_what_is_injected_flows_through_and_is_no_jump_when_lifted(overlaid):
    overlaid.until_whole(2)
    fault = overlaid.world.set("pcie_degraded", gpu=1, replays=1000, duration=60)
    heat = overlaid.world.set("thermal_throttle", gpu=1, duration=60)
    page = overlaid.until(lambda page: (page.one(REPLAYS, gpu="1") or 0) > 500)
    page = overlaid.until(lambda page: page.one("gpuvigil_gpu_throttle", gpu="1", reason="hw_thermal") == 1)
    seconds = "gpuvigil_gpu_throttle_seconds_total"
    page = overlaid.until(lambda page: page.one(seconds, gpu="1", reason="hw_thermal") > 0.5)
    assert page.one(REPLAYS, gpu="0") == page.one(seconds, gpu="0", reason="hw_thermal") == 0
    energy = page.one("gpuvigil_gpu_energy_joules_total", gpu="1")
    overlaid.world.clear(fault)
    overlaid.world.clear(heat)
    page = overlaid.until(lambda page: page.one("gpuvigil_gpu_throttle", gpu="1", reason="hw_thermal") == 0)
    high, held = page.one(REPLAYS, gpu="1"), page.one(seconds, gpu="1", reason="hw_thermal")
    for _ in range(10):
        page = overlaid.page()
        assert page.one(REPLAYS, gpu="1") == high
        assert page.one(seconds, gpu="1", reason="hw_thermal") == held
        time.sleep(0.1)
    assert 0 <= page.one("gpuvigil_gpu_energy_joules_total", gpu="1") - energy < 60 * 750


def test_errors_injected_twice_are_counted_twice(overlaid):
    overlaid.until_whole(2)
    for total in (3, 6):
        fault = overlaid.world.set("ecc_uncorrected", gpu=0, count=3, duration=60)
        overlaid.until(lambda page, n=total: page.one(ECC, gpu="0", severity="uncorrected", lifetime="volatile") == n)
        overlaid.world.clear(fault)
        overlaid.until(lambda page: page.one("gpuvigil_gpu_recovery_action", gpu="0") == 0)
        time.sleep(0.5)
    page = overlaid.page()
    assert page.one(ECC, gpu="0", severity="uncorrected", lifetime="volatile") == 6
    assert page.one(ECC, gpu="1", severity="uncorrected", lifetime="volatile") == 0


def test_an_injected_loss_ends_with_its_fault(overlaid):
    overlaid.until_whole(2)
    overlaid.world.set("gpu_lost", gpu=1, duration=4)
    overlaid.until(lambda page: page.up() == {"0": 1, "1": 0})
    page = overlaid.until_whole(2)  # nobody lifted it
    assert page.one("gpuvigil_gpu_known") == 2


def test_an_injected_xid_is_an_event(overlaid):
    overlaid.until_whole(2)
    overlaid.world.set("xid", gpu=1, code=48, duration=60)
    page = overlaid.until(lambda page: page.one("gpuvigil_gpu_xid_codes_total", gpu="1", xid="48"))
    assert page.one("gpuvigil_gpu_xid_events_total", gpu="1", action="RESET_GPU") == 1


def test_errors_of_a_slot_are_added_up(overlaid):
    page = overlaid.until_whole(2)
    assert not page.all(AER)  # no such files: nothing said, and no zero
    counts = overlaid.bus(1) / "aer_dev_correctable"
    counts.write_text("RxErr 0\nBadTLP 7\nTOTAL_ERR_COR 7\n")
    page = overlaid.until(lambda page: page.all(AER))
    assert page.one(AER, gpu="1", severity="correctable") == 7
    assert not page.all(AER, gpu="0")
    counts.write_text("RxErr 0\nBadTLP 9\nTOTAL_ERR_COR 9\n")
    overlaid.until(lambda page: page.one(AER, gpu="1", severity="correctable") == 9)
    counts.write_text("RxErr 0\nBadTLP 1\nTOTAL_ERR_COR 1\n")  # the slot was reset: no step back
    page = overlaid.page()
    assert page.one(AER, gpu="1", severity="correctable") == 9
    counts.write_text("RxErr 0\nBadTLP 4\nTOTAL_ERR_COR 4\n")
    assert overlaid.page().one(AER, gpu="1", severity="correctable") == 12


def test_a_reboot_counts_a_slots_errors_from_zero(overlaid, tmp_path):
    """After a reboot the kernel's count begins again, even where it is already higher than it was."""
    counts = overlaid.bus(0) / "aer_dev_fatal"
    counts.write_text("TOTAL_ERR_FATAL 2\n")
    overlaid.until(lambda page: page.one(AER, gpu="0", severity="fatal") == 2)
    overlaid.stop()
    boot = tmp_path / "proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("00000000-0000-4000-8000-000000000001\n")
    counts.write_text("TOTAL_ERR_FATAL 5\n")
    overlaid.settings |= {"proc": str(tmp_path / "proc")}
    overlaid.start()
    overlaid.until(lambda page: page.one(AER, gpu="0", severity="fatal") == 7)


def test_limits_of_both_ends_of_the_link(overlaid):
    for name, value in (("max_link_speed", "16.0 GT/s PCIe\n"), ("max_link_width", "8\n")):
        (overlaid.bus(0) / name).write_text(value)
    page = overlaid.until(lambda page: page.all("gpuvigil_gpu_pcie_link_width_limit"))
    assert page.one("gpuvigil_gpu_pcie_link_width_limit", gpu="0", end="card") == 8
    assert page.one("gpuvigil_gpu_pcie_link_generation_limit", gpu="0", end="card") == 5  # the driver's word


def test_a_driver_unloaded_under_the_overlay(overlaid):
    """The child ends with the driver and another takes it up, as without an overlay."""
    overlaid.until_whole(2)
    overlaid.world.set("driver_unloaded", duration=3)
    page = overlaid.until(lambda page: page.failed == "driver_not_loaded")
    assert page.one("gpuvigil_gpu_driver_up") == 0
    overlaid.until_whole(2)
