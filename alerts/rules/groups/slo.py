"""Time to first token as a service-level objective: multi-window burn rates.

A request is good when its first token came within `ttft`; failed requests and failed probes are bad.
Native histograms of an engine and the agent's own probes are judged apart, since probes are few.
Every window is a sum over one recorded rate, so that days cost no more than minutes.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.base.catalogue import llm
from alerts.rules.model import Alert, Case, Firing, Group, Recording, Runbook, Severity
from alerts.rules.promql import le, number
from alerts.rules.series import DRILLED, ENGINE, drill_on
from alerts.rules.thresholds import Burn, Thresholds, Timing, duration

FAST = Group("gpuvigil-slo", "Burn rates of the TTFT objective, windows of hours", lambda t: t.ttft_interval)
SLOW = Group("gpuvigil-slo-slow", "The same, windows of days", lambda t: t.ttft_slow_interval)

BY = "by (cluster, node, engine)"
ON = "on (cluster, node, engine)"
FAILED = "=~error|timeout|failed|failure"
"""Outcomes that are a failure in the engines' own words; "abort" is mostly a user who went away."""


def good(t: Thresholds) -> str:
    return f"engine_source:gpuvigil_llm_ttft_good:rate{duration(t.ttft_base)}"


def total(t: Thresholds) -> str:
    return f"engine_source:gpuvigil_llm_ttft_total:rate{duration(t.ttft_base)}"


def bad(window: float) -> str:
    return f"engine_source:gpuvigil_llm_ttft_bad:ratio{duration(window)}"


def count(window: float) -> str:
    return f"engine_source:gpuvigil_llm_ttft_total:increase{duration(window)}"


def _windows(burns: Iterable[Burn], interval: float, t: Thresholds) -> list[Recording]:
    made = []
    for window in sorted({seconds for burn in burns for seconds in (burn.long, burn.short)}):
        over = duration(window)
        if window == t.ttft_base:
            ratio = f"1 - {good(t)} / ({total(t)} > 0)"
        else:
            ratio = f"1 - sum_over_time({good(t)}[{over}]) / (sum_over_time({total(t)}[{over}]) > 0)"
        made.append(Recording(bad(window), f"clamp_min({ratio}, 0)"))
    for window in sorted({burn.long for burn in burns}):
        made.append(
            Recording(count(window), f"sum_over_time({total(t)}[{duration(window)}]) * {number(t.ttft_interval)}")
        )
    return made


@FAST.recordings
def base(t: Thresholds) -> list[Recording]:
    window = duration(t.ttft_base)
    probes = f"sum {BY} (rate({llm.PROBES}[{window}]))"
    native = f"sum {BY} (rate({llm.TTFT('count', source='native')}[{window}]))"
    failed = f"sum {BY} (rate({llm.REQUESTS(outcome=FAILED)}[{window}]))"
    edge = le(t.ttft)
    probed = f"sum {BY} (rate({llm.TTFT('bucket', le=edge, source='probe')}[{window}]))"
    answered = f"sum {BY} (rate({llm.TTFT('bucket', le=edge, source='native')}[{window}]))"

    def named(expr: str, source: str) -> str:
        return f'label_replace({expr}, "source", "{source}", "", "")'

    return [
        Recording(
            total(t),
            f"{named(probes, 'probe')}\nor\n{named(f'{native} + {ON} ({failed} or 0 * {native})', 'native')}",
        ),
        # an engine that never answered a probe has no histogram yet: none of its probes was good
        Recording(
            good(t),
            f"{named(f'({probed} or 0 * {probes})', 'probe')}\nor\n{named(answered, 'native')}",
        ),
    ]


@FAST.recordings
def fast_windows(t: Thresholds) -> list[Recording]:
    return _windows(t.ttft_fast, t.ttft_interval, t)


@SLOW.recordings
def slow_windows(t: Thresholds) -> list[Recording]:
    have = {recording.record for recording in fast_windows(t)}
    return [made for made in _windows(t.ttft_slow, t.ttft_slow_interval, t) if made.record not in have]


def burn(
    t: Thresholds,
    severity: Severity,
    burns: tuple[Burn, ...],
    timing: Timing,
    runbook: Runbook | None = None,
    cases: tuple[Case, ...] = (),
) -> Alert:
    """TtftBurn at one severity: any pair of windows burns, on enough traffic."""

    def pair(one: Burn) -> str:
        limit = number(one.factor * t.ttft_budget)
        floor = (
            f'{count(one.long)}{{source="native"}} >= {t.ttft_requests} or '
            f'{count(one.long)}{{source="probe"}} >= {t.ttft_probes}'
        )
        return f"({bad(one.long)} > {limit} and {bad(one.short)} > {limit} and ({floor}))"

    return Alert(
        name="TtftBurn",
        severity=severity,
        fault="ttft_burn",
        scope="engine",
        action="SCALE_OUT",
        condition=f"max {BY} (\n  " + "\n  or ".join(pair(one) for one in burns) + "\n)",
        timing=timing,
        lingers=max(one.short for one in burns) + t.ttft_base,  # the recorded rates look back by themselves
        summary="Engine {{ $labels.engine }} on {{ $labels.node }} spends its TTFT budget too fast",
        description="{{ $value | humanizePercentage }} of the requests to {{ $labels.engine }} on {{ $labels.node }}"
        f" got no first token within {duration(t.ttft)}; {100 * t.ttft_budget:g}% may.",
        dashboard="engine",
        runbook=runbook,
        cases=cases,
    )


