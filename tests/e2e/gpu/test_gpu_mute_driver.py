"""A driver that lists its GPUs and answers every question about them with one and the same error."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from agent.gpu.readings import CALLS
from agent.health.document import SHARED
from chaos.simulator.build import build

LISTED = """
#include <stdio.h>
#include <string.h>
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *out, unsigned size) { strncpy(out, "680.1.1", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return %(list)d; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = (void *)(0x100L + index);
    return %(open)d;
}
int nvmlDeviceGetUUID(void *handle, char *out, unsigned size) { snprintf(out, size, "GPU-%%p", handle); return 0; }
"""
MORE = ("nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetNVMLVersion", "nvmlDeviceGetSupportedEventTypes")
UUIDS = ("GPU-0x100", "GPU-0x101")
INVALID, NOT_SUPPORTED, NO_PERMISSION, LOST, RESET_REQUIRED, UNKNOWN = 2, 3, 4, 15, 16, 999


@pytest.fixture
def mute(make_node, tmp_path):
    """The node on a driver whose list, handles and readings give these codes; it knew both GPUs before."""

    def start(reading, opening=0, listing=0, known=True):
        source, library = tmp_path / "mute.c", tmp_path / "libmute.so"
        names = [name for name in (*CALLS, *MORE) if name.startswith("nvml") and f"{name}(" not in LISTED]
        names = [name for name in dict.fromkeys(names) if name != "nvmlInit"]
        calls = "".join(f"int {name}(void) {{ return {reading}; }}\n" for name in names)
        source.write_text(LISTED % {"list": listing, "open": opening} + calls)
        subprocess.run([shutil.which("cc") or "gcc", "-shared", "-fPIC", "-o", library, source], check=True)
        if known:
            gpus = [
                {"uuid": u, "gpu": n, "index": n, "pci": f"0000:1{n}:00", "model": "X"} for n, u in enumerate(UUIDS)
            ]
            (tmp_path / "state").mkdir(exist_ok=True)
            (tmp_path / "state" / "gpus-nvml.json").write_text(json.dumps({"gpus": gpus, "most": 2}))
        return make_node(world={"gpus": 1}, library=str(library))

    build()
    return start


@pytest.mark.parametrize("code", [INVALID, NOT_SUPPORTED, NO_PERMISSION])
def test_gpus_of_which_nothing_is_told_are_there_but_not_healthy(mute, code, capfd):
    page = mute(code).until(lambda page: page.up() == {"0": 1, "1": 1} and page.all("gpuvigil_health_state"))
    states = page.all("gpuvigil_health_verdict_info", component="presence", state="unknown")
    assert len(states) == 2
    assert page.one("gpuvigil_gpu_driver_up") == 1
    for gone in ("utilization_ratio", "power_watts", "temperature_celsius", "memory_used_bytes", "ecc_errors_total"):
        assert page.all(f"gpuvigil_gpu_{gone}") == {}, "no false zero"
    assert page.all("gpuvigil_gpu_call_errors_total")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("code", [LOST, UNKNOWN])
def test_gpus_that_answer_as_lost_end_no_process(mute, code, capfd):
    node = mute(code)
    node.until(lambda page: page.up() == {"0": 0, "1": 0} if code == LOST else page.one("gpuvigil_gpu_driver_up") == 0)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("code", [INVALID, NOT_SUPPORTED, NO_PERMISSION])
@pytest.mark.parametrize("where", ["opening", "listing"])
def test_a_driver_that_lets_nobody_look_has_lost_no_gpu(mute, code, where, capfd):
    """Whether they are there nobody can tell: `up` is absent, not 0, and no page goes out."""
    node = mute(code, **{where: code})
    if where == "opening":
        page = node.until(lambda page: page.all("gpuvigil_health_verdict_info", component="presence", state="unknown"))
        assert page.one("gpuvigil_gpu_driver_up") == 1
        said = {verdict["reason"] for verdict in node.context.shared[SHARED]()["gpus"]}
        assert said == {"the driver lets nobody look at it"}
    else:
        page = node.until(lambda page: page.one("gpuvigil_gpu_driver_up") == 0)
        assert page.failed
    assert page.up() == {}
    assert page.one("gpuvigil_gpu_known") == 2
    assert "Traceback" not in capfd.readouterr().err
