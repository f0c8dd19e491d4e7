/* The wrappers: ask the real library, then lay faults over its answer. */
#include "overlay.h"

#include <string.h>

/* Lays over a number of 4 or 8 bytes. */
static nvmlReturn_t laid(struct moment *moment, enum quantity what, uint32_t a, uint32_t b, uint32_t c,
                         nvmlReturn_t result,
                         void *out, size_t size)
{
    if (result != NVML_SUCCESS || moment == NULL || out == NULL)
        return result;
    uint32_t narrow;
    int64_t value;
    memcpy(size == 4 ? (void *)&narrow : (void *)&value, out, size);
    if (size == 4)
        value = narrow;
    lay(moment, what, a, b, c, &value);
    lay_physics(moment, what, a, b, &value);
    narrow = (uint32_t)value;
    memcpy(out, size == 4 ? (void *)&narrow : (void *)&value, size);
    return NVML_SUCCESS;
}

#define ENTER(group) \
    struct moment *moment; \
    nvmlReturn_t result = overlay_enter(d, group, &moment); \
    if (result != NVML_SUCCESS) \
        return result;

#define GET0(name, group, type, what) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, type *out) \
    { ENTER(group) return laid(moment, what, 0, 0, 0, REAL(name)(d, out), out, sizeof *out); }
#define GET1(name, group, type, what) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, unsigned int a, type *out) \
    { ENTER(group) return laid(moment, what, a, 0, 0, REAL(name)(d, a, out), out, sizeof *out); }
#define GET2(name, group, type, what) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, unsigned int a, unsigned int b, type *out) \
    { ENTER(group) return laid(moment, what, a, b, 0, REAL(name)(d, a, b, out), out, sizeof *out); }
#define GET3(name, group, type, what) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, unsigned int a, unsigned int b, unsigned int c, type *out) \
    { ENTER(group) return laid(moment, what, a, b, c, REAL(name)(d, a, b, c, out), out, sizeof *out); }
#define PAIR(name, group, first, second) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, unsigned int *x, unsigned int *y) \
    { ENTER(group) result = laid(moment, first, 0, 0, 0, REAL(name)(d, x, y), x, sizeof *x); \
      return laid(moment, second, 0, 0, 0, result, y, sizeof *y); }
#define TEXT(name, field, feature) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, char *out, unsigned int length) \
    { ENTER(GROUP_IDENTITY) return spoiled(moment, REAL(name)(d, out, length), out, length); }
#define FORWARD(name, group, parameters, arguments) \
    EXPORT nvmlReturn_t name parameters { ENTER(group) return REAL(name) arguments; }

typedef unsigned long long wide;
typedef unsigned int uint;

static nvmlReturn_t spoiled(struct moment *moment, nvmlReturn_t result, char *out, unsigned int length)
{
    return result == NVML_SUCCESS && moment != NULL && garbage(moment, 2) ? put_string(out, length, "", 0) : result;
}

#include "getters.def"

TEXT(nvmlDeviceGetName, name, 0)
FORWARD(nvmlDeviceGetUUID, GROUP_IDENTITY, (nvmlDevice_t d, char *out, uint length), (d, out, length))
FORWARD(nvmlDeviceGetPciInfo_v3, GROUP_IDENTITY, (nvmlDevice_t d, void *out), (d, out))
FORWARD(nvmlDeviceGetPciInfo_v2, GROUP_IDENTITY, (nvmlDevice_t d, void *out), (d, out))
FORWARD(nvmlDeviceGetPciInfoExt, GROUP_IDENTITY, (nvmlDevice_t d, void *out), (d, out))
FORWARD(nvmlDeviceGetCudaComputeCapability, GROUP_IDENTITY, (nvmlDevice_t d, int *x, int *y), (d, x, y))
FORWARD(nvmlDeviceGetInforomVersion, GROUP_IDENTITY, (nvmlDevice_t d, uint object, char *out, uint length),
        (d, object, out, length))
FORWARD(nvmlDeviceGetBAR1MemoryInfo, GROUP_MEMORY, (nvmlDevice_t d, void *out), (d, out))
FORWARD(nvmlDeviceGetEncoderUtilization, GROUP_UTILIZATION, (nvmlDevice_t d, uint *x, uint *y), (d, x, y))
FORWARD(nvmlDeviceGetDecoderUtilization, GROUP_UTILIZATION, (nvmlDevice_t d, uint *x, uint *y), (d, x, y))
FORWARD(nvmlDeviceGetPcieThroughput, GROUP_PCIE, (nvmlDevice_t d, uint counter, uint *out), (d, counter, out))
FORWARD(nvmlDeviceGetRowRemapperHistogram, GROUP_ECC, (nvmlDevice_t d, void *out), (d, out))
FORWARD(nvmlDeviceGetRetiredPages, GROUP_ECC, (nvmlDevice_t d, uint cause, uint *count, void *out), (d, cause, count,
    out))
