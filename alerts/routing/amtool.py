"""Has amtool read what was built and say where alerts would go."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from agent.base.errors import CannotTell

LIMIT_S = 60

ROUTES: Final[tuple[tuple[dict[str, str], str], ...]] = (
    # labels of an alert, and the receiver that must be among those told
    ({"alertname": "Watchdog", "severity": "none"}, "watchdog"),
    ({"alertname": "GpuLost", "severity": "page", "scope": "gpu"}, "page"),
    ({"alertname": "GpuLost", "severity": "page", "drill": "d1", "drill_page": "drill"}, "drill"),
    ({"alertname": "GpuLost", "severity": "page", "drill": "d1", "drill_page": "real"}, "page"),
    ({"alertname": "GpuLost", "severity": "page", "drill": "d1"}, "drill"),
    ({"alertname": "GpuLost", "severity": "page", "synthetic": "true"}, "drill"),
    ({"alertname": "GpuLost", "severity": "page", "synthetic": "true", "drill": "d", "drill_page": "real"}, "page"),
    ({"alertname": "GpuXid", "severity": "info", "drill": "d1", "drill_page": "drill"}, "drill"),
    ({"alertname": "DrillOverran", "severity": "page", "drill": "d1", "drill_page": "drill"}, "page"),
    ({"alertname": "DiskFull14d", "severity": "ticket", "scope": "node"}, "ticket"),
    ({"alertname": "GpuXid", "severity": "info", "scope": "gpu"}, "null"),
    ({"alertname": "SomebodyElses", "severity": "critical"}, "ticket"),
)


def find(amtool: str | None = None) -> str:
    """The path of amtool.

    Raises:
        CannotTell: it is not installed.
    """
    path = shutil.which(amtool or "amtool")
    if path is None:
        raise CannotTell(f"{amtool or 'amtool'} is not here: apt install prometheus-alertmanager (it comes along)")
    return str(Path(path).resolve())


def receivers(config: Path, labels: dict[str, str], amtool: str | None = None) -> list[str]:
    """The receivers that `config` tells of an alert with `labels`."""
    done = subprocess.run(
        [find(amtool), "config", "routes", "test", f"--config.file={config}", *(f"{k}={v}" for k, v in labels.items())],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    return done.stdout.strip().split(",")


def problems(text: str, amtool: str | None = None) -> list[str]:
    """What is wrong with the configuration `text`; empty if nothing."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "alertmanager.yml"
        config.touch(mode=0o600)
        config.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [find(amtool), "check-config", str(config)], capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        if done.returncode:
            return [(done.stdout + done.stderr).strip()]
        found = []
        for labels, wanted in ROUTES:
            got = receivers(config, labels, amtool)
            if wanted not in got:
                found.append(f"{labels} should reach {wanted}, reaches {','.join(got)}")
            if wanted == "drill" and got != ["drill"]:
                found.append(f"{labels} should reach drill alone, reaches {','.join(got)}")
        return found
