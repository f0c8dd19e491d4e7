"""The configuration files of the demo's parts: quick scrapes, no hold times, everything on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from agent.base.catalogue import llm, node
from chaos.demo.layout import Layout

NODE = "demo-node"
CLUSTER = "demo"
ENGINE = "tiny-llm"
JOB = "demo-train"
GPUS = 8
ENGINE_GPU = 3
STEPS, PACE, LOG_EVERY, SAVE_EVERY = 1200, 0.5, 4, 40
"""The training job: steps, seconds a step, and steps between lines and between checkpoints."""


class _Plain(yaml.SafeDumper):
    """No anchors: the demo's files are there to be read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write(path: Path, document: Any) -> Path:
    path.write_text(yaml.dump(document, Dumper=_Plain, sort_keys=False), encoding="utf-8")
    return path


def local(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def agent(layout: Layout, ports: dict[str, int], simulated: bool) -> Path:
    """agent.yaml: every collector each second, the demo's engine and training job."""
    quick = {"period": "1s"}
    return write(
        layout.config("agent"),
        {
            "node": NODE,
            "cluster": CLUSTER,
            "listen": f"127.0.0.1:{ports['agent']}",
            "state_dir": str(layout.state("agent")),
            "run_dir": str(layout.run),
            "tick": "1s",
            "prometheus_url": local(ports["prometheus"]),
            "alertmanager_urls": [local(ports["alertmanager"])],
            "collectors": {
                "gpu": {
                    **quick,
                    "retry_lost": "2s",
                    "call_deadline": "2s",
                    **({"expected": GPUS} if simulated else {}),
                },
                "xid": {**quick, **({"kmsg": str(layout.kmsg)} if simulated else {})},
                "host": quick,
                "drill": quick,
                "inference": {
                    **quick,
                    "engines": [
                        {
                            "name": ENGINE,
                            "kind": "llama.cpp",
                            "url": local(ports["engine"]),
                            "model": "tiny",
                            "pid_file": str(layout.engine_pid),
                            "probe": {"period": "2s", "max_tokens": 16, "timeout": "5s"},
                        }
                    ],
                },
                "training": {
                    **quick,
                    "jobs": [
                        {
                            "job_id": JOB,
                            "log": str(layout.log("training")),
                            "steps_planned": STEPS,
                            "planned": f"{round(STEPS * PACE)}s",
                        }
                    ],
                },
                "checkpoint": {
                    **quick,
                    "jobs": [
                        {
                            "job_id": JOB,
                            "directory": str(layout.checkpoints),
                            # twice the job's pace: a stack that was stopped and came back is no page
                            "interval": f"{2 * SAVE_EVERY * PACE:g}s",
                        }
                    ],
                },
            },
        },
    )


def prometheus(layout: Layout, ports: dict[str, int]) -> Path:
    """prometheus.yml: scrape and evaluate each second, our rules, our Alertmanager."""
    return write(
        layout.config("prometheus"),
        {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(layout.rules / "*.yaml"), str(layout.rules / "*.yml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{ports['alertmanager']}"]}]}]},
            "scrape_configs": [
                {
                    "job_name": "gpuvigil-agent",
                    "static_configs": [
                        {
                            "targets": [f"127.0.0.1:{ports['agent']}"],
                            # a name that does not change with the port: with kept data, a GPU's old
                            # series would otherwise stand beside its new one for five minutes
                            "labels": {"node": NODE, "cluster": CLUSTER, "instance": f"{NODE}:agent"},
                        }
                    ],
                },
                {
                    "job_name": "gpuvigil-central",
                    "honor_labels": True,
                    "static_configs": [
                        {
                            "targets": [f"127.0.0.1:{ports['central']}"],
                            "labels": {"cluster": CLUSTER, "instance": "central"},
                        }
                    ],
                },
            ],
        },
    )


def central(layout: Layout, ports: dict[str, int]) -> Path:
    """central.yaml: a Prophet monitor on inference latency, the training ETA, a 14-day disk forecast."""
    ttft = llm.TTFT("bucket", engine=ENGINE)
    sizes = {"mountpoint": "/"}
    return write(
        layout.config("central"),
        {
            "listen": f"127.0.0.1:{ports['central']}",
            "state_dir": str(layout.state("central")),
            "mask_tail": "5s",
            "prometheus": {"url": local(ports["prometheus"]), "timeout": "10s"},
            "training": {"every": "5s", "step": "5s", "history": "1h"},
            "monitors": [
                {
                    "name": "inference_ttft_p95",
                    "query": f"histogram_quantile(0.95, sum by (cluster, node, engine, model, le) (rate({ttft}[1m])))",
                    "model": "prophet",
                    "step": "5s",
                    "fit_window": "1h",
                    "fit_every": "1m",
                    "min_history": "3m",
                    "direction": "above",
                    "min_dev_abs": 0.05,
                    "synthetic": "include",
                }
            ],
            "capacity": [
                {
                    "name": "disk_root",
                    "query": f"1 - {node.FS_AVAIL(**sizes)} / {node.FS_SIZE(**sizes)}",
                    "horizon": "14d",
                    "step": "10s",
                    "history": "3d",
                    "every": "10s",
                    "synthetic": "include",
                }
            ],
        },
    )


def target(layout: Layout, ports: dict[str, int], library: Path) -> Path:
    """target.yaml: what a drill may touch here, and whom it asks."""
    return write(
        layout.target,
        {
            "kind": "simulator",
            "node": NODE,
            "sim_state": str(layout.world),
            "sim_library": str(library),
            "kmsg": str(layout.kmsg),
            "agent": local(ports["agent"]),
            "prometheus": local(ports["prometheus"]),
            "sink": local(ports["sink"]),
            "run_dir": str(layout.run),
            "state_dir": str(layout.state("chaos")),
            "engines": [{"name": ENGINE, "pid_file": str(layout.engine_pid)}],
        },
    )


def rules(layout: Layout, ports: dict[str, int]) -> Path:
    """Overrides of the rules' demo profile: runbooks are read from the sink."""
    return write(layout.config("rules"), {"links": {"runbooks": local(ports["sink"]) + "/runbooks"}})
