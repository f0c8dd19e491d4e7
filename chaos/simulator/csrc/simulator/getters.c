#include "quantity.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Scalar getters: one line each. The out parameter is 4 or 8 bytes wide. */
static nvmlReturn_t scalar(nvmlDevice_t device, enum group group, enum quantity what, uint32_t a, uint32_t b,
                           uint32_t c,
                           void *out, size_t size)
{
    struct moment *moment;
    int64_t value;
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, group, &moment);
    if (result == NVML_SUCCESS)
        result = quantity(moment, what, a, b, c, &value);
    if (result != NVML_SUCCESS)
        return result;
    uint32_t narrow = (uint32_t)value;
    memcpy(out, size == 4 ? (void *)&narrow : (void *)&value, size);
    return NVML_SUCCESS;
}

#define GET0(name, group, type, what) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, type *out) { return scalar(d, group, what, 0, 0, 0, out, sizeof *out); }
#define GET1(name, group, type, what) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, unsigned int a, type *out) \
    { return scalar(d, group, what, a, 0, 0, out, sizeof *out); }
#define GET2(name, group, type, what) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, unsigned int a, unsigned int b, type *out) \
    { return scalar(d, group, what, a, b, 0, out, sizeof *out); }
#define GET3(name, group, type, what) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, unsigned int a, unsigned int b, unsigned int c, type *out) \
    { return scalar(d, group, what, a, b, c, out, sizeof *out); }
#define PAIR(name, group, first, second) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, unsigned int *x, unsigned int *y) \
    { nvmlReturn_t r = scalar(d, group, first, 0, 0, 0, x, sizeof *x); \
      return r != NVML_SUCCESS ? r : scalar(d, group, second, 0, 0, 0, y, sizeof *y); }

typedef unsigned long long wide;

