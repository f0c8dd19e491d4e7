/* What a listener has seen of one GPU's events. An event is a fault whose time has come: nothing is queued. */
#ifndef GPUVIGIL_WATCH_H
#define GPUVIGIL_WATCH_H

#include "abi.h"
#include "state.h"

struct watch {
    uint64_t wanted; /* event types */
    struct {
        uint32_t fault, repeats; /* how many of its events were delivered */
    } seen[MAX_FAULTS];
};

struct event {
    uint64_t type, data;
};

/* Wants these types as well; what happened before `now` is lost, as with the real driver. */
void watch_begin(struct watch *watch, const struct gpu_state *state, uint64_t types, int64_t now);
/* Takes one event; else lowers `next` to the boot time at which to look again. */
int watch_take(struct watch *watch, const struct gpu_state *state, int64_t now, int64_t *next, struct event *out);

#endif
