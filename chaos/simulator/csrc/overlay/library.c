#define _GNU_SOURCE
#include "overlay.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HANDLES 256
#define NOT_OURS 255u
#define LOOK_NS 1000000000 /* for a state file that appears, or is replaced, while the process runs */

extern const char *const gpuvigil_forward_names[]; /* generated: what the real library has beside our wrappers */
extern void *gpuvigil_forward[];

static void *library;
static nvmlReturn_t absent = NVML_ERROR_LIBRARY_NOT_FOUND;

static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER;
static unsigned int init_count; /* under `life` */
static struct world *current;   /* atomic; NULL = nothing to lay over */
static int64_t looked;          /* atomic: when the state file was last looked for */
static uint64_t order;          /* atomic, with `reordered` and `shown`: as found by the first initialisation */
static uint32_t reordered, shown;

/* Real handles and whose GPU they are. Filled under `life`, read without it: the handle is stored last. */
static struct {
    nvmlDevice_t handle;
    uint32_t gpu;
} known[HANDLES];

static nvmlReturn_t not_there(void)
{
    return absent;
}

static int is_myself(const char *path)
{
    Dl_info info;
    struct stat mine, theirs;
    return dladdr((void *)&is_myself, &info) != 0 && stat(info.dli_fname, &mine) == 0 && stat(path, &theirs) == 0
           && mine.st_dev == theirs.st_dev && mine.st_ino == theirs.st_ino;
}

__attribute__((constructor)) static void open_real(void)
{
    const char *path = getenv("GPUVIGIL_SIM_REAL");
    if (path == NULL || *path == '\0')
        fprintf(stderr, "gpuvigil overlay: GPUVIGIL_SIM_REAL does not name the real libnvidia-ml.so.1\n");
    else if (is_myself(path))
        fprintf(stderr, "gpuvigil overlay: GPUVIGIL_SIM_REAL=%s is the overlay itself\n", path);
    else {
        int flags = RTLD_NOW | RTLD_LOCAL;
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__ /* they forbid it */
        flags |= RTLD_DEEPBIND; /* its calls to itself must not come back to us */
#endif
        library = dlopen(path, flags);
        if (library == NULL)
            fprintf(stderr, "gpuvigil overlay: %s\n", dlerror());
        else
            absent = NVML_ERROR_FUNCTION_NOT_FOUND;
    }
    for (unsigned int i = 0; gpuvigil_forward_names[i] != NULL; i++) {
        void *found = library != NULL ? dlsym(library, gpuvigil_forward_names[i]) : NULL;
        gpuvigil_forward[i] = found != NULL ? found : (void *)&not_there;
    }
}

void *real(void **slot, const char *name)
{
    void *found = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (found == NULL) {
        found = library != NULL ? dlsym(library, name) : NULL;
        found = found != NULL ? found : (void *)&not_there;
        __atomic_store_n(slot, found, __ATOMIC_RELEASE);
    }
    return found;
}

static void forget_handles(void)
{
    for (unsigned int i = 0; i < HANDLES; i++)
        __atomic_store_n(&known[i].handle, NULL, __ATOMIC_RELEASE);
}

/* Maps the state file if there is one and it is not yet, or no longer, ours. Under `life`. */
static void look_for_world(void)
{
    char why[256];
    const char *path = getenv("GPUVIGIL_SIM_OVERLAY");
    struct world *world = __atomic_load_n(&current, __ATOMIC_ACQUIRE);
    __atomic_store_n(&looked, boot_now(), __ATOMIC_RELEASE);
    if (world != NULL && !__atomic_load_n(&world->header.closed, __ATOMIC_ACQUIRE))
        return;
    world = path != NULL && *path != '\0' ? world_map(path, 0, why) : NULL;
    if (world != NULL && !world->header.overlay)
        world = NULL; /* a simulator's world may hold faults without end */
    forget_handles();
    __atomic_store_n(&current, world, __ATOMIC_RELEASE); /* the old one stays mapped: a hanging call may look at it */
}

const struct world *world_now(void)
{
    struct world *world = __atomic_load_n(&current, __ATOMIC_ACQUIRE);
    int usable = world != NULL && !__atomic_load_n(&world->header.closed, __ATOMIC_ACQUIRE);
    if (!usable && boot_now() - __atomic_load_n(&looked, __ATOMIC_ACQUIRE) > LOOK_NS
        && pthread_mutex_trylock(&life) == 0) {
        look_for_world();
        pthread_mutex_unlock(&life);
        world = __atomic_load_n(&current, __ATOMIC_ACQUIRE);
        usable = world != NULL;
    }
    return usable ? world : NULL;
}

