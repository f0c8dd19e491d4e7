"""What every rule owes: a severity, an action, a runbook, links, and cases that show both sides."""

from __future__ import annotations

import itertools
import re

import pytest

from agent.base import hardfaults
from agent.base.errors import ConfigError
from alerts.rules import registry
from alerts.rules.model import ACTIONS, Alert, Case, Recording, expand
from alerts.rules.promql import IDENTITY, KEY, le
from alerts.rules.thresholds import PROFILES, Thresholds, Timing, Timings, duration

DEFAULT = PROFILES["default"]
ALERTS = registry.alerts(DEFAULT)
FIRST = {alert.name: alert for alert in reversed(ALERTS)}
ASKED_FOR = {
    "GpuLost", "GpuXid", "GpuDriverHung", "GpuMissing", "AgentDown", "AgentStale", "HealthzSlow", "TtftBurn",
    "TrainingEtaDeviates", "TrainingPaceDrops", "CheckpointStale", "DiskFull14d", "ResourceExhausted14d", "Watchdog",
}  # fmt: skip


def test_every_alert_that_the_product_promises_is_there() -> None:
    assert set(FIRST) >= ASKED_FOR


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_every_alert_says_how_loud_it_is_what_broke_and_what_to_do(alert: Alert) -> None:
    annotations = alert.annotations(DEFAULT)
    assert set(annotations) == {"summary", "description", "action", "runbook_url", "dashboard_url"}
    assert all(annotations.values())
    assert alert.severity in ("page", "ticket", "info", "none")
    # an empty fault or action is allowed only where the series itself brings the label
    grouped = re.search(r"(?:max|count) by \(([^)]*)\)", alert.condition)
    brought = set(grouped[1].split(", ")) if grouped else set()
    assert alert.fault or "fault" in brought
    assert alert.action in ACTIONS or "action" in brought


@pytest.mark.parametrize("alert", FIRST.values(), ids=lambda alert: alert.name)
def test_every_alert_has_one_runbook_and_cases_on_both_sides(alert: Alert) -> None:
    same = [one for one in ALERTS if one.name == alert.name]
    assert [one.runbook is not None for one in same] == [True] + [False] * (len(same) - 1)
    assert alert.runbook is not None
    assert all((alert.runbook.meaning, alert.runbook.impact, alert.runbook.diagnosis, alert.runbook.mitigation))
    if alert.name == "Watchdog":
        return  # it always fires: there is nothing under and nothing after it
    assert any(ends(case) for case in alert.cases), "no case fires and then resolves"
    under = [case for case in alert.cases if case.name.startswith(("just under", "too little"))]
    assert under, "no case shows what just does not fire"
    assert len(alert.cases) >= 3


def ends(case: Case) -> bool:
    """An alert of the case's first firing severity is there at one time and gone at the next."""
    loud = [{firing.severity for firing in firings} for firings in case.expect.values()]
    return any(before - after for before, after in itertools.pairwise(loud))


def test_hard_faults_have_the_words_that_the_agents_own_post_has() -> None:
    for fault in hardfaults.HARD_FAULTS:
        alert = FIRST[fault.alert]
        assert (alert.fault, alert.scope, alert.action) == (fault.fault, fault.scope, fault.action)
        assert alert.summary == fault.summary
        assert alert.severity == "page"


def test_every_xid_action_is_in_exactly_one_rule_and_has_words() -> None:
    rules = [alert.condition for alert in ALERTS if alert.name == "GpuXid"]
    for action in hardfaults.XID_ACTIONS:
        assert sum(bool(re.search(rf'action=~"[^"]*\b{action}\b', rule)) for rule in rules) == 1
        assert action in ACTIONS


def test_identity_holds_the_key_and_never_job_or_instance() -> None:
    for scope, key in KEY.items():
        assert set(key) <= set(IDENTITY[scope])
        assert not {"job", "instance"} & set(IDENTITY[scope])


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_what_belongs_to_a_target_is_labelled_by_drills_and_quiet_in_maintenance(alert: Alert) -> None:
    expr = alert.expr(DEFAULT)
    about_a_target = alert.scope in KEY
    assert ("group_left (drill, drill_page)" in expr) is about_a_target
    assert ("maintenance_until" in expr) is about_a_target


