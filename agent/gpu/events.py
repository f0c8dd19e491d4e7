"""Lanes of the child beside the sweep: waiting for Xid events, and the PCIe call that sleeps.

Each is a daemon thread with its own place on the heartbeat page: a driver call that never returns
holds up its own lane only, and the agent sees which.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from agent.gpu import codes
from agent.gpu.device import Device, Identity
from agent.gpu.nvml import Library
from agent.gpu.readings import EVENT_WAIT_S

XID: Final = 0x8
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
    """Hands each Xid event to `report` as a mapping with uuid, pci, xid, gi, ci, time (Unix seconds).

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
                    }
                )


class PcieLane:
    """Asks PCIe throughput where GPM does not tell it: 20 ms a direction, so seldom and apart.

    `results` maps UUIDs to (sent, received) in bytes/s; the sweep takes them from there.
    """

    PERIOD_S: Final = 15.0

    def __init__(self, library: Library, lane: memoryview) -> None:
        self._library, self._lane = library, lane
        self._thread: threading.Thread | None = None
        self._devices: list[Device] = []
        self.results: dict[str, tuple[float, float]] = {}

    def serve(self, devices: Iterable[Device]) -> None:
        """From now on ask these; the thread exists only when there is something to ask."""
        self._devices = [device for device in devices if device.slow_pcie]
        self.results = {}
        if self._devices and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pcie", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        out = ctypes.c_uint()
        while True:
            for device in list(self._devices):
                values = []
                for direction in (0, 1):
                    code = self._library.call(
                        "nvmlDeviceGetPcieThroughput",
                        device.handle,
                        ctypes.c_uint(direction),
                        ctypes.byref(out),
                        index=device.identity.index,
                        lane=self._lane,
                    )
                    if code == codes.SUCCESS:
                        values.append(out.value * 1024.0)
                if len(values) == 2:
                    self.results[device.identity.uuid] = (values[0], values[1])
                else:
                    self.results.pop(device.identity.uuid, None)
            time.sleep(self.PERIOD_S)
