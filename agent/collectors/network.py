"""Network interfaces: bytes, errors, drops, state and speed; and how much TCP has to send again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field, field_validator

from agent.base.catalogue import Sample
from agent.base.catalogue import node as m
from agent.base.collector import Context, Settings, register
from agent.node import sysfs

VIRTUAL = r"lo|(veth|cali|cilium|lxc|flannel|cni|docker|br-|virbr|ifb|tap|tunl|dummy).*"


class NetworkSettings(Settings):
    proc: Path = Field(default=Path("/proc"), description="Root of the process tree.")
    sys: Path = Field(default=Path("/sys"), description="Root of sysfs.")
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
        self._net = settings.proc / "net"
        self._class = settings.sys / "class" / "net"
        self._ignore = re.compile(settings.ignore)

    def collect(self) -> Iterable[Sample]:
        text = (self._net / "dev").read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines()[2:]:
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
            yield from self._link(device)
        yield from self._tcp()

    def close(self) -> None: ...

    def _link(self, device: str) -> Iterator[Sample]:
        state = sysfs.text(self._class / device / "operstate")
        if state in ("up", "down", "lowerlayerdown"):  # "unknown" is what some drivers say of a good link
            yield m.NET_UP.sample(float(state == "up"), device)
        megabits = sysfs.number(self._class / device / "speed")
        if megabits is not None and megabits > 0:  # -1: not known
            yield m.NET_SPEED.sample(megabits * 1e6 / 8, device)

    def _tcp(self) -> Iterator[Sample]:
        """The two `Tcp:` lines of /proc/net/snmp: names, then values."""
        lines = [line.split() for line in (sysfs.text(self._net / "snmp") or "").splitlines() if line[:4] == "Tcp:"]
        found = dict(zip(*lines, strict=False)) if len(lines) == 2 else {}
        for name, metric in (("RetransSegs", m.TCP_RETRANSMITTED), ("OutSegs", m.TCP_SENT)):
            if found.get(name, "").isdigit():
                yield metric.sample(int(found[name]))
