#define _GNU_SOURCE
#include "abi.h"

#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int64_t boot_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void boot_id_read(char out[40])
{
    memset(out, 0, 40);
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    ssize_t got = read(file, out, 36);
    close(file);
    if (got < 36)
        memset(out, 0, 40);
}

static uint64_t fnv(uint64_t hash, const void *data, size_t size)
{
    const unsigned char *byte = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ byte[i]) * 0x100000001b3ull;
    return hash;
}

uint64_t world_checksum(const struct world *world)
{
    uint64_t hash = fnv(0xcbf29ce484222325ull, &world->header, offsetof(struct header, checksum));
    return fnv(hash, world->identity, sizeof world->identity);
}

static const char *reason_to_refuse(const struct world *world)
{
    char boot[40];
    const struct header *header = &world->header;
    if (header->magic != STATE_MAGIC)
        return "not a simulator state file";
    if (header->version != STATE_VERSION || header->size != sizeof(struct world))
        return "state file of another version: start the simulator again";
    if (header->checksum != world_checksum(world) || header->gpus > MAX_GPUS || header->gpus < 1)
        return "state file is damaged: start the simulator again";
    boot_id_read(boot);
    if (memcmp(boot, header->boot_id, sizeof boot) != 0)
        return "state file of an earlier boot: start the simulator again";
    return NULL;
}

struct world *world_map(const char *path, int writable, char *why)
{
    int file = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (file < 0) {
        snprintf(why, 256, "%s", strerror(errno));
        return NULL;
    }
    struct stat status;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size != (off_t)sizeof(struct world)) {
        snprintf(why, 256, "not a simulator state file of this version (%lld bytes, expected %zu)",
                 (long long)status.st_size, sizeof(struct world));
        close(file);
        return NULL;
    }
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    struct world *world = mmap(NULL, sizeof *world, protection, MAP_SHARED, file, 0);
    close(file);
    if (world == MAP_FAILED) {
        snprintf(why, 256, "cannot map: %s", strerror(errno));
        return NULL;
    }
    const char *reason = reason_to_refuse(world);
    if (reason != NULL) {
        snprintf(why, 256, "%s", reason);
        munmap(world, sizeof *world);
        return NULL;
    }
    return world;
}

/* Copies the current slot. Acquire on every word keeps the second look at the generation behind them. */
static void cell_read(const struct world *world, unsigned int cell, struct gpu_state *out)
{
    const uint64_t *generation = &world->cell[cell].generation;
    uint64_t *to = (uint64_t *)out;
    for (;;) {
        uint64_t seen = __atomic_load_n(generation, __ATOMIC_ACQUIRE);
        const uint64_t *from = (const uint64_t *)&world->cell[cell].slot[seen & 1];
        for (size_t i = 0; i < sizeof *out / 8; i++)
            to[i] = __atomic_load_n(from + i, __ATOMIC_ACQUIRE);
        if (__atomic_load_n(generation, __ATOMIC_RELAXED) == seen)
            return;
    }
}

/* Release on every word keeps it behind the store of the generation before. */
void gpu_write(struct world *world, unsigned int cell, const struct gpu_state *value)
{
    uint64_t next = __atomic_load_n(&world->cell[cell].generation, __ATOMIC_RELAXED) + 1;
    uint64_t *to = (uint64_t *)&world->cell[cell].slot[next & 1];
    const uint64_t *from = (const uint64_t *)value;
    for (size_t i = 0; i < sizeof *value / 8; i++)
        __atomic_store_n(to + i, from[i], __ATOMIC_RELEASE);
    __atomic_store_n(&world->cell[cell].generation, next, __ATOMIC_RELEASE);
}

void gpu_read(const struct world *world, unsigned int cell, struct gpu_state *out)
{
    cell_read(world, cell, out);
    /* Whatever stands in the file, counts stay inside their arrays. */
    if (out->faults > MAX_FAULTS)
        out->faults = MAX_FAULTS;
    if (out->processes > MAX_PROCESSES)
        out->processes = MAX_PROCESSES;
    if (out->mig > MAX_MIG)
        out->mig = MAX_MIG;
    if (out->workload >= WORKLOADS)
        out->workload = WORKLOAD_IDLE;
    /* Over a real driver nothing lasts for ever: an entry without an end is no entry. */
    for (uint32_t i = 0; world->header.overlay && i < out->faults; i++)
        if (out->fault[i].off == 0)
            out->fault[i].kind = FAULT_NONE;
}

uint64_t gpu_generation(const struct world *world, unsigned int cell)
{
    return __atomic_load_n(&world->cell[cell].generation, __ATOMIC_ACQUIRE);
}

int64_t sim_at(const struct clock_state *clock, int64_t boot)
{
    int before = boot < clock->boot;
    int64_t base = before ? clock->sim_before : clock->sim;
    double passed = (double)(boot - clock->boot) * (before ? clock->speed_before : clock->speed);
    base = base < 0 ? 0 : base > INT64_MAX / 2 ? INT64_MAX / 2 : base; /* whatever stands in the file */
    if (!(passed > -(double)base))
        return 0;
    return base + (passed < 3e18 ? (int64_t)passed : (int64_t)3e18);
}

void world_wait(const struct world *world, uint32_t seen, int64_t nanoseconds)
{
    struct timespec limit = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    long result = syscall(SYS_futex, &world->header.changes, FUTEX_WAIT, seen, &limit, NULL, 0);
    if (result != 0 && errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT) {
        struct timespec pause = {0, nanoseconds < 10000000 ? nanoseconds : 10000000};
        nanosleep(&pause, NULL);
    }
}

void world_wake(struct world *world)
{
    __atomic_add_fetch(&world->header.changes, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &world->header.changes, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}
