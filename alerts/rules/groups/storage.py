"""Storage and other resources that run out."""

from __future__ import annotations

from agent.base.catalogue import central, node
from alerts.rules.model import Alert, Case, Firing, Group, Runbook
from alerts.rules.promql import number, per
from alerts.rules.series import DRILLED, NODE, drill_on
from alerts.rules.thresholds import Thresholds, duration

GROUP = Group("gpuvigil-storage", "Storage and other resources that run out")

DISK = {**NODE, "mountpoint": "/data"}
FS = {**DISK, "device": "/dev/sda1", "fstype": "ext4"}
REAL = "!~tmpfs|ramfs|overlay|squashfs|iso9660"
BY = "by (cluster, node, mountpoint)"


@GROUP.alert
def disk_full_14d(t: Thresholds) -> Alert:
    """Either the centre's forecast or a straight line may say so; both speak in seconds left.

    The line needs `disk_history` of the very series it is drawn through: a burst of one hour on a new file system is
    no trend, nor is the first hour of an agent that moved to another address.
    """
    free = node.FS_AVAIL(fstype=REAL)
    window, history = duration(t.disk_window), duration(t.disk_history)
    line = (
        f"min {BY} (\n    {free} / -deriv({free}[{window}]) > 0\n"
        f"    and {free} offset {history}\n"
        f"    and {free} / {node.FS_SIZE(fstype=REAL)} < {number(t.disk_free)}\n  )"
    )
    forecast = f"min {BY} ({central.EXHAUSTION(bound='expected', mountpoint='!=')})"
    step = "30m"
    size = node.FS_SIZE(**FS)

    def told(left: str) -> str:
        return f"/data of n1 is expected to be full in {left}."

    return Alert(
        name="DiskFull14d",
        severity="ticket",
        fault="disk_full",
        scope="node",
        action="FREE_SPACE",
        condition=f"min {BY} (\n  {forecast}\n  or (\n  {line}\n  )\n) < {number(t.disk_horizon)}",
        timing=t.timings.disk_full_14d,
        summary="{{ $labels.mountpoint }} of {{ $labels.node }} is filling up",
        description="{{ $labels.mountpoint }} of {{ $labels.node }} is expected to be full in"
        " {{ $value | humanizeDuration }}.",
        dashboard="fleet",
        runbook=Runbook(
            meaning="At the present pace the file system is full within the horizon, by the central service's forecast "
            "or by a straight line through its history.",
            impact="Checkpoints fail when it is full: the job runs on and cannot be resumed.",
            diagnosis="1. `du -xh --max-depth=2 MOUNTPOINT | sort -h | tail`.\n"
            "2. What grows: checkpoints kept too long, logs, core dumps, caches?",
            mitigation="Shorten retention or move old checkpoints away; order disks while there is time.",
        ),
        cases=(
            Case(
                "straight line: fires after the hold, resolves when space is freed",
                {node.FS_AVAIL(**FS): "400-1x150 900x400", size: "1000x550"},
                {"24h": (), "25h30m": (Firing(DISK, told("7d 6h 30m 0s")),), "200h": ()},
                step,
            ),
            Case(
                "just under: the same pace on a disk with much space left",
                {node.FS_AVAIL(**FS): "900-1x100", size: "1000x100"},
                {"40h": ()},
                step,
            ),
            Case(
                "the agent moved: the old address' history is none of the new one's",
                {
                    node.FS_AVAIL(**FS, instance="a"): "400x60 _x40",
                    node.FS_SIZE(**FS, instance="a"): "1000x60 _x40",
                    node.FS_AVAIL(**FS, instance="b"): "_x60 400-5x40",
                    node.FS_SIZE(**FS, instance="b"): "_x60 1000x40",
                },
                {"36h": ()},
                step,
            ),
            Case(
                "too little history is no forecast",
                {node.FS_AVAIL(**FS): "400-1x40", size: "1000x40"},
                {"20h": ()},
                step,
            ),
            Case(
                "the centre's forecast alone",
                {central.EXHAUSTION(monitor="disk", bound="expected", **FS): "864000x100"},
                {"2h": (Firing(DISK, told("10d 0h 0m 0s")),)},
                step,
            ),
            Case(
                "just under: the centre sees more than the horizon",
                {central.EXHAUSTION(monitor="disk", bound="expected", **FS): "1209600x100"},
                {"2h": ()},
                step,
            ),
            Case(
                "a drill on the node labels it",
                {
                    central.EXHAUSTION(monitor="disk", bound="expected", **FS): "864000x100",
                    **drill_on("node", NODE),
                },
                {"2h": (Firing({**DISK, **DRILLED}, told("10d 0h 0m 0s")),)},
                step,
            ),
        ),
    )


@GROUP.alert
def resource_exhausted_14d(t: Thresholds) -> Alert:
    """Whatever the centre forecasts beside file systems, which have an alert of their own."""
    memory = {**NODE, "monitor": "gpu-memory", "gpu": "3", "uuid": "GPU-3"}
    where = {**NODE, "monitor": "gpu-memory"}

    def forecast(seconds: str, bound: str = "expected") -> dict[str, str]:
        return {central.EXHAUSTION(bound=bound, **memory): seconds}

    def told(left: str) -> str:
        return f"gpu-memory of n1 is expected to be exhausted in {left}."

    return Alert(
        name="ResourceExhausted14d",
        severity="ticket",
        fault="resource_exhausted",
        scope="node",
        action="ADD_CAPACITY",
        condition=per("node", central.EXHAUSTION(bound="expected", mountpoint=""), "monitor", op="min")
        + f" < {number(t.disk_horizon)}",
        timing=t.timings.resource_exhausted_14d,
        summary="{{ $labels.monitor }} of {{ $labels.node }} is running out",
        description="{{ $labels.monitor }} of {{ $labels.node }} is expected to be exhausted in"
        " {{ $value | humanizeDuration }}.",
        dashboard="fleet",
        runbook=Runbook(
            meaning="By the central service's forecast a resource of the node (GPU memory, KV cache, request load "
            "against measured throughput, power) reaches its limit within the horizon. Two methods agree on it.",
            impact="GPU memory: allocations fail. KV cache and request load: requests queue, then time out. Power: "
            "clocks are cut.",
            diagnosis="1. `gpuvigil_capacity_exhaustion_seconds` with bounds low and high, and "
            "`gpuvigil_capacity_error_ratio`: how sure is it?\n"
            "2. What grows, and since when: a roll-out, longer prompts, a new tenant, a leak?",
            mitigation="Add replicas or nodes, move load away, or end what leaks; raise the limit if it is too low.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves when the end is out of sight",
                forecast("864000x30 stale"),
                {"30m": (), "2h": (Firing(where, told("10d 0h 0m 0s")),), "30h": ()},
                "30m",
            ),
            Case("just under: the horizon exactly", forecast("1209600x20"), {"6h": ()}, "30m"),
            Case("only the early bound lies within the horizon", forecast("864000x20", "low"), {"6h": ()}, "30m"),
            Case(
                "file systems are DiskFull14d's to tell",
                {central.EXHAUSTION(monitor="disk", bound="expected", **FS): "864000x20"},
                {"6h": ()},
                "30m",
            ),
            Case(
                "a drill on the node labels it",
                {**forecast("864000x20"), **drill_on("node", NODE)},
                {"6h": (Firing({**where, **DRILLED}, told("10d 0h 0m 0s")),)},
                "30m",
            ),
        ),
    )
