"""The signed-off inventory: what this node is made of, written down once, and what has changed since.

`gpuvigil agent baseline write` keeps what the running agent sees; the agent then forgets GPUs that
are not in it, so that a board taken out on purpose is no longer missed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from agent.base import statefile

NAME: Final = "baseline.json"
VERSION: Final = 1
GPU_ITEMS: Final = (
    *("pci", "model", "vbios", "inforom", "serial", "memory", "links", "c2c_links"),
    *("pcie_generation_max", "pcie_width_max"),
)
HCA_ITEMS: Final = ("firmware", "board", "rates", "states")


class Difference(NamedTuple):
    """One thing that is not as signed off. `was` or `now` is None where it is new or gone."""

    what: str
    was: Any
    now: Any

    def __str__(self) -> str:
        if self.was is None:
            return f"{self.what}: new ({self.now})"
        return f"{self.what}: gone (was {self.was})" if self.now is None else f"{self.what}: {self.was} -> {self.now}"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was signed off, when (Unix time) and by whom; `backend` is nvml or simulator."""

    written: float
    by: str
    backend: str
    inventory: dict[str, Any]


def read(state_dir: str | Path) -> Baseline | None:
    """The baseline of this node, None where none was signed off.

    Raises:
        ValueError: the file is no baseline (it names what is wrong).
    """
    path = Path(state_dir, NAME)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']!r}, this agent reads {VERSION}")
        inventory = dict(document["inventory"])
        for kind in ("gpus", "hcas"):
            inventory[kind] = {name: dict(parts) for name, parts in dict(inventory.get(kind, {})).items()}
        return Baseline(float(document["written"]), str(document["by"]), str(document["backend"]), inventory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{path}: not a baseline: {error}; write it anew or remove it") from None


def write(state_dir: str | Path, baseline: Baseline) -> bool:
    """Sign off; False where the disk refuses."""
    content = {
        "version": VERSION,
        "written": baseline.written,
        "by": baseline.by,
        "backend": baseline.backend,
        "inventory": baseline.inventory,
    }
    return statefile.save_for_agent(Path(state_dir, NAME), content)


def hcas(sys: str | Path) -> dict[str, dict[str, Any]]:
    """InfiniBand and RoCE adapters by name, with firmware, board id, rate and state of each port."""
    found: dict[str, dict[str, Any]] = {}
    try:
        devices = sorted(Path(sys, "class/infiniband").iterdir())
    except OSError:
        return found
    for device in devices:
        ports = sorted(device.glob("ports/*/rate"))
        found[device.name] = {
            "firmware": _text(device / "fw_ver"),
            "board": _text(device / "board_id"),
            "rates": [_text(port) for port in ports],
            "states": [_text(port.with_name("state")).rpartition(": ")[2] for port in ports],  # "4: ACTIVE"
        }
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def compare(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """What differs between two inventories; a GPU that does not answer now is gone.

    What was not yet recorded when the inventory was signed off is no difference.
    """
    if was.get("driver") != now.get("driver"):
        yield Difference("driver", was.get("driver"), now.get("driver"))
    for kind, items in (("gpus", GPU_ITEMS), ("hcas", HCA_ITEMS)):
        old, new = was.get(kind, {}), now.get(kind, {})
        for name in sorted({*old, *new}):
            label = f"{kind[:-1]} {name}"
            if name not in new:
                yield Difference(label, old[name].get("model") or old[name].get("board") or name, None)
            elif name not in old:
                yield Difference(label, None, new[name].get("model") or new[name].get("board") or name)
            else:
                for item in items:
                    if item in old[name] and old[name][item] != new[name].get(item):
                        yield Difference(f"{label} {item}", old[name].get(item), new[name].get(item))
