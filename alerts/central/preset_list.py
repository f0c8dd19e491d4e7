"""What the presets watch, a set a domain. `detail` is the rest of the catalogue, for those who ask for it.

The sets that are on by default keep a node of eight GPUs within 96 series. Floors are in the metric's
unit: a starting point, to be tuned by `gpuvigil detect tune`.
"""

from __future__ import annotations

from typing import Any

from agent.base.catalogue import energy, gpu, hardware, kernel, llm, mig, node, train
from alerts.central.preset import by_labels, events, level, monitor, quantile, rate
from alerts.central.settings import Capacity, Monitor


def _gpu() -> list[Monitor]:
    return [
        level("gpu-utilization", gpu.UTILIZATION, "both"),
        level("gpu-memory-used", gpu.MEMORY_USED, "above", 1e9),
        level("gpu-temperature", gpu.TEMPERATURE, "above"),
        level("gpu-power", gpu.POWER, "both", 35.0),
        level("gpu-sm-clock", gpu.CLOCK, "below", 5e7, where={"clock": "sm"}),
        events("gpu-ecc-corrected", gpu.ECC_ERRORS, where={"severity": "corrected", "lifetime": "volatile"}),
        events("gpu-pcie-replays", gpu.PCIE_REPLAYS),
        events("gpu-nvlink-errors", gpu.NVLINK_ERRORS, drop=("kind",)),
    ]


def _inference() -> list[Monitor]:
    return [
        quantile("ttft-p95", llm.TTFT, 0.95, 0.05),
        quantile("inter-token-p95", llm.INTER_TOKEN, 0.95, 0.005),
        quantile("e2e-p95", llm.E2E, 0.95, 0.25),
        level("requests-waiting", llm.WAITING, "above", 5.0, model="robust"),
        level("kv-cache-usage", llm.KV_CACHE, "above", min_dev_rel=0.1),
        rate("generated-tokens", llm.GENERATED_TOKENS, "both", 1.0),
    ]


def _node() -> list[Monitor]:
    by = by_labels(node.TCP_SENT)
    again, sent = (f"sum by ({by}) (rate({m.name}[5m]))" for m in (node.TCP_RETRANSMITTED, node.TCP_SENT))
    return [
        level("cpu-utilization", node.CPU_UTILIZATION, "above", min_dev_rel=0.1),
        level("memory-available", node.MEMORY_AVAILABLE, "below", 1e9),
        level("swap-used", node.SWAP_USED, "above", 1e9, model="robust"),
        level("processes-blocked", node.PROCESSES_BLOCKED, "above", 5.0, model="robust"),
        rate("pressure-stalled", hardware.PRESSURE_STALLED, "above", 0.05),
        rate("network-received", node.NET_RECEIVED, "both", 1e7),
        events("network-errors", node.NET_ERRORS, 10.0, drop=("device", "direction", "kind")),
        monitor("tcp-retransmitted", f"{again} / ({sent} > 0)", "above", 0.01, model="robust", min_dev_rel=0.0),
        events("infiniband-errors", hardware.IB_ERRORS, 10.0, drop=("device", "port", "kind")),
        events("host-memory-errors", hardware.EDAC_ERRORS, drop=("controller",)),
        events("oom-kills", node.OOM_KILLS),
    ]


def _training() -> list[Monitor]:
    early: dict[str, Any] = {"model": "robust", "min_history": "4h"}
    return [
        level("step-time", train.STEP_SECONDS, "above", 0.0, **early),
        level("train-tokens", train.TOKENS_RATE, "below", 1.0, **early),
        level("train-mfu", train.MFU, "below", **early),
        level("train-loss", train.LOSS, "above", 0.0, min_dev_rel=0.05, **early),
        level("train-grad-norm", train.GRAD_NORM, "above", 0.0, min_dev_rel=0.5, **early),
        events("train-loss-nonfinite", train.LOSS_NONFINITE),
    ]


def _detail() -> list[Monitor]:
    return [*_gpu_detail(), *_mig(), *_node_detail(), *_hardware(), *_energy(), *_inference_detail(), *_train_detail()]


