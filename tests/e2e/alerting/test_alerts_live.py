"""From a value on a page to a message at the right door, on the real Prometheus and Alertmanager."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agent.base.catalogue import drill, gpu, node
from agent.base.hardfaults import GPU_LOST

pytestmark = pytest.mark.e2e


def up(uuid: str, **more: str) -> str:
    return gpu.UP(gpu=uuid.removeprefix("GPU-"), uuid=uuid, **more)


def on_drill(uuid: str, until: float | None, page: str = "drill", name: str = "d1") -> dict[str, float | None]:
    return {
        drill.ACTIVE(drill=name, drill_page=page, scope="gpu", uuid=uuid): None if until is None else 1,
        drill.EXPIRES(drill=name): until,
    }


def resolved(chain: Any, uuid: str, path: str) -> None:
    chain.set({up(uuid): 1})
    chain.delivered(uuid, path, "resolved")


def test_a_lost_gpu_pages_with_all_that_one_needs_and_resolves(chain: Any) -> None:
    chain.set({up("GPU-1"): 1, up("GPU-2"): 1})
    chain.evaluated()
    chain.set({up("GPU-1"): 0})
    alert = chain.delivered("GPU-1", "/page")
    assert alert["labels"] == {
        "alertname": "GpuLost",
        "severity": "page",
        "fault": "gpu_lost",
        "scope": "gpu",
        "action": "RESTART_BM",
        "cluster": "c1",
        "node": "n1",
        "gpu": "1",
        "uuid": "GPU-1",
    }
    notes = alert["annotations"]
    assert notes["summary"] == "GPU 1 of n1 is gone: it no longer answers the driver"
    assert notes["runbook_url"].endswith("/GpuLost.md")
    assert notes["dashboard_url"].endswith("/d/gpuvigil-fleet?var-cluster=c1&var-node=n1")
    assert "reboot" in notes["action"]
    assert not chain.deliveries("GPU-2")
    resolved(chain, "GPU-1", "/page")
    assert {path for path, _, _ in chain.deliveries("GPU-1")} == {"/page"}


def test_the_agents_own_post_and_the_rule_are_one_alert(chain: Any) -> None:
    chain.set({up("GPU-3"): 0})
    chain.delivered("GPU-3", "/page")
    labels = {
        "alertname": GPU_LOST.alert,
        "severity": "page",
        "fault": GPU_LOST.fault,
        "scope": GPU_LOST.scope,
        "action": GPU_LOST.action,
        "cluster": "c1",
        "node": "n1",
        "gpu": "3",
        "uuid": "GPU-3",
    }
    chain.post({"labels": labels, "annotations": {"evidence": "from the agent"}})
    held = [one for one in chain.alerts() if one["labels"].get("uuid") == "GPU-3"]
    assert len(held) == 1
    resolved(chain, "GPU-3", "/page")


def test_a_drill_rings_at_the_drills_door_alone(chain: Any) -> None:
    chain.set({up("GPU-4"): 1, **on_drill("GPU-4", time.time() + 600)})
    chain.evaluated()
    chain.set({up("GPU-4"): 0, up("GPU-5"): 0})
    alert = chain.delivered("GPU-4", "/drill")
    assert (alert["labels"]["drill"], alert["labels"]["drill_page"]) == ("d1", "drill")
    # a GPU beside it that is really lost is nobody's drill
    assert "drill" not in chain.delivered("GPU-5", "/page")["labels"]
    # undone: healthy, and the entry goes in the same breath
    chain.set({up("GPU-4"): 1, up("GPU-5"): 1, **on_drill("GPU-4", None)})
    chain.delivered("GPU-4", "/drill", "resolved")
    chain.delivered("GPU-5", "/page", "resolved")
    chain.evaluated(5)
    assert {path for path, _, _ in chain.deliveries("GPU-4")} == {"/drill"}


def test_a_drill_may_ring_the_real_page(chain: Any) -> None:
    chain.set({up("GPU-6"): 1, **on_drill("GPU-6", time.time() + 600, page="real")})
    chain.evaluated()
    chain.set({up("GPU-6"): 0})
    assert chain.delivered("GPU-6", "/page")["labels"]["drill_page"] == "real"
    chain.set({up("GPU-6"): 1, **on_drill("GPU-6", None, page="real")})
    chain.delivered("GPU-6", "/page", "resolved")
    assert {path for path, _, _ in chain.deliveries("GPU-6")} == {"/page"}


def test_a_drill_that_expires_over_a_broken_gpu_becomes_a_page(chain: Any) -> None:
    """The label goes, so the identity changes: the drill's alert resolves at its door, a real one rings."""
    chain.set({up("GPU-7"): 1, **on_drill("GPU-7", time.time() + 600)})
    chain.evaluated()
    chain.set({up("GPU-7"): 0})
    chain.delivered("GPU-7", "/drill")
    assert not [path for path, _, _ in chain.deliveries("GPU-7") if path == "/page"]
    chain.set(on_drill("GPU-7", time.time() - 1))
    real = chain.delivered("GPU-7", "/page")
    assert "drill" not in real["labels"]
    chain.delivered("GPU-7", "/drill", "resolved")
    chain.set({up("GPU-7"): 1, **on_drill("GPU-7", None)})
    chain.delivered("GPU-7", "/page", "resolved")


def test_simulated_gpus_never_page(chain: Any) -> None:
    chain.set({up("GPU-8", synthetic="true"): 0})
    alert = chain.delivered("GPU-8", "/drill")
    assert "SIMULATED" in alert["annotations"]["description"]
    chain.set({up("GPU-8", synthetic="true"): 1})
    chain.delivered("GPU-8", "/drill", "resolved")
    assert {path for path, _, _ in chain.deliveries("GPU-8")} == {"/drill"}


def test_maintenance_keeps_quiet_and_its_end_does_not(chain: Any) -> None:
    chain.set({up("GPU-9"): 1, node.MAINTENANCE_UNTIL(): time.time() + 600})
    chain.evaluated()
    chain.set({up("GPU-9"): 0})
    chain.evaluated(5)
    assert chain.query(f"{up('GPU-9')} == 0"), "the loss was not even scraped: the test would prove nothing"
    assert not chain.deliveries("GPU-9")
    chain.set({node.MAINTENANCE_UNTIL(): 0})
    chain.delivered("GPU-9", "/page")
    resolved(chain, "GPU-9", "/page")


def test_the_dead_man_hears_the_watchdog(chain: Any) -> None:
    def beats() -> int:
        return sum(path == "/watchdog" for path, _ in list(chain.exchange.received))

    # it must come again and again, or the dead-man rings
    chain.wait_for("two beats at /watchdog", lambda: beats() >= 2)


def test_no_rule_fails_on_this_prometheus(chain: Any) -> None:
    chain.evaluated()
    assert chain.query("sum(prometheus_rule_evaluation_failures_total)")[0]["value"][1] == "0"
    assert chain.query("sum(prometheus_notifications_errors_total) or vector(0)")[0]["value"][1] == "0"
