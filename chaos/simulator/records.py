"""The state file's records as ctypes structures: the twin of csrc/state.h, which explains them.

Their sizes are compared with the library's own when it is loaded.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_double, c_int64, c_uint32, c_uint64
from typing import Final

MAX_GPUS: Final = 16
NODE: Final = MAX_GPUS
MAX_FAULTS: Final = 24
MAX_PROCESSES: Final = 16
MAX_LINKS: Final = 18
OLD_FIELD_IDS: Final = 1
WIDE_PCIE_COUNTERS: Final = 2
MAX_MIG: Final = 7
PARAMETERS: Final = 4
ECC_LOCATIONS: Final = ("l1", "l2", "dram", "register", "texture", "shared", "cbu", "sram")
WORKLOADS: Final = ("idle", "training", "inference")
GROUPS: Final = (
    "init",
    "handle",
    "identity",
    "memory",
    "utilization",
    "power",
    "temperature",
    "clocks",
    "ecc",
    "pcie",
    "nvlink",
    "fields",
    "processes",
    "gpm",
    "events",
    "mig",
)


class Fault(ctypes.Structure):
    _fields_ = [
        ("kind", c_uint32),
        ("id", c_uint32),
        ("on", c_int64),
        ("off", c_int64),
        ("sim_on", c_int64),
        ("sim_off", c_int64),
        ("p", c_double * PARAMETERS),
    ]


class Process(ctypes.Structure):
    _fields_ = [
        ("pid", c_uint32),
        ("graphics", c_uint32),
        ("memory", c_uint64),
        ("gpu_instance", c_uint32),
        ("compute_instance", c_uint32),
        ("encoder", c_uint32),
        ("decoder", c_uint32),
    ]


class Counters(ctypes.Structure):
    _fields_ = [
        ("energy_mj", c_double),
        ("ecc", c_double * len(ECC_LOCATIONS) * 2),
        ("replays", c_double),
        ("link_errors", c_double * 3 * MAX_LINKS),
        ("link_bytes", c_double * MAX_LINKS),
        ("pcie_tx", c_double),
        ("pcie_rx", c_double),
        ("sw_power_ns", c_double),
        ("sw_thermal_ns", c_double),
        ("hw_thermal_ns", c_double),
        ("hw_brake_ns", c_double),
        ("remapped", c_double * 2),
    ]


class Clock(ctypes.Structure):
    _fields_ = [
        ("sim", c_int64),
        ("boot", c_int64),
        ("speed", c_double),
        ("sim_before", c_int64),
        ("speed_before", c_double),
    ]


class GpuState(ctypes.Structure):
    _fields_ = [
        ("clock", Clock),
        ("workload", c_uint32),
        ("faults", c_uint32),
        ("processes", c_uint32),
        ("mig", c_uint32),
        ("mig_slices", c_uint32 * MAX_MIG),
        ("reserved", c_uint32),
        ("base", Counters),
        ("fault", Fault * MAX_FAULTS),
        ("process", Process * MAX_PROCESSES),
    ]


class Identity(ctypes.Structure):
    _fields_ = [
        ("name", c_char * 96),
        ("uuid", c_char * 48),
        ("serial", c_char * 32),
        ("vbios", c_char * 32),
        ("part_number", c_char * 32),
        ("inforom", c_char * 32),
        ("architecture", c_uint32),
        ("brand", c_uint32),
        ("capability_major", c_uint32),
        ("capability_minor", c_uint32),
        ("cores", c_uint32),
        ("multiprocessors", c_uint32),
        ("bus_width", c_uint32),
        ("features", c_uint32),
        ("pci_domain", c_uint32),
        ("pci_bus", c_uint32),
        ("pci_device", c_uint32),
        ("pci_device_id", c_uint32),
        ("pci_subsystem_id", c_uint32),
        ("minor", c_uint32),
        ("numa", c_uint32),
        ("fans", c_uint32),
        ("pcie_generation", c_uint32),
        ("pcie_width", c_uint32),
        ("links", c_uint32),
        ("link_version", c_uint32),
        ("link_mbps", c_uint32),
        ("pstate_idle", c_uint32),
        ("module", c_uint32),
        ("c2c_links", c_uint32),
        ("clock_max", c_uint32 * 4),
        ("clock_idle", c_uint32 * 4),
        ("threshold", c_uint32 * 4),
        ("memory_total", c_uint64),
        ("memory_reserved", c_uint64),
        ("bar1_total", c_uint64),
        ("power_idle", c_uint32),
        ("power_peak", c_uint32),
        ("power_min", c_uint32),
        ("power_max", c_uint32),
        ("power_default", c_uint32),
        ("power_reserved", c_uint32),
        ("ambient", c_double),
        ("degrees_per_watt", c_double),
    ]


class Header(ctypes.Structure):
    _fields_ = [
        ("magic", c_uint64),
        ("version", c_uint32),
        ("size", c_uint32),
        ("gpus", c_uint32),
        ("overlay", c_uint32),
        ("seed", c_uint64),
        ("epoch", c_int64),
        ("boot_id", c_char * 40),
        ("driver", c_char * 64),
        ("nvml", c_char * 64),
        ("cuda", c_uint32),
        ("quirks", c_uint32),
        ("checksum", c_uint64),
        ("changes", c_uint32),
        ("closed", c_uint32),
        ("next_id", c_uint32),
        ("reserved", c_uint32),
    ]


RECORDS: Final = (Header, Identity, GpuState, Clock, Counters, Fault, Process)
