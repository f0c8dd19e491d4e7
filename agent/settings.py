"""The agent's whole configuration, assembled from the collectors that exist.

Importing the collectors happens here and nowhere else: a new collector is one module, and its
settings appear under `collectors.<name>` by themselves.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

import agent.collectors
from agent.base.collector import Kind, Settings, discover
from agent.base.config import Duration, Model, WebAddress, load, loads
from agent.base.web.address import parse_address


def _address(text: str) -> str:
    parse_address(text)
    return text


def _writable_default(system: str, fallback_variable: str, fallback: str) -> str:
    """`system` where this user may use it, else a folder of the user's own."""
    folder = Path(system)
    if os.access(folder if folder.exists() else folder.parent, os.W_OK):
        return system
    base = os.environ.get(fallback_variable)
    return str(Path(base) / folder.name) if base else str(Path.home() / fallback / folder.name)


def default_state_dir() -> str:
    """The service manager's `$STATE_DIRECTORY`, else /var/lib/gpuvigil-agent, else one in the user's home."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return given or _writable_default("/var/lib/gpuvigil-agent", "XDG_STATE_HOME", ".local/state")


def default_run_dir() -> str:
    """/run/gpuvigil (shared with drills), else one of the user's own."""
    if Path("/run/gpuvigil").is_dir():
        return "/run/gpuvigil"
    return _writable_default("/run/gpuvigil", "XDG_RUNTIME_DIR", ".local/state/run")


class LogSettings(Model):
    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level written.")
    format: Literal["logfmt", "json"] = Field(default="logfmt", description="key=value pairs or JSON, a line each.")


class AgentConfig(Model):
    """agent.yaml. `agent_model()` gives the full model with every collector's settings."""

    node: str = Field(default_factory=socket.gethostname, description="Name of this node in direct posts.")
    cluster: str = Field(default="", description="Name of its cluster in direct posts.")
    listen: Annotated[str, AfterValidator(_address)] = Field(
        default="127.0.0.1:9840", description="Address and port of /metrics; port 0 takes a free one."
    )
    web_config_file: str | None = Field(
        default=None, description="TLS, basic authentication and limits, in exporter-toolkit's format."
    )
    state_dir: str = Field(default_factory=default_state_dir, description="Folder for what outlives a restart.")
    run_dir: str = Field(default_factory=default_run_dir, description="Folder of drill.json, shared with drills.")
    tick: Duration = Field(default=1.0, ge=0.1, le=15, description="Time between two snapshots.")
    series_budget: int = Field(default=2000, ge=500, description="Most series of this node; the largest family pays.")
    prometheus_url: WebAddress | None = Field(
        default=None, description="Prometheus that scrapes this node (for doctor)."
    )
    alertmanager_urls: list[WebAddress] = Field(default_factory=list, description="Every Alertmanager peer.")
    log: LogSettings = Field(default_factory=LogSettings, description="What is written to standard error.")
    collectors: Any = None

    def enabled(self) -> dict[str, Settings]:
        """Settings of the collectors that shall run, by name."""
        every: dict[str, Settings] = {name: getattr(self.collectors, name) for name in kinds()}
        return {name: settings for name, settings in every.items() if settings.enabled}


@cache
def kinds() -> dict[str, Kind]:
    """Every collector of the package, by name in alphabetical order."""
    return dict(sorted(discover(agent.collectors).items()))


@cache
def agent_model() -> type[AgentConfig]:
    """The model of agent.yaml with one section for each collector."""
    sections: dict[str, Any] = {
        name: (kind.settings, Field(default_factory=kind.settings, description=kind.summary))
        for name, kind in kinds().items()
    }
    collectors = create_model("Collectors", __base__=Model, **sections)
    return create_model(
        "AgentFile",
        __base__=AgentConfig,
        __doc__="The agent's configuration file.",
        collectors=(collectors, Field(default_factory=collectors, description="One section a collector.")),
    )


def load_config(
    path: str | Path | None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> AgentConfig:
    """Read agent.yaml; None gives the defaults.

    Raises:
        ConfigError: every problem, one a line, with file and line.
    """
    return load(agent_model(), path, overrides=overrides, environ=environ)


def loads_config(text: str, *, environ: Mapping[str, str] | None = None) -> AgentConfig:
    """As `load_config`, from text."""
    return loads(agent_model(), text, environ=environ)
