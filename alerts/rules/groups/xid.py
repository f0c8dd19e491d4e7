"""Xids: what the driver complains of, as loud as the action that it calls for."""

from __future__ import annotations

from agent.base import hardfaults
from agent.base.catalogue import gpu
from agent.base.errors import ConfigError
from alerts.rules.evidence import recent_xids
from alerts.rules.model import Alert, Case, Firing, Group, Runbook, Severity
from alerts.rules.promql import labels, number
from alerts.rules.series import DRILLED, GPU3, NEW, NODE, OLD, drill_on, with_xid
from alerts.rules.thresholds import Thresholds, duration

GROUP = Group("gpuvigil-xid", "Xids by the action they call for")


def xid(t: Thresholds, severity: Severity, runbook: Runbook | None = None, cases: tuple[Case, ...] = ()) -> Alert:
    """GpuXid at one severity: the actions that `hardfaults` gives it.

    The agent keeps its counts over restarts, so a count above 0 proves nothing: it is held against the last count
    seen before, also where the agent was away in between. A count without any before it must be of a recent Xid.

    An Xid of a GPU that is lost or whose driver hangs is told by GpuLost or GpuDriverHung and left out here, not only
    inhibited there: the condition looks back, so it would outlive them and page for a GPU that is well again. The
    rule looks back at the loss for as long as at the Xid, and the hold makes up for either being scraped first. An
    Xid that comes later than that after the recovery is told, once the loss is out of the window.

    Raises:
        ConfigError: the hold leaves nothing of the window, so that no Xid could ever alert.
    """
    if t.timings.gpu_xid.hold >= t.xid_window:
        raise ConfigError(
            f"timings.gpu_xid.hold ({duration(t.timings.gpu_xid.hold)}) must be shorter than xid_window "
            f"({duration(t.xid_window)}): else no Xid could ever alert"
        )
    actions = "=~" + "|".join(sorted(word for word, rank in hardfaults.XID_ACTIONS.items() if rank == severity))
    window, memory = duration(t.xid_window), duration(t.xid_memory)
    identity = ("cluster", "node", "gpu", "uuid", "synthetic", "action")
    one = labels(*identity, "xid")
    counted = gpu.XID_CODES(action=actions)
    now = f"max by {one} ({counted})"
    before = f"max by {one} (last_over_time({counted}[{memory}] offset {window}))"
    recent = f"max by (cluster, node, uuid, xid) ({gpu.XID_LAST}) > time() - {number(t.xid_memory)}"
    return Alert(
        name="GpuXid",
        severity=severity,
        fault="gpu_xid",
        scope="gpu",
        action="",
        condition=f"max by {labels(*identity)} (\n"
        f"  increase({gpu.XID_EVENTS(action=actions)}[{window}]) > 0\n"
        f"  or {now} > {before}\n"
        f"  or ({now} unless {before}) and on (cluster, node, uuid, xid) {recent}\n)\n"
        "unless on (cluster, node, uuid) (\n"
        f"  min_over_time({gpu.UP}[{window}]) == 0\n"
        f"  or max_over_time({gpu.DRIVER_STUCK}[{window}]) > {number(t.driver_stuck)}\n)",
        timing=t.timings.gpu_xid,
        lingers=t.xid_window,
        summary="GPU {{ $labels.gpu }} of {{ $labels.node }} reported an Xid that calls for {{ $labels.action }}",
        description="GPU {{ $labels.gpu }} ({{ $labels.uuid }}) of {{ $labels.node }} reported an Xid that calls for"
        " {{ $labels.action }}." + recent_xids(t),
        dashboard="fleet",
        runbook=runbook,
        cases=cases,
    )


def _xid_cases() -> tuple[Case, ...]:
    def told(action: str) -> str:
        return f"GPU 3 (GPU-3) of n1 reported an Xid that calls for {action}."

    def fired(action: str, severity: Severity, **more: str) -> Firing:
        return Firing({**GPU3, "action": action, **more}, told(action), severity)

    def events(action: str) -> str:
        return gpu.XID_EVENTS(**GPU3, action=action)

    def code(action: str) -> str:
        return gpu.XID_CODES(**GPU3, xid="79", action=action)

    last = gpu.XID_LAST(**GPU3, xid="79")
    named = {"RESTART_BM": told("RESTART_BM") + " Recent Xid: 79."}
    return (
        Case(
            "counter at 0 from start-up, then 1: fires, outlives its window by keep, resolves",
            {events("RESTART_BM"): "0x7 1x100"},
            {"2m15s": (), "2m30s": (fired("RESTART_BM", "page"),), "24m": ()},
        ),
        Case(
            "just under: no event, all counters at 0",
            {events(action): "0x30" for action in hardfaults.XID_ACTIONS},
            {"5m": ()},
        ),
        Case(
            "born at 1 (the event came before the first scrape): fires all the same",
            {events("RESTART_BM"): "_x4 1x80", code("RESTART_BM"): "_x4 1x80", last: "_x4 50x80"},
            {
                "45s": (),
                "1m45s": (Firing({**GPU3, "action": "RESTART_BM"}, named["RESTART_BM"], "page"),),
                "24m": (),
            },
        ),
        Case(
            "the agent was away for 20 minutes and brings back the count it had: nothing new, no alert",
            {
                events("RESTART_BM"): "1x3 stale _x80 1x40",
                code("RESTART_BM"): "1x3 stale _x80 1x40",
                last: "-90000x3 stale _x80 -90000x40",
            },
            {"1m": (), "22m": (), "26m": ()},
        ),
        Case(
            "... and brings back one more: an Xid that nobody was told of",
            {
                events("RESTART_BM"): "1x3 stale _x80 2x40",
                code("RESTART_BM"): "1x3 stale _x80 2x40",
                last: "-90000x3 stale _x80 900x40",
            },
            {"22m": (Firing({**GPU3, "action": "RESTART_BM"}, named["RESTART_BM"], "page"),)},
        ),
        Case(
            "a Prometheus that has no history yet does not page Xids of last week",
            {events("RESTART_BM"): "1x40", code("RESTART_BM"): "1x40", last: "-600000x40"},
            {"1m": (), "6m": ()},
        ),
        Case(
            "severity goes by action; the ticket's and the info's do not page",
            {events("RESTART_APP"): "0x7 1x30", events("IGNORE"): "0x7 1x30"},
            {"3m": (fired("RESTART_APP", "ticket"), fired("IGNORE", "info"))},
        ),
        Case(
            "a drill labels it, also while the window outlasts the drill: its trace never becomes a real page",
            {
                events("RESTART_BM"): "0x7 1x100",
                **drill_on("gpu", GPU3, "1x15 _x100", expires=240),
            },
            {
                "3m": (fired("RESTART_BM", "page", **DRILLED),),
                "6m30s": (fired("RESTART_BM", "page", **DRILLED),),
                "13m": (),
            },
        ),
        Case(
            "two addresses of one agent tell one Xid: one alert",
            {gpu.XID_EVENTS(**GPU3, **at, action="RESTART_BM"): "0x7 1x40" for at in (OLD, NEW)},
            {"3m": (fired("RESTART_BM", "page"),)},
        ),
        *_loss_cases(),
    )


