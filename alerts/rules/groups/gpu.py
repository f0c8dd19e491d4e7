"""GPUs that are gone, missing, hung or complaining."""

from __future__ import annotations

from agent.base import hardfaults
from agent.base.catalogue import gpu, node
from alerts.rules.evidence import recent_xids
from alerts.rules.model import Alert, Case, Firing, Group, Runbook
from alerts.rules.promql import number, per
from alerts.rules.series import DRILLED, GPU3, NEW, NODE, OLD, drill_on, with_xid
from alerts.rules.thresholds import Thresholds

GROUP = Group("gpuvigil-gpu", "GPUs that are gone, missing, hung or complaining")


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
        # min: where a GPU is told of twice, a loss that one of them saw is a loss
        condition=f"{per('gpu', gpu.UP.name, op='min')} == 0",
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
                    gpu.XID_LAST(**GPU3, xid="79", job="a", instance="x"): "10x20",
                    gpu.XID_LAST(**GPU3, xid="79", job="b", instance="y"): "10x20",
                },
                {"1m": (Firing(GPU3, told + " Recent Xid: 79."),)},
            ),
            Case(
                "the agent moved and the old address' last word is still 1: the loss is seen all the same",
                {gpu.UP(**GPU3, **OLD): "1x20 _x60", gpu.UP(**GPU3, **NEW): "_x12 1x4 0x8 1x60"},
                {"4m": (), "4m30s": (Firing(GPU3, told),), "12m": ()},
            ),
            Case(
                "a loss with its Xid pages here, once, and names the Xid",
                with_xid("1x7 0x11 1x100"),
                {
                    "1m45s": (),
                    "2m": (Firing(GPU3, told + " Recent Xid: 79."),),
                    "9m": (Firing(GPU3, told + " Recent Xid: 79."),),
                    "10m": (),
                    "20m": (),
                },
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
    expected, known = gpu.EXPECTED.name, gpu.KNOWN.name
    return Alert(
        name=fault.alert,
        severity="page",
        fault=fault.fault,
        scope=fault.scope,
        action=fault.action,
        condition=f"{per('node', f'{expected} - ({known} or 0 * {expected})')} > 0",
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
            Case(
                "the agent moved: each address is held against itself, so the old one's last word hides nothing",
                {
                    **{gpu.EXPECTED(**NODE, **at): "8x30" for at in (OLD, NEW)},
                    gpu.KNOWN(**NODE, **OLD): "8x30",
                    gpu.KNOWN(**NODE, **NEW): "7x30",
                },
                {"5m": (Firing(NODE, "n1 should have more GPUs than it has ever shown: 1 missing."),)},
            ),
            Case(
                "two addresses of one agent count no GPU twice",
                {series(**NODE, **at): "8x30" for series in (gpu.EXPECTED, gpu.KNOWN) for at in (OLD, NEW)},
                {"5m": ()},
            ),
        ),
    )


@GROUP.alert
def gpu_driver_hung(t: Thresholds) -> Alert:
    fault = hardfaults.GPU_DRIVER_HUNG
    stuck = gpu.DRIVER_STUCK(**GPU3, call="nvmlDeviceGetPowerUsage")
    told = "The driver call nvmlDeviceGetPowerUsage on GPU 3 (GPU-3) of n1 has not returned for 30s."
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
        " on GPU {{ $labels.gpu }} ({{ $labels.uuid }}) of {{ $labels.node }} has not returned for"
        " {{ $value | humanizeDuration }}.",
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
            Case(
                "the agent moved and the old address' last word is still 0: the call is seen all the same",
                {
                    gpu.DRIVER_STUCK(**GPU3, **OLD): "0x20",
                    gpu.DRIVER_STUCK(**GPU3, **NEW, call="nvmlDeviceGetPowerUsage"): "30x20",
                },
                {"1m": (Firing(GPU3, told),)},
            ),
        ),
    )


@GROUP.alert
def gpu_fleet_fault(t: Thresholds) -> Alert:
    """Stands last in its group, so that it sees the group's alerts of the very same evaluation."""
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
