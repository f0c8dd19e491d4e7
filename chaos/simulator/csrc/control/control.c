/* The writer: called by Python, one at a time under a lock on the state file. No change makes a counter step. */
#define _GNU_SOURCE
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct control {
    int file;
    pthread_mutex_t threads; /* the file's lock keeps processes apart, this one the threads of ours */
    struct world *world;
};

#define COUNTERS (sizeof(struct counters) / sizeof(double))
#define LEAD_NS (2 * FRESH_NS)

/* All counters of a state at a moment of the boot clock, as readers see them. */
static struct counters counters_of_state(const struct world *world, unsigned int cell, const struct gpu_state *state,
                                         int64_t boot)
{
    struct view view = {.world = world, .id = &world->identity[cell], .state = state, .gpu = cell, .mig = -1};
    view.boot = boot;
    view.sim = sim_at(&state->clock, boot);
    view_freeze(&view); /* frozen counters must not move either */
    return counters_at(&view);
}

/* Makes the counters of `next` those of `old` at `boot`. */
static void keep_counters(const struct world *world, unsigned int cell, const struct gpu_state *old,
                          struct gpu_state *next,
                          int64_t boot)
{
    if (cell == NODE)
        return;
    struct counters was = counters_of_state(world, cell, old, boot);
    const double *wanted = (const double *)&was;
    double *base = (double *)&next->base;
    for (int round = 0; round < 2; round++) { /* the second makes good what the first lost by rounding */
        struct counters is = counters_of_state(world, cell, next, boot);
        const double *have = (const double *)&is;
        for (size_t i = 0; i < COUNTERS; i++)
            if (round == 0)
                base[i] += wanted[i] - have[i];
            else if (have[i] < wanted[i])
                base[i] += 2 * (wanted[i] - have[i]);
    }
}

/* Announces that these cells change at a moment a little ahead, and says which: until then the old state and the new
 * one tell the same, after it no reader goes by the old one. While the simulated clock stands, now will do. */
static int64_t announce(struct world *world, unsigned int first, unsigned int last)
{
    struct gpu_state state;
    gpu_read(world, first, &state);
    if (state.clock.speed == 0 && boot_now() >= state.clock.boot)
        return boot_now();
    for (;;) {
        int64_t moment = boot_now() + LEAD_NS;
        for (unsigned int cell = first; cell <= last; cell++)
            __atomic_store_n(&world->cell[cell].closing, moment, __ATOMIC_RELEASE);
        if (boot_now() <= moment - FRESH_NS) /* nobody who missed it can be at work beyond the moment */
            return moment;
    }
}

static void wait_until(int64_t boot)
{
    struct timespec pause = {0, 0};
    for (int64_t left; (left = boot - boot_now()) > 0;) {
        pause.tv_nsec = left < 999999999 ? left : 999999999;
        nanosleep(&pause, NULL);
    }
}

static void publish(struct world *world, unsigned int cell, const struct gpu_state *next)
{
    gpu_write(world, cell, next);
    __atomic_store_n(&world->cell[cell].closing, 0, __ATOMIC_RELEASE);
}

/* Writes a fresh world to `path` (which must not exist). 0, or -errno. */
EXPORT int gpuvigil_create(const char *path, struct header *header, const struct identity *identities,
                           const struct gpu_state *first, double speed)
{
    struct world *world = calloc(1, sizeof *world);
    if (world == NULL)
        return -ENOMEM;
    header->magic = STATE_MAGIC;
    header->version = STATE_VERSION;
    header->size = sizeof *world;
    boot_id_read(header->boot_id);
    world->header = *header;
    memcpy(world->identity, identities, header->gpus * sizeof *identities);
    world->header.checksum = world_checksum(world);
    world->header.next_id = 1;
    struct clock_state clock = {header->epoch, boot_now(), speed, header->epoch, speed};
    for (unsigned int i = 0; i < header->gpus; i++)
        world->cell[i].slot[0] = first[i];
    for (unsigned int i = 0; i <= NODE; i++)
        world->cell[i].slot[0].clock = clock;
    int result = 0, file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (file < 0)
        result = -errno;
    else {
        ssize_t written = write(file, world, sizeof *world);
        if (written != (ssize_t)sizeof *world)
            result = written < 0 ? -errno : -ENOSPC;
        close(file);
    }
    free(world);
    return result;
}