def test_recordings_are_named_level_metric_operations() -> None:
    for group in registry.discover():
        for rule in group.rules(DEFAULT):
            if isinstance(rule, Recording):
                assert re.fullmatch(r"[a-z_]+:gpuvigil_[a-z0-9_]+:[a-z0-9_]+", rule.record)


def test_demo_holds_nothing_but_what_more_scrapes_may_refute() -> None:
    held = {alert.name for alert in registry.alerts(PROFILES["demo"]) if alert.timing != Timing()}
    assert held == {"AgentAbsent", "CentralMonitorBroken", "CentralNearLimit", "CentralSilent", "GpuXid"}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_an_xid_waits_two_scrapes_for_its_loss_and_looks_back_at_both_alike(profile: Thresholds) -> None:
    assert profile.timings.gpu_xid.hold >= 2 * profile.scrape
    for alert in registry.alerts(profile):
        if alert.name == "GpuXid":
            window = re.escape(duration(profile.xid_window))
            assert re.search(
                rf"unless on \(cluster, node, uuid\) .*gpu_up\[{window}\]\) == 0", alert.condition, re.DOTALL
            )


def test_a_hold_as_long_as_the_window_of_xids_is_refused() -> None:
    silent = DEFAULT.model_copy(update={"xid_window": DEFAULT.timings.gpu_xid.hold})
    with pytest.raises(ConfigError, match=r"timings.gpu_xid.hold \(30s\) must be shorter than xid_window \(30s\)"):
        registry.alerts(silent)


def test_profiles_obey_the_limits_that_files_must() -> None:
    for profile in PROFILES.values():
        for name, value in profile.model_dump().items():
            if isinstance(value, float) and name not in ("driver_stuck",):
                assert value > 0
        # a rate over less than two scrapes and some slack is empty on Prometheus 3
        assert profile.ttft_base >= 3 * profile.scrape
        assert profile.drill_grace >= 3 * profile.scrape


def test_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match="'DANCE' is not one of"):
        Alert("X", "page", "f", "gpu", "DANCE", "vector(1)", Timing(), "s", "d", "fleet")


def test_case_text_is_asked_for_where_a_template_computes() -> None:
    assert expand("GPU {{ $labels.gpu }}{{ $labels.none }}", {"gpu": "3"}) == "GPU 3"
    with pytest.raises(ValueError, match="must give the rendered text"):
        expand("{{ $value }}", {})


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.5, "500ms"), (90, "1m30s"), (86400, "1d"), (1209600, "14d"), (3661, "1h1m1s")]
)
def test_durations_as_prometheus_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "spelled", "not_spelled"),
    [(1.0, ["1", "1.0"], ["10", "1.5", "0.1"]), (0.5, ["0.5"], ["0,5", "5", "05"]), (10.0, ["10", "10.0"], ["100"])],
)
def test_a_bucket_edge_is_found_however_the_server_spells_it(
    seconds: float, spelled: list[str], not_spelled: list[str]
) -> None:
    pattern = le(seconds).removeprefix("=~")
    assert all(re.fullmatch(pattern, text) for text in spelled)
    assert not any(re.fullmatch(pattern, text) for text in not_spelled)


def test_objective_is_an_edge_of_the_agents_own_histogram() -> None:
    from agent.inference.histogram import TTFT_EDGES

    assert all(profile.ttft in TTFT_EDGES for profile in PROFILES.values())


def test_thresholds_reach_the_rules() -> None:
    changed = Thresholds(healthz="250ms", timings=Timings(healthz_slow=Timing(hold="5s")))
    [alert] = [alert for alert in registry.alerts(changed) if alert.name == "HealthzSlow"]
    assert "> 0.25" in alert.condition
    assert alert.timing.hold == 5
