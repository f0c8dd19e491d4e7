"""Bytes, errors and drops of network interfaces, from /proc/net/dev."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, field_validator

from agent.base.catalogue import Sample
from agent.base.catalogue import node as m
from agent.base.collector import Context, Settings, register

VIRTUAL = r"lo|(veth|cali|cilium|lxc|flannel|cni|docker|br-|virbr|ifb|tap|tunl|dummy).*"


class NetworkSettings(Settings):
    proc: Path = Field(default=Path("/proc"), description="Root of the process tree.")
    ignore: str = Field(default=VIRTUAL, description="Regular expression of interfaces to leave out.")

    @field_validator("ignore")
    @classmethod
    def _pattern(cls, text: str) -> str:
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        return text


@register("network", NetworkSettings)
class Network:
    """Network interfaces."""

    def __init__(self, settings: NetworkSettings, context: Context) -> None:
        self._dev = settings.proc / "net" / "dev"
        self._ignore = re.compile(settings.ignore)

    def collect(self) -> Iterable[Sample]:
        for line in self._dev.read_text(encoding="utf-8", errors="replace").splitlines()[2:]:
            device, _, rest = line.partition(":")
            device, words = device.strip(), rest.split()
            if len(words) < 16 or self._ignore.fullmatch(device):
                continue
            yield m.NET_RECEIVED.sample(int(words[0]), device)
            yield m.NET_SENT.sample(int(words[8]), device)
            yield m.NET_ERRORS.sample(int(words[2]), device, "receive", "errors")
            yield m.NET_ERRORS.sample(int(words[3]), device, "receive", "drops")
            yield m.NET_ERRORS.sample(int(words[10]), device, "transmit", "errors")
            yield m.NET_ERRORS.sample(int(words[11]), device, "transmit", "drops")

    def close(self) -> None: ...
