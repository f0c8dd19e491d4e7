"""GPUs that are gone, missing, hung or complaining."""

from __future__ import annotations

from agent.base import hardfaults
from agent.base.catalogue import gpu, node
from alerts.rules.model import Alert, Case, Firing, Group, Runbook, Severity
from alerts.rules.promql import labels, number, per
from alerts.rules.series import DRILLED, GPU3, NODE, drill_on
from alerts.rules.thresholds import Thresholds, duration

GROUP = Group("gpuvigil-gpu", "GPUs that are gone, missing, hung or complaining")

RECENT_XIDS = (
    '{{ with query (printf "' + gpu.XID_LAST.name + "{uuid='%s'} > time() - WINDOW\" $labels.uuid) }}"
    " Recent Xid:{{ range . }} {{ .Labels.xid }}{{ end }}.{{ end }}"
)
"""Evidence from the kernel log, looked up when the alert fires: a label of it would split the alert."""


def recent_xids(t: Thresholds) -> str:
    return RECENT_XIDS.replace("WINDOW", number(2 * t.xid_window))


@GROUP.alert
def gpu_lost(t: Thresholds) -> Alert:
    fault = hardfaults.GPU_LOST
    up = gpu.UP(**GPU3)
    told = "GPU 3 (GPU-3) of n1 was known and is gone."
    return Alert(
        name=fault.alert,
        severity="page",
        fault=fault.fault,
        scope=fault.scope,
        action=fault.action,
        condition=f"{per('gpu', gpu.UP.name)} == 0",
        timing=t.timings.gpu_lost,
        summary=fault.summary,
        description="GPU {{ $labels.gpu }} ({{ $labels.uuid }}) of {{ $labels.node }} was known and is gone."
        + recent_xids(t),
        dashboard="fleet",
        runbook=Runbook(
            meaning="A GPU that this node has shown before no longer answers the driver. Most often it has fallen off "
            "the bus (Xid 79). A driver that hangs is another alert, GpuDriverHung: there the GPU is neither up nor "
            "gone.",
            impact="Every process on the GPU is dead or will be at its next call. A training job that spans it stops "
            "at its next collective; an engine on it answers nothing.",
            diagnosis="1. `gpuvigil doctor` on the node: GPUs seen against GPUs expected.\n"
            "2. `journalctl -k | grep -i xid`: 79 (fallen off the bus), 48 or 95 (memory) just before it.\n"
            "3. `lspci -d 10de:` : if the device is gone there too, it is power, seating or the board.\n"
            "4. Look at the fleet board: one GPU, one node, or one rack?",
            mitigation="1. Drain the node and reboot it. A reset alone seldom brings back a GPU that has left the "
            "bus.\n2. Restart the job from its last complete checkpoint on other nodes.\n"
            "3. If it returns within days, exchange the board. When a GPU is exchanged or removed on purpose, "
            "`gpuvigil agent baseline write` makes the node forget the old one.",
        ),
        cases=(
            Case(
                "fires, outlives a flap by keep, resolves",
                {up: "1x3 0x8 1x60"},
                {
                    "45s": (),
                    "1m": (Firing(GPU3, told),),
                    "3m": (Firing(GPU3, told),),
                    "9m": (),
                },
            ),
            Case(
                "just under: the GPU is absent because the driver hangs, which is not a loss",
                {up: "1x3 _x20"},
                {"1m": (), "2m": ()},
            ),
            Case(
                "every GPU of the node is lost: one alert each, none swallowed by an empty vector",
                {gpu.UP(**NODE, gpu=str(i), uuid=f"GPU-{i}"): "0x20" for i in range(2)},
                {
                    "1m": tuple(
                        Firing(
                            {**NODE, "gpu": str(i), "uuid": f"GPU-{i}"},
                            f"GPU {i} (GPU-{i}) of n1 was known and is gone.",
                        )
                        for i in range(2)
                    )
                },
            ),
            Case(
                "two Prometheus jobs scrape one agent: still one alert; recent Xids are told",
                {
                    gpu.UP(**GPU3, job="a", instance="x"): "0x20",
                    gpu.UP(**GPU3, job="b", instance="y"): "0x20",
                    gpu.XID_LAST(**GPU3, xid="79"): "10x20",
                },
                {"1m": (Firing(GPU3, told + " Recent Xid: 79."),)},
            ),
            Case(
                "a drill labels its own GPU and no other",
                {up: "0x20", gpu.UP(**NODE, gpu="4", uuid="GPU-4"): "0x20", **drill_on("gpu", GPU3)},
                {
                    "1m": (
                        Firing({**GPU3, **DRILLED}, told),
                        Firing(
                            {**NODE, "gpu": "4", "uuid": "GPU-4"},
                            "GPU 4 (GPU-4) of n1 was known and is gone.",
                        ),
                    )
                },
            ),
            Case(
                "two drills on one GPU do not break the rule: the one that expires last is named",
                {
                    up: "0x20",
                    **drill_on("gpu", GPU3, expires=500),
                    **drill_on("gpu", GPU3, expires=700, name="d2", page="real"),
                },
                {"1m": (Firing({**GPU3, "drill": "d2", "drill_page": "real"}, told),)},
            ),
            Case(
                "the drill's entry ends with the fault: the label outlives it, so nothing rings anew",
                {up: "1x3 0x4 1x60", **drill_on("gpu", GPU3, "1x7 _x60")},
                {
                    "1m15s": (Firing({**GPU3, **DRILLED}, told),),
                    "2m30s": (Firing({**GPU3, **DRILLED}, told),),
                    "9m": (),
                },
            ),
            Case(
                "the drill's entry expires while the GPU stays lost: now it is a real loss and pages as one",
                {up: "1x3 0x60", **drill_on("gpu", GPU3, "1x7 _x60", expires=120)},
                {
                    "1m15s": (Firing({**GPU3, **DRILLED}, told),),
                    "8m30s": (Firing(GPU3, told),),
                },
            ),
            Case(
                "maintenance keeps it quiet, also while the node is away, until the time given",
                {up: "1x3 0x60", node.MAINTENANCE_UNTIL(**NODE): "480x5 _x60"},
                {"1m": (), "7m45s": (), "8m": (Firing(GPU3, told),)},
            ),
            Case(
                "simulated GPUs say so",
                {gpu.UP(**GPU3, synthetic="true"): "0x20"},
                {"1m": (Firing({**GPU3, "synthetic": "true"}, told),)},
            ),
        ),
    )


