"""MIG: memory and activity of each GPU instance.

Handles die with an instance and may be used again, so instances are listed anew each time and known by id.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import pynvml

from agent.gpu import codes
from agent.gpu.gpm import Gpm
from agent.gpu.nvml import Library, judge, text
from agent.gpu.readings import MIG_GPM
from agent.gpu.structs import Memory2, version

MAX_INSTANCES: Final = 8


class Mig:
    """The instances of one GPU: `read()` lists them, `values` holds their readings, `mig.<id>.<what>`.

    `instances` tells who they are: id, uuid and profile (such as 3g.40gb).

    Parent and instances are never added up: the parent's memory already is the sum.
    """

    def __init__(self, library: Library, handle: ctypes.c_void_p, index: int) -> None:
        self._library, self._handle, self._index = library, handle, index
        self._gpm: dict[tuple[int, str], Gpm] = {}
        self.values: dict[str, float] = {}
        self.instances: list[dict[str, Any]] = []

    def close(self) -> None:
        for gpm in self._gpm.values():
            gpm.close()

    def read(self) -> int:
        """List the instances and read each.

        Raises:
            Gone, Down: by the policy of agent.gpu.codes.
        """
        self.values = {}
        seen: dict[int, ctypes.c_void_p] = {}
        for number in range(MAX_INSTANCES):
            handle, instance = ctypes.c_void_p(), ctypes.c_uint()
            place = (self._handle, ctypes.c_uint(number), ctypes.byref(handle))
            if self._call("nvmlDeviceGetMigDeviceHandleByIndex", *place):
                continue
            if self._call("nvmlDeviceGetGpuInstanceId", handle, ctypes.byref(instance)) == codes.SUCCESS:
                seen.setdefault(instance.value, handle)
        # an instance made anew under the same id has another UUID: its samples do not continue the old ones
        alive = {
            (instance, text(self._library.ask(pynvml.nvmlDeviceGetUUID, handle, index=self._index))): handle
            for instance, handle in seen.items()
        }
        self.instances = [
            {"id": instance, "uuid": uuid, "profile": self._profile(handle)}
            for (instance, uuid), handle in sorted(alive.items(), key=lambda item: item[0])
        ]
        for key in [key for key in self._gpm if key not in alive]:
            self._gpm.pop(key).close()
        for key, handle in alive.items():
            self._memory(key[0], handle)
            self._activity(key)
        return codes.SUCCESS

    def _call(self, name: str, *args: object) -> int:
        code = self._library.call(name, *args, index=self._index)
        judge(code)
        return code

    def _profile(self, handle: ctypes.c_void_p) -> str:
        """The last word of a name such as NVIDIA H100 80GB HBM3 MIG 3g.40gb."""
        name = text(self._library.ask(pynvml.nvmlDeviceGetName, handle, index=self._index))
        return name.rpartition(" MIG ")[2] if " MIG " in name else ""

    def _memory(self, instance: int, handle: ctypes.c_void_p) -> None:
        memory = Memory2(version=version(Memory2, 2))
        code = self._call("nvmlDeviceGetMemoryInfo_v2", handle, ctypes.byref(memory))
        if code == codes.SUCCESS and memory.used <= memory.total < 1 << 48:
            self.values[f"mig.{instance}.memory_total"] = memory.total
            self.values[f"mig.{instance}.memory_used"] = memory.used

    def _activity(self, key: tuple[int, str]) -> None:
        instance = key[0]
        if key not in self._gpm:
            gpm = Gpm.open(self._library, self._handle, self._index, instance, MIG_GPM)
            if gpm is None:
                return
            self._gpm[key] = gpm
        gpm = self._gpm[key]
        if gpm.read() == codes.SUCCESS:
            for entry, code, value in gpm.results():
                if code == codes.SUCCESS and 0 <= value * entry.scale <= entry.top:
                    self.values[f"mig.{instance}.{entry.key}"] = value * entry.scale
