"""Hardware of the node beside its GPUs: fabric ports, memory modules, drives, sensors, power supply."""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

PORT = ("device", "port")
IB_UP = Metric("gpuvigil_node_infiniband_port_up", "gauge", "1 if the port is ACTIVE.", labels=PORT)
IB_INFO = Metric(
    "gpuvigil_node_infiniband_port",
    "info",
    "InfiniBand or RoCE port as the kernel describes it.",
    labels=(*PORT, "state", "phys_state", "link_layer", "rate", "firmware", "interface"),
)
IB_RATE = Metric(
    "gpuvigil_node_infiniband_rate_bytes_per_second",
    "gauge",
    "Signalling rate of the port now, each way.",
    "bytes_per_second",
    PORT,
)
IB_RECEIVED = Metric("gpuvigil_node_infiniband_received_bytes", "counter", "Bytes received.", "bytes", PORT)
IB_SENT = Metric("gpuvigil_node_infiniband_sent_bytes", "counter", "Bytes sent.", "bytes", PORT)
IB_ERRORS = Metric(
    "gpuvigil_node_infiniband_errors",
    "counter",
    "Link and transport errors of the port, by the kernel's name for them.",
    labels=(*PORT, "kind"),
)
IB_CONGESTION = Metric(
    "gpuvigil_node_infiniband_congestion",
    "counter",
    "Signs of congestion (waits, ECN marks, CNPs), by the kernel's name for them.",
    labels=(*PORT, "kind"),
)
IB_SATURATED = Metric(
    "gpuvigil_node_infiniband_saturated",
    "gauge",
    "1 for a counter that stands at its top and counts no more until it is reset; its own series is left out.",
    labels=(*PORT, "kind"),
)

PRESSURE_WAITING = Metric(
    "gpuvigil_node_pressure_waiting_seconds",
    "counter",
    "Time in which some task waited for the resource (PSI some).",
    "seconds",
    ("resource",),
)
PRESSURE_STALLED = Metric(
    "gpuvigil_node_pressure_stalled_seconds",
    "counter",
    "Time in which all tasks waited for the resource (PSI full).",
    "seconds",
    ("resource",),
)

EDAC_ERRORS = Metric(
    "gpuvigil_node_edac_errors",
    "counter",
    "Host memory errors by controller: correctable, uncorrectable.",
    labels=("controller", "kind"),
)
EDAC_DIMM_ERRORS = Metric(
    "gpuvigil_node_edac_dimm_errors",
    "counter",
    "Host memory errors by module, modules that ever had one.",
    labels=("controller", "dimm", "kind"),
)

MEMORY_TRAFFIC = Metric(
    "gpuvigil_node_memory_traffic_bytes",
    "counter",
    "Host memory traffic of CPU cores (resctrl MBM; DMA of devices is not in it): all, or to the own socket.",
    "bytes",
    ("domain", "scope"),
)
UNCORE_TRAFFIC = Metric(
    "gpuvigil_node_memory_controller_bytes",
    "counter",
    "Host memory traffic counted in the memory controllers, DMA included: read, write, or both in one.",
    "bytes",
    ("socket", "direction"),
)
LLC_OCCUPANCY = Metric(
    "gpuvigil_node_llc_occupancy_bytes", "gauge", "Last-level cache in use (resctrl).", "bytes", ("domain",)
)

UNIT_ACTIVE = Metric("gpuvigil_node_unit_active", "gauge", "1 if the systemd unit is active.", labels=("unit",))
UNIT_FAILED = Metric("gpuvigil_node_unit_failed", "gauge", "1 if the systemd unit has failed.", labels=("unit",))
UNIT_RESTARTS = Metric("gpuvigil_node_unit_restarts", "counter", "Restarts by systemd itself.", labels=("unit",))

NVME = ("device",)
NVME_INFO = Metric(
    "gpuvigil_node_nvme", "info", "NVMe controller.", labels=("device", "model", "firmware", "transport", "state")
)
NVME_LIVE = Metric("gpuvigil_node_nvme_live", "gauge", "1 if the controller's state is live.", labels=NVME)
NVME_TEMPERATURE = Metric("gpuvigil_node_nvme_temperature_celsius", "gauge", "Composite temperature.", "celsius", NVME)
NVME_WARNING = Metric(
    "gpuvigil_node_nvme_critical_warning",
    "gauge",
    "1 if the drive itself warns: spare, temperature, reliability, read_only, backup, memory_region.",
    labels=(*NVME, "kind"),
)
NVME_SPARE = Metric("gpuvigil_node_nvme_spare_ratio", "gauge", "Spare blocks left.", "ratio", NVME)
NVME_USED = Metric("gpuvigil_node_nvme_used_ratio", "gauge", "Life used by the vendor's estimate.", "ratio", NVME)
NVME_MEDIA_ERRORS = Metric("gpuvigil_node_nvme_media_errors", "counter", "Data integrity errors.", labels=NVME)
NVME_POWER_ON = Metric("gpuvigil_node_nvme_power_on_seconds", "counter", "Time powered.", "seconds", NVME)
NVME_UNSAFE = Metric("gpuvigil_node_nvme_unsafe_shutdowns", "counter", "Power losses without notice.", labels=NVME)

