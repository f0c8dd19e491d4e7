"""The overlay on a "real" library: a copy of the simulator elsewhere, which it cannot tell from the real one."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import CannotTell, ConfigError
from chaos.simulator import records
from chaos.simulator.build import LIBRARY, build
from chaos.simulator.kinds import KINDS
from chaos.simulator.world import OVERLAY_VARIABLE, REAL_VARIABLE, STATE_VARIABLE, World

START = 1_700_000_000.0

# A program that reads what it is asked for, one JSON line in, one out, so that faults can change beneath it.
READER = """
import ctypes, json, sys
import pynvml as nv
nv.nvmlInit()
def handle(index): return nv.nvmlDeviceGetHandleByIndex(index)
def value(answer):
    if isinstance(answer, (int, float, str, list, tuple)): return answer
    if hasattr(answer, "_fields_"):
        found = {name: getattr(answer, name) for name, *_ in answer._fields_}
        return {name: item for name, item in found.items() if isinstance(item, (int, str))}
    return str(answer)
def fields(index, numbers):
    entries = nv.nvmlDeviceGetFieldValues(handle(index), [tuple(number) for number in numbers])
    return [[entry.nvmlReturn, entry.value.ullVal] for entry in entries]
def has(name):
    try: nv.nvmlLib[name]
    except AttributeError: return False
    return True
events = {}
def listen(index):
    events[index] = nv.nvmlEventSetCreate()
    types = nv.nvmlDeviceGetSupportedEventTypes(handle(index))
    nv.nvmlDeviceRegisterEvents(handle(index), types, events[index])
def wait(index, ms):
    event = nv.nvmlEventSetWait(events[index], ms)
    same = ctypes.cast(event.device, ctypes.c_void_p).value == ctypes.cast(handle(index), ctypes.c_void_p).value
    return [event.eventType, event.eventData, same]
def again():
    nv.nvmlShutdown()
    nv.nvmlInit()
own = {"fields": fields, "has": has, "listen": listen, "wait": wait, "again": again}
print("ready", flush=True)
for line in sys.stdin:
    name, index, arguments = json.loads(line)
    try:
        if name in own: answer = own[name](*arguments)
        elif index is None: answer = value(getattr(nv, name)(*arguments))
        else: answer = value(getattr(nv, name)(handle(index), *arguments))
        reply = [0, answer]
    except nv.NVMLError as error:
        reply = [error.value, None]
    print(json.dumps(reply), flush=True)