def _cases() -> tuple[Case, ...]:
    """At 30 s a step. Native: 60 requests a step. Probes: 2 a step."""
    step = "30s"
    native = {**ENGINE, "model": "m", "source": "native"}
    probe = {**ENGINE, "model": "m", "source": "probe"}

    def told(share: str) -> str:
        return f"{share} of the requests to e1 on n1 got no first token within 1s; 1% may."

    def histogram(labels: dict[str, str], edge: str, within: str, all_: str) -> dict[str, str]:
        return {llm.TTFT("bucket", le=edge, **labels): within, llm.TTFT("count", **labels): all_}

    half = histogram(native, "1", "0+30x240", "0+60x240")
    return (
        Case(
            "half of the requests slow: the page fires after the hold; all resolves when the windows are clean",
            histogram(native, "1", "0+30x50 1560+60x800", "0+60x860"),
            {
                "2m": (),
                "16m": (Firing(ENGINE, told("50%"), "page"),),
                "7h": (),
            },
            step,
        ),
        Case(
            'the edge as Prometheus 3 spells it, le="1.0"',
            histogram(native, "1.0", "0+30x240", "0+60x240"),
            {"16m": (Firing(ENGINE, told("50%"), "page"),)},
            step,
        ),
        Case(
            "just under the page: 5 % bad is below 6 times the budget, and a ticket",
            histogram(native, "1", "0+57x240", "0+60x240"),
            {"1h": (Firing(ENGINE, told("5%"), "ticket"),)},
            step,
        ),
        Case(
            "just under the ticket as well: within the budget",
            histogram(native, "1", "0+99.4x240", "0+100x240"),
            {"1h": ()},
            step,
        ),
        Case(
            "too little traffic: one bad request of three does not page",
            histogram(native, "1", "0x20 2x220", "0x20 3x220"),
            {"13m": (), "20m": ()},
            step,
        ),
        Case(
            "probes that fail count, though the histogram never sees them; few a minute are enough",
            {
                **histogram(probe, "1.0", "0+1x200", "0+1x200"),
                llm.PROBES(**ENGINE, result="ok"): "0+1x200",
                llm.PROBES(**ENGINE, result="timeout"): "0+1x200",
            },
            {"5m": (), "16m": (Firing(ENGINE, told("50%"), "page"),)},
            step,
        ),
        Case(
            "an engine that never answered a probe: no histogram at all",
            {llm.PROBES(**ENGINE, result="error"): "0+2x200"},
            {"16m": (Firing(ENGINE, told("100%"), "page"),)},
            step,
        ),
        Case("no histogram, no probe: absent, no alert", {llm.ENGINE_UP(**ENGINE): "1x200"}, {"1h": ()}, step),
        Case(
            "native edges without the objective's: not judged by them",
            histogram(native, "0.9", "0+30x240", "0+60x240"),
            {"16m": ()},
            step,
        ),
        Case(
            "the agent is scraped at two addresses: one alert, and the share stays what it is",
            histogram({**native, "instance": "a"}, "1", "0+30x240", "0+60x240")
            | histogram({**native, "instance": "b"}, "1", "0+30x240", "0+60x240"),
            {"16m": (Firing(ENGINE, told("50%"), "page"),)},
            step,
        ),
        Case(
            "a drill ends with its outage, and no request comes afterwards: its trace never becomes a real page",
            {
                **histogram(native, "1", "0x121", "0+60x20 1200x100"),
                **drill_on("engine", ENGINE, "1x20 _x100"),
            },
            {
                "9m": (Firing({**ENGINE, **DRILLED}, told("100%"), "page"),),
                "44m": (
                    Firing({**ENGINE, **DRILLED}, told("100%"), "page"),
                    Firing({**ENGINE, **DRILLED}, told("100%"), "ticket"),
                ),
                "54m": (Firing({**ENGINE, **DRILLED}, told("100%"), "ticket"),),
            },
            step,
        ),
        Case(
            "a drill on the engine labels it",
            {
                **half,
                **drill_on("engine", ENGINE),
            },
            {"16m": (Firing({**ENGINE, **DRILLED}, told("50%"), "page"),)},
            step,
        ),
    )


@FAST.alert
def ttft_burn_page(t: Thresholds) -> Alert:
    return burn(
        t,
        "page",
        t.ttft_fast,
        t.timings.ttft_burn_fast,
        Runbook(
            meaning="So many requests get their first token late, or none, that the error budget of a month would be "
            "gone in days. Two windows agree: it is not over, and it is not a blip.",
            impact="Users wait or give up. At 14.4 times the budget, 2 % of a month's budget goes in an hour.",
            diagnosis="1. The engine's board: queue length and KV cache. Queue grows: too much load. Queue empty and "
            "still slow: the engine or its GPU (clocks, throttling).\n2. Probes fail: look at HealthzSlow.\n"
            "3. What changed: a roll-out, longer prompts, one tenant?",
            mitigation="Add replicas or shed load; take a sick engine out of the load balancer; roll back.",
        ),
        _cases(),
    )


@SLOW.alert
def ttft_burn_ticket(t: Thresholds) -> Alert:
    return burn(t, "ticket", t.ttft_slow, t.timings.ttft_burn_slow)
