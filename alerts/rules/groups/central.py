"""Does the central service work? Rules on its self-metrics; what it finds is told by the other groups."""

from __future__ import annotations

from typing import Final

from agent.base.catalogue import central
from agent.base.catalogue import self as own
from alerts.rules.model import Alert, Case, Firing, Group, Runbook
from alerts.rules.promql import number
from alerts.rules.series import NODE, up
from alerts.rules.thresholds import Thresholds, duration

GROUP = Group("gpuvigil-central", "The central service, by its self-metrics")

JOB: Final = "gpuvigil-central"
CENTRAL: Final = f'up{{job="{JOB}"}}'
AT: Final = {"cluster": "c1", "instance": "centre:9841"}
"""Labels of a member's own series."""
MEMBER: Final = up(JOB, cluster="c1", instance="centre:9841")
HERE: Final = {"cluster": "c1"}


@GROUP.alert
def central_down(t: Thresholds) -> Alert:
    target = up("gpuvigil-central", instance="centre:9841", cluster="c1")
    return Alert(
        name="CentralDown",
        severity="ticket",
        fault="central_down",
        scope="monitoring",
        action="CHECK_CENTRAL",
        condition=f"min by (cluster) ({CENTRAL}) == 0",
        timing=t.timings.central_down,
        summary="The central service does not answer",
        description="No anomaly scores, training ETA or capacity forecasts while it is down; of several members, those "
        "of the one that is down.",
        dashboard="fleet_all",
        runbook=Runbook(
            meaning="Prometheus cannot scrape the central detection service, or one of its members.",
            impact="TrainingEtaDeviates cannot fire; DiskFull14d falls back to its straight line. Hard faults, latency "
            "and checkpoints are watched as before.",
            diagnosis="`systemctl status gpuvigil-central`, `journalctl -u gpuvigil-central -n 50`; is Prometheus' API "
            "reachable from it?",
            mitigation="Restart it; it goes on from what it kept, or reads its history again.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves",
                {target: "1x3 0x30 1x20"},
                {"5m45s": (), "6m": (Firing({"cluster": "c1"}),), "10m": ()},
            ),
            Case("just under the hold", {target: "1x3 0x19 1x20"}, {"5m45s": (), "7m": ()}),
            Case(
                "one of several members is enough: what it watches is watched by nobody",
                {target: "0x30", up("gpuvigil-central", instance="other:9841", cluster="c1"): "1x30"},
                {"6m": (Firing({"cluster": "c1"}),)},
            ),
            Case("not installed: no such target, no alert", {up("gpuvigil-agent", **NODE): "1x40"}, {"9m": ()}),
        ),
    )


@GROUP.alert
def central_silent(t: Thresholds) -> Alert:
    began = central.CENTRAL_UP(**AT)
    seen = f"max by (cluster) (last_over_time({central.CENTRAL_UP}[{duration(t.central_memory)}]))"
    return Alert(
        name="CentralSilent",
        severity="ticket",
        fault="central_silent",
        scope="monitoring",
        action="CHECK_CONFIG",
        condition=f"max by (cluster) ({CENTRAL} == 1 unless on (cluster, instance) {central.CENTRAL_UP})\n"
        f"or\n  {seen}\n  unless on (cluster) {CENTRAL}",
        timing=t.timings.central_silent,
        summary="Nothing is heard of the central service",
        description="Prometheus has no self-metrics of the central service: no rule can tell whether it works.",
        dashboard="fleet_all",
        runbook=Runbook(
            meaning="A target of the job `gpuvigil-central` answers, but not with central's own metrics; or there was "
            "such a target and the job has none any more.",
            impact="CentralDown, CentralStuck and the others are blind, and so are the alerts on what central finds.",
            diagnosis="1. Prometheus' `/targets`: is the job there, and is its address central's (port 9841)?\n"
            "2. The files under `targets/`: readable, valid YAML, not empty?\n"
            "3. Does a relabelling or a limit drop `gpuvigil_central_*`?",
            mitigation="Restore the target; `promtool check config` before a reload. Taken away on purpose: the alert "
            "ends by itself when its memory does.",
        ),
        cases=(
            Case(
                "fires when the target answers with other metrics, resolves",
                {MEMBER: "1x120", began: "100x4 stale _x55 100x60"},
                {"9m45s": (), "13m": (Firing(HERE),), "20m": ()},
            ),
            Case(
                "fires when the target is gone from the configuration",
                {MEMBER: "1x10 stale", began: "100x10 stale"},
                {"10m": (), "15m": (Firing(HERE),)},
            ),
            Case("just under: back before the hold is over", {MEMBER: "1x90", began: "_x30 100x60"}, {"12m": ()}),
            Case("down is CentralDown's to tell", {MEMBER: "0x90", began: "100x4 stale"}, {"20m": ()}),
            Case("never installed: nothing to miss", {up("gpuvigil-agent", **NODE): "1x90"}, {"20m": ()}),
        ),
    )


