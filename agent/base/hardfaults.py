"""The faults that page at once: one table for the agent, the rules and the drills.

`action` is the static label of the alert; it uses NVIDIA's own words (Xid catalogue) where one
exists. The driver's current verdict travels as an annotation and a gauge instead, because a label
that changes would split one alert into two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Scope = Literal["gpu", "node", "engine", "job"]


@dataclass(frozen=True, slots=True)
class HardFault:
    """A fault that pages.

    Attributes:
        alert: name of the alert, the same whether Prometheus or the agent raises it.
        fault: short word used by inhibition and by drills.
        scope: what the alert is about; decides its identity labels and the key by which drills join.
        action: what to do, one word.
        summary: one line for the page; `{{ $labels.x }}` as in Prometheus templates.
    """

    alert: str
    fault: str
    scope: Scope
    action: str
    summary: str


GPU_LOST: Final = HardFault(
    "GpuLost",
    "gpu_lost",
    "gpu",
    "RESTART_BM",
    "GPU {{ $labels.gpu }} of {{ $labels.node }} is gone: it no longer answers the driver",
)
GPU_DRIVER_HUNG: Final = HardFault(
    "GpuDriverHung",
    "gpu_driver_hung",
    "gpu",
    "RESTART_BM",
    "A driver call on GPU {{ $labels.gpu }} of {{ $labels.node }} does not return",
)
GPU_MISSING: Final = HardFault(
    "GpuMissing",
    "gpu_missing",
    "node",
    "CHECK_MECHANICALS",
    "{{ $labels.node }} shows fewer GPUs than it should have",
)
HARD_FAULTS: Final = (GPU_LOST, GPU_DRIVER_HUNG, GPU_MISSING)

XID_ACTIONS: Final[dict[str, str]] = {
    # action word: severity of GpuXid for it
    "RESTART_BM": "page",
    "RESET_GPU": "page",
    "CONTACT_SUPPORT": "page",
    "CHECK_MECHANICALS": "page",
    "WORKFLOW_NVLINK": "page",
    "RESTART_APP": "ticket",
    "UPDATE_SWFW": "ticket",
    "IGNORE": "info",
}
"""Every action an Xid may call for; the counter exists at 0 for each from start-up."""
