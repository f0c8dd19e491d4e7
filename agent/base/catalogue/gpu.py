"""GPU metrics: what NVML tells of each GPU, and what the agent concludes from it.

`uuid` is identity; `gpu` a small number, the index at first sight. `synthetic` is "true" for the
whole life of a process that reads the simulator, and empty (absent) on real hardware.
"""

from __future__ import annotations

from agent.base.catalogue.metric import Metric

GPU = ("gpu", "uuid", "synthetic")
NODE = ("synthetic",)

# existence and identity
INFO = Metric(
    "gpuvigil_gpu",
    "info",
    "Model, driver and place of each known GPU.",
    labels=(*GPU, "model", "architecture", "driver", "vbios", "pci_bus_id"),
)
UP = Metric(
    "gpuvigil_gpu_up",
    "gauge",
    "1 if a known GPU answers, 0 if it is gone; absent while the driver hangs or is not there.",
    labels=GPU,
    vital=True,
)
KNOWN = Metric("gpuvigil_gpu_known", "gauge", "GPUs this node has shown since its baseline.", labels=NODE, vital=True)
EXPECTED = Metric(
    "gpuvigil_gpu_expected",
    "gauge",
    "GPUs this node should have: configured, else counted on the PCI bus, else the most ever seen.",
    labels=NODE,
    vital=True,
)
DRIVER_UP = Metric(
    "gpuvigil_gpu_driver_up", "gauge", "1 if NVML is initialised and answering.", labels=NODE, vital=True
)
DRIVER_STUCK = Metric(
    "gpuvigil_gpu_driver_stuck_seconds",
    "gauge",
    "How long the present driver call has not returned, once past its deadline; else 0.",
    "seconds",
    (*GPU, "call"),
    vital=True,
)
DRIVER_INFO = Metric(
    "gpuvigil_gpu_driver",
    "info",
    "Driver, NVML and CUDA versions of the node.",
    labels=(*NODE, "driver", "nvml", "cuda"),
)
INFOROM = Metric(
    "gpuvigil_gpu_inforom",
    "info",
    "Versions of the InfoROM: image, and its OEM, ECC and power objects.",
    labels=(*GPU, "image", "oem", "ecc", "power"),
)
INFOROM_VALID = Metric(
    "gpuvigil_gpu_inforom_valid",
    "gauge",
    "1 if the InfoROM agrees with its checksums, read once when the GPU is opened; 0 if it is corrupt.",
    labels=GPU,
)
DRIVER_RELEASED = Metric(
    "gpuvigil_gpu_driver_released",
    "gauge",
    "1 while the driver is let go on request (gpuvigil agent gpu release), so that it can be reloaded; else 0.",
    labels=NODE,
)
FEATURE_SUPPORTED = Metric(
    "gpuvigil_gpu_feature_supported",
    "gauge",
    "1 if this GPU and driver can report the feature, 0 if its series are absent for that reason.",
    labels=(*GPU, "feature"),
)
CALL_ERRORS = Metric(
    "gpuvigil_gpu_call_errors",
    "counter",
    "Driver calls that failed or told the impossible, by call (or field) and reason.",
    labels=(*NODE, "call", "reason"),
    budget=96,
)
CHILD_RESTARTS = Metric(
    "gpuvigil_gpu_child_restarts", "counter", "Times the process that talks to the driver was replaced.", labels=NODE
)
RECOVERY_ACTION = Metric(
    "gpuvigil_gpu_recovery_action",
    "gauge",
    "The driver's own verdict: 0 none, 1 GPU reset, 2 node reboot, 3 drain P2P, 4 drain and reset, "
    "5 recover IMEX domain, 6 bus reset, 7 system reboot.",
    labels=GPU,
    vital=True,
)
PERSISTENCE = Metric("gpuvigil_gpu_persistence_mode", "gauge", "1 if persistence mode is on.", labels=GPU)
PSTATE = Metric("gpuvigil_gpu_performance_state", "gauge", "P-state: 0 fastest, 15 slowest.", labels=GPU)
PROCESSES = Metric("gpuvigil_gpu_processes", "gauge", "Compute processes on the GPU.", labels=GPU)