@GROUP.alert
def central_stuck(t: Thresholds) -> Alert:
    alive = central.SCHEDULER_UP(**AT)
    return Alert(
        name="CentralStuck",
        severity="ticket",
        fault="central_stuck",
        scope="monitoring",
        action="CHECK_CENTRAL",
        condition=f"min by (cluster) ({central.SCHEDULER_UP}) == 0",
        timing=t.timings.central_stuck,
        summary="The central service answers, but its scheduler is dead",
        description="No monitor of the central service (or of one member) has its turns: what it shows grows old.",
        dashboard="fleet_all",
        runbook=Runbook(
            meaning="Central's web server answers, but the thread that gives monitors their turns has shown no sign "
            "of life for 30 s. `/healthz` answers 503.",
            impact="No new scores, ETA or forecasts; monitors become `stale` and their series go.",
            diagnosis="`journalctl -u gpuvigil-central -n 50`: the last error before the silence. Under systemd the "
            "watchdog restarts it after a minute; if it does not, `WatchdogSec=` is not in force.",
            mitigation="`systemctl restart gpuvigil-central`; it goes on from what it kept.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves",
                {alive: "1x3 0x20 1x20"},
                {"1m45s": (), "2m": (Firing(HERE),), "8m": ()},
            ),
            Case("just under the hold", {alive: "1x3 0x3 1x20"}, {"1m45s": (), "3m": ()}),
            Case(
                "one of two members is enough",
                {alive: "1x30", central.SCHEDULER_UP(cluster="c1", instance="other:9841"): "0x30"},
                {"5m": (Firing(HERE),)},
            ),
        ),
    )


@GROUP.alert
def central_restarting(t: Thresholds) -> Alert:
    began = central.CENTRAL_UP(**AT)
    window = duration(t.central_window)

    def starts(times: int) -> str:
        return "1x20 " + " ".join(f"{n + 2}x3" for n in range(times - 1)) + f" {times + 1}x100"

    return Alert(
        name="CentralRestarting",
        severity="ticket",
        fault="central_restarting",
        scope="monitoring",
        action="CHECK_CENTRAL",
        condition=f"max by (cluster) (changes({central.CENTRAL_UP}[{window}])) > {t.central_restarts}",
        timing=t.timings.central_restarting,
        summary="The central service starts again and again",
        description=f"The central service has started {{{{ $value }}}} times within {window}.",
        dashboard="fleet_all",
        runbook=Runbook(
            meaning="A member of the central service ended and was started several times in a short time.",
            impact="Its monitors lose turns; a fit under way is lost each time.",
            diagnosis="`journalctl -u gpuvigil-central`: the last lines before each start. Killed by the kernel "
            "(`MemoryMax=`), by the watchdog, or an error that it names?",
            mitigation="More memory or fewer series (`series_limit`, `members`); an error without a name is a bug.",
        ),
        cases=(
            Case(
                "fires, resolves",
                {began: starts(4)},
                {"7m": (), "9m": (Firing(HERE, "The central service has started 4 times within 15m."),), "25m": ()},
            ),
            Case("just under: three are an upgrade and its afterthoughts", {began: starts(3)}, {"9m": (), "12m": ()}),
            Case("a steady service", {began: "1x100"}, {"20m": ()}),
        ),
    )


@GROUP.alert
def central_config_refused(t: Thresholds) -> Alert:
    good = own.RELOAD_OK(job=JOB, **AT)
    return Alert(
        name="CentralConfigRefused",
        severity="ticket",
        fault="central_config",
        scope="monitoring",
        action="CHECK_CONFIG",
        condition=f"min by (cluster) ({own.RELOAD_OK(job=JOB)}) == 0",
        timing=t.timings.central_config_refused,
        summary="The central service runs with an old configuration",
        description="The file on disk is wrong and was refused; the service goes on with what it had.",
        dashboard="fleet_all",
        runbook=Runbook(
            meaning="central.yaml was changed, and the new content does not hold.",
            impact="None until the service is started again: then it will not start.",
            diagnosis="`gpuvigil central check --config /etc/gpuvigil/central.yaml --offline` names file and line.",
            mitigation="Correct the file: it is read again within seconds, without a signal.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves",
                {good: "1x3 0x30 1x20"},
                {"5m45s": (), "6m": (Firing(HERE),), "10m": ()},
            ),
            Case("just under the hold: corrected at once", {good: "1x3 0x19 1x20"}, {"5m45s": (), "7m": ()}),
            Case(
                "an agent's configuration is not central's",
                {own.RELOAD_OK(job="gpuvigil-agent", **NODE): "0x60"},
                {"12m": ()},
            ),
        ),
    )


