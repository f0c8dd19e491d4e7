"""The GPUs this node has shown: who they are, their small number, and where each sits on the bus.

Kept in the state directory, one file per backend (driver or simulator), so that a simulated GPU
never becomes a missing real one. `gpuvigil agent baseline write` forgets those that are gone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.base import statefile

LOG = logging.getLogger("gpuvigil.gpu")


def path_of(state_dir: str | Path, synthetic: bool) -> Path:
    return Path(state_dir, f"gpus-{'simulator' if synthetic else 'nvml'}.json")


@dataclass(frozen=True, slots=True)
class Known:
    """A GPU seen once: `gpu` is its label (the index at first sight), `index` NVML's of today."""

    uuid: str
    gpu: int
    index: int
    pci: str
    model: str = ""


class Inventory:
    """The known set. Reading needs no lock: entries and the mapping of them are replaced, never changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        stored = statefile.load(path)
        self.known: dict[str, Known] = {}
        self.most = 0
        self._forgotten: set[str] = set()
        try:
            self.known = {known.uuid: known for known in map(_known, stored.get("gpus", ()))}
            self._forgotten = {str(uuid) for uuid in stored.get("forgotten", ())}
            self.most = max(int(stored.get("most", 0)), len(self.known))
        except (TypeError, KeyError, ValueError, ArithmeticError) as error:
            LOG.warning("%s: not an inventory, starting afresh: %s", path, error)

    def see(self, gpus: Iterable[dict[str, Any]], lost: Iterable[dict[str, Any]] = ()) -> None:
        """Take in an enumeration: entries with uuid, index, pci, model. New GPUs get a number.

        `lost` are GPUs that told who they are but do not work; one that was forgotten stays forgotten.
        """
        answering = list(gpus)
        with self._lock:
            self._forgotten -= {str(gpu["uuid"]) for gpu in answering}
            self._see([*answering, *(gpu for gpu in lost if gpu["pci"] and gpu["uuid"] not in self._forgotten)])

    def _see(self, seen: list[dict[str, Any]]) -> None:
        known = dict(self.known)
        for gpu in sorted(seen, key=lambda gpu: int(gpu["index"])):
            uuid, index = str(gpu["uuid"]), int(gpu["index"])
            old = known.get(uuid)
            number = old.gpu if old else _free({entry.gpu for entry in known.values()}, index)
            known[uuid] = Known(uuid, number, index, str(gpu["pci"]), str(gpu.get("model", "")))
        most = max(self.most, len(seen))
        if known != self.known or most != self.most:
            self.known, self.most = known, most
            self._save()

    def forget(self, gone: Iterable[str]) -> None:
        """Drop GPUs from the known set; what the node should have is then what it has."""
        with self._lock:
            self._forgotten |= set(gone)
            self.known = {uuid: entry for uuid, entry in self.known.items() if uuid not in self._forgotten}
            self.most = len(self.known)
            self._save()

    def _save(self) -> None:
        gpus = [asdict(entry) for entry in self.known.values()]
        statefile.save(self._path, {"gpus": gpus, "most": self.most, "forgotten": sorted(self._forgotten)})

    def label(self, uuid: str) -> str:
        """The `gpu` label of a UUID, empty where it is unknown."""
        entry = self.known.get(uuid)
        return str(entry.gpu) if entry else ""

    def at(self, pci: str) -> str:
        """UUID of the GPU last seen on a bus id (normalised), empty where unknown."""
        return next((entry.uuid for entry in self.known.values() if entry.pci == pci), "")

    def with_index(self, index: int | None) -> str:
        """UUID of the GPU that last had this NVML index, empty where unknown."""
        return next((entry.uuid for entry in self.known.values() if entry.index == index), "")


def _known(entry: dict[str, Any]) -> Known:
    return Known(
        str(entry["uuid"]), int(entry["gpu"]), int(entry["index"]), str(entry["pci"]), str(entry.get("model", ""))
    )


def _free(taken: set[int], wanted: int) -> int:
    """`wanted` if free, else the lowest free number."""
    return wanted if wanted not in taken else next(n for n in range(len(taken) + 1) if n not in taken)
