"""What the configuration says of an engine."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from agent.base.config import Duration, Model
from agent.inference.mapping import EngineKind


class ProbeSettings(Model):
    """A small streamed completion, timed token by token."""

    enabled: bool = Field(default=True, description="Send a probe each period.")
    period: Duration = Field(default=15.0, gt=0, description="Time between two probes.")
    prompt: str = Field(default="Say a few words about the weather.", min_length=1, description="What is asked.")
    max_tokens: int = Field(default=16, ge=1, le=4096, description="Most tokens an answer may have.")
    timeout: Duration = Field(default=30.0, gt=0, description="A probe that lasts longer counts as a time-out.")
    credential_file: Path | None = Field(default=None, description="File with the API key, if probes use their own.")


class EngineSettings(Model):
    """One engine of this node."""

    name: str = Field(min_length=1, description="Value of the label `engine`; unique on the node.")
    kind: EngineKind = Field(default="auto", description="What it is; auto looks at the names on its page.")
    url: str = Field(description="Where it listens, such as http://127.0.0.1:8000.")
    metrics_url: str | None = Field(default=None, description="Its metrics page, if on another port (Triton's 8002).")
    metrics_path: str | None = Field(default=None, description="Its metrics page, if not its kind's usual.")
    health_path: str | None = Field(default=None, description="Its health URL, if not its kind's usual.")
    completions_path: str = Field(
        default="/v1/completions",
        description="Where the probe asks: /v1/completions, /v1/chat/completions, or Triton's "
        "/v2/models/NAME/generate_stream.",
    )
    model: str = Field(default="", description="Served model, for engines whose page does not name it.")
    timeout: Duration = Field(default=5.0, gt=0, description="Limit for the metrics page.")
    health_timeout: Duration = Field(default=2.0, gt=0, description="Limit for the health URL.")
    page_limit: int = Field(default=32 << 20, ge=4096, description="Most bytes of a metrics page that are read.")
    credential_file: Path | None = Field(default=None, description="File with the API key, where one is needed.")
    ca_file: str | None = Field(default=None, description="Certificates that sign the engine's, for https.")
    pid_file: Path | None = Field(default=None, description="File with its process number; else the listener's.")
    probe: ProbeSettings = Field(default_factory=ProbeSettings)

    @field_validator("url", "metrics_url")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"must be an http or https address such as http://127.0.0.1:8000, got {url!r}")
        if parts.username or parts.password:
            raise ValueError("must hold no password, got one: put the key into credential_file")
        return url.rstrip("/")

    @field_validator("metrics_path", "health_path", "completions_path")
    @classmethod
    def _path(cls, path: str | None) -> str | None:
        if path is not None and not path.startswith("/"):
            raise ValueError(f"must begin with /, got {path!r}")
        return path
