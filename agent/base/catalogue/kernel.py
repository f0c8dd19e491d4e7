"""The kernel log: how far it was read, and trouble in it beside Xids."""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

SXID_EVENTS = Metric(
    "gpuvigil_nvswitch_sxid_events",
    "counter",
    "NVSwitch errors (SXid) in the kernel log; severity fatal or non-fatal. A switch belongs to no GPU.",
    labels=("switch", "pci_bus_id", "sxid", "severity", "synthetic"),
    budget=64,
)
EVENTS = Metric(
    "gpuvigil_kernel_events",
    "counter",
    "Lines of trouble in the kernel log by kind, Xids apart; 0 from start-up for every kind.",
    labels=("kind",),
    budget=64,
)
LOG = Metric("gpuvigil_kernel_log", "info", "Which kernel log is read: kmsg or journal.", labels=("source",))
RECORDS = Metric("gpuvigil_kernel_log_records", "counter", "Kernel log records read.")
LOST = Metric(
    "gpuvigil_kernel_log_lost_records", "counter", "Kernel log records that were overwritten or damaged before reading."
)
