"""Structures of nvml.h that the prepared calls fill, in plain ctypes: nvidia-ml-py's own are slow to read."""

from __future__ import annotations

import ctypes
import math
from ctypes import c_int, c_uint, c_ulonglong


class Utilization(ctypes.Structure):
    _fields_ = (("gpu", c_uint), ("memory", c_uint))


class Memory(ctypes.Structure):
    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class Memory2(ctypes.Structure):
    _fields_ = (
        ("version", c_uint),
        ("total", c_ulonglong),
        ("reserved", c_ulonglong),
        ("free", c_ulonglong),
        ("used", c_ulonglong),
    )


class Margin(ctypes.Structure):
    _fields_ = (("version", c_uint), ("celsius", c_int))


class Bar1(ctypes.Structure):
    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class RowRemapper(ctypes.Structure):
    _fields_ = tuple((name, c_uint) for name in ("max", "high", "partial", "low", "none"))


class SramErrors(ctypes.Structure):
    _fields_ = (
        ("version", c_uint),
        *((f"count{number}", c_ulonglong) for number in range(11)),
        ("threshold_exceeded", c_uint),
    )


class Fabric(ctypes.Structure):
    """nvmlGpuFabricInfo_v2_t. A GPU that is on no fabric says state 0: then nothing is known of it."""

    _fields_ = (
        ("version", c_uint),
        ("cluster", ctypes.c_ubyte * 16),
        ("status", c_uint),
        ("clique", c_uint),
        ("state", c_uint),
        ("health", c_uint),
    )

    @property
    def known_state(self) -> float:
        return self.state or math.nan

    @property
    def known_status(self) -> float:
        return self.status if self.state else math.nan

    @property
    def degraded(self) -> float:
        """Bits 0 and 1 of the health mask: 1 is degraded bandwidth, 2 is not, else it is not told."""
        return {1: 1.0, 2: 0.0}.get(self.health & 3, math.nan) if self.state else math.nan


def version(struct: type[ctypes.Structure], number: int) -> int:
    """NVML's version word: size of the struct, version number in the top byte."""
    return ctypes.sizeof(struct) | number << 24
