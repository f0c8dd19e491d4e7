/* The door: what every call suffers before it is answered, in the simulator and in the overlay alike. */
#define _GNU_SOURCE
#include "device.h"

#include <math.h>
#include <string.h>
#include <time.h>

#define CACHE_NS 10000000 /* a thread's moment is kept this long */

static int64_t seconds_to_ns(double seconds)
{
    return seconds > 0 ? seconds < 9e9 ? (int64_t)(seconds * 1e9) : 9000000000000000000 : 0;
}

static int strikes(const struct fault *fault, enum group group)
{
    uint64_t mask = to_count(fault->p[0]);
    return mask == 0 || (mask >> group & 1);
}

/* Waits until the fault is over; for ever if it says so. */
static void hang(const struct world *world, unsigned int cell, uint32_t id, int forever)
{
    for (;;) {
        uint32_t seen = __atomic_load_n(&world->header.changes, __ATOMIC_ACQUIRE);
        struct gpu_state state;
        int64_t now = boot_now(), pause = 1000000000;
        int active = forever;
        gpu_read(world, cell, &state);
        for (uint32_t i = 0; i < state.faults && !active; i++)
            if (state.fault[i].id == id && fault_active(&state.fault[i], now)) {
                active = 1;
                if (state.fault[i].off != 0 && state.fault[i].off - now < pause)
                    pause = state.fault[i].off - now;
            }
        if (!active || (!forever && __atomic_load_n(&world->header.closed, __ATOMIC_ACQUIRE)))
            return;
        world_wait(world, seen, pause);
    }
}

nvmlReturn_t strike(const struct world *world, unsigned int cell, const struct gpu_state *state, int64_t boot,
                    enum group group)
{
    nvmlReturn_t result = NVML_SUCCESS;
    for (uint32_t i = 0; i < state->faults; i++) {
        const struct fault *fault = &state->fault[i];
        if (!fault_active(fault, boot))
            continue;
        switch (fault->kind) {
        case HANG:
            if (strikes(fault, group))
                hang(world, cell, fault->id, fault->p[1] != 0 && !world->header.overlay);
            break;
        case SLOW:
            if (strikes(fault, group)) {
                int64_t pause = seconds_to_ns(fault->p[1] / 1000);
                struct timespec length = {pause / 1000000000, pause % 1000000000};
                nanosleep(&length, NULL);
            }
            break;
        case GPU_LOST: {
            double period = fault->p[1], passed = (double)(boot - fault->on) / 1e9;
            if (period > 0 && fmod(passed, period) >= period / 2)
                break;
            if (fault->p[0] == 0 || (GROUPS_OF_PARTIAL_LOSS >> group & 1))
                result = group == GROUP_HANDLE && fault->p[2] != 0 ? to_uint(fault->p[2]) : NVML_ERROR_GPU_IS_LOST;
            break;
        }
        case RESET_REQUIRED:
            if (group != GROUP_HANDLE && group != GROUP_IDENTITY && group != GROUP_EVENTS && result == NVML_SUCCESS)
                result = NVML_ERROR_RESET_REQUIRED;
            break;
        case NO_PERMISSION:
            if (strikes(fault, group) && result == NVML_SUCCESS)
                result = NVML_ERROR_NO_PERMISSION;
            break;
        default:
            break;
        }
    }
    return result;
}

nvmlReturn_t strike_gpu(const struct world *world, unsigned int gpu, enum group group)
{
    struct gpu_state state;
    gpu_read(world, gpu, &state);
    return strike(world, gpu, &state, boot_now(), group);
}

int node_has(const struct gpu_state *node, enum kind kind, int64_t boot)
{
    for (uint32_t i = 0; i < node->faults; i++)
        if (node->fault[i].kind == kind && fault_active(&node->fault[i], boot))
            return 1;
    return 0;
}

/* Node-wide state of the calling thread, refreshed when its generation moves. */
static const struct gpu_state *node_of(const struct world *world)
{
    static __thread struct gpu_state node;
    static __thread const struct world *of;
    static __thread uint64_t generation;
    uint64_t now = gpu_generation(world, NODE);
    if (of != world || generation != now) {
        gpu_read(world, NODE, &node);
        of = world;
        generation = now;
    }
    return &node;
}

nvmlReturn_t enter_node(enum group group, const struct world **out)
{
    const struct world *world = world_now();
    if (world == NULL)
        return NVML_ERROR_UNINITIALIZED;
    *out = world;
    if (__atomic_load_n(&world->header.closed, __ATOMIC_ACQUIRE))
        return NVML_ERROR_UNKNOWN;
    const struct gpu_state *node = node_of(world);
    if (node->faults == 0)
        return NVML_SUCCESS;
    int64_t boot = boot_now();
    if (node_has(node, DRIVER_UNLOADED, boot))
        return NVML_ERROR_UNKNOWN;
    struct gpu_state copy = *node;
    return strike(world, NODE, &copy, boot, group);
}