# 1 utilisation
UTILIZATION = Metric(
    "gpuvigil_gpu_utilization_ratio",
    "gauge",
    "Share of time in which any kernel ran (100 % while hung in a collective, too).",
    "ratio",
    GPU,
)
UTILIZATION_WINDOW = Metric(
    "gpuvigil_gpu_utilization_window_ratio",
    "gauge",
    "Utilisation over the sliding window: min, max, p95 of 1 s samples.",
    "ratio",
    (*GPU, "stat"),
)
SM_ACTIVITY = Metric("gpuvigil_gpu_sm_activity_ratio", "gauge", "Share of SM cycles active (GPM).", "ratio", GPU)
SM_OCCUPANCY = Metric(
    "gpuvigil_gpu_sm_occupancy_ratio", "gauge", "Resident warps against the maximum (GPM).", "ratio", GPU
)
TENSOR_ACTIVITY = Metric(
    "gpuvigil_gpu_tensor_activity_ratio", "gauge", "Share of cycles with any tensor pipe active (GPM).", "ratio", GPU
)
PIPE_ACTIVITY = Metric(
    "gpuvigil_gpu_pipe_activity_ratio",
    "gauge",
    "Share of cycles a pipe was active (GPM): graphics, integer, dfma, hmma, imma, fp64, fp32, fp16.",
    "ratio",
    (*GPU, "pipe"),
)
ENCODER = Metric("gpuvigil_gpu_encoder_utilization_ratio", "gauge", "Video encoder utilisation.", "ratio", GPU)
DECODER = Metric("gpuvigil_gpu_decoder_utilization_ratio", "gauge", "Video decoder utilisation.", "ratio", GPU)

# 2 memory
MEMORY_TOTAL = Metric("gpuvigil_gpu_memory_total_bytes", "gauge", "Frame buffer size.", "bytes", GPU)
MEMORY_USED = Metric("gpuvigil_gpu_memory_used_bytes", "gauge", "Frame buffer in use, without reserved.", "bytes", GPU)
MEMORY_FREE = Metric("gpuvigil_gpu_memory_free_bytes", "gauge", "Frame buffer free.", "bytes", GPU)
MEMORY_RESERVED = Metric(
    "gpuvigil_gpu_memory_reserved_bytes", "gauge", "Frame buffer kept by the driver.", "bytes", GPU
)

BAR1_TOTAL = Metric("gpuvigil_gpu_bar1_total_bytes", "gauge", "BAR1 aperture.", "bytes", GPU)
BAR1_USED = Metric("gpuvigil_gpu_bar1_used_bytes", "gauge", "BAR1 aperture mapped.", "bytes", GPU)
PROCESS_MEMORY = Metric(
    "gpuvigil_gpu_process_memory_bytes",
    "gauge",
    "GPU memory of the largest compute processes (how many of each GPU is a setting).",
    "bytes",
    (*GPU, "pid", "process", "gpu_instance"),
    budget=128,
)
PROCESS_SM = Metric(
    "gpuvigil_gpu_process_sm_utilization_ratio",
    "gauge",
    "SM utilisation of those processes, over about 15 s.",
    "ratio",
    (*GPU, "pid", "process", "gpu_instance"),
    budget=128,
)
PROCESS_ENCODER = Metric(
    "gpuvigil_gpu_process_encoder_utilization_ratio",
    "gauge",
    "Video encoder utilisation of those of them that ever used it.",
    "ratio",
    (*GPU, "pid", "process", "gpu_instance"),
    budget=128,
)
PROCESS_DECODER = Metric(
    "gpuvigil_gpu_process_decoder_utilization_ratio",
    "gauge",
    "Video decoder utilisation of those of them that ever used it.",
    "ratio",
    (*GPU, "pid", "process", "gpu_instance"),
    budget=128,
)

