/* Event sets of the simulator. */
#include "quantity.h"
#include "watch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SET_MARK 0x45564e54u

struct event_set {
    uint32_t mark;
    pthread_mutex_t lock;
    struct watch watch[MAX_GPUS];
};

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
    pthread_mutex_lock(&set->lock);
    watch_begin(&set->watch[moment->view.gpu], &moment->state, types, boot_now());
    pthread_mutex_unlock(&set->lock);
    return NVML_SUCCESS;
}

static int take(struct event_set *set, const struct world *world, int64_t now, int64_t *next, nvmlEventData_t *out)
{
    for (unsigned int gpu = 0; gpu < world->header.gpus; gpu++) {
        struct gpu_state state;
        struct event event;
        if (set->watch[gpu].wanted == 0)
            continue;
        gpu_read(world, gpu, &state);
        if (watch_take(&set->watch[gpu], &state, now, next, &event)) {
            memset(out, 0, sizeof *out);
            out->device = device_handle(gpu, MAX_MIG);
            out->eventType = event.type;
            out->eventData = event.data;
            out->gpuInstanceId = out->computeInstanceId = INSTANCE_ANY;
            return 1;
        }
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
        pthread_mutex_lock(&set->lock);
        int found = take(set, world, now, &next, out);
        pthread_mutex_unlock(&set->lock);
        if (found)
            return NVML_SUCCESS;
        if (now >= end)
            return NVML_ERROR_TIMEOUT;
        /* At least once a second: another thread may have shut the library down. */
        int64_t pause = next - now;
        world_wait(world, seen, pause < 1 ? 1 : pause > 1000000000 ? 1000000000 : pause);
    }
}

EXPORT nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *out, unsigned int timeout_ms)
{
    return nvmlEventSetWait_v2(set, out, timeout_ms);
}