static nvmlReturn_t text(nvmlDevice_t device, char *out, unsigned int length, size_t offset, size_t size,
                         uint32_t feature)
{
    struct moment *moment;
    char copy[97];
    nvmlReturn_t result = enter(device, GROUP_IDENTITY, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (feature != 0 && !(moment->view.id->features & feature))
        return NVML_ERROR_NOT_SUPPORTED;
    memcpy(copy, (const char *)moment->view.id + offset, size);
    copy[size] = '\0';
    return put_string(out, length, copy, !garbage(moment, 2));
}

#define TEXT(name, field, feature) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, char *out, unsigned int length) \
    { return text(d, out, length, offsetof(struct identity, field), sizeof(((struct identity *)0)->field), feature); }

#include "getters.def"
GET0(nvmlDeviceGetIndex, GROUP_IDENTITY, unsigned int, Q_INDEX) /* the overlay has its own */

void mig_uuid(const struct identity *id, unsigned int instance, char out[48]);

/* Memory of an instance: its slices' share of eight. */
static uint64_t memory_total(const struct view *view)
{
    uint64_t total = view->id->memory_total;
    if (view->mig < 0)
        return total;
    uint32_t slices = view->state->mig_slices[view->mig % MAX_MIG];
    return total / 8 * (slices < 1 ? 1 : slices > 4 ? 8 : slices == 3 ? 4 : slices);
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *out, unsigned int length)
{
    struct moment *moment;
    char name[160];
    nvmlReturn_t result = enter(device, GROUP_IDENTITY, &moment);
    if (result != NVML_SUCCESS)
        return result;
    const struct view *view = &moment->view;
    int size = snprintf(name, sizeof name, "%.96s", view->id->name);
    if (view->mig >= 0)
        snprintf(name + size, sizeof name - (size_t)size, " MIG %ug.%llugb",
                 view->state->mig_slices[view->mig % MAX_MIG],
                 (unsigned long long)(memory_total(view) >> 30));
    return put_string(out, length, name, !garbage(moment, 2));
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *out, unsigned int length)
{
    struct moment *moment;
    char uuid[48];
    nvmlReturn_t result = enter(device, GROUP_IDENTITY, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (moment->view.mig >= 0)
        mig_uuid(moment->view.id, (unsigned int)moment->view.mig, uuid);
    else
        snprintf(uuid, sizeof uuid, "%.47s", moment->view.id->uuid);
    return put_string(out, length, uuid, 1); /* never garbage: identity must hold, or nothing can be named */
}

EXPORT nvmlReturn_t nvmlDeviceGetInforomVersion(nvmlDevice_t device, unsigned int object, char *out, unsigned int length)
{
    static const char *const version[] = {"2.1", "6.16", "2.0"}; /* OEM, ECC, power */
    struct moment *moment;
    nvmlReturn_t result = enter(device, GROUP_IDENTITY, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (object >= sizeof version / sizeof *version || !(moment->view.id->features & HAS_ECC))
        return NVML_ERROR_NOT_SUPPORTED;
    return put_string(out, length, version[object], !garbage(moment, 2));
}

EXPORT nvmlReturn_t nvmlDeviceValidateInforom(nvmlDevice_t device)
{
    struct moment *moment;
    nvmlReturn_t result = enter(device, GROUP_IDENTITY, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (!(moment->view.id->features & HAS_ECC))
        return NVML_ERROR_NOT_SUPPORTED;
    return fault_find(&moment->view, INFOROM_CORRUPTED) != NULL ? NVML_ERROR_CORRUPTED_INFOROM : NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *out)
{
    struct moment *moment;
    nvmlReturn_t result = out == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter(device, GROUP_IDENTITY, &moment);
    if (result != NVML_SUCCESS)
        return result;
    const struct identity *id = moment->view.id;
    memset(out, 0, sizeof *out);
    snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "%04X:%02X:%02X.0", id->pci_domain & 0xffff, id->pci_bus & 0xff,
             id->pci_device & 0x1f);
    snprintf(out->busId, sizeof out->busId, "%08X:%02X:%02X.0", id->pci_domain, id->pci_bus & 0xff,
             id->pci_device & 0x1f);
    out->domain = id->pci_domain;
    out->bus = id->pci_bus;
    out->device = id->pci_device;
    out->pciDeviceId = id->pci_device_id;
    out->pciSubSystemId = id->pci_subsystem_id;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *out)
{
    return nvmlDeviceGetPciInfo_v3(device, out);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_t *out)
{
    return nvmlDeviceGetPciInfo_v3(device, out);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_t *out)
{
    nvmlPciInfo_t info;
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != STRUCT_VERSION(nvmlPciInfoExt_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = nvmlDeviceGetPciInfo_v3(device, &info);
    if (result != NVML_SUCCESS)
        return result;
    out->domain = info.domain;
    out->bus = info.bus;
    out->device = info.device;
    out->pciDeviceId = info.pciDeviceId;
    out->pciSubSystemId = info.pciSubSystemId;
    out->baseClass = 3;
    out->subClass = 2;
    memcpy(out->busId, info.busId, sizeof out->busId);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    struct moment *moment;
    if (major == NULL || minor == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, GROUP_IDENTITY, &moment);
    if (result != NVML_SUCCESS)
        return result;
    *major = (int)moment->view.id->capability_major;
    *minor = (int)moment->view.id->capability_minor;
    return NVML_SUCCESS;
}

/* Memory in use: what the workload holds, or its processes if they hold more, and what leaked. */
static uint64_t memory_used(const struct view *view)
{
    uint64_t total = memory_total(view), reserved = view->mig < 0 ? view->id->memory_reserved : 0, processes = 0;
    static const double share_of[WORKLOADS] = {[WORKLOAD_TRAINING] = 0.88, [WORKLOAD_INFERENCE] = 0.90};
    double share = share_of[view->state->workload % WORKLOADS];
    for (uint32_t i = 0; i < view->state->processes; i++)
        processes += view->state->process[i].memory;
    uint64_t used = to_count(share * (double)total);
    used = (used > processes ? used : processes) + to_count(leaked_bytes(view));
    uint64_t room = total > reserved ? total - reserved : 0;
    return used < room ? used : room;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *out)
{
    struct moment *moment;
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != STRUCT_VERSION(nvmlMemory_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = enter(device, GROUP_MEMORY, &moment);
    if (result != NVML_SUCCESS)
        return result;
    out->total = memory_total(&moment->view);
    out->reserved = moment->view.mig < 0 ? moment->view.id->memory_reserved : 0;
    out->used = memory_used(&moment->view);
    out->free = out->total - out->reserved - out->used;
    if (garbage(moment, 0))
        out->used = out->free = VALUE_NOT_AVAILABLE;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *out)
{
    nvmlMemory_v2_t info = {.version = STRUCT_VERSION(nvmlMemory_v2_t, 2)};
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = nvmlDeviceGetMemoryInfo_v2(device, &info);
    if (result != NVML_SUCCESS)
        return result;
    out->total = info.total;
    out->free = info.free;
    /* The first version does not tell used from reserved. */
    out->used = info.used == VALUE_NOT_AVAILABLE ? info.used : info.used + info.reserved;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *out)
{
    struct moment *moment;
    nvmlReturn_t result = out == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter(device, GROUP_MEMORY, &moment);
    if (result != NVML_SUCCESS)
        return result;
    out->bar1Total = moment->view.id->bar1_total;
    out->bar1Used = 2ull << 20;
    out->bar1Free = out->bar1Total - out->bar1Used;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *out)
{
    struct moment *moment;
    nvmlReturn_t result = out == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter(device, GROUP_UTILIZATION, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (moment->view.mig >= 0 || moment->state.mig > 0)
        return NVML_ERROR_NOT_SUPPORTED;
    out->gpu = garbage(moment, 0) ? UINT32_MAX : to_uint(physics_of(moment)->utilization + 0.5);
    out->memory = garbage(moment, 0) ? UINT32_MAX : to_uint(physics_of(moment)->memory_activity + 0.5);
    return NVML_SUCCESS;
}

static nvmlReturn_t codec(nvmlDevice_t device, int decoder, unsigned int *utilization, unsigned int *period)
{
    struct moment *moment;
    if (utilization == NULL || period == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, GROUP_UTILIZATION, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (moment->view.mig >= 0 || moment->state.mig > 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *utilization = codec_load(moment, decoder);
    *period = 167000;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned int *utilization,
                                                    unsigned int *period)
{
    return codec(device, 0, utilization, period);
}

EXPORT nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned int *utilization,
                                                    unsigned int *period)
{
    return codec(device, 1, utilization, period);
}

/* KB/s over 20 ms, and it takes them. counter: 0 sent, 1 received. */
EXPORT nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned int counter, unsigned int *value)
{
    struct moment *moment;
    if (value == NULL || counter > 1)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, GROUP_PCIE, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (moment->view.mig >= 0)
        return NVML_ERROR_NOT_SUPPORTED;
    double rate = pcie_rate(moment->view.id) * (counter == 0 ? 0.07 : 0.18) * physics_of(moment)->level;
    *value = garbage(moment, 0) ? UINT32_MAX : to_uint(rate / 1000);
    struct timespec window = {0, 20000000};
    nanosleep(&window, NULL);
    return NVML_SUCCESS;
}