FORWARD(nvmlDeviceGetMarginTemperature, GROUP_TEMPERATURE, (nvmlDevice_t d, void *out), (d, out))
FORWARD(nvmlDeviceGetFanSpeedRPM, GROUP_TEMPERATURE, (nvmlDevice_t d, void *out), (d, out))
FORWARD(nvmlDeviceGetNvLinkRemotePciInfo_v2, GROUP_NVLINK, (nvmlDevice_t d, uint link, void *out), (d, link, out))
FORWARD(nvmlDeviceGetP2PStatus, GROUP_NVLINK, (nvmlDevice_t d, nvmlDevice_t other, uint what, uint *out),
        (d, other, what, out))
FORWARD(nvmlDeviceGetMigMode, GROUP_MIG, (nvmlDevice_t d, uint *x, uint *y), (d, x, y))
FORWARD(nvmlDeviceGetMigDeviceHandleByIndex, GROUP_MIG, (nvmlDevice_t d, uint index, void *out), (d, index, out))
FORWARD(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, GROUP_MIG, (nvmlDevice_t d, nvmlDevice_t *out), (d, out))
FORWARD(nvmlDeviceGetAttributes_v2, GROUP_MIG, (nvmlDevice_t d, void *out), (d, out))
FORWARD(nvmlDeviceGetRunningProcessDetailList, GROUP_PROCESSES, (nvmlDevice_t d, void *out), (d, out))
FORWARD(nvmlDeviceGetProcessUtilization, GROUP_PROCESSES, (nvmlDevice_t d, void *out, uint *count, wide seen),
        (d, out, count, seen))
FORWARD(nvmlDeviceGetProcessesUtilizationInfo, GROUP_PROCESSES, (nvmlDevice_t d, void *out), (d, out))
FORWARD(nvmlDeviceGetSamples, GROUP_UTILIZATION, (nvmlDevice_t d, uint type, wide seen, uint *kind, uint *count,
    void *out),
        (d, type, seen, kind, count, out))
FORWARD(nvmlGpmQueryDeviceSupport, GROUP_GPM, (nvmlDevice_t d, void *out), (d, out))
FORWARD(nvmlGpmSampleGet, GROUP_GPM, (nvmlDevice_t d, nvmlGpmSample_t sample), (d, sample))
FORWARD(nvmlGpmMigSampleGet, GROUP_GPM, (nvmlDevice_t d, uint instance, nvmlGpmSample_t sample), (d, instance, sample))

#define LIST(name) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, uint *count, void *out) \
    { \
        ENTER(GROUP_PROCESSES) \
        if (moment == NULL || count == NULL || !garbage(moment, 1)) \
            return REAL(name)(d, count, out); \
        *count = 91000; \
        return NVML_ERROR_INSUFFICIENT_SIZE; \
    }

LIST(nvmlDeviceGetComputeRunningProcesses_v3)
LIST(nvmlDeviceGetComputeRunningProcesses_v2)
LIST(nvmlDeviceGetComputeRunningProcesses)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2)
LIST(nvmlDeviceGetGraphicsRunningProcesses)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2)

/* Moves what leaked from free to used. */
static void leak(struct moment *moment, unsigned long long *used, unsigned long long *free)
{
    unsigned long long lost = to_count(leaked_bytes(&moment->view));
    lost = lost < *free ? lost : *free;
    *used += lost;
    *free -= lost;
    if (garbage(moment, 0))
        *used = *free = VALUE_NOT_AVAILABLE;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, nvmlMemory_v2_t *out)
{
    ENTER(GROUP_MEMORY)
    result = REAL(nvmlDeviceGetMemoryInfo_v2)(d, out);
    if (result == NVML_SUCCESS && moment != NULL)
        leak(moment, &out->used, &out->free);
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *out)
{
    ENTER(GROUP_MEMORY)
    result = REAL(nvmlDeviceGetMemoryInfo)(d, out);
    if (result == NVML_SUCCESS && moment != NULL)
        leak(moment, &out->used, &out->free);
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *out)
{
    ENTER(GROUP_UTILIZATION)
    result = REAL(nvmlDeviceGetUtilizationRates)(d, out);
    if (result != NVML_SUCCESS || moment == NULL)
        return result;
    if (fault_find(&moment->view, HUNG_COLLECTIVE) != NULL) {
        out->gpu = 100;
        out->memory = 1;
    }
    if (garbage(moment, 0))
        out->gpu = out->memory = UINT32_MAX;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t d, uint *corrected, uint *uncorrected, uint *pending,
                                              uint *failure)
{
    ENTER(GROUP_ECC)
    result = REAL(nvmlDeviceGetRemappedRows)(d, corrected, uncorrected, pending, failure);
    result = laid(moment, Q_REMAPPED, 0, 0, 0, result, corrected, sizeof *corrected);
    result = laid(moment, Q_REMAPPED, 1, 0, 0, result, uncorrected, sizeof *uncorrected);
    result = laid(moment, Q_REMAP_PENDING, 0, 0, 0, result, pending, sizeof *pending);
    return laid(moment, Q_REMAP_FAILURE, 0, 0, 0, result, failure, sizeof *failure);
}

EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows_v2(nvmlDevice_t d, nvmlRemappedRowsInfo_v2_t *out)
{
    ENTER(GROUP_ECC)
    result = REAL(nvmlDeviceGetRemappedRows_v2)(d, out);
    result = laid(moment, Q_REMAPPED, 0, 0, 0, result, &out->corrActiveRemaps, sizeof(uint));
    result = laid(moment, Q_REMAPPED, 1, 0, 0, result, &out->uncActiveRemaps, sizeof(uint));
    result = laid(moment, Q_REMAP_PENDING, 0, 0, 0, result, &out->bPending, sizeof(uint));
    return laid(moment, Q_REMAP_FAILURE, 0, 0, 0, result, &out->bfailureOccurred, sizeof(uint));
}

EXPORT nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t d, nvmlEccSramErrorStatus_t *out)
{
    ENTER(GROUP_ECC)
    result = REAL(nvmlDeviceGetSramEccErrorStatus)(d, out);
    result = laid(moment, Q_ECC_ERRORS, ECC_CORRECTED, 0, ECC_SRAM, result, &out->volatileCor, sizeof(wide));
    result = laid(moment, Q_ECC_ERRORS, ECC_CORRECTED, 1, ECC_SRAM, result, &out->aggregateCor, sizeof(wide));
    result = laid(moment, Q_ECC_ERRORS, ECC_UNCORRECTED, 0, ECC_SRAM, result, &out->volatileUncSecDed, sizeof(wide));
    return laid(moment, Q_ECC_ERRORS, ECC_UNCORRECTED, 1, ECC_SRAM, result, &out->aggregateUncSecDed, sizeof(wide));
}

EXPORT nvmlReturn_t nvmlDeviceGetDetailedEccErrors(nvmlDevice_t d, uint severity, uint lifetime,
                                                   nvmlEccErrorCounts_t *out)
{
    ENTER(GROUP_ECC)
    result = REAL(nvmlDeviceGetDetailedEccErrors)(d, severity, lifetime, out);
    result = laid(moment, Q_ECC_ERRORS, severity, lifetime, ECC_L1, result, &out->l1Cache, sizeof(wide));
    result = laid(moment, Q_ECC_ERRORS, severity, lifetime, ECC_L2, result, &out->l2Cache, sizeof(wide));
    result = laid(moment, Q_ECC_ERRORS, severity, lifetime, ECC_DRAM, result, &out->deviceMemory, sizeof(wide));
    return laid(moment, Q_ECC_ERRORS, severity, lifetime, ECC_REGISTER, result, &out->registerFile, sizeof(wide));
}

EXPORT nvmlReturn_t nvmlDeviceValidateInforom(nvmlDevice_t d)
{
    ENTER(GROUP_IDENTITY)
    result = REAL(nvmlDeviceValidateInforom)(d);
    if (result == NVML_SUCCESS && moment != NULL && fault_find(&moment->view, INFOROM_CORRUPTED) != NULL)
        return NVML_ERROR_CORRUPTED_INFOROM;
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t d, nvmlTemperature_t *out)
{
    ENTER(GROUP_TEMPERATURE)
    result = REAL(nvmlDeviceGetTemperatureV)(d, out);
    return laid(moment, Q_TEMPERATURE, out->sensorType, 0, 0, result, &out->temperature, sizeof out->temperature);
}

