"""What names and describes each GPU of a world: made from profile and seed, or taken from a real driver."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from typing import Any, Final

from chaos.simulator import profiles, records

_BUSES: Final = (0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF, 0x1C, 0x44, 0x53, 0x62, 0x9E, 0xC4, 0xD2, 0xE0)
_MIB: Final = 1 << 20


def simulated(profile_name: str, seed: int, index: int) -> records.Identity:
    """The GPU at `index` of a simulated node; the same for ever."""
    profile = profiles.PROFILES[profile_name]
    names = _uuids(seed)
    name = [next(names) for _ in range(index + 1)][-1]
    graphics, memory = profile.clocks
    idle_graphics, idle_memory = profile.idle_clocks
    idle, default, lowest, highest = profile.power
    serial = bool(profile.features & profiles.SERIAL)
    return records.Identity(
        name=profile.name.encode(),
        uuid=f"GPU-{name}".encode(),
        serial=f"165{int(name[:8], 16) % 10**10:010d}".encode() if serial else b"",
        vbios=b"96.00.A5.00.01",
        part_number=b"692-2G520-0200-000" if serial else b"",
        inforom=b"G520.0200.00.05" if profile.features & profiles.ECC else b"",
        architecture=profile.architecture,
        brand=profile.brand,
        capability_major=profile.capability[0],
        capability_minor=profile.capability[1],
        cores=profile.cores,
        multiprocessors=profile.multiprocessors,
        bus_width=profile.bus_width,
        features=profile.features,
        pci_bus=_BUSES[index],
        pci_device_id=profile.pci_device_id,
        pci_subsystem_id=0x16C110DE,
        minor=index,
        numa=index // 4 % 2,
        fans=profile.fans,
        pcie_generation=profile.pcie[0],
        pcie_width=profile.pcie[1],
        links=profile.links[0],
        link_version=profile.links[1],
        link_mbps=profile.links[2],
        pstate_idle=profile.idle_pstate,
        module=index + 1,
        c2c_links=profile.c2c_links,
        clock_max=(graphics, graphics, memory, graphics * 9 // 10),
        clock_idle=(idle_graphics, idle_graphics, idle_memory, idle_graphics),
        threshold=profile.thresholds,
        memory_total=profile.memory[0] * _MIB,
        memory_reserved=profile.memory[1] * _MIB,
        bar1_total=(256 if profile.architecture < 7 else 1 << (profile.memory[0] - 1).bit_length()) * _MIB,
        power_idle=idle * 1000,
        power_peak=default * 1000,
        power_min=lowest * 1000,
        power_max=highest * 1000,
        power_default=default * 1000,
        ambient=27.0,
        degrees_per_watt=profile.cooling,
    )


def real(index: int, gpu: dict[str, Any]) -> records.Identity:
    """A real GPU, as `chaos.simulator.real.survey` describes it."""
    domain, bus, device = gpu["place"]
    return records.Identity(
        name=gpu["name"].encode()[:95],
        uuid=gpu["uuid"].encode()[:47],
        minor=index,
        pci_domain=domain,
        pci_bus=bus,
        pci_device=device,
        memory_total=gpu["memory"],
        clock_max=tuple(gpu["clocks"]),
        threshold=(0, gpu["slowdown"], 0, 0),
    )


def _uuids(seed: int) -> Iterator[str]:
    source = random.Random(seed)  # noqa: S311 - names, not secrets
    while True:
        yield str(uuid.UUID(int=source.getrandbits(128), version=4))