RAID = ("device",)
RAID_INFO = Metric(
    "gpuvigil_node_raid", "info", "Software RAID array (md).", labels=("device", "level", "state", "action")
)
RAID_DISKS = Metric("gpuvigil_node_raid_disks", "gauge", "Disks the array should have.", labels=RAID)
RAID_MISSING = Metric("gpuvigil_node_raid_disks_missing", "gauge", "Disks it lacks.", labels=RAID)
RAID_FAULTY = Metric("gpuvigil_node_raid_disks_faulty", "gauge", "Disks marked faulty.", labels=RAID)
RAID_SYNC = Metric("gpuvigil_node_raid_sync_ratio", "gauge", "Progress of a sync under way.", "ratio", RAID)
RAID_MISMATCHES = Metric(
    "gpuvigil_node_raid_mismatches", "gauge", "Sectors that differ at the last check.", labels=RAID
)

UPS = ("ups",)
UPS_SERVER_UP = Metric("gpuvigil_node_ups_server_up", "gauge", "1 if upsd answered.", labels=("server",))
UPS_INFO = Metric("gpuvigil_node_ups", "info", "Power feed by NUT.", labels=("ups", "model", "status"))
UPS_ON_BATTERY = Metric("gpuvigil_node_ups_on_battery", "gauge", "1 while the feed runs on battery.", labels=UPS)
UPS_LOW_BATTERY = Metric("gpuvigil_node_ups_low_battery", "gauge", "1 if the battery is nearly empty.", labels=UPS)
UPS_REPLACE = Metric("gpuvigil_node_ups_replace_battery", "gauge", "1 if the battery is to be replaced.", labels=UPS)
UPS_COMMUNICATION = Metric("gpuvigil_node_ups_data_fresh", "gauge", "1 if upsd still hears the UPS.", labels=UPS)
UPS_RUNTIME = Metric("gpuvigil_node_ups_runtime_seconds", "gauge", "Time left on battery.", "seconds", UPS)
UPS_CHARGE = Metric("gpuvigil_node_ups_battery_charge_ratio", "gauge", "Charge of the battery.", "ratio", UPS)
UPS_LOAD = Metric("gpuvigil_node_ups_load_ratio", "gauge", "Load on the UPS.", "ratio", UPS)
UPS_POWER = Metric("gpuvigil_node_ups_power_watts", "gauge", "Real power drawn from it.", "watts", UPS)
UPS_VOLTAGE = Metric(
    "gpuvigil_node_ups_input_volts", "gauge", "Voltage of the feed that supplies it.", labels=("ups", "feed")
)

SENSOR = ("source", "sensor")
TEMPERATURE = Metric("gpuvigil_node_temperature_celsius", "gauge", "Temperature of a sensor.", "celsius", SENSOR)
POWER = Metric("gpuvigil_node_power_watts", "gauge", "Power of a sensor.", "watts", SENSOR)
FAN = Metric("gpuvigil_node_fan_speed_rpm", "gauge", "Speed of a fan, turns a minute.", labels=SENSOR)
ALARM = Metric("gpuvigil_node_sensor_alarm", "gauge", "1 if the sensor's own alarm is set.", labels=SENSOR)
CHASSIS_POWER = Metric(
    "gpuvigil_node_chassis_power_watts", "gauge", "Power of the whole machine at its supplies.", "watts", ("source",)
)
COOLANT_TEMPERATURE = Metric(
    "gpuvigil_node_coolant_temperature_celsius", "gauge", "Temperature of the coolant.", "celsius", SENSOR
)
COOLANT_FLOW = Metric(
    "gpuvigil_node_coolant_flow_cubic_meters_per_second", "gauge", "Flow of the coolant.", labels=SENSOR
)
COOLANT_LEAK = Metric("gpuvigil_node_coolant_leak", "gauge", "1 if the detector reports a leak.", labels=SENSOR)
CHASSIS_READ = Metric(
    "gpuvigil_node_chassis_read_success", "gauge", "1 if the management controller answered.", labels=("source",)
)
