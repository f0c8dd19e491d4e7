"""Power feeds: uninterruptible power supplies that NUT knows, here or on the machine they hang on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field, field_validator

from agent.base.catalogue import Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, Settings, register
from agent.base.config import Duration
from agent.node.nut import Nut, NutError

PORT = 3493
STATES = {m.UPS_ON_BATTERY: "OB", m.UPS_LOW_BATTERY: "LB", m.UPS_REPLACE: "RB"}
VALUES = {
    "battery.runtime": (m.UPS_RUNTIME, 1.0, 30 * 86400),
    "battery.charge": (m.UPS_CHARGE, 0.01, 100),
    "ups.load": (m.UPS_LOAD, 0.01, 200),
}
"""With the most that can be meant: what drivers give for a unit that does not know is mostly far beyond."""
HIGHEST_VOLTAGE = 1000
UNKNOWN = 0xFFFF
"""Of 16-bit registers: a runtime of just so many seconds is none."""
_VOLTAGE = re.compile(r"input(?:\.(.+))?\.voltage")


class UpsSettings(Settings):
    servers: list[str] = Field(default_factory=list, description="upsd to ask, as host or host:port; [] asks none.")
    timeout: Duration = Field(default=3.0, gt=0, description="Limit for each server.")

    @field_validator("servers")
    @classmethod
    def _addresses(cls, servers: list[str]) -> list[str]:
        for server in servers:
            _address(server)
        return servers


def _address(server: str) -> tuple[str, int]:
    host, colon, port = server.rpartition(":")
    if not colon:
        return server, PORT
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"must be host or host:port, got {server!r}")
    return host.strip("[]"), int(port)


@register("ups", UpsSettings)
class Ups:
    """Uninterruptible power supplies by NUT."""

    def __init__(self, settings: UpsSettings, context: Context) -> None:
        self._settings = settings

    def collect(self) -> Iterable[Sample]:
        one_server = len(self._settings.servers) == 1
        for server in self._settings.servers:
            found: list[Sample] = []
            try:
                with Nut(*_address(server), self._settings.timeout) as nut:
                    for name in nut.names():
                        found += self._one(nut, name, name if one_server else f"{name}@{server}")
            except (OSError, NutError):
                yield m.UPS_SERVER_UP.sample(0, server)
            else:
                yield m.UPS_SERVER_UP.sample(1, server)
            yield from found

    def close(self) -> None: ...

    def _one(self, nut: Nut, name: str, label: str) -> Iterator[Sample]:
        try:
            variables = nut.variables(name)
        except NutError:  # DATA-STALE, DRIVER-NOT-CONNECTED: nothing that is known now
            yield m.UPS_COMMUNICATION.sample(0, label)
            return
        yield m.UPS_COMMUNICATION.sample(1, label)
        yield from samples(label, variables)


def samples(name: str, variables: Mapping[str, str]) -> Iterator[Sample]:
    """What the variables of one UPS say; meanings as in NUT's list of names (docs/nut-names.txt)."""
    status = variables.get("ups.status", "")
    model = " ".join(filter(None, (variables.get("ups.mfr", ""), variables.get("ups.model", ""))))
    yield m.UPS_INFO.sample(1, name, model, status)
    words = status.split()
    if words and words != ["WAIT"]:
        for metric, word in STATES.items():
            yield metric.sample(float(word in words), name)
    for variable, (metric, factor, most) in VALUES.items():
        value = _number(variables.get(variable))
        if value is not None and 0 <= value <= most and value != UNKNOWN:  # some drivers say -1 for unknown
            yield metric.sample(value * factor, name)
    power = _power(variables)
    if power is not None and power >= 0:
        yield m.UPS_POWER.sample(power, name)
    for variable, text in variables.items():
        feed, value = _VOLTAGE.fullmatch(variable), _number(text)
        if feed and value is not None and 0 <= value <= HIGHEST_VOLTAGE:
            yield m.UPS_VOLTAGE.sample(value, name, feed[1] or "input")


def _power(variables: Mapping[str, str]) -> float | None:
    """Real power drawn, of the whole or as the sum of its phases."""
    for side in ("ups", "output"):
        whole = _number(variables.get(f"{side}.realpower"))
        if whole is not None:
            return whole
        phases = [_number(variables.get(f"{side}.L{phase}.realpower")) for phase in (1, 2, 3)]
        known = [power for power in phases if power is not None]
        if len(known) == len(phases):
            return sum(known)
    return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < 1e12 else None
