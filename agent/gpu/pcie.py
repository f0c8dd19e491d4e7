"""PCIe throughput from the byte counters (field ids 197 and 198), once they are proven not to wrap.

nvml.h says "value can be wrapped" and not where. A reading that does not fit 32 bits is the proof of a wider
counter, which does not wrap in the life of a board. One of 32 bits wraps every 70 ms at full speed, faster than
anybody can read it, and is never believed.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Final

from agent.gpu import codes
from agent.gpu.fields import NAME, FieldArray
from agent.gpu.nvml import judge
from agent.gpu.plan import NAN, Plan
from agent.gpu.readings import CALM, PCIE_TOP, Field

COUNTERS: Final = (Field(197, "pcie_tx"), Field(198, "pcie_rx"))
NARROW: Final = 2**32


class PcieBytes:
    """The counters of one GPU; `proven` once they are known to be wide, and then rates fill the plan.

    Raises:
        Gone, Down: on joining or reading, by the policy of agent.gpu.codes.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._last: tuple[int, list[float]] | None = None
        self.proven = False
        fn = plan.library.function(NAME)
        if fn is not None:
            self._fields = FieldArray(fn, plan.handle, COUNTERS)
            plan.add(NAME, self._read, (), (), self._store, CALM)

    def _read(self) -> int:
        code = int(self._fields.fn(*self._fields.args)) or max(code for _, code, _ in self._fields.results())
        judge(code)
        if code:
            self._last = None
            self._tell([NAN, NAN])
        return codes.NOT_SUPPORTED if code == codes.INVALID_ARGUMENT else code  # a driver that does not know the ids

    def _store(self) -> None:
        now, values = monotonic_ns(), [value for _, _, value in self._fields.results()]
        last, self._last = self._last, (now, values)
        self.proven |= any(value >= NARROW for value in values)
        if last is not None:
            seconds = (now - last[0]) / 1e9
            self._tell([(value - before) / seconds for value, before in zip(values, last[1], strict=True)])

    def _tell(self, rates: list[float]) -> None:
        if self.proven:
            for entry, rate in zip(COUNTERS, rates, strict=True):
                self._plan.put_checked(self._plan.slot(entry.key), rate, 0.0, PCIE_TOP, f"field {entry.id}")
