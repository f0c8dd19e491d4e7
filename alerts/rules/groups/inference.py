"""Engines: does each answer, and in time?"""

from __future__ import annotations

from agent.base.catalogue import llm
from alerts.rules.model import Alert, Case, Firing, Group, Runbook
from alerts.rules.promql import number, per
from alerts.rules.series import DRILLED, ENGINE, NEW, OLD, drill_on
from alerts.rules.thresholds import Thresholds

GROUP = Group("gpuvigil-inference", "Engines that answer late or not at all")


@GROUP.alert
def healthz_slow(t: Thresholds) -> Alert:
    seconds, ok = llm.HEALTH_SECONDS(**ENGINE), llm.HEALTH_OK(**ENGINE)
    late = "The health URL of e1 on n1 takes 700ms: more than it may."
    bad = "The health URL of e1 on n1 does not answer with success."
    return Alert(
        name="HealthzSlow",
        severity="page",
        fault="healthz_slow",
        scope="engine",
        action="DRAIN_ENGINE",
        condition=f"{per('engine', llm.HEALTH_OK.name, op='min')} == 0\nor\n"
        f"{per('engine', llm.HEALTH_SECONDS.name)} > {number(t.healthz)}",
        timing=t.timings.healthz_slow,
        summary="Engine {{ $labels.engine }} on {{ $labels.node }} fails its health check",
        description="The health URL of {{ $labels.engine }} on {{ $labels.node }} "
        "{{ if eq $value 0.0 }}does not answer with success."
        "{{ else }}takes {{ $value | humanizeDuration }}: more than it may.{{ end }}",
        dashboard="engine",
        runbook=Runbook(
            meaning="The engine's own health URL answers too slowly, with an error, or not at all.",
            impact="Requests that are sent there wait or fail. A load balancer with the same check takes it out by "
            "itself; one without goes on sending users to it.",
            diagnosis="1. `curl -sv ENGINE/health`: refused (process gone), slow (event loop blocked), 5xx (engine's "
            "word)?\n2. The engine's log, and Xids on its GPUs.\n3. Queue and KV cache on the engine's board.",
            mitigation="Take it out of the load balancer's upstream, restart it, and put it back when its health URL "
            "has been good for a minute.",
        ),
        cases=(
            Case(
                "slow: fires after the hold, resolves",
                {seconds: "0.1x3 0.7x6 0.1x40", ok: "1x60"},
                {"1m15s": (), "1m30s": (Firing(ENGINE, late),), "6m": ()},
            ),
            Case("just under: exactly the limit", {seconds: "0.5x40", ok: "1x40"}, {"5m": ()}),
            Case(
                "not ok, no time known: fires",
                {seconds: "0.1x3 stale", ok: "1x3 0x20"},
                {"2m": (Firing(ENGINE, bad),)},
            ),
            Case(
                "not ok and slow at once: one alert",
                {seconds: "5x20", ok: "0x20"},
                {"2m": (Firing(ENGINE, bad),)},
            ),
            Case(
                "the agent moved and the old address' last word is still good: a failure is seen all the same",
                {
                    llm.HEALTH_OK(**ENGINE, **OLD): "1x20",
                    llm.HEALTH_SECONDS(**ENGINE, **OLD): "0.1x20",
                    llm.HEALTH_OK(**ENGINE, **NEW): "0x20",
                },
                {"2m": (Firing(ENGINE, bad),)},
            ),
            Case(
                "... and so is slowness",
                {
                    **{llm.HEALTH_OK(**ENGINE, **at): "1x20" for at in (OLD, NEW)},
                    llm.HEALTH_SECONDS(**ENGINE, **OLD): "0.1x20",
                    llm.HEALTH_SECONDS(**ENGINE, **NEW): "0.7x20",
                },
                {"2m": (Firing(ENGINE, late),)},
            ),
            Case(
                "an engine taken out of the configuration is no alert",
                {seconds: "0.1x3 stale", ok: "1x3 stale"},
                {"3m": ()},
            ),
            Case(
                "a drill on the engine labels it",
                {seconds: "0.7x20", ok: "1x20", **drill_on("engine", ENGINE)},
                {"2m": (Firing({**ENGINE, **DRILLED}, late),)},
            ),
        ),
    )
