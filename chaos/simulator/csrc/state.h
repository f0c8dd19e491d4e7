/* The state file: one world of GPUs, mapped by every process that lives in it.
 *
 * Fixed at creation: header and identities (checked by a checksum). Changing: one cell per GPU, and one for the node.
 * A cell is two slots and a generation word: the writer fills the slot that nobody reads, then
 * raises the generation, so a writer killed half-way leaves the last whole state. Words are copied with
 * acquire loads and release stores, which is what keeps this right on weakly ordered machines, and lets
 * ThreadSanitizer see it. Readers take no lock. A change that would let a counter or the clock step back is announced
 * (`closing`): the old state and the new tell the same until that moment, and no reader goes by the old one after it.
 *
 * Times are nanoseconds: "boot" of CLOCK_BOOTTIME, by which faults begin and expire whatever the simulated clock
 * does; "sim" of the simulated clock (Unix epoch), of which all values are functions. */
#ifndef GPUVIGIL_STATE_H
#define GPUVIGIL_STATE_H

#include <stddef.h>
#include <stdint.h>

#define STATE_MAGIC 0x314d495347495647ull /* "GVIGSIM1" */
#define STATE_VERSION 2u
#define MAX_GPUS 16
#define NODE MAX_GPUS /* the cell that holds faults of the whole node */
#define MAX_FAULTS 24
#define MAX_PROCESSES 16
#define MAX_LINKS 18
#define MAX_C2C_LINKS 10
#define MAX_MIG 7
#define FAULT_PARAMETERS 4
#define UNKNOWN_TIME INT64_MIN
/* A reader looks at the boot clock this soon after it read the state, or reads again; writers count on it. */
#define FRESH_NS 1000000
/* How long readers wait for a writer that announced a change and has not made it: then it must be dead. */
#define PATIENCE_NS 500000000

enum workload { WORKLOAD_IDLE, WORKLOAD_TRAINING, WORKLOAD_INFERENCE, WORKLOADS };

/* What a GPU of this profile can tell. */
enum feature {
    HAS_ECC = 1u << 0,
    HAS_REMAP = 1u << 1,         /* row remapping (else retired pages, if it has ECC) */
    HAS_GPM = 1u << 2,
    HAS_FAN = 1u << 3,
    HAS_MIG = 1u << 4,
    HAS_FABRIC = 1u << 5,
    HAS_TLIMIT = 1u << 6,        /* thresholds as distance from a limit: Ada and newer */
    HAS_MEMORY_TEMPERATURE = 1u << 7,
    HAS_POWER_AVERAGE = 1u << 8, /* PowerUsage is a 1 s average */
    HAS_SERIAL = 1u << 9,
    HAS_THRESHOLDS = 1u << 10,   /* nvmlDeviceGetTemperatureThreshold answers */
};

/* What a driver does its own way. */
enum quirk {
    OLD_FIELD_IDS = 1u << 0,      /* clock event counters under ids 251-253, as from 575 to 580.65 */
    WIDE_PCIE_COUNTERS = 1u << 1, /* field ids 197 and 198 count to 64 bits, not 32 */
};

/* Kinds of fault; the numbers are part of the file format. Parameters p[0..3] are named in faults.py. */
enum kind {
    FAULT_NONE = 0,
    GPU_LOST = 1,
    XID = 2,
    ECC_CORRECTED_RATE = 3,
    ECC_UNCORRECTED_COUNT = 4,
    REMAP_PENDING = 5,
    REMAP_FAILURE = 6,
    THERMAL_THROTTLE = 7,
    POWER_BRAKE = 8,
    CLOCK_DROP = 9,
    PCIE_DEGRADED = 10,
    NVLINK_DOWN = 11,
    NVLINK_ERRORS = 12,
    MEMORY_LEAK = 13,
    HUNG_COLLECTIVE = 14,
    VALUES_FROZEN = 15,
    DRIVER_UNLOADED = 16,
    VERSION_MISMATCH = 17,
    RESET_REQUIRED = 18,
    HANG = 19,
    SLOW = 20,
    GARBAGE = 21,
    ORDER_SHUFFLED = 22,
    GPU_MISSING = 23,
    POWER_CAP = 24,
    RECOVERY_ACTION = 25,
    NO_PERMISSION = 26,
    FABRIC_FAULT = 27,
    INFOROM_CORRUPTED = 28,
    C2C_DOWN = 29,
    KINDS = 30,
};

struct fault {
    uint32_t kind, id;
    int64_t on, off;         /* boot; off 0 = no expiry */
    int64_t sim_on, sim_off; /* sim, once the clock was changed after them; else UNKNOWN_TIME */
    double p[FAULT_PARAMETERS];
};

