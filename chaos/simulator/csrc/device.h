/* Life cycle, handles, and the door every call goes through. */
#ifndef GPUVIGIL_DEVICE_H
#define GPUVIGIL_DEVICE_H

#include "model.h"

#define EXPORT __attribute__((visibility("default")))

/* Groups of calls, by which hangs, slowness and partial loss choose their victims. */
enum group {
    GROUP_INIT, GROUP_HANDLE, GROUP_IDENTITY, GROUP_MEMORY, GROUP_UTILIZATION, GROUP_POWER, GROUP_TEMPERATURE,
    GROUP_CLOCKS, GROUP_ECC, GROUP_PCIE, GROUP_NVLINK, GROUP_FIELDS, GROUP_PROCESSES, GROUP_GPM, GROUP_EVENTS,
    GROUP_MIG, GROUPS,
};
/* The groups that fail when a GPU is lost in part. */
#define GROUPS_OF_PARTIAL_LOSS (1u << GROUP_POWER | 1u << GROUP_TEMPERATURE | 1u << GROUP_CLOCKS | 1u << GROUP_FIELDS)

struct device {
    uint32_t gpu, mig; /* mig: instance, MAX_MIG = the whole GPU */
};

/* The moment a call sees; it belongs to the calling thread until its next call. */
struct moment {
    struct view view;
    struct gpu_state state;
    int physics_known, counters_known;
    struct physics physics;
    struct counters counters;
};

/* Checks the handle, suffers the faults that strike whole calls, and shows the moment. */
nvmlReturn_t enter(nvmlDevice_t device, enum group group, struct moment **out);
nvmlReturn_t enter_node(enum group group, const struct world **world);
nvmlReturn_t enter_gpu(const struct world *world, unsigned int gpu, int mig, enum group group, struct moment **out);
nvmlReturn_t strike(const struct world *world, unsigned int cell, const struct gpu_state *state, int64_t boot,
                    enum group group);
nvmlReturn_t strike_gpu(const struct world *world, unsigned int gpu, enum group group);
int node_has(const struct gpu_state *node, enum kind kind, int64_t boot);
/* What an initialisation finds: GPUs that are missing are left out, and the order may be shuffled. `order` gets a
 * nibble per index, which says the GPU. */
uint32_t enumerate(const struct world *world, const struct gpu_state *node, int64_t boot, uint64_t *order);
const struct world *world_now(void); /* NULL = not initialised */
const struct physics *physics_of(struct moment *moment);
const struct counters *counters_of(struct moment *moment);
int garbage(const struct moment *moment, double what); /* what: 0 values, 1 counts, 2 strings */

unsigned int device_count(void);
nvmlDevice_t device_handle(unsigned int gpu, unsigned int mig);
int device_find(nvmlDevice_t handle, struct device *out); /* 0 if the handle is foreign or stale */
unsigned int device_index(unsigned int gpu);

nvmlReturn_t put_string(char *out, unsigned int length, const char *text, int terminate);

#endif
