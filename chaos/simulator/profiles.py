"""What each GPU model is and can tell: public data sheets, and NVML's support matrix.

Clocks in MHz (graphics, memory), memory in MiB, power in W, temperatures in Celsius.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Bits of csrc/state.h `enum feature`.
ECC: Final = 1 << 0
REMAP: Final = 1 << 1
GPM: Final = 1 << 2
FAN: Final = 1 << 3
MIG: Final = 1 << 4
FABRIC: Final = 1 << 5
TLIMIT: Final = 1 << 6
MEMORY_TEMPERATURE: Final = 1 << 7
POWER_AVERAGE: Final = 1 << 8
SERIAL: Final = 1 << 9
THRESHOLDS: Final = 1 << 10

_TESLA, _GEFORCE, _NVIDIA = 2, 5, 14
_DATA_CENTRE = ECC | SERIAL


@dataclass(frozen=True, slots=True)
class Profile:
    """One GPU model.

    Attributes:
        architecture: NVML's number: 6 Turing, 7 Ampere, 8 Ada, 9 Hopper, 10 Blackwell.
        capability: CUDA compute capability.
        memory: frame buffer, MiB, and what the driver keeps of it.
        clocks: highest graphics and memory clock; `idle_clocks` at rest.
        links: NVLinks, their NVML version number and MB/s of one link in one direction.
        power: idle, limit by default, lowest and highest limit.
        thresholds: shutdown, slowdown, memory maximum (0 = none), GPU maximum.
        cooling: degrees per watt above ambient.
    """

    name: str
    architecture: int
    capability: tuple[int, int]
    brand: int
    cores: int
    multiprocessors: int
    memory: tuple[int, int]
    bus_width: int
    clocks: tuple[int, int]
    idle_clocks: tuple[int, int]
    pcie: tuple[int, int]
    links: tuple[int, int, int]
    power: tuple[int, int, int, int]
    thresholds: tuple[int, int, int, int]
    cooling: float
    pci_device_id: int
    features: int
    idle_pstate: int = 0
    fans: int = 0
    c2c_links: int = 0


PROFILES: Final[dict[str, Profile]] = {
    "t4": Profile(
        name="Tesla T4",
        architecture=6,
        capability=(7, 5),
        brand=_TESLA,
        cores=2560,
        multiprocessors=40,
        memory=(15360, 388),
        bus_width=256,
        clocks=(1590, 5001),
        idle_clocks=(300, 405),
        pcie=(3, 16),
        links=(0, 0, 0),
        power=(10, 70, 60, 70),
        thresholds=(96, 93, 0, 85),
        cooling=0.62,
        pci_device_id=0x1EB810DE,
        features=_DATA_CENTRE | THRESHOLDS,
        idle_pstate=8,
    ),
    "a40": Profile(
        name="NVIDIA A40",
        architecture=7,
        capability=(8, 6),
        brand=_NVIDIA,
        cores=10752,
        multiprocessors=84,
        memory=(46068, 613),
        bus_width=384,
        clocks=(1740, 7251),
        idle_clocks=(210, 405),
        pcie=(4, 16),
        links=(4, 4, 14062),
        power=(28, 300, 100, 300),
        thresholds=(98, 95, 0, 88),
        cooling=0.145,
        pci_device_id=0x223510DE,
        features=_DATA_CENTRE | REMAP | THRESHOLDS | POWER_AVERAGE,
        idle_pstate=8,
    ),
    "a100": Profile(
        name="NVIDIA A100-SXM4-80GB",
        architecture=7,
        capability=(8, 0),
        brand=_NVIDIA,
        cores=6912,
        multiprocessors=108,
        memory=(81920, 586),
        bus_width=5120,
        clocks=(1410, 1593),
        idle_clocks=(210, 1593),
        pcie=(4, 16),
        links=(12, 4, 25781),
        power=(58, 400, 100, 400),
        thresholds=(92, 89, 95, 85),
        cooling=0.085,
        pci_device_id=0x20B210DE,
        # The GA100 chip has no averaged power reading.
        features=_DATA_CENTRE | REMAP | THRESHOLDS | MIG | MEMORY_TEMPERATURE,
    ),
    "l40s": Profile(
        name="NVIDIA L40S",
        architecture=8,
        capability=(8, 9),
        brand=_NVIDIA,
        cores=18176,
        multiprocessors=142,
        memory=(46068, 623),
        bus_width=384,
        clocks=(2520, 9001),
        idle_clocks=(210, 405),
        pcie=(4, 16),
        links=(0, 0, 0),
        power=(33, 350, 100, 350),
        thresholds=(95, 92, 0, 88),
        cooling=0.12,
        pci_device_id=0x26B910DE,
        features=_DATA_CENTRE | REMAP | THRESHOLDS | TLIMIT | POWER_AVERAGE,
        idle_pstate=8,
    ),
    "rtx4090": Profile(
        name="NVIDIA GeForce RTX 4090",
        architecture=8,
        capability=(8, 9),
        brand=_GEFORCE,
        cores=16384,
        multiprocessors=128,
        memory=(24564, 488),
        bus_width=384,
        clocks=(3105, 10501),
        idle_clocks=(210, 405),
        pcie=(4, 16),
        links=(0, 0, 0),
        power=(18, 450, 150, 600),
        thresholds=(100, 97, 0, 90),
        cooling=0.095,
        pci_device_id=0x268410DE,
        features=FAN | THRESHOLDS | TLIMIT | POWER_AVERAGE,
        idle_pstate=8,
        fans=2,
    ),
    "h100": Profile(
        name="NVIDIA H100 80GB HBM3",
        architecture=9,
        capability=(9, 0),
        brand=_NVIDIA,
        cores=16896,
        multiprocessors=132,
        memory=(81559, 551),
        bus_width=5120,
        clocks=(1980, 2619),
        idle_clocks=(345, 2619),
        pcie=(5, 16),
        links=(18, 6, 26562),
        power=(70, 700, 200, 700),
        thresholds=(95, 90, 95, 87),
        cooling=0.052,
        pci_device_id=0x233010DE,
        features=_DATA_CENTRE | REMAP | GPM | MIG | FABRIC | TLIMIT | MEMORY_TEMPERATURE | POWER_AVERAGE,
    ),
    "h200": Profile(
        name="NVIDIA H200",
        architecture=9,
        capability=(9, 0),
        brand=_NVIDIA,
        cores=16896,
        multiprocessors=132,
        memory=(143771, 617),
        bus_width=6144,
        clocks=(1980, 3201),
        idle_clocks=(345, 3201),
        pcie=(5, 16),
        links=(18, 6, 26562),
        power=(76, 700, 200, 700),
        thresholds=(95, 90, 95, 87),
        cooling=0.052,
        pci_device_id=0x233510DE,
        features=_DATA_CENTRE | REMAP | GPM | MIG | FABRIC | TLIMIT | MEMORY_TEMPERATURE | POWER_AVERAGE,
    ),
    "gh200": Profile(
        name="NVIDIA GH200 480GB",
        architecture=9,
        capability=(9, 0),
        brand=_NVIDIA,
        cores=16896,
        multiprocessors=132,
        memory=(97871, 617),
        bus_width=6144,
        clocks=(1980, 2619),
        idle_clocks=(345, 2619),
        pcie=(5, 16),
        links=(18, 6, 26562),
        power=(90, 900, 100, 900),
        thresholds=(95, 90, 95, 87),
        cooling=0.044,
        pci_device_id=0x234210DE,
        features=_DATA_CENTRE | REMAP | GPM | MIG | FABRIC | TLIMIT | MEMORY_TEMPERATURE | POWER_AVERAGE,
        c2c_links=10,
    ),
    "b200": Profile(
        name="NVIDIA B200",
        architecture=10,
        capability=(10, 0),
        brand=_NVIDIA,
        cores=18944,
        multiprocessors=148,
        memory=(183359, 722),
        bus_width=8192,
        clocks=(1965, 3996),
        idle_clocks=(120, 3996),
        pcie=(5, 16),
        links=(18, 7, 53125),
        power=(140, 1000, 200, 1000),
        thresholds=(95, 90, 95, 87),
        cooling=0.038,
        pci_device_id=0x290110DE,
        features=_DATA_CENTRE | REMAP | GPM | MIG | FABRIC | TLIMIT | MEMORY_TEMPERATURE | POWER_AVERAGE,
    ),
}
