"""What the central service's monitors find.

Members of the service may watch a series twice: `instance` is always aggregated away.
"""

from __future__ import annotations

from agent.base.catalogue import central
from alerts.rules.model import Alert, Case, Firing, Group, Runbook
from alerts.rules.series import NODE
from alerts.rules.thresholds import Thresholds, duration

GROUP = Group("gpuvigil-anomalies", "What the central service's monitors find", interval=lambda t: t.anomaly_interval)


@GROUP.alert
def series_anomalous(t: Thresholds) -> Alert:
    """At least 3 of 5: of the last window, 60 % above 1. A 99 % interval puts 1 % of good points outside."""
    window = duration(t.anomaly_window)
    power = {**NODE, "monitor": "gpu-power", "model": "robust"}

    def score(uuid: str, values: str, **more: str) -> dict[str, str]:
        return {central.SCORE(**{**power, "uuid": uuid, **more}): values}

    def told(series: int, value: str = "") -> Firing:
        return Firing({**NODE, "monitor": "gpu-power"}, f"{series} series of gpu-power at n1 are not as expected.")

    return Alert(
        name="SeriesAnomalous",
        severity="ticket",
        fault="series_anomalous",
        scope="monitoring",
        action="EXPLAIN",
        condition="count by (cluster, node, monitor) (\n  max without (instance, job) (\n"
        f"    quantile_over_time(0.4, {central.SCORE(synthetic='!=true')}[{window}])\n  ) > 1\n)",
        timing=t.timings.series_anomalous,
        summary="{{ $labels.monitor }} at {{ $labels.node }} is not as expected",
        description="{{ $value }} series of {{ $labels.monitor }} at {{ $labels.node }} are not as expected.",
        dashboard="fleet",
        runbook=Runbook(
            meaning=f"For most of the last {window} a series was outside of what its own past makes one expect.",
            impact="None by itself: it is a hint. Symptoms and hard faults have alerts of their own.",
            diagnosis='1. Which series, and how far: `gpuvigil_anomaly_score{monitor="..."} > 1`; beside it '
            "`gpuvigil_yhat`, `gpuvigil_yhat_lower`, `gpuvigil_yhat_upper`.\n"
            "2. `gpuvigil detect explain --monitor M --at TIME` shows the window, the model and why.\n"
            "3. What changed then: a roll-out, a job, a maintenance that was not announced?",
            mitigation="A lasting change is learnt by itself within days. A monitor that cries often: "
            "`gpuvigil detect tune --monitor M` suggests floors.",
        ),
        cases=(
            Case(
                "fires at three of five, resolves",
                score("GPU-3", "0.5x25 3x60 0.5x60") | score("GPU-4", "0.5x150"),
                {"35m": (), "45m": (told(1),), "1h55m": ()},
                step="1m",
            ),
            Case("just under: two of five", score("GPU-3", "0.5x30 3x9 0.5x60"), {"39m": (), "45m": ()}, step="1m"),
            Case(
                "two series of a node are one alert, and what two members say is said once",
                score("GPU-3", "3x60", instance="a") | score("GPU-3", "3x60", instance="b") | score("GPU-4", "3x60"),
                {"30m": (told(2),)},
                step="1m",
            ),
            Case("simulated series", score("GPU-3", "3x60", synthetic="true"), {"30m": ()}, step="1m"),
            Case("a score that is absent is none", score("GPU-3", "3x5 stale"), {"40m": ()}, step="1m"),
        ),
    )