static uint32_t ask_whose(const struct world *world, nvmlDevice_t handle)
{
    char uuid[96] = "";
    nvmlDevice_t parent;
    if (REAL(nvmlDeviceGetUUID)(handle, uuid, (unsigned int)sizeof uuid) != NVML_SUCCESS)
        return NOT_OURS;
    if (strncmp(uuid, "MIG-", 4) == 0
        && (REAL(nvmlDeviceGetDeviceHandleFromMigDeviceHandle)(handle, &parent) != NVML_SUCCESS
            || REAL(nvmlDeviceGetUUID)(parent, uuid, (unsigned int)sizeof uuid) != NVML_SUCCESS))
        return NOT_OURS;
    for (uint32_t gpu = 0; gpu < world->header.gpus; gpu++)
        if (strncmp(world->identity[gpu].uuid, uuid, sizeof world->identity[gpu].uuid) == 0)
            return gpu;
    return NOT_OURS;
}

static uint32_t whose(const struct world *world, nvmlDevice_t handle)
{
    uint32_t start = (uint32_t)((uintptr_t)handle >> 4) * 2654435761u % HANDLES, gpu;
    for (uint32_t i = 0; i < HANDLES; i++) {
        nvmlDevice_t entry = __atomic_load_n(&known[(start + i) % HANDLES].handle, __ATOMIC_ACQUIRE);
        if (entry == handle)
            return __atomic_load_n(&known[(start + i) % HANDLES].gpu, __ATOMIC_RELAXED);
        if (entry == NULL)
            break;
    }
    gpu = ask_whose(world, handle);
    if (gpu == NOT_OURS)
        return gpu;
    pthread_mutex_lock(&life);
    for (uint32_t i = 0; i < HANDLES; i++) {
        uint32_t place = (start + i) % HANDLES;
        if (known[place].handle == NULL) {
            __atomic_store_n(&known[place].gpu, gpu, __ATOMIC_RELAXED);
            __atomic_store_n(&known[place].handle, handle, __ATOMIC_RELEASE);
            break;
        }
    }
    pthread_mutex_unlock(&life);
    return gpu;
}

nvmlReturn_t overlay_enter(nvmlDevice_t handle, enum group group, struct moment **out)
{
    const struct world *world = world_now();
    *out = NULL;
    if (world == NULL || handle == NULL)
        return NVML_SUCCESS;
    nvmlReturn_t result = enter_node(group, &world);
    if (result != NVML_SUCCESS)
        return result;
    uint32_t gpu = whose(world, handle);
    return gpu == NOT_OURS ? NVML_SUCCESS : enter_gpu(world, gpu, -1, group, out);
}

static nvmlReturn_t node_fault(enum group group)
{
    const struct world *world = world_now();
    return world != NULL ? enter_node(group, &world) : NVML_SUCCESS;
}

static nvmlReturn_t init_fault(void)
{
    struct gpu_state node;
    pthread_mutex_lock(&life);
    look_for_world();
    pthread_mutex_unlock(&life);
    const struct world *world = world_now();
    if (world == NULL)
        return NVML_SUCCESS;
    int64_t boot = boot_now();
    gpu_read(world, NODE, &node);
    if (node_has(&node, DRIVER_UNLOADED, boot))
        return NVML_ERROR_DRIVER_NOT_LOADED;
    if (node_has(&node, VERSION_MISMATCH, boot))
        return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
    return strike(world, NODE, &node, boot, GROUP_INIT);
}

/* After the first initialisation: forgets handles of the one before, and finds the GPUs. */
static void begin(void)
{
    struct gpu_state node;
    uint64_t found = 0;
    uint32_t count = 0, plain = 1;
    const struct world *world = __atomic_load_n(&current, __ATOMIC_ACQUIRE);
    forget_handles();
    if (world != NULL) {
        gpu_read(world, NODE, &node);
        count = enumerate(world, &node, boot_now(), &found);
        plain = count == world->header.gpus;
        for (uint32_t i = 0; i < count && plain; i++)
            plain = (found >> 4 * i & 15) == i;
    }
    __atomic_store_n(&order, found, __ATOMIC_RELEASE);
    __atomic_store_n(&shown, count, __ATOMIC_RELEASE);
    __atomic_store_n(&reordered, !plain, __ATOMIC_RELEASE);
}

