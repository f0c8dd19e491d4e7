"""Does the watching itself work? Agents, Alertmanager's heartbeat, maintenance; central has its own module."""

from __future__ import annotations

from typing import Final

from agent.base.catalogue import node
from agent.base.catalogue import self as own
from alerts.rules.model import Alert, Case, Firing, Group, Recording, Runbook
from alerts.rules.promql import MAINTENANCE, number
from alerts.rules.series import DRILLED, NEW, NODE, OLD, drill_on, up
from alerts.rules.thresholds import Thresholds, duration

MAINTENANCE_GROUP = Group("gpuvigil-maintenance", "The maintenance flag as last seen")
GROUP = Group("gpuvigil-platform", "Agents and the heartbeat of alerting")

AGENTS: Final = 'up{job="gpuvigil-agent"}'


@MAINTENANCE_GROUP.recordings
def maintenance(t: Thresholds) -> list[Recording]:
    window = duration(t.maintenance_memory)
    return [Recording(MAINTENANCE, f"max by (cluster, node) (last_over_time({node.MAINTENANCE_UNTIL}[{window}]))")]


@GROUP.alert
def watchdog(t: Thresholds) -> Alert:
    return Alert(
        name="Watchdog",
        severity="none",
        fault="watchdog",
        scope="monitoring",
        action="NONE",
        condition="vector(1)",
        timing=t.timings.watchdog,
        summary="Alerting works",
        description="Always firing: Prometheus evaluates rules and Alertmanager delivers.",
        dashboard="fleet_all",
        runbook=Runbook(
            meaning="This alert always fires. It goes to a dead-man's switch outside of this installation, which "
            "rings when it stops coming.",
            impact="If the dead-man rings, nothing else can: Prometheus, Alertmanager or the way out of here is "
            "broken, and silence is not health.",
            diagnosis="1. Is Prometheus up, and does `/rules` show fresh evaluations?\n"
            "2. Is Alertmanager up (`/-/ready`), and does its log show failed notifications?\n"
            "3. Does the way out work: DNS, proxy, firewall?",
            mitigation="Repair what is broken, and watch the nodes by hand until the dead-man is quiet again.",
        ),
        cases=(Case("always", {up("gpuvigil-agent", **NODE): "1x4"}, {"0m": (Firing({}),), "1m": (Firing({}),)}),),
    )


@GROUP.alert
def agent_down(t: Thresholds) -> Alert:
    """`max` on purpose: a node is watched as long as it can be scraped at one of its addresses."""
    target = up("gpuvigil-agent", **NODE, instance="n1:9840")
    told = "Prometheus cannot scrape the agent of n1: its GPUs are unwatched."
    return Alert(
        name="AgentDown",
        severity="ticket",
        fault="agent_down",
        scope="node",
        action="CHECK_AGENT",
        condition=f"max by (cluster, node) ({AGENTS}) == 0",
        timing=t.timings.agent_down,
        summary="The agent of {{ $labels.node }} does not answer",
        description="Prometheus cannot scrape the agent of {{ $labels.node }}: its GPUs are unwatched.",
        dashboard="fleet",
        agent_down=True,
        runbook=Runbook(
            meaning="Prometheus cannot scrape the agent. The node may be well, or down altogether; this alert cannot "
            "tell, and no other alert of the node can fire from Prometheus while it lasts.",
            impact="The node is unwatched. An alert that was firing for it may show as resolved without being so.",
            diagnosis="1. Does the node answer at all (ping, ssh, BMC)?\n"
            "2. `systemctl status gpuvigil-agent`, `journalctl -u gpuvigil-agent -n 50`.\n"
            "3. From Prometheus' host: `curl -sv http://NODE:9840/healthz` (firewall, certificate, password).",
            mitigation="Restart the agent; if the node is down, treat it as such. Going away on purpose: "
            "`gpuvigil agent maintenance on --for 2h --why ...` first.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves",
                {target: "1x3 0x20 1x60"},
                {"2m45s": (), "3m": (Firing(NODE, told),), "15m": ()},
            ),
            Case("just under: back before the hold is over", {target: "1x3 0x7 1x20"}, {"2m45s": (), "4m": ()}),
            Case(
                "a drill that stops the agent is remembered, though the agent that exported it is gone",
                {
                    target: "1x3 0x60",
                    **drill_on("node", NODE, "1x3 stale", expires=3600),
                },
                {"8m": (Firing({**NODE, **DRILLED}, told),)},
            ),
            Case(
                "... but not beyond the entry's expiry",
                {
                    target: "1x3 0x80",
                    **drill_on("node", NODE, "1x3 stale", expires=600),
                },
                {"9m": (Firing({**NODE, **DRILLED}, told),), "18m": (Firing(NODE, told),)},
            ),
            Case(
                "maintenance outlives the agent",
                {target: "1x3 0x80", node.MAINTENANCE_UNTIL(**NODE): "3600x3 stale"},
                {"18m": ()},
            ),
            Case(
                "one of two jobs scrapes it: not down",
                {target: "0x30", up("gpuvigil-agent", **NODE, instance="n1:9841"): "1x30"},
                {"5m": ()},
            ),
        ),
    )


