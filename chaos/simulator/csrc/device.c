#define _GNU_SOURCE
#include "device.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sys/stat.h>

#define BANKS 8           /* handles of the last eight initialisations differ, so that a stale one is caught */
#define MAPS 64
#define CACHE_NS 10000000 /* a thread's moment is kept this long */

static struct device table[BANKS][MAX_GPUS][MAX_MIG + 1];

static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER;
static unsigned int init_count; /* under `life` */
static uint32_t bank;           /* atomic from here on */
static uint64_t order;          /* a nibble per index: which GPU it is */
static uint32_t shown;          /* GPUs that this initialisation found */
static struct world *current;   /* NULL = not initialised */

/* Worlds stay mapped as long as the process: a hanging caller may still look at one. */
static struct {
    dev_t device;
    ino_t inode;
    struct world *world;
} maps[MAPS];
static unsigned int mapped;

static const char *state_path(char *buffer, size_t size)
{
    const char *path = getenv("GPUVIGIL_SIM_STATE");
    if (path != NULL && *path != '\0')
        return path;
    const char *run = getenv("XDG_RUNTIME_DIR");
    if (run == NULL || *run == '\0')
        return NULL;
    snprintf(buffer, size, "%s/gpuvigil-sim.state", run);
    return buffer;
}

static struct world *open_world(void)
{
    char buffer[4096], why[256];
    const char *path = state_path(buffer, sizeof buffer);
    struct stat status;
    if (path == NULL || stat(path, &status) != 0)
        return NULL;
    for (unsigned int i = 0; i < mapped; i++)
        if (maps[i].device == status.st_dev && maps[i].inode == status.st_ino
            && !__atomic_load_n(&maps[i].world->header.closed, __ATOMIC_ACQUIRE))
            return maps[i].world;
    if (mapped == MAPS)
        return NULL;
    struct world *world = world_map(path, 0, why);
    if (world == NULL) {
        fprintf(stderr, "gpuvigil simulator: %s: %s\n", path, why);
        return NULL;
    }
    maps[mapped].device = status.st_dev;
    maps[mapped].inode = status.st_ino;
    maps[mapped++].world = world;
    return world;
}

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

