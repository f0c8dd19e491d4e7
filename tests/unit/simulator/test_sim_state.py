"""The state file: refused when it is not ours, whole when a writer is killed, harmless when it is damaged."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agent.base.errors import ConfigError, VigilError
from chaos.simulator import records
from chaos.simulator.world import World

Make = Callable[..., World]
Start = Callable[[], ModuleType]
IDENTITIES = ctypes.sizeof(records.Header)


def damage(path: Path, offset: int, value: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(value)


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        World.open(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_another_file_is_refused_by_both_sides(make: Make, nvml: Start, bound: ModuleType) -> None:
    world = make()
    size = world.path.stat().st_size
    world.close()
    for content in (b"", b"hello", bytes(size), bytes(size - 1), b"\xff" * size):
        world.path.write_bytes(content)
        assert "not a simulator state file" in refused(world.path)
        with pytest.raises(bound.NVMLError_DriverNotLoaded):
            nvml()


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        (records.Header.magic.offset, "not a simulator state file"),
        (records.Header.version.offset, "another version"),
        (records.Header.size.offset, "another version"),
        (records.Header.gpus.offset, "damaged"),
        (records.Header.seed.offset, "damaged"),
        (records.Header.checksum.offset, "damaged"),
        (IDENTITIES + records.Identity.uuid.offset, "damaged"),
        (IDENTITIES + records.Identity.links.offset, "damaged"),
    ],
)
def test_a_flipped_byte_in_the_fixed_part_is_found(make: Make, tmp_path: Path, offset: int, said: str) -> None:
    world = make()
    copy = tmp_path / "copy"
    content = bytearray(world.path.read_bytes())
    content[offset] ^= 0x40
    copy.write_bytes(content)
    assert said in refused(copy)


def test_a_world_of_another_boot_is_refused(make: Make, tmp_path: Path, library: Path) -> None:
    """Its expiries count by a clock that began anew. The checksum is made right, so that only the boot id is wrong."""
    world = make()
    content = bytearray(world.path.read_bytes())
    offset = records.Header.boot_id.offset
    content[offset : offset + 36] = b"00000000-0000-0000-0000-000000000000"

    def fnv(value: int, data: bytes) -> int:
        for byte in data:
            value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
        return value

    fixed = fnv(0xCBF29CE484222325, bytes(content[: records.Header.checksum.offset]))
    identities = content[IDENTITIES : IDENTITIES + records.MAX_GPUS * ctypes.sizeof(records.Identity)]
    checksum = fnv(fixed, bytes(identities))
    offset = records.Header.checksum.offset
    content[offset : offset + 8] = checksum.to_bytes(8, "little")
    copy = tmp_path / "copy"
    copy.write_bytes(content)
    assert "earlier boot" in refused(copy)


def test_a_directory_or_nothing_is_refused(tmp_path: Path) -> None:
    refused(tmp_path)
    assert "No such file" in refused(tmp_path / "absent")
    with pytest.raises(ConfigError, match="No such file"):
        World.create(tmp_path / "no" / "such" / "folder")


def test_without_a_name_the_user_is_told_which_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GPUVIGIL_SIM_STATE", "GPUVIGIL_SIM_OVERLAY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="--state FILE"):
        World.open()


def test_a_closed_world_says_so(make: Make) -> None:
    world = make()
    path = world.path
    world.close()
    with pytest.raises(VigilError, match="was closed"):
        world.faults()
    assert not world.is_open
    assert World.open(path).faults() == []


def test_processes_see_one_world(make: Make, in_world: Callable[..., Any]) -> None:
    world = make(gpus=2)
    world.set("gpu_lost", 1)
    program = "import pynvml as nv; nv.nvmlInit(); g = nv.nvmlDeviceGetHandleByIndex(1)"
    results = [in_world(sys.executable, "-c", program, state=world.path) for _ in range(2)]
    assert all("NVMLError_GpuIsLost" in result.stderr for result in results)
    with World.open(world.path) as second:
        assert [fault.kind for fault in second.faults()] == ["gpu_lost"]
        second.clear()
    assert world.faults() == []


WRITER = """
import itertools, sys
from chaos.simulator.world import World
world = World.open(sys.argv[1])
print("ready", flush=True)
for number in itertools.count(1):
    world.set_process(0, 1, number % (1 << 30))
    entry = world.set("ecc_corrected", 0, rate=number, duration=1e-6)
    assert entry > 0
