/* Event sets of the overlay: the real set, and the faults' own events between its own. */
#include "overlay.h"
#include "watch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SET_MARK 0x4f564c59u
#define SLICE_MS 50 /* how long the real library is asked at a time */

struct event_set {
    uint32_t mark;
    nvmlEventSet_t real;
    pthread_mutex_t lock;
    struct watch watch[MAX_GPUS];
    nvmlDevice_t handle[MAX_GPUS];
};

EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *out)
{
    struct event_set *set = calloc(1, sizeof *set);
    if (set == NULL)
        return NVML_ERROR_MEMORY;
    nvmlReturn_t result = REAL(nvmlEventSetCreate)(&set->real);
    if (result != NVML_SUCCESS || out == NULL) {
        free(set);
        return result;
    }
    set->mark = SET_MARK;
    pthread_mutex_init(&set->lock, NULL);
    *out = set;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    if (set == NULL || set->mark != SET_MARK)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = REAL(nvmlEventSetFree)(set->real);
    set->mark = 0;
    pthread_mutex_destroy(&set->lock);
    free(set);
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
    struct moment *moment;
    if (set == NULL || set->mark != SET_MARK)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = overlay_enter(device, GROUP_EVENTS, &moment);
    if (result == NVML_SUCCESS)
        result = REAL(nvmlDeviceRegisterEvents)(device, types, set->real);
    if (result != NVML_SUCCESS || moment == NULL)
        return result;
    unsigned int gpu = moment->view.gpu;
    pthread_mutex_lock(&set->lock);
    set->handle[gpu] = device;
    watch_begin(&set->watch[gpu], &moment->state, types, boot_now());
    pthread_mutex_unlock(&set->lock);
    return NVML_SUCCESS;
}

static int take(struct event_set *set, const struct world *world, nvmlEventData_t *out)
{
    int64_t now = boot_now(), next = INT64_MAX;
    for (unsigned int gpu = 0; gpu < world->header.gpus; gpu++) {
        struct gpu_state state;
        struct event event;
        if (set->watch[gpu].wanted == 0)
            continue;
        gpu_read(world, gpu, &state);
        if (watch_take(&set->watch[gpu], &state, now, &next, &event)) {
            memset(out, 0, sizeof *out);
            out->device = set->handle[gpu];
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
    if (set == NULL || set->mark != SET_MARK || out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    int64_t end = boot_now() + (int64_t)timeout_ms * 1000000;
    for (;;) {
        const struct world *world = world_now();
        if (world != NULL) {
            nvmlReturn_t result = enter_node(GROUP_EVENTS, &world);
            if (result != NVML_SUCCESS)
                return result;
            pthread_mutex_lock(&set->lock);
            int found = take(set, world, out);
            pthread_mutex_unlock(&set->lock);
            if (found)
                return NVML_SUCCESS;
        }
        int64_t left = (end - boot_now()) / 1000000;
        unsigned int slice = left < 0 ? 0 : left < SLICE_MS ? (unsigned int)left : SLICE_MS;
        nvmlReturn_t result = REAL(nvmlEventSetWait_v2)(set->real, out, slice);
        if (result != NVML_ERROR_TIMEOUT || left <= 0)
            return result;
    }
}
