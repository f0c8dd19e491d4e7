#define _GNU_SOURCE
#include "device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BANKS 8 /* handles of the last eight initialisations differ, so that a stale one is caught */

static struct device table[BANKS][MAX_GPUS][MAX_MIG + 1];

static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER;
static unsigned int init_count; /* under `life` */
static uint32_t bank;           /* atomic from here on */
static uint64_t order;          /* a nibble per index: which GPU it is */
static uint32_t shown;          /* GPUs that this initialisation found */
static struct world *current;   /* NULL = not initialised */

/* Worlds stay mapped as long as the process: a hanging caller may still look at one. Under `life`. */
static struct map {
    dev_t device;
    ino_t inode;
    struct world *world;
    struct map *next;
} *maps;

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
    for (struct map *map = maps; map != NULL; map = map->next)
        if (map->device == status.st_dev && map->inode == status.st_ino
            && !__atomic_load_n(&map->world->header.closed, __ATOMIC_ACQUIRE))
            return map->world;
    struct map *map = malloc(sizeof *map);
    struct world *world = map != NULL ? world_map(path, 0, why) : NULL;
    if (world == NULL) {
        fprintf(stderr, "gpuvigil simulator: %s: %s\n", path, map != NULL ? why : "out of memory");
        free(map);
        return NULL;
    }
    *map = (struct map){status.st_dev, status.st_ino, world, maps};
    maps = map;
    return world;
}

const struct world *world_now(void)
{
    return __atomic_load_n(&current, __ATOMIC_ACQUIRE);
}

nvmlReturn_t enter(nvmlDevice_t handle, enum group group, struct moment **out)
{
    const struct world *world;
    struct device device;
    nvmlReturn_t result = enter_node(group, &world);
    if (result != NVML_SUCCESS)
        return result;
    if (!device_find(handle, &device))
        return NVML_ERROR_INVALID_ARGUMENT;
    return enter_gpu(world, device.gpu, device.mig < MAX_MIG ? (int)device.mig : -1, group, out);
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
    uint64_t nibbles;
    uint32_t count = enumerate(world, &node, boot, &nibbles);
    __atomic_store_n(&order, nibbles, __ATOMIC_RELEASE);
    __atomic_store_n(&shown, count, __ATOMIC_RELEASE);
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
