"""What the agent reads from healthy simulated GPUs of several generations."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.base.catalogue import gpu as m

pytestmark = pytest.mark.e2e

TWELVE = {
    # one or more readings of each of the core metrics that NVML gives
    1: (m.UTILIZATION, m.UTILIZATION_WINDOW, m.SM_ACTIVITY, m.TENSOR_ACTIVITY),
    2: (m.MEMORY_TOTAL, m.MEMORY_USED, m.MEMORY_FREE, m.MEMORY_RESERVED),
    3: (m.DRAM_BANDWIDTH, m.DRAM_BANDWIDTH_RATIO, m.DRAM_PEAK, m.MEMORY_ACTIVITY),
    4: (m.PCIE_TX, m.PCIE_RX, m.PCIE_GENERATION, m.PCIE_GENERATION_MAX, m.PCIE_WIDTH, m.PCIE_WIDTH_MAX, m.PCIE_REPLAYS),
    5: (m.POWER, m.POWER_WINDOW, m.POWER_LIMIT, m.ENERGY),
    6: (m.TEMPERATURE, m.TEMPERATURE_WINDOW, m.TEMPERATURE_MARGIN),
    7: (m.CLOCK, m.CLOCK_MAX, m.THROTTLE, m.THROTTLE_SECONDS),
    8: (m.ECC_ERRORS, m.REMAPPED_ROWS, m.ROW_REMAP_PENDING, m.ROW_REMAP_FAILURE),
    9: (m.NVLINK_ACTIVE, m.NVLINK_LINKS, m.NVLINK_TX, m.NVLINK_RX, m.NVLINK_ERRORS),
    10: (m.XID_EVENTS, m.RECOVERY_ACTION),
}


def test_h100_tells_all_core_metrics(make_node):
    node = make_node()
    page = node.until_whole()
    page = node.until(lambda page: page.all("gpuvigil_gpu_dram_bandwidth_ratio"))
    for metrics in TWELVE.values():
        for metric in metrics:
            assert len({dict(key)["uuid"] for key in page.all(metric.name)}) == 8, metric.name
    for (name, labels), _ in page.series.items():
        if name.startswith("gpuvigil_gpu"):
            assert ("synthetic", "true") in labels, name
    assert page.one("gpuvigil_agent_simulated") == 1
    assert page.one("gpuvigil_gpu_expected") == page.one("gpuvigil_gpu_known") == 8
    assert page.failed == ""


def test_values_hang_together(make_node):
    node = make_node(world={"gpus": 2, "workload": "inference"})
    node.until_whole(2)
    page = node.until(lambda page: page.all("gpuvigil_gpu_dram_bandwidth_bytes_per_second"))
    for gpu in ("0", "1"):
        total, used, free, reserved = (
            page.one(f"gpuvigil_gpu_memory_{part}_bytes", gpu=gpu) for part in ("total", "used", "free", "reserved")
        )
        assert used + free + reserved == total > 79e9
        ratio = page.one("gpuvigil_gpu_dram_bandwidth_ratio", gpu=gpu)
        peak = page.one("gpuvigil_gpu_dram_bandwidth_peak_bytes_per_second", gpu=gpu)
        assert page.one("gpuvigil_gpu_dram_bandwidth_bytes_per_second", gpu=gpu) == pytest.approx(ratio * peak)
        assert peak == pytest.approx(3.35e12, rel=0.01)
        assert 0 <= page.one("gpuvigil_gpu_utilization_ratio", gpu=gpu) <= 1
        low, high, p95 = (page.one("gpuvigil_gpu_power_window_watts", gpu=gpu, stat=s) for s in ("min", "max", "p95"))
        assert low <= p95 <= high
        assert 40 < low <= high <= 750
        assert page.one("gpuvigil_gpu_clock_hertz", gpu=gpu, clock="memory") == pytest.approx(2.619e9)


def test_spike_between_two_scrapes_is_in_the_window(make_node):
    node = make_node(world={"gpus": 1, "workload": "idle"})

    def window(page, stat):
        return page.one("gpuvigil_gpu_power_window_watts", stat=stat) or 0

    page = node.until(lambda page: 0 < 0.8 * window(page, "max") < window(page, "min"))
    calm = window(page, "max")

    def spike_told_of_in_calm(page):
        power, peak = page.one("gpuvigil_gpu_power_watts"), window(page, "max")
        if power is None:
            return False
        if power > 1.5 * calm:
            node.world.set_workload("idle")
        elif peak <= 1.5 * calm:  # not yet; or on a busy machine it has left the window before anybody looked
            node.world.set_workload("training")
        return power < 0.6 * peak and peak > 1.5 * calm

    node.until(spike_told_of_in_calm)


def test_t4_says_why_it_has_no_dram_bandwidth(make_node):
    node = make_node(world={"gpus": 1, "profile": "t4"})
    page = node.until(lambda page: page.all("gpuvigil_gpu_pcie_tx_bytes_per_second"))
    assert page.one("gpuvigil_gpu_feature_supported", feature="dram_bandwidth") == 0
    assert page.one("gpuvigil_gpu_feature_supported", feature="nvlink") == 0
    assert page.one("gpuvigil_gpu_feature_supported", feature="pcie_throughput") == 1
    for metric in (m.DRAM_BANDWIDTH, m.DRAM_BANDWIDTH_RATIO, m.SM_ACTIVITY, m.NVLINK_ACTIVE, m.ROW_REMAP_PENDING):
        assert not page.all(metric.name)
    assert page.one("gpuvigil_gpu_memory_activity_ratio") is not None
    assert page.one("gpuvigil_gpu_temperature_limit_celsius", limit="slowdown") == 93


@pytest.mark.parametrize("profile", ["a40", "a100", "h200", "b200", "rtx4090", "l40s"])
def test_other_boards_are_read_without_a_wrong_zero(make_node, profile):
    from chaos.simulator.profiles import PROFILES

    if profile not in PROFILES:
        pytest.skip(f"the simulator has no profile {profile}")
    node = make_node(world={"gpus": 2, "profile": profile})
    page = node.until_whole(2)
    for key, value in page.all("gpuvigil_gpu_feature_supported").items():
        labels = dict(key)
        if labels["feature"] == "ecc":
            assert value == bool(page.all("gpuvigil_gpu_ecc_errors_total", gpu=labels["gpu"]))
    assert all(value > 0 for value in page.all("gpuvigil_gpu_memory_total_bytes").values())


@pytest.mark.parametrize("driver", ["575.57.08", "580.65.06", "580.82.07", "595.45.04"])
def test_throttle_seconds_under_the_ids_of_each_driver(make_node, driver):
    node = make_node(world={"gpus": 1, "driver": driver})
    node.until_whole(1)
    node.world.set("thermal_throttle", gpu=0)
    page = node.until(lambda page: (page.one("gpuvigil_gpu_throttle_seconds_total", reason="hw_thermal") or 0) > 0.5)
    assert page.one("gpuvigil_gpu_throttle", reason="hw_thermal") == 1
    assert page.one("gpuvigil_gpu_throttle_seconds_total", reason="hw_power_brake") == 0


def test_processes_are_counted_and_listed(make_node):
    node = make_node(world={"gpus": 1}, setup=lambda world: world.set_process(0, 4242, 5 << 30))
    page = node.until(lambda page: page.one("gpuvigil_gpu_processes") == 1)
    (uuid,) = (dict(key)["uuid"] for key in page.all("gpuvigil_gpu_processes"))
    assert node.context.shared["gpu"].client.processes() == {uuid: [(4242, 5 << 30)]}


def test_processes_are_shown_by_size(make_node):
    def setup(world):
        for pid, gib in ((11, 1), (12, 9), (13, 3)):
            world.set_process(0, pid, gib << 30)

    node = make_node(world={"gpus": 1}, setup=setup, processes=2)
    page = node.until(lambda page: page.all("gpuvigil_gpu_process_memory_bytes"))
    shown = {dict(k)["pid"]: v for k, v in page.all("gpuvigil_gpu_process_memory_bytes").items()}
    assert shown == {"12": 9 << 30, "13": 3 << 30}


def test_what_takes_time_to_ask_is_not_called_unsupported_meanwhile(make_node):
    node, said = make_node(world={"gpus": 2, "profile": "t4"}), set()

    def told(page):
        said.update(page.all("gpuvigil_gpu_feature_supported", feature="pcie_throughput").values())
        return len(page.all("gpuvigil_gpu_pcie_tx_bytes_per_second")) == 2

    node.until(told)
    assert said <= {1.0}


def test_processes_that_are_no_longer_told_are_no_longer_shown(make_node):
    node = make_node(world={"gpus": 1}, setup=lambda world: world.set_process(0, 11, 1 << 30), interval="100ms")
    node.until(lambda page: page.all("gpuvigil_gpu_process_memory_bytes"))
    node.world.set("no_permission", 0, call="processes")
    node.until(
        lambda page: not page.all("gpuvigil_gpu_process_memory_bytes") and not page.all("gpuvigil_gpu_processes")
    )
    node.world.clear()
    node.until(lambda page: page.all("gpuvigil_gpu_process_memory_bytes") and page.one("gpuvigil_gpu_processes") == 1)


def test_video_engines_are_shown_for_the_processes_that_ever_used_them(make_node):
    def setup(world):
        world.set_process(0, 11, 1 << 30)
        world.set_process(0, 12, 2 << 30, encoder=30, decoder=10)
        world.set_process(0, 13, 3 << 30, decoder=5)

    stems = [f"gpuvigil_gpu_process_{engine}_utilization_ratio" for engine in ("encoder", "decoder")]
    node = make_node(world={"gpus": 1}, setup=setup)
    page = node.until(lambda page: all(page.all(stem) for stem in stems))
    shown = [{dict(key)["pid"]: value for key, value in page.all(stem).items()} for stem in stems]
    assert shown == [{"12": 0.3}, {"12": 0.1, "13": 0.05}]
    node.world.set_process(0, 12, 2 << 30, decoder=10)
    page = node.until(lambda page: page.one(stems[0], pid="12") == 0)
    assert page.one(stems[1], pid="12") == 0.1
    node.world.remove_process(0, 12)
    node.until(lambda page: not page.all(stems[0]))


def test_grace_tells_its_links_to_the_processor(make_node):
    node = make_node(world={"gpus": 1, "profile": "gh200"})
    page = node.until(lambda page: page.one("gpuvigil_gpu_c2c_rx_bytes_per_second"))
    assert page.one("gpuvigil_gpu_c2c_links") == page.one("gpuvigil_gpu_c2c_links_active") == 10
    assert page.one("gpuvigil_gpu_c2c_speed_bytes_per_second") == 10 * 44712e6
    assert set(page.all("gpuvigil_gpu_c2c_errors_total").values()) == {0}
    assert page.one("gpuvigil_gpu_feature_supported", feature="c2c") == 1
    node.world.set("c2c_down", gpu=0, link=3)
    page = node.until(lambda page: page.one("gpuvigil_gpu_c2c_links_active") == 9)
    assert page.one("gpuvigil_gpu_c2c_speed_bytes_per_second") == 9 * 44712e6
    page = node.until(lambda page: page.one("gpuvigil_health_state", component="c2c") == 2)


def test_a_gpu_without_c2c_says_nothing_of_it(make_node):
    node = make_node(world={"gpus": 1})
    page = node.until(lambda page: page.all("gpuvigil_gpu_dram_bandwidth_ratio"))
    assert page.one("gpuvigil_gpu_feature_supported", feature="c2c") == 0
    assert not [name for name, _ in page.series if "_c2c_" in name]


def test_which_peers_a_gpu_reaches(make_node):
    node = make_node(world={"gpus": 4})
    page = node.until(lambda page: len(page.all("gpuvigil_gpu_p2p_peers")) == 8)
    assert set(page.all("gpuvigil_gpu_p2p_peers").values()) == {3}
    node.world.set("nvlink_down", gpu=2)
    page = node.until(lambda page: page.one("gpuvigil_gpu_p2p_peers", gpu="2", by="nvlink") == 0)
    assert page.one("gpuvigil_gpu_p2p_peers", gpu="2", by="read") == 3


def test_a_board_that_has_no_peer_access_says_so(make_node):
    node = make_node(world={"gpus": 2, "profile": "rtx4090"})
    page = node.until(lambda page: len(page.all("gpuvigil_gpu_p2p_peers")) == 4)
    assert set(page.all("gpuvigil_gpu_p2p_peers").values()) == {0}


def test_the_inforom_is_told_and_validated(make_node):
    node = make_node(world={"gpus": 2}, setup=lambda world: world.set("inforom_corrupted", gpu=1))
    page = node.until(lambda page: len(page.all("gpuvigil_gpu_inforom_valid")) == 2)
    assert page.one("gpuvigil_gpu_inforom_valid", gpu="0") == 1
    assert page.one("gpuvigil_gpu_inforom_valid", gpu="1") == 0
    assert page.one("gpuvigil_gpu_inforom_info", gpu="0", image="G520.0200.00.05", ecc="6.16", power="2.0") == 1
    page = node.until(lambda page: page.one("gpuvigil_health_state", component="inforom", gpu="1") == 1)
    assert page.one("gpuvigil_health_state", component="inforom", gpu="0") == 0


def test_pcie_counters_that_wrap_are_not_believed(make_node):
    """A100: no GPM, counters of 32 bits, so the call that takes 20 ms tells the throughput."""
    node = make_node(world={"gpus": 1, "profile": "a100"})
    page = node.until(lambda page: page.all("gpuvigil_gpu_pcie_rx_bytes_per_second"))
    first = page.one("gpuvigil_gpu_pcie_rx_bytes_per_second")
    time.sleep(3)  # several readings of the counters
    assert node.page().one("gpuvigil_gpu_pcie_rx_bytes_per_second") == first  # the lane's, asked every 15 s


def test_pcie_counters_proven_wide_take_over(make_node):
    node = make_node(world={"gpus": 1, "profile": "a100", "wide_pcie_counters": True})
    node.until(lambda page: page.all("gpuvigil_gpu_pcie_rx_bytes_per_second"))
    seen = set()
    node.until(lambda page: seen.add(page.one("gpuvigil_gpu_pcie_rx_bytes_per_second")) or len(seen) > 3)
    assert all(0 <= value < 64e9 for value in seen)


def test_lifetime_ecc_by_location_on_request(make_node):
    node = make_node(world={"gpus": 1}, lifetime_ecc=True)
    node.world.set("ecc_uncorrected", gpu=0, count=3)
    name = "gpuvigil_gpu_ecc_lifetime_location_errors_total"
    page = node.until(lambda page: page.one(name, severity="uncorrected", location="dram") == 3)
    assert page.one(name, severity="uncorrected", location="cbu") == 0


def test_mig_switched_on_and_off(make_node):
    node = make_node(world={"gpus": 2})
    node.until_whole(2)
    node.world.set_mig(1, [3, 4])
    page = node.until(lambda page: len(page.all("gpuvigil_gpu_mig_memory_used_bytes")) == 2)
    instances = {dict(key)["gpu_instance"] for key in page.all("gpuvigil_gpu_mig_memory_used_bytes", gpu="1")}
    assert len(instances) == 2
    assert not page.all("gpuvigil_gpu_utilization_ratio", gpu="1")  # NVML has none for a partitioned GPU
    assert page.all("gpuvigil_gpu_utilization_ratio", gpu="0")
    page = node.until(lambda page: page.all("gpuvigil_gpu_mig_dram_bandwidth_ratio"))
    assert all(0 <= value <= 1 for value in page.all("gpuvigil_gpu_mig_dram_bandwidth_ratio").values())
    for name in ("sm_occupancy_ratio", "graphics_activity_ratio", "pcie_tx_bytes_per_second"):
        assert len(page.all(f"gpuvigil_gpu_mig_{name}", gpu="1")) == 2
    who = [dict(key) for key in page.all("gpuvigil_gpu_mig_info", gpu="1")]
    assert {each["profile"] for each in who} == {"3g.39gb", "4g.39gb"}
    assert len({each["mig_uuid"] for each in who if each["mig_uuid"].startswith("MIG-")}) == 2
    node.world.set_mig(1, [])
    page = node.until(lambda page: len(page.all("gpuvigil_gpu_utilization_ratio")) == 2)
    assert not page.all("gpuvigil_gpu_mig_memory_used_bytes")


def test_every_link_on_request(make_node):
    node = make_node(world={"gpus": 1}, per_link=True)
    page = node.until(lambda page: page.all("gpuvigil_gpu_nvlink_link_active"))
    assert len(page.all("gpuvigil_gpu_nvlink_link_active")) == 18
    assert len(page.all("gpuvigil_gpu_nvlink_link_bytes_total", direction="tx")) == 18
    total = page.one("gpuvigil_gpu_nvlink_tx_bytes_total")
    assert sum(page.all("gpuvigil_gpu_nvlink_link_bytes_total", direction="tx").values()) == pytest.approx(
        total, rel=0.2
    )
    node.world.set("nvlink_down", gpu=0, link=4)
    page = node.until(lambda page: page.one("gpuvigil_gpu_nvlink_link_active", link="4") == 0)
    assert page.one("gpuvigil_gpu_nvlink_links_active") == 17


def test_blackwell_links_tell_bytes_and_errors(make_node):
    node = make_node(world={"gpus": 1, "profile": "b200"})
    node.until_whole(1)
    node.world.set("nvlink_errors", gpu=0, crc=10)
    page = node.until(lambda page: sum(page.all("gpuvigil_gpu_nvlink_errors_total").values()) > 0)
    assert page.one("gpuvigil_gpu_nvlink_tx_bytes_total") > 0
    kinds = {dict(key)["kind"] for key in page.all("gpuvigil_gpu_nvlink_errors_total")}
    assert "symbol" in kinds
    assert "crc" not in kinds


def test_pcie_is_judged_under_load(make_node):
    node = make_node(world={"gpus": 2})
    page = node.until(lambda page: len(page.all("gpuvigil_gpu_pcie_link_degraded")) == 2)
    assert set(page.all("gpuvigil_gpu_pcie_link_degraded").values()) == {0}
    node.world.set("pcie_degraded", gpu=1, generation=1)
    page = node.until(lambda page: page.one("gpuvigil_gpu_pcie_link_degraded", gpu="1") == 1)
    assert page.one("gpuvigil_gpu_pcie_link_degraded", gpu="0") == 0


def test_pcie_of_an_idle_gpu_is_not_judged_by_its_generation(make_node):
    node = make_node(world={"gpus": 1, "workload": "idle"})
    page = node.until(lambda page: (page.one("gpuvigil_gpu_pcie_link_generation") or 9) < 5)
    assert page.one("gpuvigil_gpu_pcie_link_degraded") is None
    node.world.set("pcie_degraded", gpu=0, generation=0, width=4)
    node.until(lambda page: page.one("gpuvigil_gpu_pcie_link_degraded") == 1)


def test_fabric_that_is_not_well(make_node):
    node = make_node(world={"gpus": 1})
    page = node.until_whole(1)
    assert page.one("gpuvigil_gpu_fabric_state") == 3
    node.world.set("fabric", gpu=0, state=2, status=5, degraded=1)
    page = node.until(lambda page: page.one("gpuvigil_gpu_fabric_state") == 2)
    assert page.one("gpuvigil_gpu_fabric_status_code") == 5
    assert page.one("gpuvigil_gpu_fabric_degraded") == 1


def test_counters_outlive_a_restart(make_node):
    node = make_node(world={"gpus": 1})
    before = node.until(lambda page: (page.one("gpuvigil_gpu_energy_joules_total") or 0) > 0)
    node.restart()
    after = node.until(lambda page: page.one("gpuvigil_gpu_energy_joules_total") is not None)
    assert after.one("gpuvigil_gpu_energy_joules_total") >= before.one("gpuvigil_gpu_energy_joules_total")


def test_lifted_fault_is_no_jump(make_node):
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    fault = node.world.set("pcie_degraded", gpu=0, replays=1000)
    high = node.until(lambda page: page.one("gpuvigil_gpu_pcie_replays_total") > 500)
    node.world.clear(fault)
    values = [node.page().one("gpuvigil_gpu_pcie_replays_total") for _ in range(5) if not time.sleep(0.2)]
    assert values == sorted(values)
    assert values[0] >= high.one("gpuvigil_gpu_pcie_replays_total")


def test_the_child_is_light():
    """It imports nvidia-ml-py and the standard library alone, and stays under 30 MB."""
    code = (
        "import sys, agent.gpu.child; "
        "heavy = {'pydantic', 'yaml', 'psutil', 'prometheus_client', 'h11'}; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & heavy)); "
        "print(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, rss = result.stdout.split("\n")[:2]
    assert heavy == "[]"
    assert int(rss) < 30 * 1024


def test_the_child_ends_with_the_agent(make_node):
    node = make_node(world={"gpus": 1})
    node.until_whole(1)
    (pid,) = node.context.shared["gpu"].client.pids()
    assert Path(f"/proc/{pid}").exists()
    node.gpu.close()
    assert not Path(f"/proc/{pid}").exists()
    assert not os.environ.get("GPUVIGIL_SIM_REAL")
    node.start()
