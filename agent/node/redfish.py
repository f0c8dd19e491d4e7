"""Sensors of a management controller (BMC) by Redfish: power, temperatures, coolant, leaks.

Resources: DMTF Redfish schema (DSP2046): Chassis with Sensors, EnvironmentMetrics, Power and Thermal (older
controllers), ThermalSubsystem/LeakDetection. A controller answers slowly: callers ask aside.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.base.fetch import authorization, chunks, request, up_to

ANSWER_LIMIT = 4 << 20
MEMBERS_LIMIT = 128
"""Most members of a collection fetched one by one from a controller that cannot expand it."""
EXPAND = "?$expand=.($levels=1)"
LITERS_A_MINUTE = 1e-3 / 60
"""In cubic metres a second."""
LITERS_A_SECOND = 1e-3
TYPES = {
    "Cel": "Temperature", "W": "Power", "RPM": "Rotational", "{rev}/min": "Rotational",
    "L/min": "LiquidFlowLPM", "L/s": "LiquidFlow",
}  # fmt: skip
"""What a sensor that does not tell its type measures, by its unit (UCUM)."""

Kind = Literal["power", "temperature", "coolant_temperature", "flow", "fan", "leak", "chassis_power"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One sensor in base units; a leak is 1 or 0."""

    kind: Kind
    chassis: str
    sensor: str
    value: float


class Bmc:
    """One controller; `readings` has a deadline for everything it asks.

    Raises:
        ConfigError: the credential file cannot be read.
        OSError, ValueError, http.client.HTTPException, EOFError: no good answer.
    """

    def __init__(self, url: str, credential_file: Path | None, ca_file: str | None, timeout: float) -> None:
        self._url = url.rstrip("/")
        self._credential_file = credential_file
        self._ca_file = ca_file
        self._timeout = timeout
        self._deadline = 0.0

    def readings(self) -> list[Reading]:
        self._deadline = time.monotonic() + self._timeout
        found: list[Reading] = []
        for link in _links(self._get("/redfish/v1/Chassis")):
            found += self._chassis(self._get(link))
        return found

    def _get(self, path: str) -> dict[str, Any]:
        if not path.startswith("/"):
            raise ValueError("a link that does not stay on the controller")
        headers = {"Accept": "application/json", **authorization(self._credential_file, basic=True)}
        left = max(0.001, self._deadline - time.monotonic())
        with request(self._url + path, left, headers=headers, ca_file=self._ca_file) as response:
            if response.status != 200:
                raise ValueError(f"HTTP status {response.status} for {path}")
            found = json.loads(up_to(chunks(response), ANSWER_LIMIT))
        if not isinstance(found, dict):
            raise ValueError(f"{path} is not a resource")
        return found

    def _try(self, resource: dict[str, Any], *keys: str) -> dict[str, Any]:
        """The resource that a link leads to; empty where there is none or this one controller fails on it."""
        place: Any = resource
        for key in keys:
            place = place.get(key) if isinstance(place, dict) else None
            link = place.get("@odata.id") if isinstance(place, dict) else None
            if not isinstance(link, str):
                return {}
            try:
                place = self._get(link)
            except TimeoutError:
                raise
            except (OSError, ValueError, http.client.HTTPException, EOFError):
                return {}
        return place if isinstance(place, dict) else {}

    def _chassis(self, chassis: dict[str, Any]) -> Iterator[Reading]:
        name = str(chassis.get("Id") or chassis.get("Name") or "chassis")
        metrics = self._try(chassis, "EnvironmentMetrics")
        power = _number(_dict(metrics.get("PowerWatts")).get("Reading"))
        sensors = self._members(chassis, "Sensors")
        readings = [reading for sensor in sensors for reading in _sensor(name, sensor)]
        yield from readings
        if all(reading.kind != "fan" for reading in readings):  # where the sensors give fans in per cent
            yield from _fans(name, metrics)
        old = self._try(chassis, "Power")
        if power is None and (controls := _list(old.get("PowerControl"))):
            power = _number(controls[0].get("PowerConsumedWatts"))
        if power is not None:
            yield Reading("chassis_power", name, "power", power)
        if not sensors:
            yield from _thermal(name, self._try(chassis, "Thermal"))
        detectors = self._members(chassis, "LeakDetectors")  # in older schemas below the thermal subsystem
        if not detectors:
            detectors = self._members(self._try(chassis, "ThermalSubsystem", "LeakDetection"), "LeakDetectors")
        for detector in detectors:
            state = detector.get("DetectorState")
            if isinstance(state, str):
                yield Reading("leak", name, _name(detector), float(state != "OK"))

    def _members(self, resource: dict[str, Any], key: str) -> list[dict[str, Any]]:
        """A collection's members in one request where the controller can, else one by one."""
        link = _dict(resource.get(key)).get("@odata.id")
        if not isinstance(link, str):
            return []
        whole = self._try({key: {"@odata.id": link + EXPAND}}, key) or self._try(resource, key)
        members = _list(whole.get("Members"))
        bare = [one for one in members if len(one) == 1]
        fetched = {id(one): self._try({"it": one}, "it") for one in bare[:MEMBERS_LIMIT]}
        return [fetched.get(id(one), one) for one in members]


def _sensor(chassis: str, sensor: dict[str, Any]) -> Iterator[Reading]:
    value, units = _number(sensor.get("Reading")), sensor.get("ReadingUnits")
    if value is None or sensor.get("ReadingBasis") not in (None, "Zero"):
        return  # the distance to a limit, or to another sensor, is no temperature
    kind = sensor.get("ReadingType") or TYPES.get(str(units))
    name = _name(sensor)
    if kind == "Power":
        yield Reading("power", chassis, name, value)
    elif kind == "Temperature":
        coolant = "coolant" in f"{sensor.get('PhysicalContext')} {name}".lower()
        yield Reading("coolant_temperature" if coolant else "temperature", chassis, name, value)
    elif kind == "LiquidFlowLPM":
        yield Reading("flow", chassis, name, value * LITERS_A_MINUTE)
    elif kind == "LiquidFlow":
        yield Reading("flow", chassis, name, value * LITERS_A_SECOND)
    elif kind == "Rotational" and TYPES.get(str(units)) == kind:
        yield Reading("fan", chassis, name, value)


def _fans(chassis: str, metrics: dict[str, Any]) -> Iterator[Reading]:
    """Speeds as EnvironmentMetrics sums them up."""
    for number, fan in enumerate(_list(metrics.get("FanSpeedsPercent")), 1):
        speed = _number(fan.get("SpeedRPM"))
        if speed is not None:
            yield Reading("fan", chassis, str(fan.get("DeviceName") or f"fan {number}"), speed)


def _thermal(chassis: str, thermal: dict[str, Any]) -> Iterator[Reading]:
    for one in _list(thermal.get("Temperatures")):
        value = _number(one.get("ReadingCelsius"))
        if value is not None:
            yield Reading("temperature", chassis, _name(one), value)
    for one in _list(thermal.get("Fans")):
        value = _number(one.get("Reading"))
        if value is not None and one.get("ReadingUnits") == "RPM":
            yield Reading("fan", chassis, _name(one), value)


def _links(collection: dict[str, Any]) -> list[str]:
    return [one["@odata.id"] for one in _list(collection.get("Members")) if isinstance(one.get("@odata.id"), str)]


def _list(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _name(resource: dict[str, Any]) -> str:
    return str(resource.get("Name") or resource.get("Id") or resource.get("MemberId") or "sensor")
