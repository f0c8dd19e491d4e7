"""What a fault is: it says what it will touch, takes effect, and can be taken back by anyone.

`undo` gets nothing but the record that was written to the journal before the injection, so that
another process can take the fault back after ours was killed.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agent.base.config import Model
from agent.base.errors import ConfigError, VigilError
from chaos.engine.target import Target

Record = dict[str, Any]
"""JSON-able facts that undo needs."""


class Refused(VigilError):
    """A drill was not started, for the reason given; nothing was touched."""


class NotInjected(VigilError):
    """The fault was set but reading back shows no effect."""


@dataclass(frozen=True, slots=True)
class Touched:
    """One thing a fault hits: `scope` gpu, engine, job or node, and its name in that scope."""

    scope: str
    target: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What one injection will do, before it does anything.

    Attributes:
        steps: in words, in order.
        touches: everything hit; the first is what the fault is about.
        labels: label values by which alerts about it are recognised.
        undo: the record for `Fault.undo`.
    """

    steps: tuple[str, ...]
    touches: tuple[Touched, ...]
    labels: Mapping[str, str]
    undo: Record


class Fault(Protocol):
    """One kind of fault; objects hold no state between calls."""

    @property
    def parameters(self) -> type[Model]:
        """The settings model of the fault's parameters."""
        ...

    @property
    def summary(self) -> str: ...

    def plan(self, parameters: Any, target: Target, duration: float) -> Plan:
        """Decide, touch nothing. The fault must end by itself after `duration` seconds.

        Raises:
            Refused: the target cannot take this fault, or its undo cannot be promised.
        """
        ...

    def inject(self, plan: Plan) -> None: ...

    def verify_injected(self, plan: Plan) -> str:
        """What was read back from the target; raises NotInjected if there is no effect."""
        ...

    def undo(self, record: Record) -> None:
        """Take it back; may be called twice, and for a fault that never took effect."""
        ...

    def verify_undone(self, record: Record) -> str:
        """What was read back; raises UndoFailed while the fault is still in force."""
        ...


FAULTS: dict[str, Fault] = {}


def register(name: str, fault: Fault) -> None:
    if name in FAULTS:
        raise ValueError(f"fault {name!r} is registered twice")
    FAULTS[name] = fault


def load() -> dict[str, Fault]:
    """Import every module of `chaos.faults` and return the faults by name."""
    import chaos.faults as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return FAULTS


def find(name: str) -> Fault:
    """The fault of that name; raises ConfigError naming those there are."""
    if name not in FAULTS and name not in load():
        raise ConfigError(f"no fault {name!r}; there are: {', '.join(sorted(FAULTS))}")
    return FAULTS[name]
