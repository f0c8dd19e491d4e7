"""The fleet: is anything bad, and where? The first board opened at 3 am."""

from __future__ import annotations

from agent.base.catalogue import gpu, llm, node, self
from dashboards.lib import (
    SCOPE,
    Board,
    Query,
    at,
    paint,
    right_axis,
    select,
    series,
    stat,
    table,
    timeline,
    variable,
)

GREEN_RED = ((None, "green"), (1, "red"))
GREEN_YELLOW = ((None, "green"), (1, "yellow"))
SIDE = ",".join(f'{key}{value[:2]}"{value[2:]}"' for key, value in SCOPE.items() if key != "job")


def build() -> Board:
    board = Board(
        uid="gpuvigil-fleet",
        title="gpuvigil / Fleet",
        description="All nodes and their GPUs: what is bad now, the worst of each kind, and the load behind it.",
        variables=[variable("engine", "Engine", f"label_values({llm.ENGINE_UP}, engine)")],
    )
    _is_it_bad(board)
    _nodes(board)
    _load(board)
    _inference(board)
    return board


def _is_it_bad(board: Board) -> None:
    up = f'up{{{SIDE},job=~"$job"}}'
    stat(
        board, 1, "Agents down",
        "Nodes whose agent does not answer Prometheus (metric up). Do: systemctl status gpuvigil-agent on the node.",
        at(0, 0, 3, 4), Query(f"count({up} == 0) or 0 * count({up})"), colours=GREEN_RED,
    )  # fmt: skip
    stat(
        board, 2, "GPUs lost",
        f"Known GPUs that no longer answer (metric {gpu.UP}). Do: follow the GpuLost runbook.",
        at(3, 0, 3, 4), Query(f"count({select(gpu.UP)} == 0) or 0 * count({select(gpu.UP)})"), colours=GREEN_RED,
    )  # fmt: skip
    stat(
        board, 3, "GPUs missing",
        f"GPUs expected but never seen (metrics {gpu.EXPECTED} and {gpu.KNOWN}). Do: check seating, power and the PCI bus.",
        at(6, 0, 3, 4), Query(f"sum(clamp_min({select(gpu.EXPECTED)} - {select(gpu.KNOWN)}, 0))"), colours=GREEN_RED,
    )  # fmt: skip
    stat(
        board, 4, "Xids calling for action, 1 h",
        f"Xid events whose action is a reset, a reboot or support (metric {gpu.XID_EVENTS}).",
        at(9, 0, 3, 4),
        Query(f"round(sum(increase({select(gpu.XID_EVENTS, action='!~IGNORE|RESTART_APP|UPDATE_SWFW')}[1h])))"),
        colours=GREEN_RED,
    )  # fmt: skip
    stat(
        board, 5, "Pages firing",
        "Alerts of severity page that fire now, drills left out (series ALERTS).",
        at(12, 0, 3, 4),
        Query(
            f'count(ALERTS{{alertstate="firing",severity="page",drill="",synthetic="",{SIDE}}}) or 0 * count({up})'
        ),
        colours=GREEN_RED,
    )  # fmt: skip
    stat(
        board, 6, "Drills and simulated nodes",
        f"Nodes whose GPU values are simulated (metric {self.SIMULATED}): what they show proves nothing about hardware.",
        at(15, 0, 3, 4), Query(f"sum({select(self.SIMULATED)})", empty="no agent reads GPUs"),
        colours=((None, "green"), (1, "purple")),
    )  # fmt: skip
    stat(
        board, 7, "Collectors failing",
        f"Collectors whose last run failed (metric {self.SUCCESS}). Do: curl the agent's / page, or gpuvigil doctor.",
        at(18, 0, 3, 4),
        Query(f"count({select(self.SUCCESS)} == 0) or 0 * count({select(self.SUCCESS)})"), colours=GREEN_YELLOW,
    )  # fmt: skip
    stat(
        board, 8, "Nodes in maintenance",
        f"Nodes whose pages are kept quiet (metric {node.MAINTENANCE_UNTIL}).",
        at(21, 0, 3, 4),
        Query(
            f"count({select(node.MAINTENANCE_UNTIL)} > time()) or 0 * count({select(node.MAINTENANCE_UNTIL)})"
        ),
        colours=((None, "green"), (1, "blue")),
    )  # fmt: skip


def _nodes(board: Board) -> None:
    temperature = select(gpu.TEMPERATURE, sensor="core")
    table(
        board, 10, "Nodes",
        "One row a node. A column without a value is not reported, which is not zero. Click a node on the node board for detail.",
        at(0, 4, 14, 8),
        [
            Query(f"sum by (node) ({select(gpu.UP)})"),
            Query(f"max by (node) ({select(gpu.EXPECTED)})"),
            Query(f"avg by (node) ({select(gpu.UTILIZATION)})"),
            Query(f"sum by (node) ({select(gpu.POWER)})"),
            Query(f"max by (node) ({temperature})"),
            Query(f"max by (node) ({select(gpu.DRAM_BANDWIDTH_RATIO)})", empty="no GPU with GPM"),
            Query(f"max by (node) ({select(node.CPU_UTILIZATION)})"),
            Query(f"1 - min by (node) ({select(node.MEMORY_AVAILABLE)} / {select(node.MEMORY_TOTAL)})"),
        ],
        key="node",
        columns=[
            ("GPUs up", "none"), ("GPUs expected", "none"), ("GPU utilisation", "percentunit"), ("Power", "watt"),
            ("Hottest GPU", "celsius"), ("DRAM bandwidth", "percentunit"), ("CPU", "percentunit"), ("Memory used", "percentunit"),
        ],
    )  # fmt: skip
    timeline(
        board, 11, "GPUs that are not well",
        f"State of each GPU (metric {gpu.UP}). LOST: it was known and no longer answers. Grey: the driver hangs or the agent is down.",
        at(14, 4, 10, 8),
        [Query(f"min by (node, gpu) ({select(gpu.UP)})", "{{node}} GPU {{gpu}}")],
        {"0": ("LOST", "red"), "1": ("up", "green")},
    )  # fmt: skip