@GROUP.alert
def central_read_errors(t: Thresholds) -> Alert:
    window = duration(t.central_window)
    asked = central.READ_SECONDS("count")

    def queries(bad: int) -> dict[str, str]:
        return {
            central.READ_SECONDS("count", **AT): "0+100x200",
            central.READ_ERRORS(**AT, reason="timeout"): f"0x4 0+{bad}x100 {bad * 100}x100",
        }

    return Alert(
        name="CentralReadErrors",
        severity="ticket",
        fault="central_read_errors",
        scope="monitoring",
        action="CHECK_PROMETHEUS",
        condition=f"sum by (cluster) (rate({central.READ_ERRORS}[{window}]))\n"
        f"  / sum by (cluster) (rate({asked}[{window}])) > {number(t.central_read_errors)}",
        timing=t.timings.central_read_errors,
        summary="Many of the central service's queries fail",
        description="{{ $value | humanizePercentage }} of the central service's queries fail.",
        dashboard="fleet_all",
        runbook=Runbook(
            meaning="Prometheus refuses, does not answer in time, or answers with an error.",
            impact="The monitors concerned are `stale` or `error`; they catch up in order when queries succeed again.",
            diagnosis="1. `gpuvigil_central_read_errors_total` by `reason`; `gpuvigil central monitors` by monitor.\n"
            "2. timeout: how long does the query take in Prometheus itself? bad_query, budget, denied: the "
            "configuration.\n3. unavailable, refused: Prometheus, or the way to it.",
            mitigation="Relieve or repair Prometheus; longer `prometheus.timeout`, fewer `points_per_query`, a "
            "recording rule for a query that is dear.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves",
                queries(20),
                {"10m": (), "25m": (Firing(HERE, "20% of the central service's queries fail."),), "45m": ()},
            ),
            Case("just under: one in ten", queries(10), {"25m": ()}),
            Case("no query at all is no rate", {central.READ_ERRORS(**AT, reason="timeout"): "0x100"}, {"25m": ()}),
        ),
    )


@GROUP.alert
def central_monitor_broken(t: Thresholds) -> Alert:
    def state(name: str, values: str, instance: str = "centre:9841") -> dict[str, str]:
        return {central.MONITOR_STATE(cluster="c1", instance=instance, monitor="m1", state=name): values}

    firing = Firing({**HERE, "monitor": "m1"})
    return Alert(
        name="CentralMonitorBroken",
        severity="ticket",
        fault="central_monitor",
        scope="monitoring",
        action="CHECK_CONFIG",
        condition=f"max by (cluster, monitor) ({central.MONITOR_STATE(state='=~error|stale')}) == 1",
        timing=t.timings.central_monitor_broken,
        summary="The monitor {{ $labels.monitor }} does not work",
        description="The monitor {{ $labels.monitor }} gives neither scores nor forecasts.",
        dashboard="fleet_all",
        runbook=Runbook(
            meaning="`error`: somebody must change something (a query, a budget, a password). `stale`: Prometheus does "
            "not answer this query, or the model is older than two fit periods.",
            impact="What this monitor watches is unwatched by central. `no_data` and `warming_up` are no errors and "
            "do not alert.",
            diagnosis="`gpuvigil central monitors` says why, in a sentence; `gpuvigil central check` asks Prometheus "
            "for every query.",
            mitigation="Correct the query, raise `series_limit` or narrow the query, or take the monitor out.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves",
                state("error", "0x3 1x140 0x20"),
                {"30m45s": (), "31m": (firing,), "38m": ()},
            ),
            Case("stale counts as well", state("stale", "1x140"), {"31m": (firing,)}),
            Case("just under the hold", state("error", "0x3 1x119 0x20"), {"30m45s": (), "33m": ()}),
            Case("no data is no error", state("no_data", "1x200"), {"40m": ()}),
            Case(
                "two members with one trouble are one alert",
                state("error", "1x200") | state("error", "1x200", "b"),
                {"40m": (firing,)},
            ),
        ),
    )