@GROUP.alert
def gpu_missing(t: Thresholds) -> Alert:
    fault = hardfaults.GPU_MISSING
    expected, known = per("node", gpu.EXPECTED.name), per("node", gpu.KNOWN.name)
    return Alert(
        name=fault.alert,
        severity="page",
        fault=fault.fault,
        scope=fault.scope,
        action=fault.action,
        condition=f"{expected}\n- ({known} or 0 * {expected}) > 0",
        timing=t.timings.gpu_missing,
        summary=fault.summary,
        description="{{ $labels.node }} should have more GPUs than it has ever shown: {{ $value }} missing.",
        dashboard="fleet",
        runbook=Runbook(
            meaning="The node should have more GPUs (configured, or counted on the PCI bus) than it has shown since "
            "its baseline. A known GPU that goes away is GpuLost and does not count here: one loss never pages twice.",
            impact="Work is scheduled on GPUs that do not exist; jobs that ask for the whole node fail at start.",
            diagnosis="1. `gpuvigil doctor` on the node.\n2. `lspci -d 10de:` against `nvidia-smi -L`: on the bus "
            "but not in the driver is a driver matter, absent from the bus is a mechanical one.\n"
            "3. If no GPU at all is seen, look whether the driver is loaded: `lsmod | grep nvidia`.",
            mitigation="1. Driver not loaded: install or load it.\n2. Board not on the bus: check power, seating and "
            "risers; exchange it.\n3. The expectation is wrong: set `collectors.gpu.expected` in agent.yaml.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves",
                {gpu.EXPECTED(**NODE): "8x60", gpu.KNOWN(**NODE): "8x3 7x11 8x60"},
                {
                    "2m45s": (),
                    "3m": (Firing(NODE, "n1 should have more GPUs than it has ever shown: 1 missing."),),
                    "12m": (),
                },
            ),
            Case(
                "just under: all expected GPUs are known",
                {gpu.EXPECTED(**NODE): "8x30", gpu.KNOWN(**NODE): "8x30"},
                {"5m": ()},
            ),
            Case(
                "no enumeration ever (driver not there): all of them are missing, not an empty vector",
                {gpu.EXPECTED(**NODE): "8x30"},
                {"5m": (Firing(NODE, "n1 should have more GPUs than it has ever shown: 8 missing."),)},
            ),
            Case(
                "a known GPU that is lost pages as GpuLost only",
                {gpu.EXPECTED(**NODE): "8x30", gpu.KNOWN(**NODE): "8x30", gpu.UP(**GPU3): "0x30"},
                {"5m": ()},
            ),
        ),
    )


