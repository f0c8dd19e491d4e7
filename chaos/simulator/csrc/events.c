/* Event sets. An event is a fault whose time has come: nothing is queued, each set remembers what it delivered. */
#include "quantity.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SET_MARK 0x45564e54u

struct delivered {
    uint32_t id;
    uint32_t repeats; /* how many times */
};

struct event_set {
    uint32_t mark;
    pthread_mutex_t lock;
    uint64_t wanted[MAX_GPUS];
    struct delivered seen[MAX_GPUS][MAX_FAULTS];
};

static uint64_t event_of(const struct fault *fault)
{
    switch (fault->kind) {
    case XID: return EVENT_XID;
    case ECC_UNCORRECTED_COUNT: return EVENT_DOUBLE_BIT_ECC;
    case RECOVERY_ACTION: return EVENT_RECOVERY_ACTION;
    default: return 0;
    }
}

/* How many events the fault has produced by `now`: 1, or one every p[1] seconds while it lasts. */
static uint32_t produced(const struct fault *fault, int64_t now)
{
    if (event_of(fault) == 0 || fault->on > now)
        return 0;
    double every = fault->kind == XID ? fault->p[1] : 0;
    if (!(every >= 0.001))
        return 1;
    int64_t end = fault->off != 0 && fault->off < now ? fault->off : now;
    double repeats = (double)(end - fault->on) / 1e9 / every;
    return repeats < 1e6 ? 1 + to_uint(repeats) : 1000000;
}

static struct delivered *memory_of(struct event_set *set, unsigned int gpu, uint32_t id, const struct gpu_state *state)
{
    struct delivered *unused = NULL;
    for (int i = 0; i < MAX_FAULTS; i++) {
        struct delivered *entry = &set->seen[gpu][i];
        if (entry->id == id)
            return entry;
        int alive = 0;
        for (uint32_t j = 0; j < state->faults && entry->id != 0; j++)
            alive |= state->fault[j].id == entry->id;
        if (!alive)
            unused = entry;
    }
    if (unused != NULL) {
        unused->id = id;
        unused->repeats = 0;
    }
    return unused;
}

EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *out)
{
    const struct world *world;
    nvmlReturn_t result = out == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter_node(GROUP_EVENTS, &world);
    if (result != NVML_SUCCESS)
        return result;
    struct event_set *set = calloc(1, sizeof *set);
    if (set == NULL)
        return NVML_ERROR_MEMORY;
    set->mark = SET_MARK;
    pthread_mutex_init(&set->lock, NULL);
    *out = set;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    if (set == NULL || set->mark != SET_MARK)
        return NVML_ERROR_INVALID_ARGUMENT;
    set->mark = 0;
    pthread_mutex_destroy(&set->lock);
    free(set);
    return NVML_SUCCESS;
}

/* From now on: what happened before is lost, as with the real driver. */
EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
    struct moment *moment;
    int64_t supported;
    if (set == NULL || set->mark != SET_MARK)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, GROUP_EVENTS, &moment);
    if (result == NVML_SUCCESS)
        result = quantity(moment, Q_EVENT_TYPES, 0, 0, 0, &supported);
    if (result != NVML_SUCCESS)
        return result;
    if (types & ~(unsigned long long)supported)
        return NVML_ERROR_NOT_SUPPORTED;
    unsigned int gpu = moment->view.gpu;
    int64_t now = boot_now();
    pthread_mutex_lock(&set->lock);
    set->wanted[gpu] |= types;
    for (uint32_t i = 0; i < moment->state.faults; i++) {
        const struct fault *fault = &moment->state.fault[i];
        uint32_t count = produced(fault, now);
        struct delivered *entry = count > 0 ? memory_of(set, gpu, fault->id, &moment->state) : NULL;
        if (entry != NULL)
            entry->repeats = count;
    }
    pthread_mutex_unlock(&set->lock);
    return NVML_SUCCESS;
}

/* Takes one event of the GPU, if there is one; else says in `next` when the nearest one comes (boot time). */
static int take(struct event_set *set, const struct world *world, unsigned int gpu, int64_t now, int64_t *next,
                nvmlEventData_t *out)
{
    struct gpu_state state;
    gpu_read(world, gpu, &state);
    for (uint32_t i = 0; i < state.faults; i++) {
        const struct fault *fault = &state.fault[i];
        uint64_t type = event_of(fault);
        if ((type & set->wanted[gpu]) == 0)
            continue;
        uint32_t count = produced(fault, now);
        struct delivered *entry = count > 0 ? memory_of(set, gpu, fault->id, &state) : NULL;
        if (entry != NULL && entry->repeats < count) {
            entry->repeats++;
            memset(out, 0, sizeof *out);
            out->device = device_handle(gpu, MAX_MIG);
            out->eventType = type;
            out->eventData = type == EVENT_XID ? to_count(fault->p[0]) : 0;
            out->gpuInstanceId = out->computeInstanceId = INSTANCE_ANY;
            return 1;
        }
        int64_t when = count == 0 ? fault->on : now + 20000000; /* repeats are looked for every 20 ms */
        if ((count == 0 || fault->p[1] > 0) && when < *next)
            *next = when;
    }
    return 0;
}

EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *out, unsigned int timeout_ms)
{
    const struct world *world;
    if (set == NULL || set->mark != SET_MARK || out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    int64_t end = boot_now() + (int64_t)timeout_ms * 1000000;
    for (;;) {
        nvmlReturn_t result = enter_node(GROUP_EVENTS, &world);
        if (result != NVML_SUCCESS)
            return result;
        uint32_t seen = __atomic_load_n(&world->header.changes, __ATOMIC_ACQUIRE);
        int64_t now = boot_now(), next = end;
        int found = 0;
        pthread_mutex_lock(&set->lock);
        for (unsigned int gpu = 0; gpu < world->header.gpus && !found; gpu++)
            found = set->wanted[gpu] != 0 && take(set, world, gpu, now, &next, out);
        pthread_mutex_unlock(&set->lock);
        if (found)
            return NVML_SUCCESS;
        if (now >= end)
            return NVML_ERROR_TIMEOUT;
        /* Wakes at least once a second: a world that is closed or a driver unloaded must be seen. */
        int64_t pause = next - now;
        world_wait(world, seen, pause < 1 ? 1 : pause > 1000000000 ? 1000000000 : pause);
    }
}

EXPORT nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *out, unsigned int timeout_ms)
{
    return nvmlEventSetWait_v2(set, out, timeout_ms);
}