# 3 memory bandwidth
MEMORY_ACTIVITY = Metric(
    "gpuvigil_gpu_memory_activity_ratio",
    "gauge",
    "Share of time in which memory was read or written: NOT bandwidth (NVML utilization.memory).",
    "ratio",
    GPU,
)
DRAM_BANDWIDTH_RATIO = Metric(
    "gpuvigil_gpu_dram_bandwidth_ratio", "gauge", "DRAM bandwidth against its theoretical maximum (GPM).", "ratio", GPU
)
DRAM_BANDWIDTH = Metric(
    "gpuvigil_gpu_dram_bandwidth_bytes_per_second",
    "gauge",
    "DRAM bandwidth: ratio times peak.",
    "bytes_per_second",
    GPU,
)
DRAM_PEAK = Metric(
    "gpuvigil_gpu_dram_bandwidth_peak_bytes_per_second",
    "gauge",
    "Theoretical DRAM bandwidth: 2 x maximum memory clock x bus width / 8.",
    "bytes_per_second",
    GPU,
)

# 4 PCIe
PCIE_TX = Metric(
    "gpuvigil_gpu_pcie_tx_bytes_per_second", "gauge", "PCIe bytes sent by the GPU.", "bytes_per_second", GPU
)
PCIE_RX = Metric(
    "gpuvigil_gpu_pcie_rx_bytes_per_second", "gauge", "PCIe bytes received by the GPU.", "bytes_per_second", GPU
)
PCIE_GENERATION = Metric("gpuvigil_gpu_pcie_link_generation", "gauge", "Current PCIe generation.", labels=GPU)
PCIE_GENERATION_MAX = Metric(
    "gpuvigil_gpu_pcie_link_generation_max", "gauge", "PCIe generation that slot and card allow.", labels=GPU
)
PCIE_WIDTH = Metric("gpuvigil_gpu_pcie_link_width", "gauge", "Current PCIe lanes.", labels=GPU)
PCIE_WIDTH_MAX = Metric("gpuvigil_gpu_pcie_link_width_max", "gauge", "PCIe lanes that slot and card allow.", labels=GPU)
PCIE_GENERATION_LIMIT = Metric(
    "gpuvigil_gpu_pcie_link_generation_limit",
    "gauge",
    "PCIe generation that one end allows: card, slot. The card by the driver, the slot by the kernel.",
    labels=(*GPU, "end"),
)
PCIE_WIDTH_LIMIT = Metric(
    "gpuvigil_gpu_pcie_link_width_limit", "gauge", "PCIe lanes that one end allows: card, slot.", labels=(*GPU, "end")
)
PCIE_REPLAYS = Metric("gpuvigil_gpu_pcie_replays", "counter", "PCIe replays.", labels=GPU)
PCIE_DEGRADED = Metric(
    "gpuvigil_gpu_pcie_link_degraded",
    "gauge",
    "1 if the link is narrower than slot and card allow, or slower while the GPU is busy; absent while "
    "an idle GPU may have slowed it down.",
    labels=GPU,
)
PCIE_ERRORS = Metric(
    "gpuvigil_gpu_pcie_errors", "counter", "PCIe errors the GPU itself counts, by kind.", labels=(*GPU, "kind")
)
PCIE_AER = Metric(
    "gpuvigil_gpu_pcie_aer_errors",
    "counter",
    "PCIe errors the kernel counts for the GPU's slot (AER): correctable, nonfatal, fatal.",
    labels=(*GPU, "severity"),
)

# 5 power and energy
POWER = Metric("gpuvigil_gpu_power_watts", "gauge", "Power drawn, averaged over one second.", "watts", GPU)
POWER_WINDOW = Metric(
    "gpuvigil_gpu_power_window_watts", "gauge", "Power over the sliding window: min, max, p95.", "watts", (*GPU, "stat")
)
POWER_LIMIT = Metric("gpuvigil_gpu_power_limit_watts", "gauge", "Power limit in force.", "watts", GPU)
POWER_INSTANT = Metric("gpuvigil_gpu_power_instant_watts", "gauge", "Power drawn at this moment.", "watts", GPU)
POWER_RANGE = Metric(
    "gpuvigil_gpu_power_limit_range_watts",
    "gauge",
    "What the power limit may be set to: min, max, default.",
    "watts",
    (*GPU, "bound"),
)
ENERGY = Metric("gpuvigil_gpu_energy_joules", "counter", "Energy drawn, accumulated by the agent.", "joules", GPU)