def _loss_cases() -> tuple[Case, ...]:
    """An Xid at 2 minutes, and whether its GPU goes on living."""
    told = "GPU 3 (GPU-3) of n1 reported an Xid that calls for RESTART_BM."
    labels = {**GPU3, "action": "RESTART_BM"}
    silent: dict[str, tuple[Firing, ...]] = {f"{minute}m": () for minute in (2, 3, 5, 7, 9, 10, 13, 17, 20)}
    return (
        Case("Xid 79 with the loss: never, up to 15 minutes after recovery", with_xid("1x7 0x11 1x100"), silent),
        Case("... nor where the loss shows one scrape after the Xid", with_xid("1x8 0x11 1x100"), silent),
        Case("... nor where it shows two scrapes after it", with_xid("1x9 0x11 1x100"), silent),
        Case("... nor where it shows one scrape before it, and never again", with_xid("1x6 0 1x120"), silent),
        Case("... nor where it shows two scrapes before it", with_xid("1x5 0 1x120"), silent),
        Case(
            "Xid 48 without a loss pages, also beside a GPU that is lost",
            with_xid("1x130", "48") | {gpu.UP(**NODE, gpu="4", uuid="GPU-4"): "0x130"},
            {"2m15s": (), "2m30s": (Firing(labels, f"{told} Recent Xid: 48.", "page"),), "13m": ()},
        ),
        Case(
            "an Xid two minutes after the recovery is of a GPU that lives: told, once the loss is out of sight",
            {gpu.UP(**GPU3): "1x3 0x3 1x100", gpu.XID_EVENTS(**GPU3, action="RESTART_BM"): "0x15 1x100"},
            {"4m": (), "7m": (), "8m": (Firing(labels, told, "page"),), "15m": ()},
        ),
        Case(
            "the agent starts again after the loss, at another address and with the counts it had: nothing old",
            with_xid("1x7 0x11 1x4 stale", counts="0x7 1x16 stale", **OLD)
            | with_xid("_x40 1x80", counts="_x40 1x80", **NEW),
            {**silent, "25m": ()},
        ),
        Case(
            "the driver hangs with the Xid: GpuDriverHung tells it",
            {
                **with_xid("1x8 _x12 1x100", "119"),
                gpu.DRIVER_STUCK(**GPU3, call="nvmlDeviceGetPowerUsage"): "0x9 30x10 0x100",
            },
            silent,
        ),
    )


@GROUP.alert
def gpu_xid_page(t: Thresholds) -> Alert:
    return xid(
        t,
        "page",
        Runbook(
            meaning="The driver reported an Xid. The label `action` is what NVIDIA's catalogue asks for; it decides "
            "how loud this is: resets, reboots and mechanical checks page, restarts of an application are a ticket, "
            "the rest is information. The Xid of a GPU that is lost, or whose driver hangs, is named by GpuLost or "
            "GpuDriverHung and does not alert here.",
            impact="From one process killed (13, 31, 94) to a GPU lost (79). Xid 45 alone is the trace of a job that "
            "was cleaned up and never alerts by itself.",
            diagnosis="1. The annotation names the codes of the last minutes; "
            "`journalctl -k | grep -i xid` has the full lines.\n"
            "2. One GPU in several jobs: the GPU. Several GPUs in one job: the job.\n"
            "3. `gpuvigil_gpu_recovery_action` is the driver's own verdict, where it gives one.",
            mitigation="Do what `action` says: RESET_GPU after draining it, RESTART_BM after draining the node, "
            "CHECK_MECHANICALS and CONTACT_SUPPORT with nvidia-bug-report.sh at hand.",
        ),
        _xid_cases(),
    )


@GROUP.alert
def gpu_xid_ticket(t: Thresholds) -> Alert:
    return xid(t, "ticket")


@GROUP.alert
def gpu_xid_info(t: Thresholds) -> Alert:
    return xid(t, "info")
