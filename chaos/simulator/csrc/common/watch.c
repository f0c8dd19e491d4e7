#include "watch.h"

#include "model.h"

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

/* Where the count of this fault is kept; a place whose fault left the ring is used again. */
static uint32_t *repeats_of(struct watch *watch, uint32_t id, const struct gpu_state *state)
{
    int unused = -1;
    for (int i = 0; i < MAX_FAULTS; i++) {
        int alive = 0;
        if (watch->seen[i].fault == id)
            return &watch->seen[i].repeats;
        for (uint32_t j = 0; j < state->faults && watch->seen[i].fault != 0; j++)
            alive |= state->fault[j].id == watch->seen[i].fault;
        if (!alive)
            unused = i;
    }
    if (unused < 0)
        return NULL;
    watch->seen[unused].fault = id;
    watch->seen[unused].repeats = 0;
    return &watch->seen[unused].repeats;
}

void watch_begin(struct watch *watch, const struct gpu_state *state, uint64_t types, int64_t now)
{
    watch->wanted |= types;
    for (uint32_t i = 0; i < state->faults; i++) {
        uint32_t count = produced(&state->fault[i], now);
        uint32_t *repeats = count > 0 ? repeats_of(watch, state->fault[i].id, state) : NULL;
        if (repeats != NULL)
            *repeats = count;
    }
}

int watch_take(struct watch *watch, const struct gpu_state *state, int64_t now, int64_t *next, struct event *out)
{
    for (uint32_t i = 0; i < state->faults; i++) {
        const struct fault *fault = &state->fault[i];
        uint64_t type = event_of(fault);
        if ((type & watch->wanted) == 0)
            continue;
        uint32_t count = produced(fault, now);
        uint32_t *repeats = count > 0 ? repeats_of(watch, fault->id, state) : NULL;
        if (repeats != NULL && *repeats < count) {
            ++*repeats;
            out->type = type;
            out->data = type == EVENT_XID ? to_count(fault->p[0]) : 0;
            return 1;
        }
        int64_t when = count == 0 ? fault->on : now + 20000000; /* repeats are looked for every 20 ms */
        int more = count == 0 || (fault->kind == XID && fault->p[1] > 0 && fault_active(fault, now));
        if (more && when < *next)
            *next = when;
    }
    return 0;
}
