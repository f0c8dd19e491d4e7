"""Node metrics: CPU, memory, disks, file systems, network and the maintenance flag."""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

UNAME = Metric("gpuvigil_node_uname", "info", "Kernel and host.", labels=("nodename", "release", "machine"))
BOOT_TIME = Metric("gpuvigil_node_boot_timestamp_seconds", "gauge", "When the node booted.", "seconds")
CPU_UTILIZATION = Metric(
    "gpuvigil_node_cpu_utilization_ratio", "gauge", "CPU time not idle since the last sample.", "ratio"
)
CPU_SECONDS = Metric("gpuvigil_node_cpu_seconds", "counter", "CPU time by mode, all cores.", "seconds", ("mode",))
CPUS = Metric("gpuvigil_node_cpus", "gauge", "Logical CPUs.")
LOAD1 = Metric("gpuvigil_node_load1", "gauge", "Load average over one minute.")
MEMORY_TOTAL = Metric("gpuvigil_node_memory_total_bytes", "gauge", "Memory.", "bytes")
MEMORY_AVAILABLE = Metric("gpuvigil_node_memory_available_bytes", "gauge", "Memory available to new work.", "bytes")
SWAP_USED = Metric("gpuvigil_node_swap_used_bytes", "gauge", "Swap in use.", "bytes")
PROCESSES_BLOCKED = Metric("gpuvigil_node_processes_blocked", "gauge", "Tasks blocked on I/O.")
OOM_KILLS = Metric("gpuvigil_node_oom_kills", "counter", "Processes killed for want of memory.")
DISK_READ = Metric("gpuvigil_node_disk_read_bytes", "counter", "Bytes read.", "bytes", ("device",))
DISK_WRITTEN = Metric("gpuvigil_node_disk_written_bytes", "counter", "Bytes written.", "bytes", ("device",))
DISK_BUSY = Metric("gpuvigil_node_disk_io_seconds", "counter", "Time the device was busy.", "seconds", ("device",))
FS = ("mountpoint", "device", "fstype")
FS_SIZE = Metric("gpuvigil_node_filesystem_size_bytes", "gauge", "File system size.", "bytes", FS, vital=True)
FS_AVAIL = Metric(
    "gpuvigil_node_filesystem_avail_bytes",
    "gauge",
    "Bytes a user may still write.",
    "bytes",
    FS,
    vital=True,
)
FS_INODES_FREE = Metric("gpuvigil_node_filesystem_inodes_free", "gauge", "Inodes free.", labels=FS)
FS_READONLY = Metric("gpuvigil_node_filesystem_readonly", "gauge", "1 if mounted read-only.", labels=FS)
FS_ENCRYPTED = Metric(
    "gpuvigil_node_filesystem_encrypted", "gauge", "1 if its block device is encrypted by dm-crypt.", labels=FS
)
FS_STUCK = Metric(
    "gpuvigil_node_filesystem_stuck_seconds",
    "gauge",
    "How long a network mount has not answered the present look; else 0.",
    "seconds",
    FS,
)
FS_PROBE_OK = Metric("gpuvigil_node_filesystem_probe_ok", "gauge", "1 if a network mount answered.", labels=FS)
FS_PROBE_SECONDS = Metric(
    "gpuvigil_node_filesystem_probe_seconds", "gauge", "Time a network mount took to answer.", "seconds", FS
)
NET_RECEIVED = Metric("gpuvigil_node_network_received_bytes", "counter", "Bytes received.", "bytes", ("device",))
NET_SENT = Metric("gpuvigil_node_network_sent_bytes", "counter", "Bytes sent.", "bytes", ("device",))
NET_ERRORS = Metric(
    "gpuvigil_node_network_errors", "counter", "Errors and drops, by direction.", labels=("device", "direction", "kind")
)
NET_UP = Metric("gpuvigil_node_network_up", "gauge", "1 if the interface is operationally up.", labels=("device",))
NET_SPEED = Metric(
    "gpuvigil_node_network_speed_bytes_per_second", "gauge", "Negotiated speed.", "bytes_per_second", ("device",)
)
TCP_RETRANSMITTED = Metric("gpuvigil_node_tcp_retransmitted_segments", "counter", "TCP segments sent again.")
TCP_SENT = Metric("gpuvigil_node_tcp_sent_segments", "counter", "TCP segments sent.")
MAINTENANCE_UNTIL = Metric(
    "gpuvigil_node_maintenance_until_timestamp_seconds",
    "gauge",
    "Pages of this node stay quiet until then; 0 when no maintenance is set.",
    "seconds",
    vital=True,
)
