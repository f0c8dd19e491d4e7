"""What a node has to load: the agent's import closure holds nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {
    "apscheduler", "dask", "elasticsearch", "fastapi", "grafanalib", "matplotlib", "numpy", "pandas", "prophet",
    "requests", "scipy", "urllib3", "xllamacpp",
}  # fmt: skip
LIGHT = {
    "agent", "annotated_types", "bcrypt", "cython_runtime",
    "h11", "nvidia-ml-py", "prometheus_client", "psutil", "pydantic",
    "pydantic_core", "pynvml", "typing_extensions", "typing_inspection", "yaml",
}  # fmt: skip


def third_party_after(code):
    """Top-level packages outside the standard library that a fresh process has loaded after `code`."""
    report = (
        "import sys; before = set(sys.modules)\n"
        f"{code}\n"
        "import json; top = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(json.dumps(sorted(t for t in top if t not in sys.stdlib_module_names and not t.startswith('_'))))"
    )
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_whole_agent_is_light():
    loaded = third_party_after("import agent.daemon, agent.cli, agent.agent_cli; agent.daemon.kinds()")
    assert not loaded & HEAVY
    assert loaded <= LIGHT, "a new dependency of every node: is it worth it?"


def test_help_loads_no_dependency_at_all():
    loaded = third_party_after("from agent.cli import build_parser; build_parser()")
    assert loaded == {"agent"}


def test_the_drivers_examination_loads_pynvml_alone():
    assert third_party_after("import agent.doctor_nvml") == {"agent"}