@GROUP.alert
def agent_down_many(t: Thresholds) -> Alert:
    down = f"count by (cluster) (max by (cluster, node) ({AGENTS}) == 0)"
    total = f"count by (cluster) (max by (cluster, node) ({AGENTS}))"

    def nodes(lost: int, of: int) -> dict[str, str]:
        return {
            up("gpuvigil-agent", cluster="c1", node=f"n{i}"): "1x3 0x20 1x60" if i < lost else "1x90" for i in range(of)
        }

    return Alert(
        name="AgentDownMany",
        severity="page",
        fault="agent_down",
        scope="cluster",
        action="CHECK_NETWORK",
        condition=f"{down} >= {t.agent_down_nodes}\nand on (cluster)\n  {down} / {total} > "
        f"{number(t.agent_down_share)}",
        timing=t.timings.agent_down_many,
        summary="Many agents of {{ $labels.cluster }} do not answer",
        description="{{ $value }} agents of {{ $labels.cluster }} do not answer: look for what they share.",
        dashboard="fleet_cluster",
        runbook=Runbook(
            meaning="A good part of a cluster's agents cannot be scraped. Nodes seldom die together; networks and "
            "roll-outs do. The single AgentDown tickets are inhibited meanwhile.",
            impact="A part of the cluster is unwatched, and may be unreachable for users as well.",
            diagnosis="1. What do the nodes share: switch, rack, power, a roll-out, a certificate that expired?\n"
            "2. Can Prometheus' host reach them at all?",
            mitigation="Repair the common cause; roll the deployment back if it came with one.",
        ),
        cases=(
            Case(
                "fires, resolves",
                nodes(3, 10),
                {
                    "1m45s": (),
                    "2m": (Firing({"cluster": "c1"}, "3 agents of c1 do not answer: look for what they share."),),
                    "15m": (),
                },
            ),
            Case("just under the number", nodes(2, 10), {"5m": ()}),
            Case("just under the share: 3 of 60 is 5 %", nodes(3, 60), {"5m": ()}),
            Case(
                "an agent scraped at two addresses is one agent",
                nodes(2, 10) | {up("gpuvigil-agent", cluster="c1", node=f"n{i}", instance="b"): "0x90" for i in (0, 1)},
                {"5m": ()},
            ),
        ),
    )


@GROUP.alert
def agent_absent(t: Thresholds) -> Alert:
    return Alert(
        name="AgentAbsent",
        severity="page",
        fault="agent_absent",
        scope="monitoring",
        action="CHECK_CONFIG",
        condition=f"max(absent({AGENTS}))",
        timing=t.timings.agent_absent,
        summary="Prometheus has no agent to scrape",
        description="No target of the job gpuvigil-agent: every rule about nodes is blind.",
        dashboard="fleet_all",
        runbook=Runbook(
            meaning="The job `gpuvigil-agent` has no targets at all, so AgentDown has nothing to be down.",
            impact="No node is watched.",
            diagnosis="1. Prometheus' `/targets` and `/service-discovery`.\n"
            "2. The files under `targets/`: readable, valid YAML, not empty?\n3. Was the job renamed?",
            mitigation="Restore the target files; `promtool check config` before a reload.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves",
                {up("gpuvigil-agent", **NODE): "_x28 1x20"},
                {
                    "4m45s": (),
                    "6m": (Firing({}),),
                    "8m": (),
                },
            ),
            Case(
                "just under: the targets are back before the hold is over",
                {up("gpuvigil-agent", **NODE): "_x19 1x20"},
                {"4m45s": (), "6m": ()},
            ),
            Case(
                "a target that is down is still a target",
                {up("gpuvigil-agent", **NODE): "0x40"},
                {"9m": ()},
            ),
        ),
    )