struct process {
    uint32_t pid, graphics;
    uint64_t memory;
    uint32_t gpu_instance, compute_instance;
    uint32_t encoder, decoder; /* percent of the video engines */
};

/* Everything that only grows. Also the difference that keeps it continuous when the state changes. */
struct counters {
    double energy_mj;
    double ecc[2][ECC_LOCATIONS]; /* corrected, uncorrected */
    double replays;
    double link_errors[MAX_LINKS][3]; /* replay, recovery, crc */
    double link_bytes[MAX_LINKS];     /* sent, and as many received */
    double pcie_tx, pcie_rx;          /* bytes */
    double sw_power_ns, sw_thermal_ns, hw_thermal_ns, hw_brake_ns;
    double remapped[2];               /* rows, by corrected and uncorrected errors */
};

/* The simulated clock. It stands in every cell, so that no reader sees a state with another state's clock. */
struct clock_state {
    int64_t sim, boot; /* at boot time `boot` the simulated clock said `sim` */
    double speed;      /* simulated seconds per second; 0 = frozen */
    int64_t sim_before; /* what it said just before, and the speed it had until then: a change is told ahead */
    double speed_before;
};

struct gpu_state {
    struct clock_state clock;
    uint32_t workload, faults, processes, mig; /* counts; mig = instances, 0 = MIG mode off */
    uint32_t mig_slices[MAX_MIG];
    uint32_t reserved;
    struct counters base;
    struct fault fault[MAX_FAULTS];
    struct process process[MAX_PROCESSES];
};

/* Constant facts of one GPU: its profile, and what tells it from its neighbours. */
struct identity {
    char name[96], uuid[48], serial[32], vbios[32], part_number[32], inforom[32];
    uint32_t architecture, brand, capability_major, capability_minor;
    uint32_t cores, multiprocessors, bus_width, features;
    uint32_t pci_domain, pci_bus, pci_device, pci_device_id, pci_subsystem_id, minor;
    uint32_t numa, fans;
    uint32_t pcie_generation, pcie_width, links, link_version;
    uint32_t link_mbps, pstate_idle, module, c2c_links;
    uint32_t clock_max[4], clock_idle[4]; /* MHz: graphics, sm, memory, video */
    uint32_t threshold[4];                /* C: shutdown, slowdown, memory max, gpu max */
    uint64_t memory_total, memory_reserved, bar1_total;
    uint32_t power_idle, power_peak, power_min, power_max, power_default, power_reserved; /* mW */
    double ambient, degrees_per_watt;
};

struct header {
    uint64_t magic;
    uint32_t version, size;
    uint32_t gpus, overlay;
    uint64_t seed;
    int64_t epoch; /* sim time of creation, from which counters count */
    char boot_id[40];
    char driver[64], nvml[64];
    uint32_t cuda, quirks;        /* bits of enum quirk */
    uint64_t checksum;            /* of everything above and of the identities */
    /* words that change, all atomic */
    uint32_t changes;             /* raised by every write; readers wait on it (futex) */
    uint32_t closed;              /* another world took this one's place */
    uint32_t next_id, reserved;
};

struct world {
    struct header header;
    struct identity identity[MAX_GPUS];
    struct {
        uint64_t generation;
        int64_t closing; /* boot time from which on the state is replaced, told by the writer ahead; 0 = it stays */
        struct gpu_state slot[2];
    } cell[MAX_GPUS + 1];
};

_Static_assert(sizeof(struct gpu_state) % 8 == 0, "a cell is copied by words");

/* Maps the file; NULL with a reason in `why` (at least 256 bytes). `writable` maps it for the writer. */
struct world *world_map(const char *path, int writable, char *why);
uint64_t world_checksum(const struct world *world);
void boot_id_read(char out[40]);

int64_t boot_now(void);
int64_t sim_at(const struct clock_state *clock, int64_t boot);
void gpu_read(const struct world *world, unsigned int cell, struct gpu_state *out);
uint64_t gpu_generation(const struct world *world, unsigned int cell);
/* One writer at a time: the caller holds the lock on the file. */
void gpu_write(struct world *world, unsigned int cell, const struct gpu_state *value);

/* Sleeps until the world changes from `seen`, or `nanoseconds` passed. */
void world_wait(const struct world *world, uint32_t seen, int64_t nanoseconds);
void world_wake(struct world *world);

static inline int fault_active(const struct fault *fault, int64_t boot)
{
    return fault->kind != FAULT_NONE && boot >= fault->on && (fault->off == 0 || boot < fault->off);
}

#endif
