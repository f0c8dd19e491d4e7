"""MIG: the instances of partitioned GPUs. Parent and instances are never added up."""

from __future__ import annotations

from agent.base.catalogue.gpu import GPU
from agent.base.catalogue.metric import Metric

MODE = Metric("gpuvigil_gpu_mig_mode", "gauge", "1 if the GPU is partitioned (MIG).", labels=GPU)
INFO = Metric(
    "gpuvigil_gpu_mig",
    "info",
    "Each MIG instance with its UUID and profile, such as 3g.40gb.",
    labels=(*GPU, "gpu_instance", "mig_uuid", "profile"),
)
MEMORY_TOTAL = Metric(
    "gpuvigil_gpu_mig_memory_total_bytes", "gauge", "Memory of a MIG instance.", "bytes", (*GPU, "gpu_instance")
)
MEMORY_USED = Metric(
    "gpuvigil_gpu_mig_memory_used_bytes", "gauge", "Memory in use in a MIG instance.", "bytes", (*GPU, "gpu_instance")
)
SM_ACTIVITY = Metric(
    "gpuvigil_gpu_mig_sm_activity_ratio",
    "gauge",
    "SM activity of a MIG instance (GPM).",
    "ratio",
    (*GPU, "gpu_instance"),
)
TENSOR_ACTIVITY = Metric(
    "gpuvigil_gpu_mig_tensor_activity_ratio", "gauge", "Tensor activity of it (GPM).", "ratio", (*GPU, "gpu_instance")
)
DRAM_RATIO = Metric(
    "gpuvigil_gpu_mig_dram_bandwidth_ratio", "gauge", "DRAM bandwidth of it (GPM).", "ratio", (*GPU, "gpu_instance")
)
SM_OCCUPANCY = Metric(
    "gpuvigil_gpu_mig_sm_occupancy_ratio", "gauge", "Resident warps of it (GPM).", "ratio", (*GPU, "gpu_instance")
)
GRAPHICS = Metric(
    "gpuvigil_gpu_mig_graphics_activity_ratio",
    "gauge",
    "Share of time in which it ran anything at all (GPM).",
    "ratio",
    (*GPU, "gpu_instance"),
)
PCIE_TX = Metric(
    "gpuvigil_gpu_mig_pcie_tx_bytes_per_second",
    "gauge",
    "PCIe bytes sent by it (GPM).",
    "bytes_per_second",
    (*GPU, "gpu_instance"),
)
PCIE_RX = Metric(
    "gpuvigil_gpu_mig_pcie_rx_bytes_per_second",
    "gauge",
    "PCIe bytes received by it (GPM).",
    "bytes_per_second",
    (*GPU, "gpu_instance"),
)
