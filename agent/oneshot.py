"""One collection without a daemon: for `agent once` and `agent check`."""

from __future__ import annotations

import time
from contextlib import nullcontext

from agent.base import statefile
from agent.base.catalogue import self as own
from agent.daemon import make_context
from agent.gpu.release import agent_runs
from agent.runner import Runner
from agent.settings import AgentConfig, kinds
from agent.snapshot import Snapshot

_POLL = 0.02


def collect_once(config: AgentConfig, *, strict: bool = False) -> Snapshot:
    """Run every collector once, at the same time, and wait until each ended or missed its deadline.

    Beside a running agent it leaves no trace: what outlives it is that agent's.
    """
    with statefile.untouched() if agent_runs(config.state_dir) else nullcontext():
        return _collect(config, strict)


def _collect(config: AgentConfig, strict: bool) -> Snapshot:
    runner = Runner(kinds(), make_context(config), series_budget=config.series_budget, strict=strict)
    enabled = config.enabled()
    runner.configure(enabled)
    try:
        end = time.monotonic() + max((each.deadline for each in enabled.values()), default=0.0) + 1
        while (snapshot := runner.snapshot()).waiting and time.monotonic() < end:
            time.sleep(_POLL)
        while (snapshot.value(own.SERIES.stem) or 0.0) > config.series_budget and time.monotonic() < end:
            snapshot = runner.snapshot()  # what the agent says of itself is made room for at the next look
        return snapshot
    finally:
        runner.stop(timeout=2.0)