# 6 temperature
TEMPERATURE = Metric(
    "gpuvigil_gpu_temperature_celsius", "gauge", "Temperature of a sensor: core, memory.", "celsius", (*GPU, "sensor")
)
TEMPERATURE_WINDOW = Metric(
    "gpuvigil_gpu_temperature_window_celsius",
    "gauge",
    "Core temperature over the sliding window: min, max, p95.",
    "celsius",
    (*GPU, "stat"),
)
TEMPERATURE_LIMIT = Metric(
    "gpuvigil_gpu_temperature_limit_celsius",
    "gauge",
    "Temperature at which the driver acts: slowdown, shutdown, memory_max, gpu_max.",
    "celsius",
    (*GPU, "limit"),
)
TEMPERATURE_MARGIN = Metric(
    "gpuvigil_gpu_temperature_margin_celsius", "gauge", "Degrees left before slowdown.", "celsius", GPU
)
TEMPERATURE_LIMIT_MARGIN = Metric(
    "gpuvigil_gpu_temperature_limit_margin_celsius",
    "gauge",
    "Margin at which the driver acts, on boards that tell margins instead of temperatures (Ada and newer).",
    "celsius",
    (*GPU, "limit"),
)
FAN = Metric("gpuvigil_gpu_fan_speed_ratio", "gauge", "Fan speed against its maximum.", "ratio", GPU)

# 7 clocks and throttling
CLOCK = Metric("gpuvigil_gpu_clock_hertz", "gauge", "Clock: graphics, sm, memory, video.", "hertz", (*GPU, "clock"))
CLOCK_MAX = Metric("gpuvigil_gpu_clock_max_hertz", "gauge", "Highest clock of its kind.", "hertz", (*GPU, "clock"))
THROTTLE = Metric(
    "gpuvigil_gpu_throttle", "gauge", "1 while clocks are held down for this reason.", labels=(*GPU, "reason")
)
THROTTLE_SECONDS = Metric(
    "gpuvigil_gpu_throttle_seconds", "counter", "Time clocks were held down, by reason.", "seconds", (*GPU, "reason")
)

# 8 ECC, row remapping, retired pages
ECC_ERRORS = Metric(
    "gpuvigil_gpu_ecc_errors",
    "counter",
    "ECC errors; severity corrected or uncorrected, lifetime volatile or aggregate.",
    labels=(*GPU, "severity", "lifetime"),
)
ECC_LOCATION = Metric(
    "gpuvigil_gpu_ecc_location_errors",
    "counter",
    "ECC errors since the driver was loaded, by location.",
    labels=(*GPU, "severity", "location"),
)
ECC_LIFETIME = Metric(
    "gpuvigil_gpu_ecc_lifetime_location_errors",
    "counter",
    "ECC errors of the board's whole life, by location (opt-in: lifetime_ecc).",
    labels=(*GPU, "severity", "location"),
)
ECC_SRAM_THRESHOLD = Metric(
    "gpuvigil_gpu_ecc_sram_threshold_exceeded",
    "gauge",
    "1 if uncorrected SRAM errors passed the driver's threshold: the board wants replacing.",
    labels=GPU,
)
ROW_REMAP_BANKS = Metric(
    "gpuvigil_gpu_row_remap_banks",
    "gauge",
    "Memory banks by how many spare rows they have left: max, high, partial, low, none.",
    labels=(*GPU, "spare"),
)
REMAPPED_ROWS = Metric("gpuvigil_gpu_remapped_rows", "gauge", "Memory rows remapped, by cause.", labels=(*GPU, "cause"))
ROW_REMAP_PENDING = Metric(
    "gpuvigil_gpu_row_remap_pending",
    "gauge",
    "1 if a remapping waits for a GPU reset.",
    labels=GPU,
    vital=True,
)
ROW_REMAP_FAILURE = Metric(
    "gpuvigil_gpu_row_remap_failure",
    "gauge",
    "1 if a remapping failed: the board wants replacing.",
    labels=GPU,
    vital=True,
)
RETIRED_PAGES = Metric("gpuvigil_gpu_retired_pages", "gauge", "Retired pages, by cause.", labels=(*GPU, "cause"))
RETIRED_PAGES_PENDING = Metric(
    "gpuvigil_gpu_retired_pages_pending", "gauge", "1 if a page retirement waits for a reset.", labels=GPU
)

