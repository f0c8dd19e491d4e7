"""What one agent holds of its GPUs: the client of the child, the inventory and the counters of its backend.

The gpu collector owns it and lends it to others as `context.shared["gpu"]`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from agent.base import statefile
from agent.base.collector import Context
from agent.base.drillfile import boot_id
from agent.base.window import Window
from agent.gpu.accumulate import Accumulator
from agent.gpu.client import Client
from agent.gpu.inventory import Inventory, path_of
from agent.gpu.view import Settings, View

SAVE_EVERY_S: Final = 60.0
FROM_ZERO_AT_BOOT: Final = (
    "energy/",
    "throttled.",
    "ecc.corrected.volatile/",
    "ecc.uncorrected.volatile/",
    "ecc_at.",
    "aer.",
)
"""Counters that certainly begin again with the node."""
SHARED: Final = "gpu"
"""Name in `context.shared`."""


POLL_S: Final = 0.05


def wait_for_backend(context: Context, seconds: float) -> None:
    """Until the gpu collector knows whether it reads a driver or the simulator, or there is no library.

    For the very first run of a collector that depends on it; later runs take what is there.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        node = context.shared.get(SHARED)
        if isinstance(node, GpuNode) and node.settled:
            return
        time.sleep(POLL_S)


class GpuNode:
    """The backend is chosen by the library the child loads: until it has, there is no inventory.

    Args:
        state_dir: where inventory and counters are kept, apart for driver and simulator.
        proc: root of the process tree, for the boot id.
    """

    def __init__(self, settings: Settings, state_dir: str | Path, proc: str | Path = "/proc") -> None:
        self._state_dir = Path(state_dir)
        self._boot = boot_id(proc)
        self._saved = time.monotonic()
        self._counters_path: Path | None = None
        self.inventory: Inventory | None = None
        self.counters = Accumulator()
        self.synthetic: bool | None = None
        self.expected: int | None = None
        """GPUs the node should have, as far as somebody knows; set by the gpu collector."""
        self.release: Window | None = None
        """Until when the driver is let go, why and by whom; None while it is not. Set by the gpu collector."""
        self.lent_features: frozenset[tuple[str, str]] = frozenset()
        """(uuid, feature) that another source gives although NVML does not."""
        self.client = Client(settings, self._known)

    def _known(self) -> list[dict[str, Any]]:
        known = self.inventory.known.values() if self.inventory else ()
        return [{"uuid": entry.uuid, "index": entry.index} for entry in known]

    @property
    def label(self) -> str:
        """Value of the `synthetic` label on every GPU series of this process."""
        return "true" if self.synthetic else ""

    @property
    def settled(self) -> bool:
        """The backend is taken up, or it is certain that there is none to take up now."""
        view = self.client.view()
        nothing = view.up is False or bool(view.stuck) or view.released
        return self.synthetic is not None or (view.synthetic is None and nothing)

    def refresh(self) -> View:
        """The client's view, after the inventory has taken in its enumeration."""
        view = self.client.view()
        if view.synthetic is not None and view.synthetic != self.synthetic:
            self._choose(view.synthetic)
        if self.inventory is not None and view.described is not None:
            self.inventory.see(view.described["gpus"], view.described["lost"])
        if time.monotonic() - self._saved > SAVE_EVERY_S:
            self.save()
        return view

    def _choose(self, synthetic: bool) -> None:
        self.save()
        self.synthetic = synthetic
        self.inventory = Inventory(path_of(self._state_dir, synthetic))
        self._counters_path = self._state_dir / f"gpu-counters-{'simulator' if synthetic else 'nvml'}.json"
        stored = statefile.load(self._counters_path)
        self.counters = Accumulator(stored.get("counters"))
        if stored.get("boot_id") != self._boot:
            for prefix in FROM_ZERO_AT_BOOT:
                self.counters.rebase(prefix)

    def save(self) -> None:
        self._saved = time.monotonic()
        if self._counters_path is not None:
            statefile.save(self._counters_path, {"boot_id": self._boot, "counters": self.counters.dump()}, sync=False)

    def close(self) -> None:
        self.client.close()
        self.save()
