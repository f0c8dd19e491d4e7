/* The overlay: a library that forwards every call to the real one and lays faults over what it answers. */
#ifndef GPUVIGIL_OVERLAY_H
#define GPUVIGIL_OVERLAY_H

#include "quantity.h"

/* The real library's function of this name and type, looked up once; where it has none, one that says so. */
void *real(void **slot, const char *name);
#define REAL(name) ({ static void *slot_of_name; (__typeof__(&name))real(&slot_of_name, #name); })

nvmlReturn_t nvmlInit_v2(void);
nvmlReturn_t nvmlInitWithFlags(unsigned int flags);
nvmlReturn_t nvmlShutdown(void);
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *out, unsigned int length);
nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device, nvmlDevice_t *out);

/* Checks and suffers faults that strike whole calls. `out` is NULL if the handle is none of this world's GPUs. */
nvmlReturn_t overlay_enter(nvmlDevice_t handle, enum group group, struct moment **out);
/* Lays what the simulator's physics would do (heat, clocks, power) over a real reading. */
void lay_physics(struct moment *moment, enum quantity what, uint32_t a, uint32_t b, int64_t *value);

#endif