@GROUP.alert
def gpu_driver_hung(t: Thresholds) -> Alert:
    fault = hardfaults.GPU_DRIVER_HUNG
    stuck = gpu.DRIVER_STUCK(**GPU3, call="nvmlDeviceGetPowerUsage")
    told = "The driver call nvmlDeviceGetPowerUsage on GPU 3 (GPU-3) of n1 is 30s past its deadline."
    return Alert(
        name=fault.alert,
        severity="page",
        fault=fault.fault,
        scope=fault.scope,
        action=fault.action,
        condition=f"{per('gpu', gpu.DRIVER_STUCK.name)} > {number(t.driver_stuck)}",
        timing=t.timings.gpu_driver_hung,
        summary=fault.summary,
        description='The driver call{{ with query (printf "'
        + gpu.DRIVER_STUCK.name
        + '{uuid=\'%s\'} > 0" $labels.uuid) }} {{ . | first | label "call" }}{{ end }}'
        " on GPU {{ $labels.gpu }} ({{ $labels.uuid }}) of {{ $labels.node }} is {{ $value | humanizeDuration }}"
        " past its deadline.",
        dashboard="fleet",
        runbook=Runbook(
            meaning="A call into the NVIDIA driver does not return. The agent's reader of that GPU is stuck in the "
            "kernel; it was replaced by one that leaves this GPU out, so the node's other values stay true.",
            impact="CUDA calls on this GPU hang as well: a job stops without an error, and its processes cannot be "
            "killed. `nvidia-smi` hangs on this node; do not put it into scripts now.",
            diagnosis="1. `journalctl -k | grep -iE 'xid|nvrm'`: 119/120 (GSP timeout) or 79.\n"
            "2. `ps -eo pid,stat,wchan:30,cmd | awk '$2 ~ /D/'`: which processes are stuck, and where.\n"
            "3. `gpuvigil doctor`.",
            mitigation="1. Drain the node and reboot it; a process in state D goes with nothing less.\n"
            "2. If the reboot hangs as well, power-cycle it through the BMC.\n"
            "3. If it recurs on one GPU, exchange the board; on many, look at the driver's version.",
        ),
        cases=(
            Case(
                "fires and resolves",
                {stuck: "0x3 30x4 0x60"},
                {"45s": (), "1m": (Firing(GPU3, told),), "9m": ()},
            ),
            Case("just under: calls return", {stuck: "0x20"}, {"3m": ()}),
            Case("no driver, no such series: nothing", {gpu.EXPECTED(**NODE): "0x20"}, {"3m": ()}),
        ),
    )


def xid(t: Thresholds, severity: Severity, runbook: Runbook | None = None, cases: tuple[Case, ...] = ()) -> Alert:
    """GpuXid at one severity: the actions that `hardfaults` gives it.

    The agent keeps its counts over restarts, so a count above 0 proves nothing: it is held against the last count
    seen before, also where the agent was away in between. A count without any before it must be of a recent Xid.
    """
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
        f"  or ({now} unless {before}) and on (cluster, node, uuid, xid) {recent}\n)",
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
            {"1m45s": (), "2m": (fired("RESTART_BM", "page"),), "24m": ()},
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
                "1m15s": (Firing({**GPU3, "action": "RESTART_BM"}, named["RESTART_BM"], "page"),),
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
    )


@GROUP.alert
def gpu_xid_page(t: Thresholds) -> Alert:
    return xid(
        t,
        "page",
        Runbook(
            meaning="The driver reported an Xid. The label `action` is what NVIDIA's catalogue asks for; it decides "
            "how loud this is: resets, reboots and mechanical checks page, restarts of an application are a ticket, "
            "the rest is information.",
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


@GROUP.alert
def gpu_fleet_fault(t: Thresholds) -> Alert:
    """Stands last in its group, so that it sees the alerts of the very same evaluation."""
    firing = 'ALERTS{alertstate="firing", severity="page", scope="gpu", drill=""}'
    nodes = [f"n{i}" for i in range(t.fleet_nodes)]

    def lost(count: int) -> dict[str, str]:
        return {gpu.UP(cluster="c1", node=name, gpu="0", uuid=f"GPU-{name}"): "0x7 1x60" for name in nodes[:count]}

    drilled_nodes: dict[str, str] = {}
    for name in nodes:
        drilled_nodes |= drill_on("gpu", {"cluster": "c1", "node": name, "uuid": f"GPU-{name}"})
    told = f"{t.fleet_nodes} nodes of c1 report gpu_lost at once."
    return Alert(
        name="GpuFleetFault",
        severity="page",
        fault="",
        scope="cluster",
        action="CHECK_FLEET",
        condition="count by (cluster, fault, synthetic) (\n"
        f"  count by (cluster, node, fault, synthetic) ({firing})\n) >= {t.fleet_nodes}",
        timing=t.timings.gpu_fleet_fault,
        summary="One GPU fault on many nodes of {{ $labels.cluster }}: {{ $labels.fault }}",
        description="{{ $value }} nodes of {{ $labels.cluster }} report {{ $labels.fault }} at once.",
        dashboard="fleet_cluster",
        runbook=Runbook(
            meaning="Many nodes report the same GPU fault at the same time. That is one event with a common cause, so "
            "it is one page: the single ones are inhibited while it fires.",
            impact="A large part of the cluster may be out. Draining nodes one by one now makes it worse.",
            diagnosis="What do these nodes share? A driver or firmware roll-out, a power feed, cooling, a switch.",
            mitigation="Stop roll-outs. Deal with the common cause first; look at single GPUs after this has resolved.",
        ),
        cases=(
            Case(
                "fires at the number of nodes, resolves",
                lost(t.fleet_nodes),
                {"1m": (Firing({"cluster": "c1", "fault": "gpu_lost"}, told),), "14m": ()},
            ),
            Case("just under: one node fewer", lost(t.fleet_nodes - 1), {"1m": ()}),
            Case(
                "a drill on all of them is no fleet fault",
                lost(t.fleet_nodes) | drilled_nodes,
                {"1m": ()},
            ),
        ),
    )