def _load(board: Board) -> None:
    utilisation = select(gpu.UTILIZATION)
    series(
        board, 20, "GPU utilisation and power",
        f"Left: utilisation over all GPUs, median and the lowest tenth (metric {gpu.UTILIZATION}). Right: power of all GPUs "
        f"(metric {gpu.POWER}). Utilisation at 100 % with little power is a hung collective.",
        at(0, 12, 12, 8),
        [
            Query(f"quantile(0.5, {utilisation})", "utilisation, median"),
            Query(f"quantile(0.1, {utilisation})", "utilisation, lowest tenth"),
            Query(f"sum({select(gpu.POWER)})", "power, all GPUs"),
        ],
        unit="percentunit", label="GPU utilisation", low=0, high=1,
        overrides=[right_axis("/power/", "power", "watt", low=0), paint("/lowest/", "orange", dash=True)],
    )  # fmt: skip
    series(
        board, 21, "Hottest GPUs and memory bandwidth",
        f"Left: the eight hottest GPUs (metric {gpu.TEMPERATURE}). Right: mean DRAM bandwidth (metric {gpu.DRAM_BANDWIDTH_RATIO}).",
        at(12, 12, 12, 8),
        [
            Query(f"topk(8, max by (node, gpu) ({select(gpu.TEMPERATURE, sensor='core')}))", "{{node}} GPU {{gpu}}"),
            Query(f"avg({select(gpu.DRAM_BANDWIDTH_RATIO)})", "DRAM bandwidth, mean", empty="no GPU with GPM"),
        ],
        unit="celsius", label="core temperature",
        overrides=[right_axis("/DRAM/", "DRAM bandwidth", "percentunit", low=0, high=1), paint("/DRAM/", "purple")],
    )  # fmt: skip
    series(
        board, 22, "Clocks held down",
        f"GPUs throttled, by reason (metric {gpu.THROTTLE}). hw_thermal and hw_power_brake want cooling and power looked at.",
        at(0, 20, 12, 7),
        [Query(f"sum by (reason) ({select(gpu.THROTTLE)})", "{{reason}}")],
        label="GPUs", low=0,
    )  # fmt: skip
    series(
        board, 23, "PCIe and NVLink traffic",
        f"Left: PCIe, all GPUs (metrics {gpu.PCIE_TX}, {gpu.PCIE_RX}). Right: NVLink payload (metric {gpu.NVLINK_TX}).",
        at(12, 20, 12, 7),
        [
            Query(f"sum({select(gpu.PCIE_TX)})", "PCIe sent"),
            Query(f"sum({select(gpu.PCIE_RX)})", "PCIe received"),
            Query(f"sum(rate({select(gpu.NVLINK_TX)}[$__rate_interval]))", "NVLink sent", empty="no NVLink"),
        ],
        unit="Bps", label="PCIe", low=0,
        overrides=[right_axis("/NVLink/", "NVLink", "Bps", low=0)],
    )  # fmt: skip


def _inference(board: Board) -> None:
    bucket = select(llm.TTFT, "bucket", engine="=~$engine")
    series(
        board, 30, "Time to first token, p95",
        f"By engine, native or probed (metric {llm.TTFT.stem}). The dashed line is the objective of 1 s.",
        at(0, 27, 12, 8),
        [
            Query(
                f"histogram_quantile(0.95, sum by (le, node, engine, source) (rate({bucket}[$__rate_interval])))",
                "{{node}} {{engine}} ({{source}})",
            )
        ],
        unit="s", label="TTFT p95", limit=1.0, low=0,
    )  # fmt: skip
    series(
        board, 31, "Requests and tokens",
        f"Left: requests running and waiting (metrics {llm.RUNNING}, {llm.WAITING}). Right: tokens generated (metric {llm.GENERATED_TOKENS}).",
        at(12, 27, 12, 8),
        [
            Query(f"sum({select(llm.RUNNING, engine='=~$engine')})", "running"),
            Query(f"sum({select(llm.WAITING, engine='=~$engine')})", "waiting"),
            Query(f"sum(rate({select(llm.GENERATED_TOKENS, engine='=~$engine')}[$__rate_interval]))", "tokens per second"),
        ],
        label="requests", low=0,
        overrides=[right_axis("/tokens/", "tokens per second", "none", low=0)],
    )  # fmt: skip