# 9 NVLink
NVLINK_ACTIVE = Metric("gpuvigil_gpu_nvlink_links_active", "gauge", "NVLinks that are up.", labels=GPU)
NVLINK_LINKS = Metric("gpuvigil_gpu_nvlink_links", "gauge", "NVLinks the GPU has.", labels=GPU)
NVLINK_TX = Metric("gpuvigil_gpu_nvlink_tx_bytes", "counter", "NVLink payload sent, all links.", "bytes", GPU)
NVLINK_RX = Metric("gpuvigil_gpu_nvlink_rx_bytes", "counter", "NVLink payload received, all links.", "bytes", GPU)
NVLINK_ERRORS = Metric(
    "gpuvigil_gpu_nvlink_errors", "counter", "NVLink errors, all links, by kind.", labels=(*GPU, "kind")
)
NVLINK_LINK_ACTIVE = Metric(
    "gpuvigil_gpu_nvlink_link_active", "gauge", "1 if this NVLink is up (opt-in).", labels=(*GPU, "link")
)
NVLINK_LINK_BYTES = Metric(
    "gpuvigil_gpu_nvlink_link_bytes",
    "counter",
    "NVLink payload of one link (opt-in): tx, rx.",
    "bytes",
    (*GPU, "link", "direction"),
    budget=1200,
)
NVLINK_LINK_ERRORS = Metric(
    "gpuvigil_gpu_nvlink_link_errors",
    "counter",
    "NVLink errors of one link, by kind (opt-in).",
    labels=(*GPU, "link", "kind"),
    budget=4096,
)
P2P_PEERS = Metric(
    "gpuvigil_gpu_p2p_peers",
    "gauge",
    "Other GPUs of the node whose memory this one can reach: read (by any way), nvlink.",
    labels=(*GPU, "by"),
)
C2C_LINKS = Metric("gpuvigil_gpu_c2c_links", "gauge", "NVLink-C2C links to the processor of the module.", labels=GPU)
C2C_ACTIVE = Metric("gpuvigil_gpu_c2c_links_active", "gauge", "Those of them that are up.", labels=GPU)
C2C_SPEED = Metric(
    "gpuvigil_gpu_c2c_speed_bytes_per_second",
    "gauge",
    "What the active C2C links can carry together.",
    "bytes_per_second",
    GPU,
)
C2C_TX = Metric(
    "gpuvigil_gpu_c2c_tx_bytes_per_second", "gauge", "Payload sent over C2C (GPM).", "bytes_per_second", GPU
)
C2C_RX = Metric(
    "gpuvigil_gpu_c2c_rx_bytes_per_second", "gauge", "Payload received over C2C (GPM).", "bytes_per_second", GPU
)
C2C_ERRORS = Metric(
    "gpuvigil_gpu_c2c_errors",
    "counter",
    "C2C errors, all links, by kind: crc, replay, replay_back_to_back.",
    labels=(*GPU, "kind"),
)
FABRIC_STATE = Metric(
    "gpuvigil_gpu_fabric_state",
    "gauge",
    "Registration with the NVLink fabric: 1 not started, 2 in progress, 3 completed; absent without one.",
    labels=GPU,
)
FABRIC_STATUS = Metric(
    "gpuvigil_gpu_fabric_status_code", "gauge", "NVML code of that registration; 0 is success.", labels=GPU
)
FABRIC_DEGRADED = Metric(
    "gpuvigil_gpu_fabric_degraded", "gauge", "1 if the fabric gives this GPU less bandwidth than it has.", labels=GPU
)

# 10 Xid
XID_EVENTS = Metric(
    "gpuvigil_gpu_xid_events",
    "counter",
    "Xid events by the action they call for, from NVML events and the kernel log, counted once; "
    "0 from start-up for every action.",
    labels=(*GPU, "action"),
    vital=True,
)
XID_CODES = Metric(
    "gpuvigil_gpu_xid_codes",
    "counter",
    "Xid events by code; a series exists once its code was seen.",
    labels=(*GPU, "xid", "action"),
    budget=128,
    vital=True,
)
XID_LAST = Metric(
    "gpuvigil_gpu_xid_last_timestamp_seconds",
    "gauge",
    "When the code was last seen.",
    "seconds",
    (*GPU, "xid"),
    budget=128,
    vital=True,
)
