"""The whole node stands still for a while, as a virtual machine that is moved does: no call hung, no child is ended."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from bench.harness.failures import healthy
from bench.harness.node import Node, Page

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("cc") is None, reason="the simulator needs a C compiler"),
]
DEADLINE = 2.0


def test_a_pause_of_the_machine_is_no_hung_driver(tmp_path: Path) -> None:
    node = Node(tmp_path, gpus=2, collectors={"gpu": {"expected": 2, "call_deadline": f"{DEADLINE}s"}})
    try:
        node.start()
        node.see(lambda page: healthy(page, 2))
        assert node.process is not None
        agent, child = node.process.pid, node.child()
        for process in (child, agent):
            os.kill(process, signal.SIGSTOP)
        time.sleep(DEADLINE + 3)  # longer than its wait for an event and the deadline together
        os.kill(agent, signal.SIGCONT)
        time.sleep(0.5)  # the agent is back first
        os.kill(child, signal.SIGCONT)
        began = node.page().value("gpuvigil_agent_snapshot_timestamp_seconds") or 0.0

        def well_again(page: Page) -> bool:
            later = page.value("gpuvigil_agent_snapshot_timestamp_seconds") or 0.0
            return later > began + 2 * DEADLINE and healthy(page, 2)

        node.see(well_again)
        assert node.page().value("gpuvigil_gpu_child_restarts_total") == 0
        assert node.child() == child
    finally:
        node.close()
