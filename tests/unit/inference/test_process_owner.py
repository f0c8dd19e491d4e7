"""Who runs an engine, from control groups as systemd, Kubernetes, Docker and Slurm write them."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.inference.owner import Owner, owner, parse

UID = "0a1b2c3d-1111-2222-3333-0123456789ab"
ID = "0123456789abcdef" * 4

CASES = {
    "0::/system.slice/vllm.service": Owner(unit="vllm.service"),
    "0::/user.slice/user-1000.slice/user@1000.service/app.slice/llama.service": Owner(unit="llama.service"),
    "0::/user.slice/user-1000.slice/session-3.scope": Owner(),
    f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice/"
    f"cri-containerd-{ID}.scope": Owner(pod_uid=UID, container=ID[:12]),
    f"11:memory:/kubepods/burstable/pod{UID}/{ID}\n1:name=systemd:/kubepods/burstable/pod{UID}/{ID}": Owner(
        pod_uid=UID, container=ID[:12]
    ),
    f"0::/system.slice/docker-{ID}.scope": Owner(container=ID[:12]),
    f"0::/system.slice/containerd.service/kubepods-pod{UID.replace('-', '_')}.slice:cri-containerd:{ID}": Owner(
        pod_uid=UID, container=ID[:12]
    ),
    "0::/system.slice/slurmstepd.scope/job_4242/step_0/user/task_0": Owner(slurm_job="4242"),
    "9:memory:/slurm/uid_1000/job_4242/step_batch\n1:name=systemd:/system.slice/slurmd.service": Owner(
        unit="slurmd.service", slurm_job="4242"
    ),
    "": Owner(),
    "0::/": Owner(),
}


@pytest.mark.parametrize("text", CASES)
def test_owners(text: str) -> None:
    assert parse(text) == CASES[text]


@given(st.text(max_size=200))
def test_any_text_has_an_owner_of_strings(text: str) -> None:
    assert all(isinstance(part, str) for part in parse(text))


def test_this_process_and_none() -> None:
    assert isinstance(owner(os.getpid(), Path("/proc")), Owner)
    assert owner(2**22 + 1, Path("/proc")) == Owner()