static nvmlReturn_t initialise(nvmlReturn_t (*start)(unsigned int), unsigned int flags)
{
    nvmlReturn_t result = init_fault();
    if (result == NVML_SUCCESS)
        result = start(flags);
    if (result != NVML_SUCCESS)
        return result;
    pthread_mutex_lock(&life);
    if (init_count++ == 0)
        begin();
    pthread_mutex_unlock(&life);
    return NVML_SUCCESS;
}

static nvmlReturn_t start_v2(unsigned int flags)
{
    (void)flags;
    return REAL(nvmlInit_v2)();
}

static nvmlReturn_t start_with_flags(unsigned int flags)
{
    return REAL(nvmlInitWithFlags)(flags);
}

EXPORT nvmlReturn_t nvmlInit_v2(void)
{
    return initialise(start_v2, 0);
}

EXPORT nvmlReturn_t nvmlInit(void)
{
    return initialise(start_v2, 0);
}

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    return initialise(start_with_flags, flags);
}

EXPORT nvmlReturn_t nvmlShutdown(void)
{
    pthread_mutex_lock(&life);
    if (init_count > 0)
        init_count--;
    pthread_mutex_unlock(&life);
    return REAL(nvmlShutdown)();
}

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    nvmlReturn_t result = node_fault(GROUP_HANDLE);
    if (result == NVML_SUCCESS)
        result = REAL(nvmlDeviceGetCount_v2)(count);
    if (result == NVML_SUCCESS && __atomic_load_n(&reordered, __ATOMIC_ACQUIRE))
        *count = __atomic_load_n(&shown, __ATOMIC_ACQUIRE);
    return result;
}

/* A handle that was found: the GPU may be lost, or not have been found by this initialisation. */
static nvmlReturn_t found(nvmlReturn_t result, nvmlDevice_t *device)
{
    struct moment *moment;
    if (result != NVML_SUCCESS)
        return result;
    result = overlay_enter(*device, GROUP_HANDLE, &moment);
    if (result != NVML_SUCCESS || moment == NULL || !__atomic_load_n(&reordered, __ATOMIC_ACQUIRE))
        return result;
    return device_index(moment->view.gpu) < MAX_GPUS ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

unsigned int device_index(unsigned int gpu)
{
    uint64_t nibbles = __atomic_load_n(&order, __ATOMIC_ACQUIRE);
    for (unsigned int i = 0; i < __atomic_load_n(&shown, __ATOMIC_ACQUIRE); i++)
        if ((nibbles >> 4 * i & 15) == gpu)
            return i;
    return MAX_GPUS;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    const struct world *world = world_now();
    nvmlReturn_t result = node_fault(GROUP_HANDLE);
    if (result != NVML_SUCCESS)
        return result;
    if (world == NULL || !__atomic_load_n(&reordered, __ATOMIC_ACQUIRE))
        return found(REAL(nvmlDeviceGetHandleByIndex_v2)(index, device), device);
    if (index >= __atomic_load_n(&shown, __ATOMIC_ACQUIRE))
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned int gpu = __atomic_load_n(&order, __ATOMIC_ACQUIRE) >> 4 * index & 15;
    return found(REAL(nvmlDeviceGetHandleByUUID)(world->identity[gpu].uuid, device), device);
}

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    struct moment *moment;
    nvmlReturn_t result = overlay_enter(device, GROUP_IDENTITY, &moment);
    if (result == NVML_SUCCESS)
        result = REAL(nvmlDeviceGetIndex)(device, index);
    if (result == NVML_SUCCESS && moment != NULL && __atomic_load_n(&reordered, __ATOMIC_ACQUIRE))
        *index = device_index(moment->view.gpu);
    return result;
}

#define BY_NAME(name) \
    EXPORT nvmlReturn_t name(const char *key, nvmlDevice_t *device) \
    { \
        nvmlReturn_t result = node_fault(GROUP_HANDLE); \
        return result != NVML_SUCCESS ? result : found(REAL(name)(key, device), device); \
    }

BY_NAME(nvmlDeviceGetHandleByUUID)
BY_NAME(nvmlDeviceGetHandleBySerial)
BY_NAME(nvmlDeviceGetHandleByPciBusId_v2)
