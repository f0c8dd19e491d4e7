"""A drill on paper: which fault, what must follow, and how soon; read from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, create_model

from agent.base.config import Duration, Model, load
from agent.base.errors import ConfigError
from chaos.engine.fault import find

SHIPPED = Path(__file__).resolve().parent.parent / "drills"


class Seen(Model):
    """The sample on the agent's page that shows the fault, among the target's own series."""

    metric: str
    value: float
    healthy: float = Field(description="Its value when nothing is wrong.")


class Expect(Model):
    """What must follow the injection; each mark within its time."""

    seen: Seen
    alert: str = Field(description="Alert that must fire and, after the undo, resolve.")
    receiver: str = Field(default="/drill", description="Path of the sink at which the page must arrive.")
    silent: tuple[str, ...] = Field(default=("/page",), description="Paths at which nothing may arrive.")
    carries: tuple[str, ...] = Field(description="Labels and annotations that the page must carry, non-empty.")
    detected_within: Duration = Field(default=60.0, gt=0, description="Injection to page received.")
    resolved_within: Duration = Field(default=60.0, gt=0, description="Undo to alert and page resolved.")


class Drill(Model):
    """One drill."""

    title: str
    why: str
    fault: str
    parameters: Any = Field(default_factory=dict, description="As the fault declares them.")
    page: Literal["drill", "real"] = Field(default="drill", description='"real" rings the on-call channel.')
    hold: Duration = Field(default=0.0, ge=0, description="Time between page and undo.")
    max_duration: Duration = Field(default=120.0, gt=0, description="The fault ends by itself after this time.")
    expect: Expect


def shipped() -> dict[str, Path]:
    """The drills that come with gpuvigil, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def read(name: str) -> tuple[str, Drill]:
    """Name and content of a shipped drill, or of a YAML file if `name` is a path.

    Raises:
        ConfigError: no such drill, or the file is wrong (with its lines).
    """
    path = shipped().get(name)
    if path is None:
        path = Path(name)
        if path.suffix not in (".yaml", ".yml"):
            raise ConfigError(f"no drill {name!r}; there are: {', '.join(shipped())}, or give a .yaml file")
    fault = find(load(Drill, path, environ={}).fault)
    typed = create_model("Drill", __base__=Drill, parameters=(fault.parameters, ...))
    drill = load(typed, path, environ={})
    if drill.hold + drill.expect.detected_within >= drill.max_duration:
        raise ConfigError(
            f"{path}: max_duration: must exceed expect.detected_within plus hold "
            f"({drill.expect.detected_within + drill.hold:g} s), got {drill.max_duration:g} s"
        )
    return path.stem, drill
