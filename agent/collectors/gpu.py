"""GPUs by NVML: what the child process read last, as samples. Never waits for the driver.

Whether a GPU is there is judged against the known set: `gpuvigil_gpu_up` exists only after an
enumeration, is 0 for a known GPU that is gone, and is absent while the driver hangs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from agent.base.catalogue import Sample, Table, mig
from agent.base.catalogue import gpu as m
from agent.base.catalogue import self as own
from agent.base.collector import Context, PartialFailure, Settings, register
from agent.base.config import Duration
from agent.gpu import bus, codes, release
from agent.gpu.frames import Frames, Row
from agent.gpu.inventory import Inventory
from agent.gpu.node import SHARED, GpuNode
from agent.gpu.pci import scan
from agent.gpu.series import FEATURES, SERIES
from agent.gpu.view import Settings as ClientSettings
from agent.gpu.view import View

FIRST_WAIT_S: Final = 5.0
SCAN_EVERY_S: Final = 60.0


class GpuSettings(Settings):
    """Settings of the gpu collector."""

    period: Duration = Field(default=5.0, gt=0, description="Time between two runs; the child samples by itself.")
    library: str | None = Field(default=None, description="Path of libnvidia-ml; found by the linker if not given.")
    expected: int | None = Field(default=None, ge=0, description="GPUs this node should have; else counted on PCI.")
    interval: Duration = Field(default=1.0, gt=0, description="Time between two sweeps of the child.")
    retry_lost: Duration = Field(default=30.0, gt=0, description="Time between two attempts to find a lost GPU.")
    call_deadline: Duration = Field(default=10.0, gt=0, description="A driver call longer than this is stuck.")
    open_deadline: Duration = Field(default=60.0, gt=0, description="The same for calls that initialise a GPU.")
    processes: int = Field(default=4, ge=0, le=16, description="Largest processes of each GPU that are shown.")
    per_link: bool = Field(default=False, description="Series for every NVLink: about 100 a GPU.")
    lifetime_ecc: bool = Field(default=False, description="ECC errors of a board's life by location: 11 series a GPU.")
    sys: Path = Field(default=Path("/sys"), description="Root of sysfs, for the PCI bus.")
    proc: Path = Field(default=Path("/proc"), description="Root of the process tree, for the boot id.")


@register("gpu", GpuSettings)
class Gpu:
    """GPUs by NVML, in a process of its own."""

    def __init__(self, settings: GpuSettings, context: Context) -> None:
        self._settings = settings
        self._node = GpuNode(
            ClientSettings(
                library=settings.library,
                interval=settings.interval,
                retry_lost=settings.retry_lost,
                call_deadline=settings.call_deadline,
                open_deadline=settings.open_deadline,
                per_link=settings.per_link,
                lifetime_ecc=settings.lifetime_ecc,
            ),
            context.state_dir,
            settings.proc,
        )
        context.shared[SHARED] = self._node
        self._context = context
        self._answered: bool | None = None
        self._on_bus: list[str] | None = None
        self._scanned = -SCAN_EVERY_S
        self._frames = Frames(-1, ())
        self._obey()  # first: a driver that is being replaced is not to be touched
        self._node.client.start()
        self._node.client.wait(min(FIRST_WAIT_S, settings.deadline / 2))

    def close(self) -> None:
        if self._context.shared.get(SHARED) is self._node:
            del self._context.shared[SHARED]
        self._node.close()

    def collect(self) -> Iterable[Sample | Table]:
        problem = self._obey()
        view = self._node.refresh()
        if view.up is None and not view.stuck and not view.released:
            return  # the child has not spoken yet
        synthetic, inventory = self._node.label, self._node.inventory
        if view.up and view.described is None and not (inventory and inventory.known) and not view.stuck:
            return  # still enumerating for the first time: nothing is missing yet
        expected = self._node.expected = self._expected(inventory)
        if view.released != self._answered:
            self._answered = view.released
            release.answer(self._context.state_dir, view.released)
        yield m.DRIVER_RELEASED.sample(view.released, synthetic)
        if not view.released:
            yield m.DRIVER_UP.sample(bool(view.up), synthetic)
        yield m.CHILD_RESTARTS.sample(view.restarts, synthetic)
        if view.synthetic is not None:
            yield own.SIMULATED.sample(view.synthetic)
        if expected is not None:
            yield m.EXPECTED.sample(expected, synthetic)
        if inventory is not None:
            yield m.KNOWN.sample(len(inventory.known), synthetic)
        yield from self._stuck(view, inventory)
        if inventory is not None and view.up and view.fresh and view.described is not None:
            yield m.DRIVER_INFO.sample(1, synthetic, *(view.versions[k] for k in ("driver", "nvml", "cuda")))
            yield from self._existence(view, view.described, inventory)
            yield from self._values(view, view.described, inventory)
            yield from self._processes(inventory)
        if problem:
            raise PartialFailure("release", problem)
        if not view.up and not view.released and (expected or view.stuck):
            reason = "driver_hung" if view.stuck else codes.name(view.code) if view.code else "child_ended"
            raise PartialFailure(reason, f"NVML does not answer: {reason}")

    def _obey(self) -> str:
        """Let go of the driver or take it up, as people asked; says what is wrong with the file in which they did."""
        try:
            window = release.RELEASE.read(self._context.state_dir)
        except (ValueError, OSError) as error:
            return str(error)
        self._node.release = window if window is not None and window.until > time.time() else None
        if self._node.release is not None:
            self._node.client.release()
        else:
            self._node.client.take()
        return ""

    def _expected(self, inventory: Inventory | None) -> int | None:
        """Configured, else counted on the PCI bus (the simulator's GPUs are on none), else the most seen."""
        if self._settings.expected is not None:
            return self._settings.expected
        if not self._node.synthetic:
            if time.monotonic() - self._scanned >= SCAN_EVERY_S:
                self._on_bus, self._scanned = scan(self._settings.sys), time.monotonic()
            if self._on_bus:
                return len(self._on_bus)
        return inventory.most if inventory else None

    def _stuck(self, view: View, inventory: Inventory | None) -> Iterator[Sample]:
        synthetic, seen = self._node.label, set()
        for stuck in view.stuck:
            seen.add(stuck.uuid)
            label = inventory.label(stuck.uuid) if inventory else ""
            yield m.DRIVER_STUCK.sample(stuck.seconds(), label, stuck.uuid, synthetic, stuck.call)
        for uuid, known in inventory.known.items() if inventory else ():
            if uuid not in seen:
                yield m.DRIVER_STUCK.sample(0, str(known.gpu), uuid, synthetic, "")

    def _existence(self, view: View, described: dict[str, Any], inventory: Inventory) -> Iterator[Sample]:
        synthetic = self._node.label
        present = {str(gpu["uuid"]): gpu for gpu in described["gpus"]}
        unsure = {stuck.uuid for stuck in view.stuck}
        unsure |= {inventory.with_index(index) for index in (*described["skipped"], *described["blind"])}
        for uuid, known in inventory.known.items():
            labels = (str(known.gpu), uuid, synthetic)
            gpu = present.get(uuid)
            if gpu is None:
                if uuid not in unsure:
                    yield m.UP.sample(0, *labels)
                    yield m.INFO.sample(1, *labels, known.model, "", view.versions["driver"], "", known.pci)
                continue
            yield m.UP.sample(1, *labels)
            yield m.INFO.sample(
                1, *labels, gpu["model"], gpu["architecture"], view.versions["driver"], gpu["vbios"], gpu["pci"]
            )
            if gpu["inforom"]:
                versions = (gpu["inforom"].get(part, "") for part in ("image", "oem", "ecc", "power"))
                yield m.INFOROM.sample(1, *labels, *versions)
            for each in gpu["mig"]:
                yield mig.INFO.sample(1, *labels, str(each["id"]), each["uuid"], each["profile"])
            keys = set(gpu["keys"])
            for feature, key in FEATURES.items():
                supported = key in keys or (uuid, feature) in self._node.lent_features
                if supported or key not in gpu["pending"]:
                    yield m.FEATURE_SUPPORTED.sample(supported, *labels, feature)
        for call, reason, count in described["errors"]:
            yield m.CALL_ERRORS.sample(count, synthetic, call, reason)

    def _values(self, view: View, described: dict[str, Any], inventory: Inventory) -> Iterator[Sample | Table]:
        if view.frame is None:
            return
        if self._frames.generation != view.frame.generation:
            self._frames = Frames(view.frame.generation, self._lay_out(described, inventory))
        yield self._frames.table(view.frame.values, self._node.counters)
        if not self._node.synthetic:
            yield from self._bus(described, inventory)

    def _lay_out(self, described: dict[str, Any], inventory: Inventory) -> Iterator[Row]:
        """What each slot of a frame becomes; the same until the next description."""
        slot = -1
        for gpu in described["gpus"]:
            uuid = str(gpu["uuid"])
            labels = (inventory.label(uuid), uuid, self._node.label)
            for key in gpu["keys"]:
                slot += 1
                series = SERIES.get(key)
                if series is not None:
                    counter = f"{key}/{uuid}" if series.accumulates else ""
                    yield slot, series.metric, (*labels, *series.labels), counter

    def _bus(self, described: dict[str, Any], inventory: Inventory) -> Iterator[Sample]:
        """What the kernel tells of each slot; the simulator's GPUs are in none."""
        for gpu in described["gpus"]:
            uuid, pci = str(gpu["uuid"]), str(gpu["pci"])
            labels = (inventory.label(uuid), uuid, self._node.label)
            for severity, errors in bus.aer_errors(self._settings.sys, pci).items():
                total = self._node.counters.add(f"aer.{severity}/{uuid}", errors)
                yield m.PCIE_AER.sample(total, *labels, severity)
            for end, link in bus.link_limits(self._settings.sys, pci).items():
                if link.generation is not None and (end == "slot" or "pcie_generation_card" not in gpu["keys"]):
                    yield m.PCIE_GENERATION_LIMIT.sample(link.generation, *labels, end)
                if link.width is not None:
                    yield m.PCIE_WIDTH_LIMIT.sample(link.width, *labels, end)

    def _processes(self, inventory: Inventory) -> Iterator[Sample]:
        synthetic = self._node.label
        for uuid, rows in self._node.client.process_table().items():
            labels = (inventory.label(uuid), uuid, synthetic)
            rows = sorted({row.pid: row for row in rows}.values(), key=lambda row: (-(row.memory or 0), row.pid))
            for row in rows[: self._settings.processes]:
                instance = "" if row.instance is None else str(row.instance)
                who = (str(row.pid), self._comm(row.pid), instance)
                for metric, value in (
                    (m.PROCESS_MEMORY, row.memory),
                    (m.PROCESS_SM, row.sm),
                    (m.PROCESS_ENCODER, row.encoder),
                    (m.PROCESS_DECODER, row.decoder),
                ):
                    if value is not None:
                        yield metric.sample(value, *labels, *who)

    def _comm(self, pid: int) -> str:
        """The process' name; empty where it is gone or not of this host."""
        try:
            return (self._settings.proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""
