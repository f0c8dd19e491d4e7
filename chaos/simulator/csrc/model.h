/* The world as physics has it: every value a pure function of (seed, GPU, simulated time) and of the faults in the
 * state. One workload level drives power, energy, temperature, clocks, memory bandwidth and link traffic; its integral
 * over time has a closed form, so counters are exact and two readers never differ. */
#ifndef GPUVIGIL_MODEL_H
#define GPUVIGIL_MODEL_H

#include "abi.h"
#include "state.h"

/* One GPU at one moment, as a call sees it. */
struct view {
    const struct world *world;
    const struct identity *id;
    const struct gpu_state *state;
    unsigned int gpu;
    int mig;       /* MIG instance, -1 = the whole GPU */
    int64_t boot;  /* decides which faults act */
    int64_t sim;   /* of which values are functions */
};

#define QUANTUM 10000000 /* ns of simulated time in which values stand still */

/* The workload at a moment: its level 0..1, and the integrals of level and of communication. */
struct curve {
    double level, level_sum, comm_sum;
};

/* Integrals over time since the world was made, in seconds of full activity, with the effect of faults. */
struct integrals {
    double t;     /* simulated Unix seconds */
    double level; /* of the workload level 0..1 */
    double comm;  /* of communication between GPUs 0..1 */
    double hung;  /* time spent in a hung collective */
};

/* Means over the second before the moment, and what follows from them. */
struct physics {
    double level, comm, hung; /* 0..1 */
    double utilization, memory_activity;             /* percent, NVML's sense */
    double sm, occupancy, tensor, dram;              /* percent, GPM's sense */
    double power_average, power_instant;             /* mW */
    double temperature, memory_temperature;          /* C */
    double clock[CLOCK_COUNT];                       /* MHz */
    uint64_t reasons;
    uint32_t pstate;
};

double uniform(uint64_t seed, uint64_t a, uint64_t b); /* [0, 1), the same for ever */
struct curve curve_at(const struct view *view, double t);
double origin_of(const struct view *view); /* seconds: where counters begin, when the world was made */
struct integrals integrals_at(const struct view *view, double t);
struct physics physics_at(const struct view *view);
struct counters counters_at(const struct view *view);
double view_seconds(const struct view *view);
/* If values are frozen: takes the view back to when the first of the freezing faults that act began. */
void view_freeze(struct view *view);

/* Simulated seconds [from, to) in which the fault acted up to the view's moment; 0 if it has not begun. */
int fault_span(const struct view *view, const struct fault *fault, double *from, double *to);
/* The youngest fault of this kind that acts now, or NULL. */
const struct fault *fault_find(const struct view *view, enum kind kind);
/* Memory taken by leaks, bytes. */
double leaked_bytes(const struct view *view);
/* Bytes per second at full communication over one NVLink, and over PCIe. */
double link_rate(const struct identity *id);
double pcie_rate(const struct identity *id);

static inline uint64_t to_count(double value)
{
    return value >= 1.8e19 ? UINT64_MAX : value > 0 ? (uint64_t)value : 0; /* NaN becomes 0 */
}

static inline uint32_t to_uint(double value)
{
    return value >= 4294967295.0 ? UINT32_MAX : value > 0 ? (uint32_t)value : 0;
}

#endif