"""


def test_a_killed_writer_leaves_the_last_whole_state(make: Make, nvml: Start) -> None:
    world = make()
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(world.path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            state = world._state(0)
            assert state.processes <= 1
            assert 0 <= state.faults <= records.MAX_FAULTS
            ids = [fault.id for fault in list(state.fault)[: state.faults]]
            assert ids == sorted(ids)
            nv.nvmlDeviceGetTotalEccErrors(gpu, 0, 0)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert [entry.pid for entry in nv.nvmlDeviceGetComputeRunningProcesses(gpu)] == [1]
        world.set_process(0, 1, 5)  # the lock died with its holder
        assert nv.nvmlDeviceGetComputeRunningProcesses(gpu)[0].usedGpuMemory == 5


def test_a_half_written_slot_is_not_seen(make: Make, nvml: Start) -> None:
    """What a writer that dies before it raises the generation leaves: rubbish in the slot that nobody reads."""
    world = make()
    world.set_process(0, 77, 1 << 30)
    nv = nvml()
    gpu = nv.nvmlDeviceGetHandleByIndex(0)
    size = ctypes.sizeof(records.GpuState)
    cell = IDENTITIES + records.MAX_GPUS * ctypes.sizeof(records.Identity)
    generation = int.from_bytes(world.path.read_bytes()[cell : cell + 8], "little")
    assert generation == 1
    spare = cell + 16 + ((generation + 1) & 1) * size
    before = nv.nvmlDeviceGetMemoryInfo(gpu).used, nv.nvmlDeviceGetTotalEnergyConsumption(gpu)
    damage(world.path, spare, os.urandom(size))
    assert [entry.pid for entry in nv.nvmlDeviceGetComputeRunningProcesses(gpu)] == [77]
    assert (nv.nvmlDeviceGetMemoryInfo(gpu).used, nv.nvmlDeviceGetTotalEnergyConsumption(gpu)) == before
    world.set_process(0, 78, 1 << 30)
    assert [entry.pid for entry in nv.nvmlDeviceGetComputeRunningProcesses(gpu)] == [77, 78]


FUZZ = """
import os, random, shutil, sys
import pynvml as nv
source, copy, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
random.seed(seed)
os.environ["GPUVIGIL_SIM_STATE"] = copy
content = open(source, "rb").read()
head = int(sys.argv[4])
for round in range(60):
    changed = bytearray(content)
    for _ in range(random.choice((1, 8, 200))):
        place = random.randrange(head, len(changed))
        changed[place:place + 8] = random.choice((
            os.urandom(8), b"\\xff" * 8, b"\\x7f" * 8, bytes(8), b"\\x00\\x00\\x00\\x00\\x00\\x00\\xf0\\x7f",
            b"\\x00\\x00\\x00\\x00\\x00\\x00\\xf8\\x7f", (1).to_bytes(8, "little"), (2**63).to_bytes(8, "little")))
    del changed[len(content):]
    open(copy + ".new", "wb").write(changed)
    os.replace(copy + ".new", copy)
    nv.nvmlInit()
    for index in range(nv.nvmlDeviceGetCount()):
        try:
            gpu = nv.nvmlDeviceGetHandleByIndex(index)
        except nv.NVMLError:
            continue
        for call in (
            nv.nvmlDeviceGetMemoryInfo, nv.nvmlDeviceGetUtilizationRates, nv.nvmlDeviceGetPowerUsage,
            nv.nvmlDeviceGetComputeRunningProcesses_v3, nv.nvmlDeviceGetRemappedRows, nv.nvmlDeviceGetUUID,
            nv.nvmlDeviceGetTotalEnergyConsumption, nv.nvmlDeviceGetFanSpeed, nv.nvmlDeviceGetMigMode,
            lambda g: nv.nvmlDeviceGetFieldValues(g, list(range(1, 320))),
            lambda g: nv.nvmlDeviceGetMigDeviceHandleByIndex(g, 6),
            lambda g: nv.nvmlDeviceGetSamples(g, 0, 0),
            lambda g: nv.nvmlDeviceGetProcessUtilization(g, 0),
        ):
            try:
                call(gpu)
            except (nv.NVMLError, MemoryError):
                pass
    nv.nvmlShutdown()
print("alive")
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_state_kills_no_reader(make: Make, in_world: Callable[..., Any], tmp_path: Path, seed: int) -> None:
    world = make(profile="h100", gpus=2)
    for kind in ("ecc_corrected", "thermal_throttle", "nvlink_down", "memory_leak", "power_cap"):
        world.set(kind, 0)
    world.set_process(0, 1, 1 << 30)
    world.set_mig(1, [1, 2])
    head = IDENTITIES + records.MAX_GPUS * ctypes.sizeof(records.Identity)
    result = in_world(
        sys.executable,
        "-c",
        FUZZ,
        str(world.path),
        str(tmp_path / "fuzzed"),
        str(seed),
        str(head),
        state=world.path,
        timeout=120,
    )
    assert result.stdout == "alive\n", f"exit {result.returncode}: {result.stderr[-2000:]}"