EXPORT nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t d, uint policy, nvmlViolationTime_t *out)
{
    static const enum quantity of[] = {Q_SW_POWER_NS, Q_THERMAL_NS, Q_ZERO_NS, Q_HW_BRAKE_NS};
    ENTER(GROUP_CLOCKS)
    result = REAL(nvmlDeviceGetViolationStatus)(d, policy, out);
    return laid(moment, policy < 4 ? of[policy] : Q_ZERO_NS, 0, 0, 0, result, &out->violationTime, sizeof(wide));
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t d, nvmlGpuFabricInfo_v3_t *out)
{
    ENTER(GROUP_NVLINK)
    result = REAL(nvmlDeviceGetGpuFabricInfoV)(d, out);
    const struct fault *fault = moment != NULL ? fault_find(&moment->view, FABRIC_FAULT) : NULL;
    if (result == NVML_SUCCESS && fault != NULL) {
        out->state = to_uint(fault->p[0]);
        out->status = to_uint(fault->p[1]);
        if (fault->p[2] != 0)
            out->healthMask = (out->healthMask & ~3u) | 1;
    }
    return result;
}

/* A real entry, decoded by its own type, laid over, and encoded again. */
static void lay_field(struct moment *moment, nvmlFieldValue_t *entry)
{
    struct meaning meaning;
    int64_t value;
    if (entry->nvmlReturn != NVML_SUCCESS
        || !field_meaning(&moment->view, entry->fieldId, entry->scopeId, &meaning))
        return;
    switch (entry->valueType) {
    case VALUE_UINT: value = entry->value.uiVal; break;
    case VALUE_INT: value = entry->value.siVal; break;
    case VALUE_ULONG: case VALUE_ULLONG: case VALUE_LLONG: value = entry->value.sllVal; break;
    default: return;
    }
    lay(moment, meaning.what, meaning.a, meaning.b, meaning.c, &value);
    lay_physics(moment, meaning.what, meaning.a, meaning.b, &value);
    if (entry->valueType == VALUE_UINT || entry->valueType == VALUE_INT)
        entry->value.uiVal = (uint)value;
    else
        entry->value.sllVal = value;
}

EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t d, int count, nvmlFieldValue_t *values)
{
    ENTER(GROUP_FIELDS)
    result = REAL(nvmlDeviceGetFieldValues)(d, count, values);
    for (int i = 0; i < count && result == NVML_SUCCESS && moment != NULL; i++)
        lay_field(moment, &values[i]);
    return result;
}

void lay_physics(struct moment *moment, enum quantity what, uint32_t a, uint32_t b, int64_t *value)
{
    const struct view *view = &moment->view;
    double scale = 1, clock = view->id->clock_max[CLOCK_SM], top = clock > 1 ? clock : 1;
    const struct fault *fault;
    uint64_t reasons = 0;
    if (moment->state.faults == 0 || garbage(moment, 0))
        return;
    if ((fault = fault_find(view, CLOCK_DROP)) != NULL)
        clock = fault->p[0];
    if ((fault = fault_find(view, THERMAL_THROTTLE)) != NULL) {
        clock = clock < 0.6 * top ? clock : 0.6 * top;
        reasons |= fault->p[0] != 0 ? REASON_HW_THERMAL | REASON_HW_SLOWDOWN : REASON_SW_THERMAL;
    }
    if (fault_find(view, POWER_BRAKE) != NULL) {
        clock = clock < 0.5 * top ? clock : 0.5 * top;
        reasons |= REASON_HW_POWER_BRAKE | REASON_HW_SLOWDOWN;
    }
    if (fault_find(view, POWER_CAP) != NULL)
        reasons |= REASON_SW_POWER_CAP;
    scale = clock < top ? (clock / top) * (clock / top) : 1;
    if (fault_find(view, HUNG_COLLECTIVE) != NULL)
        scale = scale < 0.3 ? scale : 0.3;
    switch (what) {
    case Q_POWER_USAGE: case Q_POWER_AVERAGE: case Q_POWER_INSTANT:
        *value = (int64_t)((double)*value * scale);
        if ((fault = fault_find(view, POWER_CAP)) != NULL && *value > fault->p[0] * 1000)
            *value = (int64_t)to_count(fault->p[0] * 1000);
        break;
    case Q_TEMPERATURE: {
        int64_t hot = view->id->threshold[THRESHOLD_SLOWDOWN] ? view->id->threshold[THRESHOLD_SLOWDOWN] + 1 : 91;
        if (fault_find(view, THERMAL_THROTTLE) != NULL && *value < hot)
            *value = hot;
        break;
    }
    case Q_CLOCK: case Q_CLOCK_BY_ID:
        if ((what == Q_CLOCK || b == 0) && (a == CLOCK_GRAPHICS || a == CLOCK_SM) && clock < top && *value > clock)
            *value = (int64_t)clock;
        break;
    case Q_REASONS:
        *value |= (int64_t)reasons;
        break;
    default:
        break;
    }
}
