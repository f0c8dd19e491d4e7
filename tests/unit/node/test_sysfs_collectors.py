"""Collectors of sysfs and procfs on recorded trees: pressure, InfiniBand, EDAC, resctrl."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context
from agent.collectors.bandwidth import Bandwidth
from agent.collectors.edac import Edac
from agent.collectors.infiniband import Infiniband
from agent.collectors.pressure import Pressure, PressureSettings
from agent.node.sysfs import SysSettings

Tree = Callable[[Mapping[str, str]], Path]
CONTEXT = Context("", "")


def of(samples: list[Sample], metric: Metric) -> dict[tuple[str, ...], float]:
    return {s.labels: s.value for s in samples if s.metric is metric}


def test_pressure(tree: Tree) -> None:
    root = tree(
        {
            "pressure/cpu": "some avg10=1.53 avg60=1.87 avg300=1.73 total=1000000\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
            "pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=25\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n",
        }
    )
    samples = list(Pressure(PressureSettings(proc=root), CONTEXT).collect())
    assert of(samples, m.PRESSURE_WAITING) == {("cpu",): 1.0, ("memory",): 25e-6}
    assert of(samples, m.PRESSURE_STALLED) == {("cpu",): 0.0, ("memory",): 1.5}


def test_no_hardware_no_series(tmp_path: Path) -> None:
    settings = SysSettings(sys=tmp_path)
    for collector in (Infiniband, Edac, Bandwidth):
        assert list(collector(settings, CONTEXT).collect()) == []
    assert list(Pressure(PressureSettings(proc=tmp_path), CONTEXT).collect()) == []


PORT = "class/infiniband/mlx5_0/ports/1/"
HCA = {
    "class/infiniband/mlx5_0/fw_ver": "28.39.1002\n",
    "class/infiniband/mlx5_0/device/net/ibp24s0/mtu": "4092\n",
    PORT + "state": "4: ACTIVE\n",
    PORT + "phys_state": "5: LinkUp\n",
    PORT + "link_layer": "InfiniBand\n",
    PORT + "rate": "400 Gb/sec (4X NDR)\n",
    PORT + "counters/port_rcv_data": "1000\n",
    PORT + "counters/port_xmit_data": "2000\n",
    PORT + "counters/symbol_error": "3\n",
    PORT + "counters/link_downed": "1\n",
    PORT + "counters/port_xmit_wait": "99\n",
    PORT + "counters/VL15_dropped": "N/A (no PMA)\n",
    PORT + "hw_counters/out_of_sequence": "7\n",
    PORT + "hw_counters/np_cnp_sent": "11\n",
    PORT + "hw_counters/lifespan": "12\n",
}


def test_infiniband(tree: Tree) -> None:
    samples = list(Infiniband(SysSettings(sys=tree(HCA)), CONTEXT).collect())
    port = ("mlx5_0", "1")
    assert of(samples, m.IB_UP) == {port: 1}
    assert of(samples, m.IB_INFO) == {
        (*port, "ACTIVE", "LinkUp", "InfiniBand", "400 Gb/sec (4X NDR)", "28.39.1002", "ibp24s0"): 1
    }
    assert of(samples, m.IB_RATE) == {port: 50e9}
    assert of(samples, m.IB_RECEIVED) == {port: 4000}, "counted in words of four bytes"
    assert of(samples, m.IB_SENT) == {port: 8000}
    assert of(samples, m.IB_ERRORS) == {
        (*port, "symbol_error"): 3,
        (*port, "link_downed"): 1,
        (*port, "out_of_sequence"): 7,
    }
    assert of(samples, m.IB_CONGESTION) == {(*port, "port_xmit_wait"): 99, (*port, "np_cnp_sent"): 11}


@pytest.mark.parametrize("state", ["1: DOWN", "2: INIT", "3: ARMED"])
def test_a_port_that_is_not_active_is_down(tree: Tree, state: str) -> None:
    samples = list(Infiniband(SysSettings(sys=tree({**HCA, PORT + "state": state})), CONTEXT).collect())
    assert set(of(samples, m.IB_UP).values()) == {0}


def test_a_counter_at_its_top_counts_no_more(tree: Tree) -> None:
    """As an mlx4 port was recorded; the counter's silence would look like a quiet line."""
    full = {"port_xmit_wait": 2**32 - 1, "port_rcv_data": 2**32 - 1, "link_downed": 255, "symbol_error": 65535}
    files = {**HCA, **{f"{PORT}counters/{name}": f"{value}\n" for name, value in full.items()}}
    samples = list(Infiniband(SysSettings(sys=tree(files)), CONTEXT).collect())
    port = ("mlx5_0", "1")
    assert of(samples, m.IB_SATURATED) == {(*port, name): 1 for name in full}
    assert not of(samples, m.IB_RECEIVED)
    assert of(samples, m.IB_SENT) == {port: 8000}
    assert of(samples, m.IB_ERRORS) == {(*port, "out_of_sequence"): 7}
    assert of(samples, m.IB_CONGESTION) == {(*port, "np_cnp_sent"): 11}


def test_an_older_kernel_keeps_the_wide_counters_apart(tree: Tree) -> None:
    files = {
        **HCA,
        PORT + "counters/port_rcv_data": f"{2**32 - 1}\n",
        PORT + "counters_ext/port_rcv_data_64": "5000000000\n",
        PORT + "counters_ext/port_xmit_data_64": "9\n",
    }
    samples = list(Infiniband(SysSettings(sys=tree(files)), CONTEXT).collect())
    assert of(samples, m.IB_RECEIVED) == {("mlx5_0", "1"): 20_000_000_000}
    assert of(samples, m.IB_SENT) == {("mlx5_0", "1"): 36}
    assert not of(samples, m.IB_SATURATED)


