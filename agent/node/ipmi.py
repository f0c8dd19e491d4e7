"""Sensors of the local management controller, read through ipmitool where it and /dev/ipmi0 may be used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agent.node.redfish import LITERS_A_MINUTE, Kind, Reading

CHASSIS = "ipmi"
COMMAND = "ipmitool"
_POWER = re.compile(r"Instantaneous power reading:\s*(\d+(?:\.\d+)?)\s*Watts")
_UNITS: dict[str, tuple[Kind, float]] = {
    "degrees C": ("temperature", 1.0),
    "Watts": ("power", 1.0),
    "RPM": ("fan", 1.0),
    "LPM": ("flow", LITERS_A_MINUTE),
}


def usable(dev: Path, command: str = COMMAND) -> bool:
    """Whether this process may ask: the device node is open to it and ipmitool is installed."""
    return os.access(dev / "ipmi0", os.R_OK | os.W_OK) and shutil.which(command) is not None


def readings(timeout: float, command: Sequence[str] = (COMMAND,)) -> list[Reading]:
    """Every sensor and the power that the controller measures.

    Raises:
        OSError: ipmitool does not run; subprocess.TimeoutExpired: no answer in time.
        ValueError: it answers with an error.
    """
    return sdr(_run(command, ["-c", "sdr", "list"], timeout)) + dcmi(
        _run(command, ["dcmi", "power", "reading"], timeout, needed=False)
    )


def _run(command: Sequence[str], arguments: list[str], timeout: float, *, needed: bool = True) -> str:
    done = subprocess.run(
        [*command, *arguments], capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode and needed:
        raise ValueError(done.stderr.decode("utf-8", "replace").strip()[:200] or "ipmitool failed")
    return done.stdout.decode("utf-8", "replace")


def sdr(text: str) -> list[Reading]:
    """The lines of `ipmitool -c sdr list`: name, value, unit, status; unreadable sensors have no value.

    Some versions write what follows after them, and some give name, raw value, status, entity and "3500 RPM".
    """
    found: list[Reading] = []
    for line in text.splitlines():
        parts = line.split(",")
        if len(parts) == 5 and parts[2] not in _UNITS:
            value, _, unit = parts[4].partition(" ")
            parts = [parts[0], value, unit, parts[2]]
        if len(parts) < 4 or parts[2] not in _UNITS:
            continue
        try:
            reading = float(parts[1])
        except ValueError:
            continue
        kind, factor = _UNITS[parts[2]]
        if kind == "temperature" and "coolant" in parts[0].lower():
            kind = "coolant_temperature"
        found.append(Reading(kind, CHASSIS, parts[0], reading * factor))
    return found


def dcmi(text: str) -> list[Reading]:
    """The power of the whole machine in `ipmitool dcmi power reading`; 0 W means that it is not measured."""
    found = _POWER.search(text)
    watts = float(found[1]) if found else 0.0
    return [Reading("chassis_power", CHASSIS, "power", watts)] if watts else []