"""


class Reader:
    def __init__(self, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER],
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            _, errors = self.process.communicate()
            raise AssertionError(errors)

    def ask(self, name: str, index: int | None, *arguments: Any) -> tuple[int, Any]:
        """(NVML's code, the answer)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([name, index, arguments]), file=self.process.stdin, flush=True)
        code, answer = json.loads(self.process.stdout.readline())
        return code, answer

    def get(self, name: str, index: int | None, *arguments: Any) -> Any:
        code, answer = self.ask(name, index, *arguments)
        assert code == 0, f"{name}: {code}"
        return answer

    def close(self) -> None:
        self.process.communicate()


class Stack:
    """A frozen simulated node as the real one, and the overlay on it."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.real_file = folder / "real" / LIBRARY
        self.real_file.parent.mkdir()
        shutil.copy(library / LIBRARY, self.real_file)
        self.overlay_folder = build("overlay", real=self.real_file)
        self.real = World.create(folder / "real.state", profile="h100", gpus=3, speed=0.0, start=START, seed=7)
        self.state = folder / "overlay.state"
        self.env = {STATE_VARIABLE: str(self.real.path)}
        os.environ[STATE_VARIABLE] = str(self.real.path)  # the survey of the "real" library reads it
        try:
            self.overlay = World.create_overlay(self.state, self.real_file)
        finally:
            del os.environ[STATE_VARIABLE]
        self.real_env = {**self.env, "LD_LIBRARY_PATH": str(self.real_file.parent)}
        self.overlay_env = {
            **self.env,
            "LD_LIBRARY_PATH": str(self.overlay_folder),
            REAL_VARIABLE: str(self.real_file),
            OVERLAY_VARIABLE: str(self.state),
        }


@pytest.fixture
def stack(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.delenv(STATE_VARIABLE, raising=False)
    made = Stack(tmp_path, library)
    yield made
    made.overlay.clear()
    made.overlay.close()
    made.real.close()


@pytest.fixture
def read(stack: Stack) -> Iterator[Callable[[dict[str, str]], Reader]]:
    made: list[Reader] = []

    def start(env: dict[str, str]) -> Reader:
        made.append(Reader(env))
        return made[-1]

    yield start
    for reader in made:
        reader.close()


READINGS: list[tuple[str, tuple[Any, ...]]] = [
    ("nvmlDeviceGetUUID", ()),
    ("nvmlDeviceGetName", ()),
    ("nvmlDeviceGetPowerUsage", ()),
    ("nvmlDeviceGetEnforcedPowerLimit", ()),
    ("nvmlDeviceGetTotalEnergyConsumption", ()),
    ("nvmlDeviceGetTemperature", (0,)),
    ("nvmlDeviceGetClockInfo", (1,)),
    ("nvmlDeviceGetClockInfo", (2,)),
    ("nvmlDeviceGetCurrentClocksEventReasons", ()),
    ("nvmlDeviceGetMemoryInfo", ()),
    ("nvmlDeviceGetUtilizationRates", ()),
    ("nvmlDeviceGetTotalEccErrors", (0, 0)),
    ("nvmlDeviceGetTotalEccErrors", (1, 1)),
    ("nvmlDeviceGetRemappedRows", ()),
    ("nvmlDeviceGetCurrPcieLinkGeneration", ()),
    ("nvmlDeviceGetCurrPcieLinkWidth", ()),
    ("nvmlDeviceGetPcieReplayCounter", ()),
    ("nvmlDeviceGetNvLinkState", (3,)),
    ("nvmlDeviceGetIndex", ()),
    ("nvmlDeviceGetRowRemapperHistogram", ()),
    ("nvmlDeviceGetMarginTemperature", ()),
    ("nvmlDeviceGetSerial", ()),
    ("nvmlDeviceGetFanSpeed", ()),
    ("nvmlDeviceGetBBXTimeData_v1", ()),
]
FIELDS = [(number, scope) for number in range(1, 308) for scope in (0, 3)]


def everything(reader: Reader, index: int) -> dict[str, Any]:
    found = {f"{name}{arguments}": reader.ask(name, index, *arguments) for name, arguments in READINGS}
    found["fields"] = reader.ask("fields", None, index, FIELDS)
    return found


def test_without_a_fault_every_answer_is_the_real_one(stack: Stack, read: Callable[..., Reader]) -> None:
    real, overlay = read(stack.real_env), read(stack.overlay_env)
    for index in range(3):
        assert everything(overlay, index) == everything(real, index)
    for name in ("nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion", "nvmlDeviceGetCount"):
        assert overlay.get(name, None) == real.get(name, None)


def test_without_a_state_file_it_only_forwards_and_finds_one_that_appears(
    stack: Stack, read: Callable[..., Reader], tmp_path: Path
) -> None:
    late = tmp_path / "late.state"
    overlay = read({**stack.overlay_env, OVERLAY_VARIABLE: str(late)})
    assert overlay.ask("nvmlDeviceGetPowerUsage", 0)[0] == 0
    stack.overlay.set("gpu_lost", 0, duration=60)
    shutil.copy(stack.state, late)
    deadline = time.monotonic() + 10
    while overlay.ask("nvmlDeviceGetPowerUsage", 0)[0] != 15:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_exports_exactly_what_the_real_library_does(stack: Stack, tmp_path: Path) -> None:
    def exported(library: Path) -> set[str]:
        result = subprocess.run(
            ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
        )
        return {line.split()[-1] for line in result.stdout.splitlines()}

    assert exported(stack.overlay_folder / LIBRARY) == exported(stack.real_file)
    # A library that is not simulated, has a function we never heard of, and lacks many that we wrap.
    source, other = tmp_path / "other.c", tmp_path / "other" / LIBRARY
    other.parent.mkdir()
    source.write_text(
        "unsigned nvmlInit_v2(void) { return 0; } unsigned nvmlShutdown(void) { return 0; }\n"
        "unsigned nvmlDeviceGetPowerUsage(void *d, unsigned *v) { (void)d; *v = 123; return 0; }\n"
        "long nvmlFutureFunction(long a, double b, long c) { return a + (long)b + c; }\n",
        encoding="ascii",
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(other), str(source)], check=True)
    folder = build("overlay", real=other, into=tmp_path / "built")
    names = {"nvmlInit_v2", "nvmlShutdown", "nvmlDeviceGetPowerUsage", "nvmlFutureFunction"}
    assert exported(folder / LIBRARY) == names, "and no gpuvigil_sim: what it shows is real"
    program = (
        "import ctypes, sys\n"
        "lib = ctypes.CDLL('libnvidia-ml.so.1')\n"
        "lib.nvmlFutureFunction.restype = ctypes.c_long\n"
        "out = ctypes.c_uint()\n"
        "print(lib.nvmlInit_v2(), lib.nvmlDeviceGetPowerUsage(ctypes.c_void_p(8), ctypes.byref(out)), out.value,\n"
        "      lib.nvmlFutureFunction(ctypes.c_long(40), ctypes.c_double(1.9), ctypes.c_long(1)))\n"
    )
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder), REAL_VARIABLE: str(other)}
    result = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert result.stdout == "0 0 123 42\n", result.stderr


def test_a_simulator_beneath_is_still_said_to_be_one(stack: Stack, read: Callable[..., Reader]) -> None:
    assert read(stack.overlay_env).get("has", None, "gpuvigil_sim") is True


CHANGES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("thermal_throttle", {}, {"Power", "Temperature", "ClockInfo(1,)", "Reasons"}),
    ("power_brake", {}, {"Power", "ClockInfo(1,)", "Reasons"}),
    ("power_cap", {"watts": 300}, {"Power", "Reasons"}),
    ("clock_drop", {"mhz": 500}, {"Power", "ClockInfo(1,)"}),
    ("ecc_uncorrected", {"count": 2}, {"TotalEccErrors(1, 1)"}),
    ("remap_pending", {}, {"RemappedRows"}),
    ("remap_failure", {}, {"RemappedRows"}),
    ("pcie_degraded", {"generation": 2, "width": 4}, {"PcieLinkGeneration", "PcieLinkWidth"}),
    ("nvlink_down", {"link": 3}, {"NvLinkState"}),
    ("hung_collective", {}, {"Power", "UtilizationRates"}),
    ("xid", {"code": 79}, set()),
]


@pytest.mark.parametrize(("kind", "parameters", "touched"), CHANGES, ids=[change[0] for change in CHANGES])
def test_a_fault_changes_what_it_should_on_its_gpu_only_and_ends_by_itself(
    stack: Stack, read: Callable[..., Reader], kind: str, parameters: dict[str, Any], touched: set[str]
) -> None:
    real, overlay = read(stack.real_env), read(stack.overlay_env)
    healthy, neighbour = everything(real, 1), everything(real, 2)
    stack.overlay.set(kind, 1, duration=0.5, **parameters)
    sick = everything(overlay, 1)
    changed = {name for name in healthy if name != "fields" and sick[name] != healthy[name]}
    for word in touched:
        assert any(word in name for name in changed), f"{word} did not change"
    allowed = {*touched, "Histogram"}
    assert {name for name in changed if not any(word in name for word in allowed)} == set()
    assert everything(overlay, 2) == neighbour
    time.sleep(0.6)
    left = everything(overlay, 1)
    cumulative = ("TotalEccErrors", "RemappedRows", "fields")
    assert {name for name in healthy if left[name] != healthy[name]} <= {
        name for name in healthy if any(word in name for word in cumulative)
    }


def test_counters_add_up_and_stay(stack: Stack, read: Callable[..., Reader]) -> None:
    overlay = read(stack.overlay_env)
    stack.real.set("ecc_corrected", 0, rate=10)
    stack.real.step(10)
    real = overlay.get("nvmlDeviceGetTotalEccErrors", 0, 0, 0)
    assert real == pytest.approx(100, abs=1)
    stack.overlay.set("ecc_uncorrected", 0, count=3, duration=0.05)
    stack.overlay.set("ecc_corrected", 0, rate=1000, duration=0.2)
    time.sleep(0.4)
    count = overlay.get("nvmlDeviceGetTotalEccErrors", 0, 0, 0)
    assert count == pytest.approx(real + 200, abs=15)
    time.sleep(0.1)
    assert overlay.get("nvmlDeviceGetTotalEccErrors", 0, 0, 0) == count
    assert overlay.get("fields", None, 0, [(3, 0), (4, 0)]) == [[0, count], [0, 3]]


def test_loss_hang_and_permission_strike_whole_calls(stack: Stack, read: Callable[..., Reader]) -> None:
    overlay = read(stack.overlay_env)
    assert overlay.ask("nvmlDeviceGetPowerUsage", 0)[0] == 0
    fault = stack.overlay.set("gpu_lost", 0, duration=60)
    assert overlay.ask("nvmlDeviceGetPowerUsage", 0)[0] == 15
    assert overlay.ask("nvmlDeviceGetPowerUsage", 1)[0] == 0
    stack.overlay.clear(fault)
    stack.overlay.set("no_permission", 0, call="processes", duration=60)
    assert overlay.ask("nvmlDeviceGetComputeRunningProcesses", 0)[0] == 4
    assert overlay.ask("nvmlDeviceGetPowerUsage", 0)[0] == 0
    stack.overlay.set("hang", 0, call="power", duration=0.4)
    started = time.monotonic()
    assert overlay.ask("nvmlDeviceGetPowerUsage", 0)[0] == 0
    assert time.monotonic() - started >= 0.3
    stack.overlay.set("garbage", 2, what="values", duration=60)
    assert overlay.get("nvmlDeviceGetPowerUsage", 2) == 0xFFFFFFFF


def test_memory_leaks_and_fabric(stack: Stack, read: Callable[..., Reader]) -> None:
    overlay = read(stack.overlay_env)
    before = overlay.get("nvmlDeviceGetMemoryInfo", 0)
    stack.overlay.set("memory_leak", 0, mib_per_second=1000, duration=60)
    time.sleep(0.3)
    after = overlay.get("nvmlDeviceGetMemoryInfo", 0)
    assert after["used"] - before["used"] >= 200 << 20
    assert after["used"] + after["free"] == before["used"] + before["free"]


def test_events_of_both_worlds_arrive(stack: Stack, read: Callable[..., Reader]) -> None:
    overlay = read(stack.overlay_env)
    overlay.get("listen", None, 0)
    stack.overlay.set("xid", 0, code=79)
    assert overlay.get("wait", None, 0, 3000) == [8, 79, True]
    stack.real.set("xid", 0, code=31)
    assert overlay.get("wait", None, 0, 3000) == [8, 31, True]
    assert overlay.ask("wait", None, 0, 60)[0] == 10


def test_driver_order_and_missing_gpus_show_at_the_next_init(stack: Stack, read: Callable[..., Reader]) -> None:
    overlay = read(stack.overlay_env)
    uuids = [overlay.get("nvmlDeviceGetUUID", index) for index in range(3)]
    assert uuids == [gpu.uuid for gpu in stack.overlay.gpus]
    stack.overlay.set("order_shuffled", duration=60)
    missing = stack.overlay.set("gpu_missing", 0, duration=60)
    assert [overlay.get("nvmlDeviceGetUUID", index) for index in range(3)] == uuids
    overlay.get("again", None)
    assert overlay.get("nvmlDeviceGetCount", None) == 2
    found = [overlay.get("nvmlDeviceGetUUID", index) for index in range(2)]
    assert sorted(found) == sorted(uuids[1:])
    assert found != uuids[1:]
    assert [overlay.get("nvmlDeviceGetIndex", index) for index in range(2)] == [0, 1]
    stack.overlay.clear(missing)
    overlay.get("again", None)
    found = [overlay.get("nvmlDeviceGetUUID", index) for index in range(3)]
    assert all(a != b for a, b in zip(found, uuids, strict=True))
    stack.overlay.clear()
    stack.overlay.set("driver_unloaded", duration=60)
    assert overlay.ask("nvmlDeviceGetCount", None)[0] == 999
    assert overlay.ask("again", None)[0] == 9


def test_every_fault_over_a_real_driver_needs_an_end(stack: Stack) -> None:
    for name, kind in KINDS.items():
        gpu = None if kind.scope == "node" else 0
        if name == "xid":  # happens, and is over
            stack.overlay.set(name, gpu)
            continue
        with pytest.raises(ConfigError, match=r"duration|alone"):
            stack.overlay.set(name, gpu)
    with pytest.raises(ConfigError, match="alone"):
        stack.overlay.set("frozen", 0, duration=1)
    with pytest.raises(ConfigError, match="alone"):
        stack.overlay.set("hang", 0, duration=1, forever=1)
    assert stack.overlay.faults() == []


def test_an_entry_without_an_end_is_no_entry(stack: Stack, read: Callable[..., Reader]) -> None:
    """Even if something else wrote it into the file: the library itself does not believe it."""
    stack.overlay.set("gpu_lost", 0, duration=60)
    overlay = read(stack.overlay_env)
    assert overlay.ask("nvmlDeviceGetPowerUsage", 0)[0] == 15
    content = bytearray(stack.state.read_bytes())
    cell = ctypes.sizeof(records.Header) + records.MAX_GPUS * ctypes.sizeof(records.Identity)
    for slot in range(2):
        place = cell + 16 + slot * ctypes.sizeof(records.GpuState)
        off = place + records.GpuState.fault.offset + records.Fault.off.offset
        content[off : off + 8] = bytes(8)
    with open(stack.state, "r+b") as file:
        file.write(content)
    assert read(stack.overlay_env).ask("nvmlDeviceGetPowerUsage", 0)[0] == 0


def test_a_simulators_state_is_not_taken_for_an_overlays(stack: Stack, read: Callable[..., Reader]) -> None:
    stack.real.set("gpu_missing", 0)  # shows at init only, so that the real side goes on
    overlay = read({**stack.overlay_env, OVERLAY_VARIABLE: str(stack.real.path)})
    assert overlay.ask("nvmlDeviceGetPowerUsage", 0)[0] == 0


def test_a_wrong_real_library_is_said_to_be_wrong(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not an NVML library"):
        build("overlay", real=tmp_path / "absent.so")
    with pytest.raises(ConfigError, match="not an NVML library"):
        build("overlay", real=Path(shutil.which("cc") or "/bin/sh"))
    with pytest.raises(ConfigError, match="--real FILE"):
        build("overlay")
    with pytest.raises(CannotTell, match="absent"):
        World.create_overlay(tmp_path / "x", tmp_path / "absent.so")


@pytest.mark.parametrize(
    ("real", "said"), [("itself", "the overlay itself"), ("", "does not name"), ("/absent", "absent")]
)
def test_without_a_real_library_there_is_none(stack: Stack, real: str, said: str) -> None:
    """Opening itself would be a call that never returns."""
    path = str(stack.overlay_folder / LIBRARY) if real == "itself" else real
    env = {**os.environ, **stack.overlay_env, REAL_VARIABLE: path}
    result = subprocess.run(
        [sys.executable, "-c", "import pynvml; pynvml.nvmlInit()"],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "NVMLError_LibraryNotFound" in result.stderr
    assert said in result.stderr
