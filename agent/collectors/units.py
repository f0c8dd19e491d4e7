"""State of the systemd units that an LLM node cannot do without, by one bounded call of systemctl."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator

from pydantic import Field

from agent.base.catalogue import Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, PartialFailure, Settings, register
from agent.base.config import Duration

USUAL = [
    "nvidia-fabricmanager.service", "nvidia-persistenced.service", "nvidia-imex.service", "docker.service",
    "containerd.service", "kubelet.service", "slurmd.service", "munge.service", "opensm.service", "openibd.service",
    "chrony.service", "chronyd.service", "systemd-timesyncd.service", "mdmonitor.service", "nut-monitor.service",
]  # fmt: skip
PROPERTIES = "Id,LoadState,ActiveState,NRestarts"


class UnitsSettings(Settings):
    period: Duration = Field(default=60.0, gt=0, description="Time between two runs.")
    units: list[str] = Field(default_factory=lambda: list(USUAL), description="Units to watch, where they exist.")
    command: list[str] = Field(default=["systemctl"], min_length=1, description="How systemctl is called.")
    timeout: Duration = Field(default=5.0, gt=0, description="Limit for the call.")


@register("units", UnitsSettings)
class Units:
    """Systemd units that matter."""

    def __init__(self, settings: UnitsSettings, context: Context) -> None:
        self._settings = settings

    def collect(self) -> Iterable[Sample]:
        one = self._settings
        if not one.units:
            return
        try:
            done = subprocess.run(
                [*one.command, "show", f"--property={PROPERTIES}", "--", *one.units],
                capture_output=True,
                timeout=one.timeout,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except FileNotFoundError:
            return  # no systemd here
        except subprocess.TimeoutExpired:
            raise PartialFailure("timeout", f"{one.command[0]} did not answer in {one.timeout:g} s") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace")
            if "not been booted with systemd" in said:
                return
            raise PartialFailure("systemctl", said.strip()[:200])
        yield from states(done.stdout.decode("utf-8", "replace"))

    def close(self) -> None: ...


def states(text: str) -> Iterator[Sample]:
    """Samples of the units in the output of `systemctl show`; a unit that is not installed has none."""
    for block in text.split("\n\n"):
        found = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        unit = found.get("Id", "")
        if not unit or found.get("LoadState") != "loaded":
            continue
        state = found.get("ActiveState", "")
        yield m.UNIT_ACTIVE.sample(float(state in ("active", "reloading")), unit)
        yield m.UNIT_FAILED.sample(float(state == "failed"), unit)
        if found.get("NRestarts", "").isdigit():
            yield m.UNIT_RESTARTS.sample(int(found["NRestarts"]), unit)