def _gpu_detail() -> list[Monitor]:
    return [
        level("gpu-sm-activity", gpu.SM_ACTIVITY, "both"),
        level("gpu-sm-occupancy", gpu.SM_OCCUPANCY, "both"),
        level("gpu-tensor-activity", gpu.TENSOR_ACTIVITY, "both"),
        level("gpu-encoder", gpu.ENCODER, "both"),
        level("gpu-decoder", gpu.DECODER, "both"),
        level("gpu-memory-activity", gpu.MEMORY_ACTIVITY, "both"),
        level("gpu-dram-bandwidth", gpu.DRAM_BANDWIDTH_RATIO, "both"),
        level("gpu-bar1-used", gpu.BAR1_USED, "above", 1e9),
        level("gpu-processes", gpu.PROCESSES, "both", 1.0, model="robust"),
        level("gpu-fan", gpu.FAN, "both", data_range=None),  # above 1 on some boards: against the nominal maximum
        level("gpu-pcie-tx", gpu.PCIE_TX, "both", 6e8),
        level("gpu-pcie-rx", gpu.PCIE_RX, "both", 6e8),
        rate("gpu-nvlink-tx", gpu.NVLINK_TX, "both", 4.5e9),
        rate("gpu-nvlink-rx", gpu.NVLINK_RX, "both", 4.5e9),
        level("gpu-c2c-tx", gpu.C2C_TX, "both", 4.5e9),
        level("gpu-c2c-rx", gpu.C2C_RX, "both", 4.5e9),
        rate(
            "gpu-throttled",
            gpu.THROTTLE_SECONDS,
            "above",
            0.05,
            where={"reason": "!~.*idle.*|low_utilization"},
            min_dev_rel=0.0,
        ),
        events("gpu-pcie-errors", gpu.PCIE_ERRORS, drop=("kind",)),
        events("gpu-pcie-aer", gpu.PCIE_AER),
        events("gpu-c2c-errors", gpu.C2C_ERRORS, drop=("kind",)),
        events("gpu-call-errors", gpu.CALL_ERRORS, 10.0, drop=("call",)),
        events("gpu-child-restarts", gpu.CHILD_RESTARTS),
        level("gpu-remapped-rows", gpu.REMAPPED_ROWS, "above", 1.0, model="robust", min_dev_rel=0.0),
        level("gpu-retired-pages", gpu.RETIRED_PAGES, "above", 1.0, model="robust", min_dev_rel=0.0),
        events("nvswitch-errors", kernel.SXID_EVENTS, drop=("pci_bus_id", "sxid")),
        events("kernel-events", kernel.EVENTS),
    ]


def _mig() -> list[Monitor]:
    return [
        level("mig-memory-used", mig.MEMORY_USED, "above", 1e9),
        level("mig-sm-activity", mig.SM_ACTIVITY, "both"),
        level("mig-sm-occupancy", mig.SM_OCCUPANCY, "both"),
        level("mig-tensor-activity", mig.TENSOR_ACTIVITY, "both"),
        level("mig-graphics-activity", mig.GRAPHICS, "both"),
        level("mig-dram-bandwidth", mig.DRAM_RATIO, "both"),
        level("mig-pcie-tx", mig.PCIE_TX, "both", 6e8),
        level("mig-pcie-rx", mig.PCIE_RX, "both", 6e8),
    ]


def _node_detail() -> list[Monitor]:
    return [
        level("load", node.LOAD1, "above", 4.0, min_dev_rel=0.2),
        rate("network-sent", node.NET_SENT, "both", 1e7),
        rate("disk-read", node.DISK_READ, "both", 1e7),
        rate("disk-written", node.DISK_WRITTEN, "both", 1e7),
        rate("disk-busy", node.DISK_BUSY, "above", 0.05, data_range=(0, 1), min_dev_rel=0.0),
        level("inodes-free", node.FS_INODES_FREE, "below", 1e4, where={"fstype": REAL}),
        level("mount-answer", node.FS_PROBE_SECONDS, "above", 0.05, model="robust"),
    ]


def _hardware() -> list[Monitor]:
    return [
        rate("infiniband-received", hardware.IB_RECEIVED, "both", 5e8),
        rate("infiniband-sent", hardware.IB_SENT, "both", 5e8),
        rate("infiniband-congestion", hardware.IB_CONGESTION, "above", 100.0, drop=("kind",)),
        rate("pressure-waiting", hardware.PRESSURE_WAITING, "above", 0.05),
        rate("memory-traffic", hardware.MEMORY_TRAFFIC, "both", 3e9),
        rate("memory-controller-traffic", hardware.UNCORE_TRAFFIC, "both", 3e9),
        level("llc-occupancy", hardware.LLC_OCCUPANCY, "both", 1e6),
        events("unit-restarts", hardware.UNIT_RESTARTS),
        level("nvme-temperature", hardware.NVME_TEMPERATURE, "above"),
        level("nvme-spare", hardware.NVME_SPARE, "below", model="robust"),
        events("nvme-media-errors", hardware.NVME_MEDIA_ERRORS),
        events("nvme-unsafe-shutdowns", hardware.NVME_UNSAFE),
        level("raid-mismatches", hardware.RAID_MISMATCHES, "above", 8.0, model="robust"),
        level("ups-runtime", hardware.UPS_RUNTIME, "below", 60.0),
        level("ups-charge", hardware.UPS_CHARGE, "below"),
        level("ups-load", hardware.UPS_LOAD, "above", data_range=None),
        level("ups-power", hardware.UPS_POWER, "both", 100.0),
        level("ups-voltage", hardware.UPS_VOLTAGE, "both", 10.0, min_dev_rel=0.05),
        level("node-temperature", hardware.TEMPERATURE, "above"),
        level("node-sensor-power", hardware.POWER, "both", 20.0),
        level("node-fan", hardware.FAN, "both", 300.0),
        level("chassis-power", hardware.CHASSIS_POWER, "both", 100.0),
        level("coolant-temperature", hardware.COOLANT_TEMPERATURE, "above", 2.0),
        level("coolant-flow", hardware.COOLANT_FLOW, "below", 1e-5),
    ]


