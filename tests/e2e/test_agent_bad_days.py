"""True under failure: one agent lives through all of a node's bad days. GPU values are the simulator's.

`./dev bench badday` measures the same failures; here is held what does not depend on the machine's speed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import pytest

from bench.harness.failures import ENERGY, FAILURES, Failure, healthy
from bench.harness.mounts import ROOT
from bench.harness.node import Node, Page, Usage

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("cc") is None, reason="the simulator needs a C compiler"),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    # By the machine's own clocks: where they run faster, a driver call that waits is now and then taken for a hung one.
    quick = {"period": "1s"}
    one = Node(tmp_path_factory.mktemp("bad-days"), collectors={"gpu": quick, "health": quick})
    yield one
    one.close()


def least(node: Node, seconds: float = 2.0) -> Usage:
    """What the agent holds at the least within some seconds: what comes and goes is no growth."""
    held, end = [node.usage()], time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
        held.append(node.usage())
    return Usage(*(min(getattr(each, name) for each in held) for name in ("rss", "threads", "fds", "children")))


def stand_still(node: Node) -> list[str]:
    """GPUs whose energy is on the page, but the same while that of others changes twice."""
    pages = [node.page().gpus(ENERGY)]
    while len(pages) < 3 and pages[0]:
        pages.append(node.see(lambda page: found if (found := page.gpus(ENERGY)) != pages[-1] else None))
    return [gpu for gpu in pages[0] if len({page.get(gpu) for page in pages}) == 1]


def steps(before: Page, after: Page) -> Iterator[tuple[str, float]]:
    """Counters of the GPUs by name and GPU, each with what it grew by."""
    for name in (
        ENERGY,
        "gpuvigil_gpu_pcie_replays_total",
        "gpuvigil_gpu_ecc_errors_total",
    ):
        now = {tuple(sorted(labels.items())): value for labels, value in after.all(name)}
        for labels, value in before.all(name):
            yield f"{name} {labels}", now[tuple(sorted(labels.items()))] - value


@pytest.mark.root
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_a_bad_day(node: Node, failure: Failure) -> None:
    if failure.needs_root and not ROOT:
        pytest.skip("needs root and /dev/fuse")
    if not failure.first:
        if node.process is None:
            node.start()
        node.see(healthy)
        before, began, pid = least(node), node.page(), node.process.pid  # type: ignore[union-attr]
    with failure.provoke(node):
        if failure.first:
            node.start()
        node.see(failure.cause)
        node.see(failure.settled)
        assert failure.untrue(node.page()) == []
        assert node.ask("/healthz")[1] == b"ok\n"
        assert stand_still(node) == []
    node.see(failure.over)
    if failure.first:
        return
    assert node.process is not None
    assert node.process.pid == pid
    for what, step in steps(began, node.page()):
        assert 0 <= step < 1e6, what
    node.until(lambda: (now := node.usage()).threads <= before.threads and now.fds <= before.fds)