static nvmlReturn_t strike(const struct world *world, unsigned int cell, const struct gpu_state *state, int64_t boot,
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
                hang(world, cell, fault->id, fault->p[1] != 0);
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

static int node_has(const struct gpu_state *node, enum kind kind, int64_t boot)
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
    const struct world *world = __atomic_load_n(&current, __ATOMIC_ACQUIRE);
    if (world == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (__atomic_load_n(&world->header.closed, __ATOMIC_ACQUIRE))
        return NVML_ERROR_UNKNOWN;
    *out = world;
    const struct gpu_state *node = node_of(world);
    if (node->faults == 0)
        return NVML_SUCCESS;
    int64_t boot = boot_now();
    if (node_has(node, DRIVER_UNLOADED, boot))
        return NVML_ERROR_UNKNOWN;
    struct gpu_state copy = *node;
    return strike(world, NODE, &copy, boot, group);
}

static __thread struct moment now_of_thread;

nvmlReturn_t enter(nvmlDevice_t handle, enum group group, struct moment **out)
{
    static __thread struct {
        const struct world *world;
        uint64_t generation, clock_generation;
        int64_t boot, sim;
        uint32_t gpu;
    } key;
    const struct world *world;
    struct device device;
    nvmlReturn_t result = enter_node(group, &world);
    if (result != NVML_SUCCESS)
        return result;
    if (!device_find(handle, &device))
        return NVML_ERROR_INVALID_ARGUMENT;
    struct moment *moment = &now_of_thread;
    uint64_t generation = gpu_generation(world, device.gpu);
    uint64_t clock_generation = __atomic_load_n(&world->clock.generation, __ATOMIC_ACQUIRE);
    int64_t boot = boot_now();
    int same_state = key.world == world && key.gpu == device.gpu && key.generation == generation;
    int same_clock = key.world == world && key.clock_generation == clock_generation;
    if (!same_state)
        gpu_read(world, device.gpu, &moment->state);
    if (!same_clock)
        clock_read(world, &moment->view.clock);
    int64_t sim = sim_at(&moment->view.clock, boot);
    if (!same_state || !same_clock || boot / CACHE_NS != key.boot || sim / CACHE_NS != key.sim) {
        moment->physics_known = moment->counters_known = 0;
        key.world = world;
        key.gpu = device.gpu;
        key.generation = generation;
        key.clock_generation = clock_generation;
        key.boot = boot / CACHE_NS;
        key.sim = sim / CACHE_NS;
    }
    struct view *view = &moment->view;
    view->world = world;
    view->id = &world->identity[device.gpu];
    view->state = &moment->state;
    view->gpu = device.gpu;
    view->mig = device.mig < MAX_MIG ? (int)device.mig : -1;
    view->boot = boot;
    view->sim = sim;
    *out = moment;
    if (moment->state.faults == 0)
        return NVML_SUCCESS;
    result = strike(world, device.gpu, &moment->state, boot, group);
    const struct fault *frozen = fault_find(view, VALUES_FROZEN);
    if (frozen != NULL) {
        int64_t on = frozen->sim_on != UNKNOWN_TIME ? frozen->sim_on : sim_at(&view->clock, frozen->on);
        view->sim = on < sim ? on : sim;
        view->boot = frozen->on;
    }
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

unsigned int device_count(void)
{
    return __atomic_load_n(&shown, __ATOMIC_ACQUIRE);
}

nvmlDevice_t device_handle(unsigned int gpu, unsigned int mig)
{
    struct device *device = &table[__atomic_load_n(&bank, __ATOMIC_ACQUIRE) % BANKS][gpu][mig];
    return device;
}

int device_find(nvmlDevice_t handle, struct device *out)
{
    uintptr_t first = (uintptr_t)&table[__atomic_load_n(&bank, __ATOMIC_ACQUIRE) % BANKS];
    uintptr_t offset = (uintptr_t)handle - first;
    if ((uintptr_t)handle < first || offset >= sizeof table[0] || offset % sizeof(struct device) != 0)
        return 0;
    uint32_t place = (uint32_t)(offset / sizeof(struct device));
    out->gpu = place / (MAX_MIG + 1);
    out->mig = place % (MAX_MIG + 1);
    const struct world *world = __atomic_load_n(&current, __ATOMIC_ACQUIRE);
    return world != NULL && out->gpu < world->header.gpus;
}

unsigned int device_index(unsigned int gpu)
{
    uint64_t nibbles = __atomic_load_n(&order, __ATOMIC_ACQUIRE);
    for (unsigned int i = 0; i < device_count(); i++)
        if ((nibbles >> 4 * i & 15) == gpu)
            return i;
    return gpu;
}

/* What this initialisation finds: GPUs that are missing are left out, and the order may be shuffled. */
static void enumerate(const struct world *world, const struct gpu_state *node, int64_t boot)
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
            for (uint32_t j = count; j-- > 1;) { /* Fisher-Yates, but no GPU keeps its place: Sattolo */
                uint32_t k = (uint32_t)(uniform(world->header.seed, 400 + node->fault[i].id, j) * j);
                uint32_t swap = gpu[j];
                gpu[j] = gpu[k];
                gpu[k] = swap;
            }
    uint64_t nibbles = 0;
    for (uint32_t i = 0; i < count; i++)
        nibbles |= (uint64_t)gpu[i] << 4 * i;
    __atomic_store_n(&order, nibbles, __ATOMIC_RELEASE);
    __atomic_store_n(&shown, count, __ATOMIC_RELEASE);
}

static nvmlReturn_t first_init(void)
{
    struct world *world = open_world();
    if (world == NULL)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    int64_t boot = boot_now();
    struct gpu_state node;
    gpu_read(world, NODE, &node);
    if (node_has(&node, DRIVER_UNLOADED, boot))
        return NVML_ERROR_DRIVER_NOT_LOADED;
    if (node_has(&node, VERSION_MISMATCH, boot))
        return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
    nvmlReturn_t result = strike(world, NODE, &node, boot, GROUP_INIT);
    if (result != NVML_SUCCESS)
        return result;
    enumerate(world, &node, boot);
    __atomic_add_fetch(&bank, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&current, world, __ATOMIC_RELEASE);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    pthread_mutex_lock(&life);
    nvmlReturn_t result = init_count > 0 ? NVML_SUCCESS : first_init();
    if (result == NVML_SUCCESS)
        init_count++;
    pthread_mutex_unlock(&life);
    return result;
}

EXPORT nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

EXPORT nvmlReturn_t nvmlInit(void)
{
    return nvmlInitWithFlags(0);
}

EXPORT nvmlReturn_t nvmlShutdown(void)
{
    pthread_mutex_lock(&life);
    nvmlReturn_t result = init_count > 0 ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
    if (init_count > 0 && --init_count == 0)
        __atomic_store_n(&current, NULL, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&life);
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    const struct world *world;
    nvmlReturn_t result = count == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter_node(GROUP_HANDLE, &world);
    if (result == NVML_SUCCESS)
        *count = device_count();
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *count)
{
    return nvmlDeviceGetCount_v2(count);
}

static nvmlReturn_t open_gpu(const struct world *world, unsigned int gpu, nvmlDevice_t *device)
{
    nvmlReturn_t result = strike_gpu(world, gpu, GROUP_HANDLE);
    if (result == NVML_SUCCESS)
        *device = device_handle(gpu, MAX_MIG);
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    const struct world *world;
    nvmlReturn_t result = device == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter_node(GROUP_HANDLE, &world);
    if (result != NVML_SUCCESS)
        return result;
    if (index >= device_count())
        return NVML_ERROR_INVALID_ARGUMENT;
    return open_gpu(world, __atomic_load_n(&order, __ATOMIC_ACQUIRE) >> 4 * index & 15, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

void mig_uuid(const struct identity *id, unsigned int instance, char out[48])
{
    /* MIG-<the GPU's, with the instance in the last digits>: stable, and recognisably its parent's. */
    size_t length = strnlen(id->uuid, sizeof id->uuid);
    snprintf(out, 48, "MIG-%.*s%02x", length > 6 ? (int)length - 6 : 0, id->uuid + (length > 6 ? 4 : 0), instance + 1);
}

static nvmlReturn_t find_gpu(int (*matches)(const struct identity *, const void *), const void *key, nvmlDevice_t *out)
{
    const struct world *world;
    nvmlReturn_t result = key == NULL || out == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter_node(GROUP_HANDLE, &world);
    if (result != NVML_SUCCESS)
        return result;
    for (unsigned int i = 0; i < device_count(); i++) {
        unsigned int gpu = __atomic_load_n(&order, __ATOMIC_ACQUIRE) >> 4 * i & 15;
        if (matches(&world->identity[gpu], key))
            return open_gpu(world, gpu, out);
    }
    return NVML_ERROR_NOT_FOUND;
}

static int has_uuid(const struct identity *id, const void *key)
{
    return strncmp(id->uuid, key, sizeof id->uuid) == 0;
}

static int has_serial(const struct identity *id, const void *key)
{
    return (id->features & HAS_SERIAL) && strncmp(id->serial, key, sizeof id->serial) == 0;
}

static int has_bus(const struct identity *id, const void *key)
{
    unsigned int domain = 0, bus, device, function = 0;
    if (sscanf(key, "%x:%x:%x.%x", &domain, &bus, &device, &function) < 3) {
        domain = 0;
        if (sscanf(key, "%x:%x.%x", &bus, &device, &function) < 2)
            return 0;
    }
    return domain == id->pci_domain && bus == id->pci_bus && device == id->pci_device && function == 0;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    const struct world *world;
    if (uuid != NULL && device != NULL && strncmp(uuid, "MIG-", 4) == 0) {
        nvmlReturn_t result = enter_node(GROUP_HANDLE, &world);
        if (result != NVML_SUCCESS)
            return result;
        for (unsigned int gpu = 0; gpu < world->header.gpus; gpu++) {
            struct gpu_state state;
            char name[48];
            gpu_read(world, gpu, &state);
            for (unsigned int mig = 0; mig < state.mig; mig++) {
                mig_uuid(&world->identity[gpu], mig, name);
                if (strcmp(name, uuid) == 0) {
                    *device = device_handle(gpu, mig);
                    return NVML_SUCCESS;
                }
            }
        }
        return NVML_ERROR_NOT_FOUND;
    }
    return find_gpu(has_uuid, uuid, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device)
{
    return find_gpu(has_serial, serial, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    return find_gpu(has_bus, bus_id, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device)
{
    return find_gpu(has_bus, bus_id, device);
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
