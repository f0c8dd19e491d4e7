"""Power, temperatures, fans, coolant and leaks of the machine: hwmon, its management controller by Redfish or IPMI.

Controllers answer in seconds, not milliseconds: each is asked aside, and what it said last is shown only
until its next answer is due.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from pydantic import Field

from agent.base.aside import Aside, wait_all
from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, PartialFailure, Settings, register
from agent.base.config import Duration, Model
from agent.base.errors import ConfigError
from agent.health import machine
from agent.node import hwmon, ipmi
from agent.node.lent import CHASSIS_POWER
from agent.node.redfish import Bmc, Reading

OWN_COLLECTOR = frozenset({"nvme"})  # their temperatures are the storage collector's
POWER_METERS = frozenset({"power_meter", "acpi_power_meter"})
METRICS: dict[str, Metric] = {
    "power": m.POWER,
    "temperature": m.TEMPERATURE,
    "coolant_temperature": m.COOLANT_TEMPERATURE,
    "flow": m.COOLANT_FLOW,
    "fan": m.FAN,
    "leak": m.COOLANT_LEAK,
}


class RedfishSettings(Model):
    url: str = Field(pattern="^https?://", description="Address of the controller, such as https://bmc-node7.")
    credential_file: Path | None = Field(default=None, description="File with user:password of a read-only account.")
    ca_file: str | None = Field(default=None, description="Certificates that sign the controller's.")


class ChassisSettings(Settings):
    sys: Path = Field(default=Path("/sys"), description="Root of sysfs.")
    dev: Path = Field(default=Path("/dev"), description="Where device nodes are.")
    redfish: RedfishSettings | None = Field(default=None, description="The management controller, by Redfish.")
    ipmi: bool = Field(default=True, description="Ask the local controller by ipmitool where that may be used.")
    controller_period: Duration = Field(default=60.0, gt=0, description="Time between two questions to a controller.")
    controller_timeout: Duration = Field(default=30.0, gt=0, description="Limit for its whole answer.")
    patience: Duration = Field(default=1.0, gt=0, description="How long a run waits for a controller.")


@register("chassis", ChassisSettings)
class Chassis:
    """Power, temperatures, coolant of the machine."""

    def __init__(self, settings: ChassisSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._asked: dict[str, float] = {}
        self._controllers: dict[str, Aside[list[Reading]]] = {}
        limit = settings.controller_timeout
        if settings.redfish:
            bmc = Bmc(settings.redfish.url, settings.redfish.credential_file, settings.redfish.ca_file, limit)
            self._controllers["redfish"] = Aside("redfish", bmc.readings)
        if settings.ipmi and ipmi.usable(settings.dev):
            self._controllers["ipmi"] = Aside("ipmi", partial(ipmi.readings, limit))

    def collect(self) -> Iterable[Sample]:
        self._ask()
        powers: list[float] = []
        for sample in machine.lend(self._context, "chassis", self._settings, self._everything()):
            if sample.metric is m.CHASSIS_POWER:
                powers.append(sample.value)
            yield sample
        # The whole contains its parts: of several chassis the largest power is the machine's.
        self._context.shared[CHASSIS_POWER] = max(powers, default=None)
        for name, aside in self._controllers.items():
            if aside.last is not None and isinstance(aside.last.error, ConfigError):
                raise PartialFailure("configuration", f"{name}: {aside.last.error}")

    def close(self) -> None:
        self._context.shared.pop(CHASSIS_POWER, None)
        machine.take_back(self._context, "chassis")

    def _ask(self) -> None:
        now = time.monotonic()
        for name, aside in self._controllers.items():
            if now - self._asked.get(name, -1e9) >= self._settings.controller_period and aside.kick():
                self._asked[name] = now
        wait_all(list(self._controllers.values()), self._settings.patience)

    def _everything(self) -> Iterator[Sample]:
        for sensor in hwmon.sensors(self._settings.sys / "class" / "hwmon"):
            if sensor.chip not in OWN_COLLECTOR:
                yield from _of_hwmon(sensor)
        for name, aside in self._controllers.items():
            yield from self._of_controller(name, aside)

    def _of_controller(self, name: str, aside: Aside[list[Reading]]) -> Iterator[Sample]:
        last, now = aside.last, time.monotonic()
        if last is None:
            return
        fresh = now - last.started <= self._settings.controller_period + self._settings.controller_timeout
        good = last.value is not None and fresh
        yield m.CHASSIS_READ.sample(float(good), name)
        seen: Counter[tuple[str, ...]] = Counter()  # a controller may give one name to two sensors
        for reading in (last.value or ()) if good else ():
            place = _place(name, reading)
            seen[reading.kind, place, reading.sensor] += 1
            number = seen[reading.kind, place, reading.sensor]
            if reading.kind != "chassis_power":
                sensor = reading.sensor if number == 1 else f"{reading.sensor} #{number}"
                yield METRICS[reading.kind].sample(reading.value, place, sensor)
            elif number == 1:
                yield m.CHASSIS_POWER.sample(reading.value, place)


def _place(controller: str, reading: Reading) -> str:
    return controller if reading.chassis == controller else f"{controller}:{reading.chassis}"


def _of_hwmon(sensor: hwmon.Sensor) -> Iterator[Sample]:
    labels = (sensor.source, sensor.name)
    if sensor.alarm is not None:
        yield m.ALARM.sample(float(sensor.alarm), *labels)
    if sensor.value is None:
        return
    if sensor.kind == "temp":
        if sensor.name.startswith("Core "):  # a hundred a socket; the package's is the hottest of them
            return
        coolant = "coolant" in sensor.name.lower()
        yield (m.COOLANT_TEMPERATURE if coolant else m.TEMPERATURE).sample(sensor.value, *labels)
    elif sensor.kind == "flow":
        yield m.COOLANT_FLOW.sample(sensor.value, *labels)
    elif sensor.kind == "fan":
        yield m.FAN.sample(sensor.value, *labels)
    elif sensor.chip in POWER_METERS:
        yield m.CHASSIS_POWER.sample(sensor.value, sensor.source)
    else:
        yield m.POWER.sample(sensor.value, *labels)