@GROUP.alert
def central_runs_missed(t: Thresholds) -> Alert:
    window = duration(t.central_window)

    def missed(values: str) -> dict[str, str]:
        return {central.JOBS_MISSED(**AT, reason="missed"): values}

    return Alert(
        name="CentralRunsMissed",
        severity="ticket",
        fault="central_runs_missed",
        scope="monitoring",
        action="CHECK_CENTRAL",
        condition=f"sum by (cluster, reason) (increase({central.JOBS_MISSED}[{window}])) > {t.central_missed}",
        timing=t.timings.central_runs_missed,
        summary="The central service does not keep up",
        description="Turns of monitors are left out ({{ $labels.reason }}).",
        dashboard="fleet_all",
        runbook=Runbook(
            meaning="Turns began too late or fell together with the one before (`missed`, `still_running`), or failed "
            "with an error of our own (`error`).",
            impact="Scores come late; none is skipped, for a late turn reads and scores in order what it missed.",
            diagnosis="1. `gpuvigil_monitor_duration_seconds` against the monitor's step: slow queries?\n"
            "2. `gpuvigil_central_read_seconds`: is Prometheus slow?\n3. Processor and memory of central's machine.",
            mitigation="Longer steps, recording rules for dear queries, more `members`. `error`: report it.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves",
                missed("0+1x120 120x120"),
                {"10m": (), "25m": (Firing({**HERE, "reason": "missed"}),), "50m": ()},
            ),
            Case("just under: a few at a hiccup", missed("0x20 5x200"), {"25m": (), "40m": ()}),
            Case("a counter at rest", missed("7x200"), {"40m": ()}),
        ),
    )


@GROUP.alert
def central_near_limit(t: Thresholds) -> Alert:
    def share(name: str, text: str) -> str:
        return f'label_replace({text}, "resource", "{name}", "", "")'

    window = duration(max(4 * t.scrape, 60.0))
    shares = "\n  or ".join(
        (
            share("memory", f"{central.RSS} / {central.MEMORY_LIMIT}"),
            share("files", f"{central.OPEN_FILES} / {central.OPEN_FILES_LIMIT}"),
            share("processors", f"rate({central.CPU_SECONDS}[{window}]) / {central.CPUS}"),
        )
    )

    def memory(share: float) -> dict[str, str]:
        return {central.RSS(**AT): f"1x3 {share * 100:g}x80 1x40", central.MEMORY_LIMIT(**AT): "100x200"}

    def told(name: str, share: str) -> Firing:
        return Firing({**HERE, "resource": name}, f"The central service uses {share} of its {name}.")

    return Alert(
        name="CentralNearLimit",
        severity="ticket",
        fault="central_near_limit",
        scope="monitoring",
        action="CHECK_CENTRAL",
        condition=f"max by (cluster, resource) (\n  {shares}\n) > {number(t.central_near_limit)}",
        timing=t.timings.central_near_limit,
        summary="The central service is near the limit of its {{ $labels.resource }}",
        description="The central service uses {{ $value | humanizePercentage }} of its {{ $labels.resource }}.",
        dashboard="fleet_all",
        runbook=Runbook(
            meaning="Memory against the unit's `MemoryMax=` (or all there is), open files against their limit, or "
            "processor time against the processors.",
            impact="At the limit the kernel ends it (memory), it cannot open connections (files), or turns are late.",
            diagnosis="`gpuvigil_monitor_series` by monitor: has one grown? A ring takes 8 bytes a point: 14 days at "
            "five minutes are 32 kB a series.",
            mitigation="`series_limit`, a longer step or shorter `fit_window`; more `members`, or a Dask scheduler.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves", memory(0.9), {"15m": (), "16m": (told("memory", "90%"),), "30m": ()}
            ),
            Case("just under the share", memory(0.85), {"20m": ()}),
            Case(
                "files",
                {central.OPEN_FILES(**AT): "950x100", central.OPEN_FILES_LIMIT(**AT): "1000x100"},
                {"16m": (told("files", "95%"),)},
            ),
            Case(
                "processors: two of two, all the time",
                {central.CPU_SECONDS(**AT): "0+30x100", central.CPUS(**AT): "2x100"},
                {"20m": (told("processors", "100%"),)},
            ),
        ),
    )