def _energy() -> list[Monitor]:
    return [
        rate("node-energy", energy.NODE, "both", 100.0),
        rate("cpu-energy", energy.CPU, "both", 20.0),
        level("pue", energy.PUE, "above", data_range=None),
        rate("engine-energy", energy.ENGINE, "both", 35.0),
        level("energy-per-1000-tokens", energy.PER_1000_TOKENS, "above", 1.0, model="robust"),
        level("energy-per-step", energy.PER_STEP, "above", 1.0, model="robust"),
    ]


def _inference_detail() -> list[Monitor]:
    by = by_labels(llm.PREFIX_QUERIES)
    hits, asked = (f"sum by ({by}) (rate({m.name}[5m]))" for m in (llm.PREFIX_HITS, llm.PREFIX_QUERIES))
    share: dict[str, Any] = {"model": "robust", "min_dev_rel": 0.0, "data_range": (0, 1)}
    return [
        quantile("queue-p95", llm.QUEUE, 0.95, 0.05),
        quantile("prefill-p95", llm.PREFILL, 0.95, 0.05),
        quantile("decode-p95", llm.DECODE, 0.95, 0.25),
        level("requests-running", llm.RUNNING, "both", 5.0, model="robust"),
        rate("requests", llm.REQUESTS, "both", 0.1),
        rate("prompt-tokens", llm.PROMPT_TOKENS, "both", 10.0),
        events("preemptions", llm.PREEMPTIONS, 5.0),
        monitor("prefix-cache-hits", f"{hits} / ({asked} > 0)", "below", 0.05, **share),
        events("probe-failures", llm.PROBES, where={"result": "!=ok"}),
        level("probe-tokens", llm.PROBE_TOKENS_RATE, "below", 1.0, model="robust"),
        level("engine-health-time", llm.HEALTH_SECONDS, "above", 0.05, model="robust"),
        level("engine-scrape-time", llm.SCRAPE_SECONDS, "above", 0.05, model="robust"),
        events("engine-scrape-failures", llm.SCRAPE_FAILURES),
    ]


def _train_detail() -> list[Monitor]:
    peers: dict[str, Any] = {"model": "peers", "peers_by": ("cluster", "job_id"), "min_history": "10m"}
    return [
        level("rank-step-time", train.RANK_STEP_SECONDS, "above", 0.0, **peers),
        level("validation-loss", train.VALIDATION_LOSS, "above", 0.0, model="robust", min_dev_rel=0.05),
        level("train-communication", train.COMMUNICATION, "above", model="robust"),
        events("train-restarts", train.RESTARTS),
        events("train-lines-unparsed", train.UNPARSED, 10.0),
        level("checkpoint-size", train.CHECKPOINT_BYTES, "both", 1e9, model="robust"),
        level("checkpoint-write-time", train.CHECKPOINT_WRITE_SECONDS, "above", 10.0, model="robust", min_dev_rel=0.2),
        events("checkpoint-verify-failures", train.CHECKPOINT_VERIFY_FAILURES),
    ]


REAL = "!~tmpfs|ramfs|overlay|squashfs|devtmpfs"


def _resource(name: str, query: str) -> Capacity:
    return Capacity.model_validate({"name": name, "query": query})


def _gpu_resources() -> list[Capacity]:
    by = by_labels(gpu.MEMORY_USED)
    used = f"max by ({by}) (max_over_time({gpu.MEMORY_USED.name}[1h]))"
    power = f"sum by (cluster, node, synthetic) (avg_over_time({gpu.POWER.name}[1h]))"
    return [
        _resource("gpu-memory", f"{used} / max by ({by}) ({gpu.MEMORY_TOTAL.name})"),
        _resource("power-budget", f"{power} / sum by (cluster, node, synthetic) ({gpu.POWER_LIMIT.name})"),
    ]


def _inference_resources() -> list[Capacity]:
    by = by_labels(llm.KV_CACHE)
    made = f"sum by ({by}) (rate({llm.GENERATED_TOKENS.name}[5m]))"
    queued = f"sum by ({by}) (avg_over_time({llm.WAITING.name}[5m])) >= 1"
    return [
        _resource("kv-cache", f"max by ({by}) (max_over_time({llm.KV_CACHE.name}[1h]))"),
        # What an engine can do is known from when requests waited: until it has, no forecast is made.
        _resource("request-load", f"max_over_time(({made})[1h:5m]) / max_over_time(({made} and {queued})[14d:1h])"),
    ]


def _node_resources() -> list[Capacity]:
    return [
        _resource("disk", f"1 - {node.FS_AVAIL('', fstype=REAL)} / {node.FS_SIZE('', fstype=REAL)}"),
        _resource("nvme-life", f"max by ({by_labels(hardware.NVME_USED)}) ({hardware.NVME_USED.name})"),
    ]


MONITORS = {"gpu": _gpu, "inference": _inference, "node": _node, "training": _training, "detail": _detail}
RESOURCES = {"gpu": _gpu_resources, "inference": _inference_resources, "node": _node_resources}