def test_a_port_whose_driver_counts_nothing(tree: Tree) -> None:
    files = {name: "N/A (no PMA)\n" if "/counters/" in name else text for name, text in HCA.items()}
    samples = list(Infiniband(SysSettings(sys=tree(files)), CONTEXT).collect())
    assert of(samples, m.IB_UP) == {("mlx5_0", "1"): 1}
    assert not of(samples, m.IB_RECEIVED)
    assert set(of(samples, m.IB_ERRORS)) == {("mlx5_0", "1", "out_of_sequence")}


def test_edac_of_a_driver_that_counts_by_chip_select(tree: Tree) -> None:
    """AMD's: two ranks of one module, which somebody has labelled, and the rows that show the same once more."""
    mc = "devices/system/edac/mc/mc0/"
    root = tree(
        {
            mc + "ce_count": "5\n",
            mc + "rank0/dimm_label": "P0_DIMM_A1\n",
            mc + "rank0/dimm_ce_count": "2\n",
            mc + "rank0/dimm_ue_count": "0\n",
            mc + "rank1/dimm_label": "P0_DIMM_A1\n",
            mc + "rank1/dimm_ce_count": "3\n",
            mc + "rank1/dimm_ue_count": "0\n",
            mc + "rank2/dimm_ce_count": "0\n",
            mc + "csrow0/ch0_ce_count": "2\n",
            mc + "csrow0/ue_count": "0\n",
        }
    )
    samples = list(Edac(SysSettings(sys=root), CONTEXT).collect())
    assert of(samples, m.EDAC_DIMM_ERRORS) == {
        ("mc0", "P0_DIMM_A1", "correctable"): 5,
        ("mc0", "P0_DIMM_A1", "uncorrectable"): 0,
    }


def test_edac_by_rows_alone(tree: Tree) -> None:
    mc = "devices/system/edac/mc/mc0/"
    root = tree(
        {
            mc + "csrow0/ch0_dimm_label": "mc#0csrow#0channel#0\n",
            mc + "csrow0/ch0_ce_count": "3\n",
            mc + "csrow0/ch1_ce_count": "1\n",
            mc + "csrow0/ce_count": "4\n",
            mc + "csrow0/ue_count": "0\n",
            mc + "csrow1/ch0_ce_count": "0\n",
            mc + "csrow1/ue_count": "2\n",
        }
    )
    samples = list(Edac(SysSettings(sys=root), CONTEXT).collect())
    assert of(samples, m.EDAC_DIMM_ERRORS) == {
        ("mc0", "mc#0csrow#0channel#0", "correctable"): 3,
        ("mc0", "csrow0 ch1", "correctable"): 1,
        ("mc0", "csrow1", "uncorrectable"): 2,
    }


def test_edac(tree: Tree) -> None:
    mc = "devices/system/edac/mc/"
    root = tree(
        {
            mc + "mc0/ce_count": "5\n",
            mc + "mc0/ue_count": "1\n",
            mc + "mc0/dimm0/dimm_label": "CPU0_DIMM_A1\n",
            mc + "mc0/dimm0/dimm_ce_count": "5\n",
            mc + "mc0/dimm0/dimm_ue_count": "1\n",
            mc + "mc0/dimm1/dimm_ce_count": "0\n",
            mc + "mc0/dimm1/dimm_ue_count": "0\n",
            mc + "mc1/ce_count": "0\n",
            mc + "power/control": "auto\n",
        }
    )
    samples = list(Edac(SysSettings(sys=root), CONTEXT).collect())
    assert of(samples, m.EDAC_ERRORS) == {
        ("mc0", "correctable"): 5,
        ("mc0", "uncorrectable"): 1,
        ("mc1", "correctable"): 0,
    }
    assert of(samples, m.EDAC_DIMM_ERRORS) == {
        ("mc0", "CPU0_DIMM_A1", "correctable"): 5,
        ("mc0", "CPU0_DIMM_A1", "uncorrectable"): 1,
    }


def test_memory_bandwidth_of_all_groups(tree: Tree) -> None:
    resctrl = "fs/resctrl/"

    def domain(group: str, number: str, total: str, local: str = "1") -> dict[str, str]:
        folder = f"{resctrl}{group}mon_data/mon_L3_{number}/"
        return {folder + "mbm_total_bytes": total, folder + "mbm_local_bytes": local, folder + "llc_occupancy": "64"}

    root = tree(
        {
            **domain("", "00", "1000"),
            **domain("", "01", "Unavailable", "Unavailable"),
            **domain("training/", "00", "500"),
            **domain("mon_groups/inside/", "00", "77"),
            resctrl + "info/L3_MON/num_rmids": "256\n",
        }
    )
    collector = Bandwidth(SysSettings(sys=root), CONTEXT)
    samples = list(collector.collect())
    assert of(samples, m.MEMORY_TRAFFIC) == {("00", "total"): 1500, ("00", "local"): 2}, "not known is not zero"
    assert of(samples, m.LLC_OCCUPANCY) == {("00",): 128, ("01",): 64}

    (root / resctrl / "mon_data/mon_L3_00/mbm_total_bytes").write_text("1200")
    (root / resctrl / "training/mon_data/mon_L3_00/mbm_total_bytes").write_text("100")
    assert of(list(collector.collect()), m.MEMORY_TRAFFIC)["00", "total"] == 1700, "a group made anew is no fall"


def test_this_node() -> None:
    for collector in (Infiniband, Edac, Bandwidth):
        for sample in collector(SysSettings(), CONTEXT).collect():
            assert sample.value >= 0
    for sample in Pressure(PressureSettings(), CONTEXT).collect():
        assert sample.value >= 0
