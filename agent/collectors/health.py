"""Verdicts on GPUs and node, from what other collectors already know. Asks no driver."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from agent.base import statefile
from agent.base.catalogue import Sample
from agent.base.catalogue import health as m
from agent.base.collector import Context, PartialFailure, Settings, register
from agent.base.config import Duration
from agent.base.drillfile import boot_id
from agent.gpu import codes
from agent.gpu.inventory import Inventory
from agent.gpu.node import SHARED as GPU
from agent.gpu.node import GpuNode, wait_for_backend
from agent.gpu.view import View
from agent.health import baseline, document, machine
from agent.health.engine import Engine
from agent.health.evidence import Minute, Slots
from agent.health.ledger import SHARED as XID
from agent.health.ledger import XidNews
from agent.health.verdict import BRAKE, HEAT, Facts, State, Verdict

SAVE_EVERY_S: Final = 30.0
FIRST_WAIT_S: Final = 3.0
"""The very first run waits this long for the gpu collector to have something to judge."""


Readings = Mapping[str, tuple[Mapping[str, Any], Mapping[str, float]]]
"""The GPUs that answer, by UUID: each as described, and its readings by key."""


class HealthSettings(Settings):
    """Settings of the health collector."""

    period: Duration = Field(default=5.0, gt=0, description="Time between two runs.")
    sys: Path = Field(default=Path("/sys"), description="Root of sysfs, for the host adapters of the inventory.")
    proc: Path = Field(default=Path("/proc"), description="Root of the process tree, for the boot id.")


@register("health", HealthSettings)
class Health:
    """Verdicts: component, state, reason, action, evidence."""

    def __init__(self, settings: HealthSettings, context: Context) -> None:
        self._settings, self._context = settings, context
        self._boot = boot_id(settings.proc)
        self._synthetic: bool | None = None
        self._started = time.monotonic()
        self._engine = Engine(self._boot)
        self._layouts: dict[int, Slots] = {}
        self._settled_stamp = (0, 0)
        self._signed_off = 0.0
        self._saved = 0.0
        self._last: list[tuple[str, str, State, str]] = []

    def close(self) -> None:
        self._context.shared.pop(document.SHARED, None)

    def collect(self) -> Iterable[Sample]:
        if not self._saved:
            wait_for_backend(self._context, FIRST_WAIT_S - (time.monotonic() - self._started))
        node = self._context.shared.get(GPU)
        if not isinstance(node, GpuNode) or not node.settled:
            return
        view, now = node.client.view(), time.time()
        if view.up is None and not view.stuck and not view.released:
            return  # the child has not spoken yet
        if node.synthetic is not None and node.synthetic != self._synthetic:
            self._restore(node.synthetic)
        news = self._context.shared.get(XID)
        news = news if isinstance(news, XidNews) else None
        minute = Minute(node.client.minute(), self._layouts)
        readings = {str(gpu["uuid"]): (gpu, found) for gpu, found in view.readings()}
        facts = list(_facts(view, node.inventory, readings, minute)) if node.inventory else []
        lent = machine.lent_by(self._context)
        self._settle([*facts, machine.facts(lent)])
        inventory = self._inventory(view, readings)
        signed, problem = self._baseline(node)
        differences = None if signed is None else list(baseline.compare(signed.inventory, inventory))
        about_node = list(_judge_node(view, node, news, differences if view.fresh else None))
        about_node += machine.judge(lent, self._engine.marks(""), time.monotonic())
        events, kernel = (news.events, news.trouble) if news else ((), ())
        verdicts = self._engine.judge(facts, about_node, events, minute, now, kernel)
        content = partial(
            document.build,
            verdicts,
            self._engine.settled,
            inventory,
            None if differences is None or not view.fresh else list(map(str, differences)),
            node=self._context.node,
            synthetic=node.synthetic,
            taken=now,
        )
        self._keep(content, verdicts)
        yield from self._samples(verdicts, node)
        if signed is not None:
            yield m.BASELINE_TIME.sample(signed.written, node.label)
            if view.fresh and differences is not None:
                yield m.BASELINE_DIFFERENCES.sample(len(differences), node.label)
        if problem:
            raise PartialFailure("baseline", problem)

    def _settle(self, facts: list[Facts]) -> None:
        """Take in what people declared healthy, when the file they write has changed."""
        try:
            status = os.stat(Path(self._context.state_dir, document.SETTLED_NAME))
        except OSError:
            return
        if (stamp := (status.st_mtime_ns, status.st_size)) != self._settled_stamp:
            self._settled_stamp = stamp
            self._engine.settle(document.read_settled(self._context.state_dir), {fact.uuid: fact for fact in facts})

    def _restore(self, synthetic: bool) -> None:
        self._synthetic, self._settled_stamp = synthetic, (0, 0)
        stored = statefile.load(document.path_of(self._context.state_dir, synthetic))
        self._signed_off = statefile.number(stored.get("signed_off")) or 0.0
        try:
            self._engine = Engine.restore(stored.get("engine", {}), self._boot)
        except ValueError as error:
            raise PartialFailure("state", f"{error}; judging afresh") from None

    def _baseline(self, node: GpuNode) -> tuple[baseline.Baseline | None, str]:
        """The signed-off inventory, if it is of this backend; a new one makes the agent forget what it lacks."""
        try:
            signed = baseline.read(self._context.state_dir)
        except ValueError as error:
            return None, str(error)
        if signed is None or node.inventory is None or signed.backend != _backend(node.synthetic):
            return None, ""
        if signed.written > self._signed_off:
            self._signed_off, self._saved = signed.written, 0.0
            gone = set(node.inventory.known) - set(signed.inventory.get("gpus", ()))
            if gone:
                node.inventory.forget(gone)
        return signed, ""

    def _inventory(self, view: View, found: Readings) -> dict[str, Any]:
        """What the node is made of now; GPUs only while they are seen."""
        gpus = {}
        for uuid, (gpu, readings) in found.items():
            gpus[uuid] = {
                **{key: gpu[key] for key in ("pci", "model", "vbios", "serial")},
                "inforom": gpu["inforom"].get("image", ""),
                "memory": readings.get("memory.total"),
                "links": readings.get("nvlink_links"),
                "c2c_links": readings.get("c2c_links"),
                "pcie_generation_max": readings.get("pcie_generation_max"),
                "pcie_width_max": readings.get("pcie_width_max"),
            }
        return {"driver": view.versions.get("driver", ""), "gpus": gpus, "hcas": baseline.hcas(self._settings.sys)}

    def _keep(self, content: Callable[[], dict[str, Any]], verdicts: list[Verdict]) -> None:
        self._context.shared[document.SHARED] = content
        brief = [(verdict.component, verdict.uuid, verdict.state, verdict.action) for verdict in verdicts]
        if self._synthetic is not None and (brief != self._last or time.monotonic() - self._saved > SAVE_EVERY_S):
            self._last, self._saved = brief, time.monotonic()
            state = {"engine": self._engine.dump(), "signed_off": self._signed_off, "document": content()}
            statefile.save(document.path_of(self._context.state_dir, self._synthetic), state)

    def _samples(self, verdicts: list[Verdict], node: GpuNode) -> Iterator[Sample]:
        for verdict in verdicts:
            labels = (verdict.component, verdict.gpu, verdict.uuid, node.label)
            yield m.STATE.sample(verdict.state, *labels)
            if verdict.state is not State.HEALTHY:
                yield m.VERDICT.sample(1, *labels, verdict.state.name.lower(), verdict.action)


def _backend(synthetic: bool | None) -> str:
    return "simulator" if synthetic else "nvml"


def _facts(view: View, inventory: Inventory, readings: Readings, minute: Minute) -> Iterator[Facts]:
    stuck = {each.uuid: (each.call, each.seconds()) for each in view.stuck}
    described = view.described or {"skipped": (), "blind": ()}
    refused = set(map(inventory.with_index, described["blind"])) if view.fresh else set()
    unsure = refused.union(map(inventory.with_index, described["skipped"]))
    for uuid, known in inventory.known.items():
        present = None if not view.fresh or view.frame is None or uuid in unsure else uuid in readings
        yield Facts(
            uuid,
            str(known.gpu),
            present,
            stuck.get(uuid),
            readings.get(uuid, ({}, {}))[1],
            minute.throttled(uuid, (*HEAT, *BRAKE)),
            refused=uuid in refused,
        )


def _judge_node(
    view: View, node: GpuNode, news: XidNews | None, differences: list[baseline.Difference] | None
) -> Iterator[Verdict]:
    yield _judge_driver(view, node)
    if news is not None:
        yield Verdict("kernel_log", State.UNKNOWN if news.log_error else State.HEALTHY, news.log_error)
    if node.expected is not None and node.inventory is not None:
        missing = node.expected - len(node.inventory.known)
        if missing > 0:
            reason = f"{missing} of {node.expected} GPUs were never seen"
            yield Verdict("inventory", State.UNHEALTHY, reason, "CHECK_MECHANICALS")
        else:
            yield Verdict("inventory", State.HEALTHY)
    if differences is not None:
        reason = "; ".join(map(str, differences[:5])) + (" ..." if len(differences) > 5 else "")
        state = State.DEGRADED if differences else State.HEALTHY
        yield Verdict("baseline", state, reason, "CHECK_INVENTORY" if differences else "")


def _judge_driver(view: View, node: GpuNode) -> Verdict:
    nowhere = [each for each in view.stuck if not each.uuid]
    if nowhere:
        reason = f"{nowhere[0].call} has not returned for {nowhere[0].seconds():.0f} s"
        return Verdict("driver", State.UNHEALTHY, reason, "RESTART_BM")
    if view.released:
        return Verdict("driver", State.UNKNOWN, _let_go(node))
    if view.up is None:
        return Verdict("driver", State.UNKNOWN, "the driver has not been asked yet")
    if not view.up:
        if view.code == codes.LIBRARY_NOT_FOUND and not (node.inventory and node.inventory.known):
            return Verdict("driver", State.UNKNOWN, "no NVIDIA driver is installed")
        reason = codes.name(view.code) if view.code else "the process that asks it was replaced"
        action = {codes.LIB_RM_VERSION_MISMATCH: "RESTART_BM", codes.DRIVER_NOT_LOADED: "UPDATE_SWFW"}
        state = State.UNHEALTHY if view.code else State.UNKNOWN
        return Verdict("driver", state, f"NVML does not answer: {reason}", action.get(view.code, ""))
    return Verdict("driver", State.HEALTHY)


def _let_go(node: GpuNode) -> str:
    if node.release is None:
        return "the driver was let go on request"
    until = datetime.fromtimestamp(node.release.until, timezone.utc).strftime("%H:%M:%S UTC")
    return f"let go until {until} by {node.release.by}: {node.release.why}"
