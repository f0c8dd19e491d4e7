"""The kinds of fault, with their parameters: the table behind `sim kinds`, `sim set` and `World.set`.

Numbers and the order of parameters are those of csrc/state.h `enum kind` and of the readers of `p[]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from agent.base.errors import ConfigError
from chaos.simulator.records import ECC_LOCATIONS, GROUPS, PARAMETERS

Scope = Literal["gpu", "node"]


def _number(text: str) -> float:
    value = float(text)
    if not -1e12 <= value <= 1e12:
        raise ValueError("out of range")
    return value


def _flag(text: str) -> float:
    return float({"1": 1, "true": 1, "yes": 1, "0": 0, "false": 0, "no": 0}[text.lower()])


def _location(text: str) -> float:
    return float(ECC_LOCATIONS.index(text.lower()))


def _groups(text: str) -> float:
    """Names of call groups joined by '+' become a bit mask; "all" is 0."""
    if text == "all":
        return 0.0
    return float(sum({1 << GROUPS.index(name) for name in text.split("+")}))


def _link(text: str) -> float:
    return -1.0 if text == "all" else _number(text)


_GARBAGE: Final = ("values", "counts", "strings")


def _garbage(text: str) -> float:
    return -1.0 if text == "all" else float(_GARBAGE.index(text))


def _groups_text(value: float) -> str:
    mask = int(value)
    return "+".join(name for bit, name in enumerate(GROUPS) if mask >> bit & 1) or "all"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its default as the user would write it, how to read it and how to show it."""

    name: str
    default: str
    help: str
    parse: Callable[[str], float] = _number
    show: Callable[[float], object] = lambda value: int(value) if value == int(value) else value


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault. `overlay` is False where only the simulator can play it."""

    number: int
    scope: Scope
    help: str
    parameters: tuple[Parameter, ...] = ()
    overlay: bool = True

    def pack(self, name: str, given: Mapping[str, object]) -> list[float]:
        """The parameters as the library's numbers, defaults filled in.

        Raises:
            ConfigError: an unknown parameter or a value it cannot take.
        """
        unknown = set(given) - {parameter.name for parameter in self.parameters}
        if unknown:
            known = ", ".join(parameter.name for parameter in self.parameters) or "none"
            raise ConfigError(f"fault {name} has no parameter {sorted(unknown)[0]!r}; it has: {known}")
        values = []
        for parameter in self.parameters:
            value = given.get(parameter.name, parameter.default)
            try:
                text = str(int(value)) if isinstance(value, bool) else str(value)
                values.append(parameter.parse(text))
            except (ValueError, KeyError):
                raise ConfigError(f"fault {name}: {parameter.name}={value!r} is not valid ({parameter.help})") from None
        return values + [0.0] * (PARAMETERS - len(values))

    def unpack(self, values: list[float]) -> dict[str, object]:
        return {
            parameter.name: parameter.show(value) for parameter, value in zip(self.parameters, values, strict=False)
        }


_CALL = Parameter("call", "all", "call groups joined by '+': " + ", ".join(GROUPS) + "; or all", _groups, _groups_text)
_LINK = Parameter("link", "all", "number of the link, or all", _link, lambda value: "all" if value < 0 else int(value))
_WHERE = Parameter("location", "dram", ", ".join(ECC_LOCATIONS), _location, lambda value: ECC_LOCATIONS[int(value)])

KINDS: Final[dict[str, Kind]] = {
    "gpu_lost": Kind(
        1,
        "gpu",
        "the GPU fell off the bus: calls answer GPU_IS_LOST",
        (
            Parameter("partial", "0", "1: only power, temperature, clocks and field values fail", _flag),
            Parameter("period", "0", "seconds; comes and goes, lost for the first half of each period"),
            Parameter("handle_code", "0", "code of the handle lookup instead of 15, e.g. 999"),
        ),
    ),
    "xid": Kind(
        2,
        "gpu",
        "an Xid in the event queue; kmsg=FILE appends a kernel-log record as well",
        (
            Parameter("code", "79", "the Xid"),
            Parameter("every", "0", "seconds between repeats while the fault lasts; 0 = once"),
        ),
    ),
    "ecc_corrected": Kind(
        3, "gpu", "corrected ECC errors go on being counted", (Parameter("rate", "10", "errors per second"), _WHERE)
    ),
    "ecc_uncorrected": Kind(
        4,
        "gpu",
        "uncorrected ECC errors, counted at once, with the double-bit event",
        (Parameter("count", "1", "errors"), _WHERE),
    ),
    "remap_pending": Kind(
        5,
        "gpu",
        "a row remapping waits for a reset",
        (
            Parameter("rows", "1", "rows"),
            Parameter("corrected", "0", "1: caused by corrected errors", _flag),
        ),
    ),
    "remap_failure": Kind(6, "gpu", "a row remapping failed: the board wants replacing"),
    "thermal_throttle": Kind(
        7,
        "gpu",
        "too hot: clocks fall, temperature climbs to the slowdown threshold",
        (Parameter("hardware", "1", "1 hardware, 0 software slowdown", _flag),),
    ),
    "power_brake": Kind(8, "gpu", "the power supply pulls the brake: clocks and power halve"),
    "clock_drop": Kind(
        9, "gpu", "the SM clock is held down, without a reason given", (Parameter("mhz", "600", "MHz"),)
    ),
    "pcie_degraded": Kind(
        10,
        "gpu",
        "the PCIe link trained down, or replays",
        (
            Parameter("generation", "1", "generation it fell to; 0 = unchanged"),
            Parameter("width", "0", "lanes it fell to; 0 = unchanged"),
            Parameter("replays", "0", "replays per second"),
        ),
    ),
    "nvlink_down": Kind(11, "gpu", "an NVLink is down", (_LINK,)),
    "nvlink_errors": Kind(
        12,
        "gpu",
        "NVLink errors go on being counted",
        (
            _LINK,
            Parameter("replay", "0", "replays per second"),
            Parameter("recovery", "0", "recoveries per second"),
            Parameter("crc", "10", "CRC errors per second"),
        ),
    ),
    "memory_leak": Kind(13, "gpu", "memory in use grows", (Parameter("mib_per_second", "64", "MiB/s"),)),
    "hung_collective": Kind(14, "gpu", "utilisation stuck at 100 % with low power, as in a hung all-reduce"),
    "frozen": Kind(15, "gpu", "values and counters stand still", overlay=False),
    "driver_unloaded": Kind(16, "node", "calls answer UNKNOWN, and the next init DRIVER_NOT_LOADED"),
    "version_mismatch": Kind(17, "node", "the next init answers LIB_RM_VERSION_MISMATCH"),
    "reset_required": Kind(18, "gpu", "readings answer RESET_REQUIRED"),
    "hang": Kind(
        19,
        "gpu",
        "calls do not return until the fault is lifted or expires",
        (_CALL, Parameter("forever", "0", "1: they do not return even then", _flag)),
    ),
    "slow": Kind(20, "gpu", "calls take longer", (_CALL, Parameter("ms", "200", "milliseconds"))),
    "garbage": Kind(
        21,
        "gpu",
        "nonsense: all bits set and NaN, counts of 91000, strings without an end",
        (
            Parameter(
                "what",
                "all",
                "values, counts, strings or all",
                _garbage,
                lambda value: "all" if value < 0 else _GARBAGE[int(value)],
            ),
        ),
    ),
    "order_shuffled": Kind(22, "node", "GPUs come in another order at the next init"),
    "gpu_missing": Kind(23, "gpu", "the next init does not find the GPU: the count shrinks"),
    "power_cap": Kind(24, "gpu", "a lower power limit bites", (Parameter("watts", "350", "W"),)),
    "recovery_action": Kind(
        25,
        "gpu",
        "the driver's verdict, with its event",
        (Parameter("action", "1", "0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset, ..."),),
    ),
    "no_permission": Kind(26, "gpu", "calls answer NO_PERMISSION", (_CALL,)),
    "fabric": Kind(
        27,
        "gpu",
        "NVLink fabric is not well",
        (
            Parameter("state", "2", "0 not supported, 1 not started, 2 in progress, 3 completed"),
            Parameter("status", "0", "return code of the fabric probe"),
            Parameter("degraded", "0", "1: degraded bandwidth", _flag),
        ),
    ),
    "inforom_corrupted": Kind(28, "gpu", "the board's InfoROM does not agree with its checksums"),
    "c2c_down": Kind(29, "gpu", "a link to the processor (NVLink-C2C) is down", (_LINK,)),
}
