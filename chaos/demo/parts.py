"""What the demo starts, with which command, and what each part cannot do without."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from chaos.demo import configs
from chaos.demo.configs import local
from chaos.demo.layout import Layout
from chaos.demo.process import Part

RUNBOOKS = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
PACKAGES = {
    # part: (modules it needs, what to do)
    "engine": (("xllamacpp", "gguf"), 'pip install "gpuvigil[demo]"'),
    "training": (("numpy",), 'pip install "gpuvigil[demo]"'),
    "central": (("apscheduler", "numpy", "urllib3"), 'pip install "gpuvigil[central]"'),
}
PROGRAMS = {
    "prometheus": (("prometheus",), "apt install prometheus"),
    "alertmanager": (("prometheus-alertmanager", "alertmanager"), "apt install prometheus-alertmanager"),
}


def absent(name: str) -> str | None:
    """Why a part cannot be started on this machine, with the fix; None if it can."""
    modules, fix = PACKAGES.get(name, ((), ""))
    if gone := [module for module in modules if importlib.util.find_spec(module) is None]:
        return f"Python module {gone[0]} is missing: {fix}"
    programs, fix = PROGRAMS.get(name, ((), ""))
    if programs and not program(name):
        return f"program {programs[0]} is missing: {fix}"
    return None


def program(name: str) -> str:
    """Path of the first of a part's programs that is installed, else empty."""
    return next((path for one in PROGRAMS[name][0] if (path := shutil.which(one))), "")


def gpuvigil(*words: str) -> list[str]:
    """Our own command line, with the interpreter that runs us."""
    return [sys.executable, "-m", "agent.cli", *words]


def module(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"chaos.demo.{name}", *words]


def make(layout: Layout, ports: dict[str, int], library: Path | None) -> list[Part]:
    """The parts in order of start; `library` is the simulator's directory, None for the node's own driver."""
    url = {name: local(port) for name, port in ports.items()}
    simulator = {"LD_LIBRARY_PATH": str(library), "GPUVIGIL_SIM_STATE": str(layout.world)} if library else {}
    return [
        Part(
            "sink",
            module(
                *("sink", "--port", str(ports["sink"]), "--file", str(layout.pages)),
                *("--runbooks", str(RUNBOOKS)),
            ),
            layout.log("sink"),
            ready_url=url["sink"] + "/healthz",
            url=url["sink"],
        ),
        Part(
            "engine",
            module(
                *("engine", "--port", str(ports["engine"]), "--model", str(layout.model)),
                *("--pid-file", str(layout.engine_pid)),
            ),
            layout.log("engine"),
            ready_url=url["engine"] + "/health",
            url=url["engine"] + "/v1/completions",
        ),
        Part(
            "agent",
            gpuvigil("agent", "run", "--config", str(layout.config("agent"))),
            layout.log("agent"),
            ready_url=url["agent"] + "/readyz",
            url=url["agent"] + "/metrics",
            env=simulator,
        ),
        Part(
            "prometheus",
            [
                program("prometheus"),
                f"--config.file={layout.config('prometheus')}",
                f"--storage.tsdb.path={layout.state('prometheus')}",
                f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
                f"--web.external-url={url['prometheus']}",
                "--log.level=warn",
            ],
            layout.log("prometheus"),
            ready_url=url["prometheus"] + "/-/ready",
            url=url["prometheus"],
        ),
        Part(
            "alertmanager",
            [
                program("alertmanager"),
                f"--config.file={layout.config('alertmanager')}",
                f"--storage.path={layout.state('alertmanager')}",
                f"--web.listen-address=127.0.0.1:{ports['alertmanager']}",
                f"--web.external-url={url['alertmanager']}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ],
            layout.log("alertmanager"),
            ready_url=url["alertmanager"] + "/-/ready",
            url=url["alertmanager"],
        ),
        Part(
            "training",
            module(
                *("training_job", "--checkpoints", str(layout.checkpoints), "--steps", str(configs.STEPS)),
                *("--pace", str(configs.PACE), "--log-every", str(configs.LOG_EVERY)),
                *("--save-every", str(configs.SAVE_EVERY)),
            ),
            layout.log("training"),
            env={"OPENBLAS_NUM_THREADS": "1"},
            ends=True,
        ),
        Part("load", module("load", "--port", str(ports["engine"])), layout.log("load")),
        Part(
            "central",
            gpuvigil("central", "run", "--config", str(layout.config("central"))),
            layout.log("central"),
            ready_url=url["central"] + "/healthz",
            url=url["central"] + "/metrics",
        ),
    ]