/* The calling thread's moment of this GPU, kept while nothing it depends on has moved. */
static struct moment *moment_of(const struct world *world, unsigned int gpu, int mig)
{
    static __thread struct moment moment;
    static __thread struct {
        const struct world *world;
        uint64_t generation;
        int64_t boot, sim;
        uint32_t gpu;
    } key;
    struct view *view = &moment.view;
    for (int tries = 0;; tries++) {
        int64_t began = boot_now();
        int64_t closing = __atomic_load_n(&world->cell[gpu].closing, __ATOMIC_ACQUIRE);
        uint64_t generation = gpu_generation(world, gpu);
        if (key.world != world || key.gpu != gpu || key.generation != generation) {
            gpu_read(world, gpu, &moment.state);
            moment.physics_known = moment.counters_known = 0;
            key.world = world;
            key.gpu = gpu;
            key.generation = generation; /* or a later one, which is then read again */
        }
        view->boot = boot_now();
        int late = view->boot - began > FRESH_NS; /* interrupted: the state may be too old for what time it is now */
        int over = closing != 0 && view->boot >= closing && view->boot - closing < PATIENCE_NS;
        if ((!late && !over) || tries == 20000)
            break;
        if (over)
            nanosleep(&(struct timespec){0, 20000}, NULL); /* the writer is about to replace it */
    }
    view->sim = sim_at(&moment.state.clock, view->boot);
    if (view->boot / CACHE_NS != key.boot || view->sim / CACHE_NS != key.sim) {
        moment.physics_known = moment.counters_known = 0;
        key.boot = view->boot / CACHE_NS;
        key.sim = view->sim / CACHE_NS;
    }
    view->world = world;
    view->id = &world->identity[gpu];
    view->state = &moment.state;
    view->gpu = gpu;
    view->mig = mig;
    return &moment;
}

nvmlReturn_t enter_gpu(const struct world *world, unsigned int gpu, int mig, enum group group, struct moment **out)
{
    struct moment *moment = *out = moment_of(world, gpu, mig);
    if (moment->state.faults == 0)
        return NVML_SUCCESS;
    struct view *view = &moment->view;
    nvmlReturn_t result = strike(world, gpu, &moment->state, view->boot, group);
    view_freeze(view);
    return result;
}

const struct physics *physics_of(struct moment *moment)
{
    if (!moment->physics_known) {
        moment->physics = physics_at(&moment->view);
        moment->physics_known = 1;
    }
    return &moment->physics;
}

const struct counters *counters_of(struct moment *moment)
{
    if (!moment->counters_known) {
        moment->counters = counters_at(&moment->view);
        moment->counters_known = 1;
    }
    return &moment->counters;
}

int garbage(const struct moment *moment, double what)
{
    const struct fault *fault = moment->state.faults ? fault_find(&moment->view, GARBAGE) : NULL;
    return fault != NULL && (fault->p[0] < 0 || fault->p[0] == what);
}

nvmlReturn_t put_string(char *out, unsigned int length, const char *text, int terminate)
{
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!terminate) {
        memset(out, 'X', length); /* garbage: no end in sight */
        return NVML_SUCCESS;
    }
    size_t size = strlen(text) + 1;
    if (length < size)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(out, text, size);
    return NVML_SUCCESS;
}

uint32_t enumerate(const struct world *world, const struct gpu_state *node, int64_t boot, uint64_t *order)
{
    uint32_t gpu[MAX_GPUS], count = 0;
    for (uint32_t i = 0; i < world->header.gpus; i++) {
        struct gpu_state state;
        gpu_read(world, i, &state);
        if (!node_has(&state, GPU_MISSING, boot))
            gpu[count++] = i;
    }
    for (uint32_t i = 0; i < node->faults; i++)
        if (node->fault[i].kind == ORDER_SHUFFLED && fault_active(&node->fault[i], boot))
            for (uint32_t j = count; j-- > 1;) { /* Sattolo's shuffle: no GPU keeps its place */
                uint32_t k = (uint32_t)(uniform(world->header.seed, 400 + node->fault[i].id, j) * j);
                uint32_t swap = gpu[j];
                gpu[j] = gpu[k];
                gpu[k] = swap;
            }
    *order = 0;
    for (uint32_t i = 0; i < count; i++)
        *order |= (uint64_t)gpu[i] << 4 * i;
    return count;
}
