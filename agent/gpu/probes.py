"""What a GPU can tell: every source is tried once, and what answers joins the plan.

Where several sources fill one reading, the first that the GPU supports does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final

from agent.gpu import codes
from agent.gpu import readings as table
from agent.gpu.fields import NAME as FIELD_VALUES
from agent.gpu.fields import FieldArray, Told, value_of
from agent.gpu.gpm import Gpm
from agent.gpu.links import STATE as LINK_STATE
from agent.gpu.links import ChipLinks, Links
from agent.gpu.mig import Mig
from agent.gpu.nvml import judge
from agent.gpu.plan import NAN, Plan
from agent.gpu.readings import FAST, Field, Get, Part

_NOT_AVAILABLE = {ctypes.c_uint: 0xFFFFFFFF, ctypes.c_ulonglong: 0xFFFFFFFFFFFFFFFF}
DRAM_RATIO: Final = "dram_ratio"


def probe(plan: Plan, driver: tuple[int, int], uptime_ns: int, per_link: bool, lifetime_ecc: bool) -> Mig | None:
    """Fill an empty plan.

    Args:
        plan: of one GPU.
        driver: the first two numbers of its version, such as (580, 95).
        uptime_ns: time since boot; no throttle counter can exceed it.
        per_link: read every NVLink by itself, too.
        lifetime_ecc: read the ECC errors of the board's whole life by location, too.

    Returns:
        The reader of its MIG instances, while it is partitioned.

    Raises:
        Gone, Down: a call said that the GPU is lost, or all of NVML down.
    """
    _fields(plan, [*table.FIELDS, *table.throttle_fields(driver)], FAST, uptime_ns)
    lifetime = table.LIFETIME_ECC if lifetime_ecc else ()
    _fields(plan, [*table.LAZY_FIELDS, *lifetime], table.LAZY, uptime_ns)
    for get in table.GETTERS:
        if not plan.has(*(part.key for part in get.parts)):
            _getter(plan, get)
    _throttle_reasons(plan)
    _links(plan, per_link)
    _chip_links(plan)
    mig = _mig(plan)
    _gpm(plan, _dram_peak(plan))
    return mig


def _fields(plan: Plan, wanted: Sequence[Field], every: int, uptime_ns: int) -> None:
    """Keep the field ids this GPU answers, in one array that is never rebuilt."""
    fn = plan.library.function(FIELD_VALUES)
    if fn is None:
        return
    trial = FieldArray(fn, plan.handle, wanted)
    with plan.library.calling(FIELD_VALUES, plan.index):
        code = fn(*trial.args)
    judge(code)
    kept: list[Field] = []
    for entry, result, value in trial.results():
        judge(result)
        reason = codes.name(result) if result in codes.PERMANENT or result == codes.INVALID_ARGUMENT else ""
        if entry.key.startswith("throttled.") and value > uptime_ns * entry.scale:
            reason = "implausible"
        if reason:
            plan.errors[f"field {entry.id}", reason] += 1
        elif all(other.key != entry.key for other in kept):
            kept.append(entry)
    if code or not kept:
        return
    fields = FieldArray(fn, plan.handle, kept)
    slots = [plan.slot(entry.key) for entry in kept]
    before: list[Told] = [(0, 0, 0)] * len(kept)
    stored = [NAN] * len(kept)

    def store() -> None:
        nonlocal before
        values, now = plan.values, fields.told()
        for place, (told, old) in enumerate(zip(now, before, strict=True)):
            slot = slots[place]
            if told == old and values[slot] == stored[place]:  # as most are: counts of errors, limits, states
                continue
            entry, result = kept[place], told[1]
            if result:
                judge(result)
                plan.reset_required |= result == codes.RESET_REQUIRED
                plan.errors[f"field {entry.id}", codes.name(result)] += 1
            plan.put_checked(slot, value_of(entry, told), entry.low, entry.top, f"field {entry.id}")
            stored[place] = values[slot]  # NaN is equal to nothing: what has no value is looked at each time
        before = now

    plan.add(FIELD_VALUES, fn, fields.args, slots, store, every)


def _getter(plan: Plan, get: Get) -> None:
    fn = plan.library.function(get.name)
    if fn is None:
        plan.errors[get.name, codes.name(codes.FUNCTION_NOT_FOUND)] += 1
        return
    outs: list[Any] = [out() for out in get.outs]
    if get.version:
        outs[0].version = get.version
    parts = [(plan.slot(part.key), outs[part.out], part) for part in get.parts if not plan.has(part.key)]
    store = _memory(plan, outs[0]) if get.name == "nvmlDeviceGetMemoryInfo_v2" else _storer(plan, get.name, parts)
    args = (plan.handle, *map(ctypes.c_uint, get.args), *map(ctypes.byref, outs))
    plan.add(get.name, fn, args, (slot for slot, _, _ in parts), store, get.every)


def _storer(plan: Plan, name: str, parts: list[tuple[int, Any, Part]]) -> Callable[[], None]:
    def store() -> None:
        for slot, out, part in parts:
            raw = getattr(out, part.attr)
            value = NAN if raw == _NOT_AVAILABLE.get(type(out)) else raw * part.scale
            plan.put_checked(slot, value, part.low, part.top, name)

    return store


def _memory(plan: Plan, out: Any) -> Callable[[], None]:
    """Memory v2: `used` may include `reserved` (nvml.h says so, drivers differ); here it never does."""
    slots = [plan.slot("memory." + name) for name in ("total", "reserved", "free", "used")]

    def store() -> None:
        total, reserved, free = out.total, out.reserved, out.free
        used = min(out.used, total - free - reserved)
        top = total if total < table.COUNT_TOP else -1.0
        for slot, value in zip(slots, (total, reserved, free, used), strict=True):
            plan.put_checked(slot, value, 0.0, top, "nvmlDeviceGetMemoryInfo_v2")

    return store


def _throttle_reasons(plan: Plan) -> None:
    """One slot for each reason the GPU supports; the calls were renamed once."""
    for era in ("ClocksEvent", "ClocksThrottle"):
        name, supported = f"nvmlDeviceGetCurrent{era}Reasons", ctypes.c_ulonglong()
        fn = plan.library.function(name)
        if fn is None or plan.call(f"nvmlDeviceGetSupported{era}Reasons", ctypes.byref(supported)):
            continue
        out = ctypes.c_ulonglong()
        bits = [
            (bit, plan.slot("throttle." + word)) for bit, word in table.THROTTLE_BITS.items() if bit & supported.value
        ]

        def store(out: Any = out, bits: list[tuple[int, int]] = bits) -> None:
            for bit, slot in bits:
                plan.values[slot] = 1.0 if out.value & bit else 0.0

        plan.add(name, fn, (plan.handle, ctypes.byref(out)), (slot for _, slot in bits), store)
        return


def _links(plan: Plan, per_link: bool) -> None:
    links = Links(plan.library, plan.handle, plan.index, not plan.has("nvlink_tx", "nvlink_rx"), per_link)
    if not links.links:
        return
    slots = {key: plan.slot(key) for key in links.keys}

    def store() -> None:
        for key, slot in slots.items():
            plan.values[slot] = links.values[key]

    plan.add(LINK_STATE, links.read, (), slots.values(), store, table.CALM)


def _chip_links(plan: Plan) -> None:
    links = ChipLinks(plan.library, plan.handle, plan.index)
    if not links.values:
        return
    slots = {key: plan.slot(key) for key in links.values}

    def store() -> None:
        for key, slot in slots.items():
            plan.values[slot] = links.values[key]

    plan.add(FIELD_VALUES, links.read, (), slots.values(), store, table.CALM)


def _mig(plan: Plan) -> Mig | None:
    """Readings of MIG instances, which come and go while the mode is on."""
    if plan.value("mig_mode") != 1:
        return None
    mig = Mig(plan.library, plan.handle, plan.index)
    plan.closers.append(mig.close)

    def store() -> None:
        plan.drop([key for key in plan.starting("mig.") if key not in mig.values])
        for key, value in mig.values.items():
            plan.put(key, value)

    plan.add("nvmlDeviceGetMigDeviceHandleByIndex", mig.read, (), (), store, table.CALM)
    return mig


def _dram_peak(plan: Plan) -> float:
    """Bytes/s: 2 transfers a clock x maximum memory clock x bus width in bytes; NaN where unknown."""
    width = ctypes.c_uint()
    code = plan.call("nvmlDeviceGetMemoryBusWidth", ctypes.byref(width))
    peak = 2.0 * plan.value("clock_max.memory") * width.value / 8
    if code or not 0 < peak < 1e14:
        return NAN
    plan.put("dram_peak", peak)
    return peak


def _gpm(plan: Plan, peak: float) -> None:
    """GPM where there is some; DRAM bytes/s follow from its ratio and the bus's peak."""
    entries = tuple(entry for entry in table.GPM if plan.has("c2c_links") or not entry.key.startswith("c2c_"))
    gpm = Gpm.open(plan.library, plan.handle, plan.index, entries=entries)
    if gpm is None:
        return
    plan.closers.append(gpm.close)
    slots = [plan.slot(entry.key) for entry in gpm.entries]
    if peak == peak:
        slots.append(plan.slot("dram_bytes"))

    def store() -> None:
        for entry, code, value in gpm.results():
            if code in codes.PERMANENT:
                gpm.leave_out(entry)
                gone = (entry.key, "dram_bytes") if entry.key == DRAM_RATIO else (entry.key,)
                plan.drop([key for key in gone if plan.has(key)])
            else:
                value = NAN if code else value * entry.scale
                plan.put_checked(plan.slot(entry.key), value, entry.low, entry.top, f"GPM {entry.id}")
        if plan.has("dram_bytes"):
            plan.put("dram_bytes", plan.value(DRAM_RATIO) * peak)

    plan.add("nvmlGpmSampleGet", gpm.read, (), slots, store)
