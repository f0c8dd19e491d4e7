"""Lanes of the child beside the sweep: waiting for Xid events, and calls that take long.

Each is a daemon thread with its own place on the heartbeat page: a driver call that never returns
holds up its own lane only, and the agent sees which.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from agent.gpu import codes
from agent.gpu.device import Device, Identity
from agent.gpu.nvml import Library
from agent.gpu.readings import EVENT_WAIT_S

XID: Final = 0x8
_THROUGHPUT: Final = {"pcie_tx": 0, "pcie_rx": 1}
"""By the number of NVML's direction."""
WHOLE_GPU: Final = 0xFFFFFFFF


class EventData(ctypes.Structure):
    _fields_ = (
        ("device", ctypes.c_void_p),
        ("type", ctypes.c_ulonglong),
        ("data", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class EventLane:
    """Hands each Xid event to `report` as a mapping.

    It has uuid, pci, xid, gi, ci, time (Unix seconds) and uptime (seconds of the monotonic clock).
    GPUs are registered as they are opened. The set is never freed: it must not outlive or predate
    an initialisation, and the process ends with it.
    """

    def __init__(self, library: Library, lane: memoryview, report: Callable[[dict[str, Any]], None]) -> None:
        self._library, self._lane, self._report = library, lane, report
        self._set: ctypes.c_void_p | None = None
        self._who: dict[int, Identity] = {}

    def register(self, device: Device) -> None:
        """Listen to this GPU; a GPU without events, or one that refuses, has its kernel lines still."""
        if self._set is None:
            created = ctypes.c_void_p()
            if self._library.call("nvmlEventSetCreate", ctypes.byref(created)) != codes.SUCCESS:
                return
            self._set = created
            threading.Thread(target=self._wait, name="xid-events", daemon=True).start()
        handle, index = device.handle, device.identity.index
        supported = ctypes.c_ulonglong()
        code = self._library.call("nvmlDeviceGetSupportedEventTypes", handle, ctypes.byref(supported), index=index)
        if code == codes.SUCCESS and supported.value & XID:
            self._library.call("nvmlDeviceRegisterEvents", handle, ctypes.c_ulonglong(XID), self._set, index=index)
            self._who[handle.value or 0] = device.identity

    def _wait(self) -> None:
        data = EventData()
        while True:
            code = self._library.call(
                "nvmlEventSetWait_v2",
                self._set,
                ctypes.byref(data),
                ctypes.c_uint(int(EVENT_WAIT_S * 1000)),
                lane=self._lane,
            )
            if code in codes.DOWN or code == codes.FUNCTION_NOT_FOUND:
                return
            if code not in (codes.SUCCESS, codes.TIMEOUT):
                time.sleep(EVENT_WAIT_S)  # a lost GPU may come out of the wait: do not spin
            who = self._who.get(data.device or 0)
            if code == codes.SUCCESS and data.type == XID and who is not None:
                self._report(
                    {
                        "uuid": who.uuid,
                        "pci": who.pci,
                        "xid": data.data,
                        "gi": None if data.gpu_instance == WHOLE_GPU else data.gpu_instance,
                        "ci": None if data.compute_instance == WHOLE_GPU else data.compute_instance,
                        "time": time.time(),
                        "uptime": time.monotonic(),
                    }
                )


class SlowLane:
    """Asks what takes long, apart from the sweep, which takes the answers from `results`.

    PCIe throughput every 15 s, 20 ms a direction, where nothing better tells it; and once for each GPU whether
    its InfoROM agrees with its checksums, for which the driver reads the board's flash.
    """

    PERIOD_S: Final = 15.0

    def __init__(self, library: Library, lane: memoryview) -> None:
        self._library, self._lane = library, lane
        self._thread: threading.Thread | None = None
        self._devices: list[Device] = []
        self._inforom: dict[Device, float] = {}
        self.results: dict[str, dict[str, float]] = {}

    def serve(self, devices: Iterable[Device]) -> None:
        """From now on ask these."""
        self._devices = list(devices)
        self._inforom = {device: value for device, value in self._inforom.items() if device in self._devices}
        self.results = {}
        if self._devices and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="slow", daemon=True)
            self._thread.start()

    def pending(self, device: Device) -> list[str]:
        """Readings of the GPU that have not been asked for yet: whether there are any, nobody knows."""
        return list(_THROUGHPUT) if device.slow_pcie and device.identity.uuid not in self.results else []

    def _run(self) -> None:
        while True:
            self.look(list(self._devices))
            time.sleep(self.PERIOD_S)

    def look(self, devices: Iterable[Device]) -> None:
        """Ask once. What was told before and is not now has no value: the sweep keeps what it is not given anew."""
        for device in devices:
            uuid = device.identity.uuid
            before = self.results.get(uuid, {}) if device.slow_pcie else {}
            silent = dict.fromkeys(before.keys() & _THROUGHPUT, math.nan)
            self.results[uuid] = {**silent, **self._validity(device), **self._throughput(device)}

    def _ask(self, device: Device, name: str, *args: Any) -> int:
        return self._library.call(name, device.handle, *args, index=device.identity.index, lane=self._lane)

    def _validity(self, device: Device) -> dict[str, float]:
        if device not in self._inforom:
            code = self._ask(device, "nvmlDeviceValidateInforom")
            self._inforom[device] = {codes.SUCCESS: 1.0, codes.CORRUPTED_INFOROM: 0.0}.get(code, math.nan)
        value = self._inforom[device]
        return {} if math.isnan(value) else {"inforom_valid": value}

    def _throughput(self, device: Device) -> dict[str, float]:
        found: dict[str, float] = {}
        if device.slow_pcie:
            for key, direction in _THROUGHPUT.items():
                out = ctypes.c_uint()
                code = self._ask(device, "nvmlDeviceGetPcieThroughput", ctypes.c_uint(direction), ctypes.byref(out))
                if code == codes.SUCCESS:
                    found[key] = out.value * 1024.0
        return found if len(found) == 2 else {}