EXPORT struct control *gpuvigil_open(const char *path, char *why)
{
    struct control *control = calloc(1, sizeof *control);
    if (control == NULL)
        return NULL;
    control->world = world_map(path, 1, why);
    control->file = control->world != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (control->file < 0) {
        free(control);
        return NULL;
    }
    pthread_mutex_init(&control->threads, NULL);
    return control;
}

EXPORT void gpuvigil_close(struct control *control)
{
    munmap(control->world, sizeof *control->world);
    close(control->file);
    pthread_mutex_destroy(&control->threads);
    free(control);
}

EXPORT const struct header *gpuvigil_header(const struct control *control)
{
    return &control->world->header;
}

EXPORT const struct identity *gpuvigil_identity(const struct control *control, unsigned int gpu)
{
    return &control->world->identity[gpu % MAX_GPUS];
}

EXPORT void gpuvigil_read(const struct control *control, unsigned int cell, struct gpu_state *out)
{
    gpu_read(control->world, cell, out);
}

EXPORT int64_t gpuvigil_boot_now(void)
{
    return boot_now();
}

static void lock(struct control *control)
{
    pthread_mutex_lock(&control->threads);
    while (flock(control->file, LOCK_EX) != 0 && errno == EINTR)
        ;
}

static void unlock(struct control *control)
{
    flock(control->file, LOCK_UN);
    pthread_mutex_unlock(&control->threads);
}

/* Makes room in a full ring: drops the oldest entry that is over, and keeps what it counted. 0 if none is over. */
static int drop_oldest(const struct world *world, unsigned int cell, struct gpu_state *state, int64_t boot)
{
    struct gpu_state old = *state;
    uint32_t victim = MAX_FAULTS;
    for (uint32_t i = 0; i < state->faults; i++) {
        const struct fault *fault = &state->fault[i];
        int over = fault->off != 0 && fault->off <= boot;
        if (over && (victim == MAX_FAULTS || fault->off < state->fault[victim].off))
            victim = i;
    }
    if (victim == MAX_FAULTS)
        return 0;
    memmove(&state->fault[victim], &state->fault[victim + 1], (state->faults - victim - 1) * sizeof(struct fault));
    state->faults--;
    keep_counters(world, cell, &old, state, boot);
    return 1;
}

/* Adds a fault beginning `delay` ns from now and lasting `duration` ns (0 = until lifted). Its id, or -EINVAL, -ENOSPC,
 * or -EPERM for what an overlay must not have. */
EXPORT int64_t gpuvigil_set(struct control *control, unsigned int cell, uint32_t kind, int64_t delay, int64_t duration,
                            const double p[FAULT_PARAMETERS])
{
    struct world *world = control->world;
    struct gpu_state state;
    int64_t result = -ENOSPC;
    if (kind == FAULT_NONE || kind >= KINDS || cell > NODE || (cell < NODE && cell >= world->header.gpus) || delay < 0
        || duration < 0)
        return -EINVAL;
    if (world->header.overlay && (duration == 0 || kind == VALUES_FROZEN || (kind == HANG && p[1] != 0)))
        return -EPERM; /* over a real driver every fault ends by itself */
    lock(control);
    int64_t moment = announce(world, cell, cell);
    gpu_read(world, cell, &state);
    if (state.faults < MAX_FAULTS || drop_oldest(world, cell, &state, moment)) {
        struct fault *fault = &state.fault[state.faults++];
        memset(fault, 0, sizeof *fault);
        fault->kind = kind;
        fault->id = __atomic_fetch_add(&world->header.next_id, 1, __ATOMIC_RELAXED);
        fault->on = moment + delay;
        fault->off = duration > 0 ? fault->on + duration : 0;
        fault->sim_on = fault->sim_off = UNKNOWN_TIME;
        memcpy(fault->p, p, sizeof fault->p);
        result = fault->id;
    }
    publish(world, cell, &state);
    wait_until(moment);
    world_wake(world);
    unlock(control);
    return result;
}