@GROUP.alert
def agent_stale(t: Thresholds) -> Alert:
    """Compares each agent's own two clocks, so that a node with a wrong clock is not taken for stale."""
    start = f"0 * {own.PERIOD} + ignoring (collector) group_left () {own.START_TIME}"
    allowed = f"clamp_min({number(t.stale_periods)} * {own.PERIOD}, {number(t.stale_floor)})"
    gpu = {**NODE, "collector": "gpu"}
    snapshot, success, every = own.TICK_TIME(**NODE), own.LAST_SUCCESS(**gpu), own.PERIOD(**gpu)

    def told(age: str) -> str:
        return f"The collector gpu of n1 last succeeded {age} ago; its series are absent."

    return Alert(
        name="AgentStale",
        severity="ticket",
        fault="agent_stale",
        scope="node",
        action="CHECK_AGENT",
        condition="max by (cluster, node, collector) (\n"
        f"  {own.TICK_TIME} - ignoring (collector) group_right ()\n"
        f"    ({own.LAST_SUCCESS} or {start})\n"
        f"  > {allowed}\n)",
        timing=t.timings.agent_stale,
        summary="The collector {{ $labels.collector }} of {{ $labels.node }} brings nothing new",
        description="The collector {{ $labels.collector }} of {{ $labels.node }} last succeeded"
        " {{ $value | humanizeDuration }} ago; its series are absent.",
        dashboard="fleet",
        runbook=Runbook(
            meaning="One collector of an agent that answers has not succeeded for several of its periods. Its series "
            "are absent, not frozen; the others go on.",
            impact="What this collector watches is unwatched: alerts on it cannot fire.",
            diagnosis="1. `gpuvigil_collector_errors_total` has the reason; `gpuvigil_collector_stuck_seconds` above 0 "
            "is a call that does not return.\n2. `journalctl -u gpuvigil-agent -n 50`.\n3. `gpuvigil doctor`.",
            mitigation="Repair the source (mount, engine, driver, permission). Restarting the agent helps only if the "
            "source has come back.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves",
                {snapshot: "0+15x100", success: "0+15x4 60x20 375+15x20", every: "15x100"},
                {"2m45s": (), "3m": (Firing(gpu, told("2m 0s")),), "7m": ()},
            ),
            Case(
                "just under: the last success is exactly three periods old",
                {snapshot: "0+15x40", success: "_x3 0+15x40", every: "15x40"},
                {"5m": ()},
            ),
            Case(
                "never succeeded: counted from the agent's start",
                {snapshot: "0+15x40", own.START_TIME(**NODE): "0x40", every: "15x40"},
                {"3m": (Firing(gpu, told("3m 0s")),)},
            ),
            Case(
                "a node's clock an hour behind is not staleness",
                {snapshot: "-3600+15x40", success: "-3600+15x40", every: "15x40"},
                {"5m": ()},
            ),
            Case(
                "a slow collector is judged by its own period",
                {snapshot: "0+15x80", success: "0x80", every: "300x80"},
                {"15m": (), "17m": (Firing(gpu, told("17m 0s")),)},
            ),
            Case(
                "two agents on one node: what succeeds in one is no success of the other",
                {
                    **{own.TICK_TIME(**NODE, instance=at): "0+15x40" for at in "ab"},
                    **{own.PERIOD(**gpu, instance=at): "15x40" for at in "ab"},
                    own.LAST_SUCCESS(**gpu, instance="a"): "0+15x40",
                    own.LAST_SUCCESS(**gpu, instance="b"): "0x40",
                },
                {"3m": (Firing(gpu, told("3m 0s")),)},
            ),
            Case(
                "the agent moved: the old address stands still as a whole, which is not staleness",
                {
                    own.TICK_TIME(**NODE, **OLD): "0+15x3 60x17",
                    own.PERIOD(**gpu, **OLD): "15x20",
                    own.LAST_SUCCESS(**gpu, **OLD): "0+15x3 60x17",
                    own.TICK_TIME(**NODE, **NEW): "_x3 60+15x17",
                    own.PERIOD(**gpu, **NEW): "_x3 15x17",
                    own.LAST_SUCCESS(**gpu, **NEW): "_x3 60+15x17",
                },
                {"5m": ()},
            ),
        ),
    )
