"""The NVML child: the only process that loads libnvidia-ml.

Started by agent.gpu.client as `python -m agent.gpu.child OUT PAGE`: OUT is the pipe on which it
speaks (agent.gpu.wire), PAGE the heartbeat page. The first line on standard input is its
configuration; later lines change it, and the end of input ends it, so it never outlives the agent.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict
from typing import Any, Final

import pynvml

from agent.base.memory import few_heaps, give_back
from agent.gpu import codes, wire
from agent.gpu.device import Device, Identity, identify
from agent.gpu.events import EventLane, SlowLane
from agent.gpu.nvml import Down, Gone, Library, text
from agent.gpu.readings import LAZY, MAX_GPUS, MAX_PROCESSES, P2P

WAIT_FOR_DRIVER_S: Final = (2.0, 60.0)
"""How often a missing library or driver is tried again, and after how long in a fresh process:
the dynamic linker of this one may not see a library installed since."""
EXIT_DOWN: Final = 3
NONE: Final = 0xFFFFFFFF
"""Instance of a process that runs on the whole GPU."""


class Child:
    """One life of the child.

    Args:
        settings: `library` (path or None), `interval` and `retry_lost` (seconds), `skip` (NVML
            indices that are not touched), `only` (indices, or None for all), `known` (list of
            {uuid, index} of GPUs seen before), `per_link` (read every NVLink by itself), `lifetime_ecc` (ECC
            errors of the board's whole life by location, too).
    """

    def __init__(self, out: int, page: int, settings: dict[str, Any]) -> None:
        self._out, self._write_lock = out, threading.Lock()
        self._beat = wire.Heartbeat(page)
        self._settings = settings
        self._again = threading.Event()
        self._library = Library(self._beat.lane(wire.SWEEP), settings.get("library"))
        self._events = EventLane(self._library, self._beat.lane(wire.EVENTS), lambda x: self._send(wire.XID, x))
        self._slow = SlowLane(self._library, self._beat.lane(wire.SLOW))
        self._devices: dict[str, Device] = {}
        self._lost: dict[str, tuple[Identity, int]] = {}
        self._blind: list[int] = []
        """NVML indices whose GPU nobody may look at."""
        self._listed: set[str] = set()
        self._listing = b""
        """Lists of processes that go with the sweep's values: one message wakes the agent once."""
        self._last_utilization: dict[str, int] = {}
        self._video: set[tuple[str, int, int]] = set()
        """Processes that ever used a video engine: UUID, pid, 0 for the encoder and 1 for the decoder."""
        self._order: list[Device] = []
        self._pending: set[str] = set()
        """GPUs last described with a reading still to be asked for."""
        self._errors: Counter[tuple[str, str]] = Counter()
        self._told: Counter[tuple[str, str]] = Counter()
        """The errors as last described."""
        self._generation = wire.first_generation(os.getpid())
        self._versions = {"driver": "", "nvml": "", "cuda": ""}

    # -- speaking -------------------------------------------------------------------------

    def _send(self, kind: int, body: Any) -> None:
        self._write(wire.pack(kind, body))

    def _write(self, data: bytes) -> None:
        with self._write_lock:
            while data:
                data = data[os.write(self._out, data) :]

    def listen(self) -> None:
        """Take configuration lines from standard input until the agent is gone; then end at once."""
        for line in sys.stdin:
            self._settings = {**self._settings, **json.loads(line)}
            self._again.set()
        os._exit(0)

    # -- life -----------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until the driver goes away; returns the exit code."""
        self._hello()
        try:
            self._open()
            self._serve()
        except Down as down:
            self._send(wire.STATE, {"up": False, "code": down.code, **self._versions})
        return EXIT_DOWN

    def _hello(self) -> None:
        self._send(wire.HELLO, {"version": wire.VERSION, "pid": os.getpid()})

    def _open(self) -> None:
        pause, patience = WAIT_FOR_DRIVER_S
        give_up = time.monotonic() + patience
        while True:
            try:
                self._library.load()
                self._send(wire.STATE, {"up": None, "code": 0, "synthetic": self._library.synthetic, **self._versions})
                self._library.open()
                break
            except Down as down:
                if down.code == codes.LIB_RM_VERSION_MISMATCH or time.monotonic() > give_up:
                    raise
                state = {"up": False, "code": down.code, "synthetic": self._library.synthetic, **self._versions}
                self._send(wire.STATE, state)
                time.sleep(pause)
        cuda = self._library.ask(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        self._versions = {
            "driver": text(self._library.ask(pynvml.nvmlSystemGetDriverVersion)),
            "nvml": text(self._library.ask(pynvml.nvmlSystemGetNVMLVersion)),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        }
        self._send(wire.STATE, {"up": True, "code": 0, "synthetic": self._library.synthetic, **self._versions})

    def _serve(self) -> None:
        interval = float(self._settings["interval"])
        turn, due, looked = 0, time.monotonic(), 0.0
        give_back()
        while True:
            again = self._again.is_set() or any(device.outdated for device in self._order)
            if again or time.monotonic() - looked >= float(self._settings["retry_lost"]):
                self._again.clear()
                self._enumerate()
                looked = time.monotonic()
            self._sweep(turn)
            turn += 1
            due = max(due + interval, time.monotonic())
            self._again.wait(max(0.0, due - time.monotonic()))

    # -- which GPUs there are -------------------------------------------------------------

    def _enumerate(self) -> None:
        """Look at every index; keep GPUs that are as they were, open those that are new or back.

        Raises:
            Down: the driver is gone or does not say how many there are, or no GPU of several answers for its handle.
        """
        count = ctypes.c_uint()
        code = self._library.call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        if code != codes.SUCCESS:
            raise Down(code)
        total = min(count.value, MAX_GPUS)
        wanted = [i for i in self._settings["only"] or range(total) if i < total and i not in self._settings["skip"]]
        present: dict[str, Device] = {}
        failed: dict[int, int] = {}
        for index in wanted:
            try:
                device = self._look(index)
                present[device.identity.uuid] = device
            except Gone as gone:
                failed[index] = gone.code
        if len(wanted) > 1 and set(failed.values()) == {codes.UNKNOWN} and len(failed) == len(wanted):
            raise Down(codes.UNKNOWN)
        self._note_lost(present, failed)
        if present != self._devices:
            for device in self._devices.values():
                if present.get(device.identity.uuid) is not device:
                    device.close()
            self._devices = present
            self._slow.serve(present.values())
            self._generation += 1
        self._describe()

    def _look(self, index: int) -> Device:
        handle = ctypes.c_void_p()
        code = self._library.call(
            "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle), index=index
        )
        if code in codes.DOWN:
            raise Down(code)
        if code:
            self._errors["nvmlDeviceGetHandleByIndex_v2", codes.name(code)] += 1
            raise Gone(code)
        for device in self._devices.values():
            same = device.handle.value == handle.value and device.identity.index == index and not device.outdated
            if same and text(self._library.ask(pynvml.nvmlDeviceGetUUID, handle, index=index)) == device.identity.uuid:
                return device
        identity = identify(self._library, handle, index)
        uptime = int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1e9)
        try:
            device = Device(
                self._library,
                handle,
                identity,
                version_of(self._versions["driver"]),
                uptime,
                self._errors,
                bool(self._settings["per_link"]),
                bool(self._settings["lifetime_ecc"]),
            )
        except Gone as gone:
            self._lost[identity.uuid] = (identity, gone.code)
            raise
        self._events.register(device)
        return device

    def _note_lost(self, present: dict[str, Device], failed: dict[int, int]) -> None:
        """What was there and is not any more is lost; an index that fails is told by what it last was."""
        for uuid, device in self._devices.items():
            if uuid not in present and device.identity.index not in self._settings["skip"]:
                self._lost.setdefault(uuid, (device.identity, codes.GPU_NOT_FOUND))
        self._blind = [index for index, code in failed.items() if code in codes.REFUSED]
        known = {int(entry["index"]): str(entry["uuid"]) for entry in self._settings["known"]}
        known.update({identity.index: uuid for uuid, (identity, _) in self._lost.items()})
        for index, code in failed.items():
            last = known.get(index)
            if last is not None and last not in present and index not in self._blind:
                self._lost.setdefault(last, (Identity(last, index, ""), code))
        for uuid in present:
            self._lost.pop(uuid, None)

    def _describe(self) -> None:
        """Say which GPUs there are, in what state, and what the doubles of a sweep stand for."""
        devices = sorted(self._devices.values(), key=lambda device: device.identity.index)
        self._order = devices
        for device in devices:
            device.plan.changed = False
        self._pending = {device.identity.uuid for device in devices if self._slow.pending(device)}
        self._told = self._errors.copy()
        self._send(
            wire.DESCRIBE,
            {
                "generation": self._generation,
                "gpus": [{**device.describe(), "pending": self._slow.pending(device)} for device in devices],
                "lost": [{**asdict(identity), "code": code} for identity, code in self._lost.values()],
                "blind": self._blind,
                "skipped": self._settings["skip"],
                "errors": [[*key, n] for key, n in self._errors.items()],
            },
        )

    # -- reading them ---------------------------------------------------------------------

    def _sweep(self, turn: int) -> None:
        gone: dict[str, int] = {}
        changed = False
        for device in self._order:
            uuid = device.identity.uuid
            try:
                device.sweep(turn)
                if (turn + device.identity.index) % LAZY == 0 or uuid not in self._listed:
                    self._list_processes(device)
            except Gone as lost:
                gone[uuid] = lost.code
                continue
            for key, value in self._slow.results.get(uuid, {}).items():
                if device.slow_pcie or key not in ("pcie_tx", "pcie_rx"):
                    device.plan.put(key, value)
            changed |= device.plan.changed or (uuid in self._pending and not self._slow.pending(device))
        if len(gone) == len(self._order) > 0 and set(gone.values()) == {codes.UNKNOWN}:
            raise Down(codes.UNKNOWN)
        for uuid, code in gone.items():
            device = self._devices.pop(uuid)
            device.close()
            self._lost[uuid] = (device.identity, code)
        if turn % LAZY == 0 and not gone:
            changed |= self._count_peers()
        if gone or changed:
            self._generation += 1
        if gone or changed or (turn % LAZY == 0 and self._told != self._errors):
            self._describe()
        values = [device.plan.values for device in self._order]
        listed, self._listing = self._listing, b""
        self._write(listed + wire.pack_values(self._generation, time.monotonic_ns(), time.time(), values))

    def _count_peers(self) -> bool:
        """How many other GPUs each can reach; whether that is told for the first time."""
        status = ctypes.c_uint()
        for device in self._order if len(self._order) > 1 else ():
            others = [other.handle for other in self._order if other is not device]
            for word, what in P2P.items():
                args = (ctypes.c_uint(what), ctypes.byref(status))
                told = [
                    status.value == 0
                    for other in others
                    if self._library.call(
                        "nvmlDeviceGetP2PStatus", device.handle, other, *args, index=device.identity.index
                    )
                    == codes.SUCCESS
                ]
                if told or device.plan.has("p2p." + word):
                    device.plan.put("p2p." + word, sum(told) if told else math.nan)
        return any(device.plan.changed for device in self._order)

    def _list_processes(self, device: Device) -> None:
        """Compute processes with their memory; rows that cannot be true are left out.

        Driver 535 swapped pid and memory in this list without a new version.
        """
        self._listed.add(device.identity.uuid)
        rows = self._library.ask(
            pynvml.nvmlDeviceGetComputeRunningProcesses, device.handle, index=device.identity.index
        )
        if rows is None:  # not told, or no longer: an old list would stand for the present
            if device.plan.has("processes"):
                device.plan.put("processes", math.nan)
                self._listing += wire.pack(wire.PROCESSES, {"uuid": device.identity.uuid, "processes": []})
            return
        good = [row for row in rows if 0 < row.pid < 1 << 22 and (row.usedGpuMemory or 0) < 1 << 48]
        if len(good) < len(rows):
            self._errors["nvmlDeviceGetComputeRunningProcesses", "implausible"] += len(rows) - len(good)
        device.plan.put("processes", len(good))
        busy = self._process_utilization(device)
        if self._video:
            here = {row.pid for row in good}
            self._video = {each for each in self._video if each[0] != device.identity.uuid or each[1] in here}
        listed = []
        for row in good[:MAX_PROCESSES]:
            instance = None if row.gpuInstanceId == NONE else row.gpuInstanceId
            sm, *video = busy.get(row.pid, (None,))
            listed.append((row.pid, row.usedGpuMemory, sm, instance, *video))
        self._listing += wire.pack(wire.PROCESSES, {"uuid": device.identity.uuid, "processes": listed})

    def _process_utilization(self, device: Device) -> dict[int, tuple[float | None, ...]]:
        """Utilisation (0 to 1) by pid since the last time, for processes that were busy at all.

        That of the SMs; for a process that ever used a video engine, also the encoder's and the decoder's, None
        for the one that it never used.
        """
        uuid = device.identity.uuid
        last = self._last_utilization.get(uuid, 0)
        samples = self._library.ask(
            pynvml.nvmlDeviceGetProcessUtilization, device.handle, last, index=device.identity.index
        )
        found: dict[int, list[Any]] = {}
        for sample in samples or ():
            self._last_utilization[uuid] = max(self._last_utilization.get(uuid, 0), sample.timeStamp)
            if sample.smUtil <= 100:
                found.setdefault(sample.pid, []).append(sample)
                if 0 < sample.encUtil <= 100:
                    self._video.add((uuid, sample.pid, 0))
                if 0 < sample.decUtil <= 100:
                    self._video.add((uuid, sample.pid, 1))
        busy: dict[int, tuple[float | None, ...]] = {}
        for pid, own in found.items():
            busy[pid] = (_mean([sample.smUtil for sample in own]),)
            encodes, decodes = ((uuid, pid, engine) in self._video for engine in (0, 1))
            if encodes or decodes:
                encoder = _mean([sample.encUtil for sample in own]) if encodes else None
                decoder = _mean([sample.decUtil for sample in own]) if decodes else None
                busy[pid] += (encoder, decoder)
        return busy


def _mean(percentages: list[int]) -> float | None:
    """As a ratio; a number that is no percentage is left out."""
    good = [value for value in percentages if value <= 100]
    return sum(good) / len(good) / 100 if good else None


def version_of(driver: str) -> tuple[int, int]:
    """The first two numbers of a driver's version; zeros where it is none."""
    numbers = [int(part) if part.isdecimal() else 0 for part in (*driver.split("."), "", "")]
    return numbers[0], numbers[1]


def main(arguments: list[str]) -> int:
    few_heaps()
    out, page = (int(argument) for argument in arguments)
    child = Child(out, page, json.loads(sys.stdin.readline()))
    threading.Thread(target=child.listen, name="listen", daemon=True).start()
    try:
        code = child.run()
    except (BrokenPipeError, KeyboardInterrupt):
        code = 0
    sys.stderr.flush()
    os._exit(code)  # a thread may be in the driver for ever: do not wait for it


if __name__ == "__main__":
    main(sys.argv[1:])