/* Ends a fault now (id 0: all of the cell). It stays in the ring, ended, so that its past goes on counting. */
EXPORT int gpuvigil_clear(struct control *control, unsigned int cell, uint32_t id)
{
    struct world *world = control->world;
    struct gpu_state state;
    int ended = 0;
    lock(control);
    gpu_read(world, cell, &state);
    int64_t moment = state.faults > 0 ? announce(world, cell, cell) : 0;
    for (uint32_t i = state.faults; i-- > 0;) {
        struct fault *fault = &state.fault[i];
        if ((id != 0 && fault->id != id) || (fault->off != 0 && fault->off <= moment))
            continue;
        ended++;
        if (fault->on > moment) { /* it never came */
            memmove(fault, fault + 1, (state.faults - i - 1) * sizeof *fault);
            state.faults--;
        } else
            fault->off = moment > fault->on ? moment : fault->on + 1;
    }
    if (moment != 0) {
        publish(world, cell, &state);
        wait_until(moment);
        world_wake(world);
    }
    unlock(control);
    return ended;
}

/* Fixes in the simulated time that was theirs the begin and end of faults that are past `boot`. */
static void keep_times(struct gpu_state *state, int64_t boot)
{
    for (uint32_t i = 0; i < state->faults; i++) {
        struct fault *fault = &state->fault[i];
        if (fault->on <= boot && fault->sim_on == UNKNOWN_TIME)
            fault->sim_on = sim_at(&state->clock, fault->on);
        if (fault->off != 0 && fault->off <= boot && fault->sim_off == UNKNOWN_TIME)
            fault->sim_off = sim_at(&state->clock, fault->off);
    }
}

/* Sets the clock's speed (0 freezes) and steps it by `step` ns, forward only. 0 or -EINVAL. */
EXPORT int gpuvigil_set_clock(struct control *control, double speed, int64_t step)
{
    if (!(speed >= 0 && speed <= 1e6) || step < 0)
        return -EINVAL;
    lock(control);
    struct world *world = control->world;
    int64_t moment = announce(world, 0, NODE);
    for (unsigned int cell = 0; cell <= NODE; cell++) {
        struct gpu_state state;
        gpu_read(world, cell, &state);
        int64_t sim = sim_at(&state.clock, moment);
        keep_times(&state, moment);
        state.clock = (struct clock_state){sim + step, moment, speed, sim, state.clock.speed};
        publish(world, cell, &state);
    }
    wait_until(moment);
    world_wake(world);
    unlock(control);
    return 0;
}

/* Replaces workload, processes and MIG instances by those in `wanted`; faults and counters stay. */
EXPORT void gpuvigil_change(struct control *control, unsigned int gpu, const struct gpu_state *wanted)
{
    struct world *world = control->world;
    struct gpu_state state, old;
    lock(control);
    gpu_read(world, gpu, &old);
    state = old;
    state.processes = wanted->processes;
    state.mig = wanted->mig;
    memcpy(state.process, wanted->process, sizeof state.process);
    memcpy(state.mig_slices, wanted->mig_slices, sizeof state.mig_slices);
    if (wanted->workload != old.workload) {
        int64_t moment = announce(world, gpu, gpu);
        state.workload = wanted->workload;
        keep_counters(world, gpu, &old, &state, moment);
        wait_until(moment); /* this change cannot be told beforehand: readers wait from the moment to the store */
    }
    publish(world, gpu, &state);
    world_wake(world);
    unlock(control);
}

/* Tells all who live in this world that it is over. */
EXPORT void gpuvigil_end(struct control *control)
{
    __atomic_store_n(&control->world->header.closed, 1, __ATOMIC_RELEASE);
    world_wake(control->world);
}

/* For Python to compare with its twins of these records, in this order. */
EXPORT const uint32_t gpuvigil_sizes[] = {sizeof(struct header), sizeof(struct identity), sizeof(struct gpu_state),
                                          sizeof(struct clock_state), sizeof(struct counters), sizeof(struct fault),
                                          sizeof(struct process)};
