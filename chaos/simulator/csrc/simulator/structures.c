/* Getters that fill structures: errors, thermals, links, processes, MIG, fabric; and the questions to the system. */
#include "quantity.h"

#include <stdio.h>
#include <string.h>

static nvmlReturn_t read_all(struct moment *moment, const enum quantity *what, const uint32_t (*argument)[3],
                             unsigned int **out,
                             unsigned int count)
{
    for (unsigned int i = 0; i < count; i++) {
        int64_t value;
        if (out[i] == NULL)
            return NVML_ERROR_INVALID_ARGUMENT;
        nvmlReturn_t result = quantity(moment, what[i], argument[i][0], argument[i][1], argument[i][2], &value);
        if (result != NVML_SUCCESS)
            return result;
        *out[i] = (unsigned int)value;
    }
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected, unsigned int *uncorrected,
                                              unsigned int *pending, unsigned int *failure)
{
    static const enum quantity what[] = {Q_REMAPPED, Q_REMAPPED, Q_REMAP_PENDING, Q_REMAP_FAILURE};
    static const uint32_t argument[][3] = {{0}, {1}, {0}, {0}};
    unsigned int *out[] = {corrected, uncorrected, pending, failure};
    struct moment *moment;
    nvmlReturn_t result = enter(device, GROUP_ECC, &moment);
    return result != NVML_SUCCESS ? result : read_all(moment, what, argument, out, 4);
}

EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows_v2(nvmlDevice_t device, nvmlRemappedRowsInfo_v2_t *out)
{
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    memset(out, 0, sizeof *out);
    return nvmlDeviceGetRemappedRows(device, &out->corrActiveRemaps, &out->uncActiveRemaps, &out->bPending,
                                     &out->bfailureOccurred);
}

EXPORT nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, nvmlRowRemapperHistogramValues_t *out)
{
    unsigned int corrected, uncorrected, pending, failure;
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = nvmlDeviceGetRemappedRows(device, &corrected, &uncorrected, &pending, &failure);
    if (result != NVML_SUCCESS)
        return result;
    /* Each bank has eight spare rows; each remapping here took one of another bank. A failure emptied one bank. */
    unsigned int banks = 640, touched = corrected + uncorrected;
    memset(out, 0, sizeof *out);
    out->none = failure != 0;
    out->high = touched < banks - out->none ? touched : banks - out->none;
    out->max = banks - out->none - out->high;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, nvmlEccSramErrorStatus_t *out)
{
    struct moment *moment;
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != STRUCT_VERSION(nvmlEccSramErrorStatus_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = enter(device, GROUP_ECC, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (moment->view.id->architecture < ARCH_AMPERE)
        return NVML_ERROR_NOT_SUPPORTED;
    int64_t corrected, uncorrected;
    if ((result = quantity(moment, Q_ECC_ERRORS, ECC_CORRECTED, ECC_VOLATILE, ECC_SRAM, &corrected)) != NVML_SUCCESS
        || (result = quantity(moment, Q_ECC_ERRORS, ECC_UNCORRECTED, ECC_VOLATILE, ECC_SRAM,
            &uncorrected)) != NVML_SUCCESS)
        return result;
    memset(out, 0, sizeof *out);
    out->version = STRUCT_VERSION(nvmlEccSramErrorStatus_t, 1);
    out->volatileCor = out->aggregateCor = (unsigned long long)corrected;
    out->volatileUncSecDed = out->aggregateUncSecDed = out->aggregateUncBucketL2 = (unsigned long long)uncorrected;
    out->bThresholdExceeded = uncorrected >= 4;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetDetailedEccErrors(nvmlDevice_t device, unsigned int severity, unsigned int lifetime,
                                                   nvmlEccErrorCounts_t *out)
{
    static const uint32_t place[] = {ECC_L1, ECC_L2, ECC_DRAM, ECC_REGISTER};
    struct moment *moment;
    int64_t value[4];
    nvmlReturn_t result = out == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter(device, GROUP_ECC, &moment);
    for (int i = 0; i < 4 && result == NVML_SUCCESS; i++)
        result = quantity(moment, Q_ECC_ERRORS, severity, lifetime, place[i], &value[i]);
    if (result != NVML_SUCCESS)
        return result;
    out->l1Cache = (unsigned long long)value[0];
    out->l2Cache = (unsigned long long)value[1];
    out->deviceMemory = (unsigned long long)value[2];
    out->registerFile = (unsigned long long)value[3];
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, unsigned int cause, unsigned int *count,
                                              unsigned long long *addresses)
{
    struct moment *moment;
    int64_t pages;
    if (count == NULL || cause > 1)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, GROUP_ECC, &moment);
    if (result == NVML_SUCCESS)
        result = quantity(moment, Q_RETIRED, cause, 0, 0, &pages); /* cause: 0 = several single bit, 1 = double bit */
    if (result != NVML_SUCCESS)
        return result;
    unsigned int room = *count, have = pages < 0 || pages > 64 ? 64 : (unsigned int)pages;
    *count = have;
    if (room < have)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < have && addresses != NULL; i++)
        addresses[i] = 0x10000ull * (i + 1);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *out)
{
    struct moment *moment;
    int64_t value;
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != STRUCT_VERSION(nvmlTemperature_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = enter(device, GROUP_TEMPERATURE, &moment);
    if (result == NVML_SUCCESS)
        result = quantity(moment, Q_TEMPERATURE, out->sensorType, 0, 0, &value);
    if (result == NVML_SUCCESS)
        out->temperature = (int)value;
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *out)
{
    struct moment *moment;
    int64_t value;
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != STRUCT_VERSION(nvmlMarginTemperature_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = enter(device, GROUP_TEMPERATURE, &moment);
    if (result == NVML_SUCCESS)
        result = quantity(moment, Q_MARGIN, 0, 0, 0, &value);
    if (result == NVML_SUCCESS)
        out->marginTemperature = (int)value;
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetFanSpeedRPM(nvmlDevice_t device, nvmlFanSpeedInfo_t *out)
{
    struct moment *moment;
    int64_t value;
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != STRUCT_VERSION(nvmlFanSpeedInfo_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = enter(device, GROUP_TEMPERATURE, &moment);
    if (result == NVML_SUCCESS)
        result = quantity(moment, Q_FAN, out->fan, 0, 0, &value);
    if (result == NVML_SUCCESS)
        out->speed = (unsigned int)(value * 30);
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, unsigned int policy, nvmlViolationTime_t *out)
{
    static const enum quantity of[] = {Q_SW_POWER_NS, Q_THERMAL_NS, Q_ZERO_NS, Q_HW_BRAKE_NS, Q_ZERO_NS, Q_ZERO_NS};
    struct moment *moment;
    int64_t value;
    if (out == NULL || policy >= 12)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, GROUP_CLOCKS, &moment);
    if (result == NVML_SUCCESS)
        result = quantity(moment, policy < 6 ? of[policy] : Q_ZERO_NS, 0, 0, 0, &value);
    if (result != NVML_SUCCESS)
        return result;
    out->referenceTime = (unsigned long long)(moment->view.sim / 1000);
    out->violationTime = (unsigned long long)value;
    return NVML_SUCCESS;
}

/* The far end of a link: a switch of the fabric, or the next GPU. */
EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link, nvmlPciInfo_t *out)
{
    struct moment *moment;
    int64_t state;
    nvmlReturn_t result = out == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter(device, GROUP_NVLINK, &moment);
    if (result == NVML_SUCCESS)
        result = quantity(moment, Q_LINK_STATE, link, 0, 0, &state);
    if (result != NVML_SUCCESS)
        return result;
    const struct view *view = &moment->view;
    const struct identity *peer = &view->world->identity[(view->gpu ^ 1) % view->world->header.gpus];
    unsigned int bus = view->id->features & HAS_FABRIC ? 5 + link % 4 : peer->pci_bus & 0xff;
    memset(out, 0, sizeof *out);
    out->bus = bus;
    out->pciDeviceId = view->id->features & HAS_FABRIC ? 0x22a310de : peer->pci_device_id;
    snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "0000:%02X:00.0", bus & 0xff);
    snprintf(out->busId, sizeof out->busId, "00000000:%02X:00.0", bus & 0xff);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfo_v3_t *out)
{
    struct moment *moment;
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned int size_v2 = offsetof(nvmlGpuFabricInfo_v3_t, healthSummary);
    unsigned int third = STRUCT_VERSION(nvmlGpuFabricInfo_v3_t, 3);
    if (out->version != third && out->version != (size_v2 | 2u << 24))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = enter(device, GROUP_NVLINK, &moment);
    if (result != NVML_SUCCESS)
        return result;
    const struct view *view = &moment->view;
    if (!(view->id->features & HAS_FABRIC))
        return NVML_ERROR_NOT_SUPPORTED;
    const struct fault *fault = fault_find(view, FABRIC_FAULT);
    for (int i = 0; i < 16; i++)
        out->clusterUuid[i] = (unsigned char)(256 * uniform(view->world->header.seed, 600, (uint64_t)i));
    out->status = fault != NULL ? to_uint(fault->p[1]) : NVML_SUCCESS;
    out->cliqueId = 0;
    out->state = fault != NULL ? to_uint(fault->p[0]) : 3; /* completed */
    out->healthMask = fault != NULL && fault->p[2] != 0 ? 1 : 2; /* degraded bandwidth: true : false */
    if (out->version == third)
        out->healthSummary = fault != NULL && (fault->p[0] != 3 || fault->p[2] != 0) ? 2 : 1;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *out)
{
    nvmlGpuFabricInfo_v3_t info = {.version = STRUCT_VERSION(nvmlGpuFabricInfo_v3_t, 3)};
    nvmlReturn_t result = out == NULL ? NVML_ERROR_INVALID_ARGUMENT : nvmlDeviceGetGpuFabricInfoV(device, &info);
    if (result != NVML_SUCCESS)
        return result;
    memcpy(out->clusterUuid, info.clusterUuid, sizeof out->clusterUuid);
    out->status = info.status;
    out->cliqueId = info.cliqueId;
    out->state = info.state;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *mode, unsigned int *pending)
{
    struct moment *moment;
    if (mode == NULL || pending == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, GROUP_MIG, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (!(moment->view.id->features & HAS_MIG) || moment->view.mig >= 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *mode = *pending = moment->state.mig > 0;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *out)
{
    struct moment *moment;
    if (out == NULL || index >= MAX_MIG)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, GROUP_MIG, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (!(moment->view.id->features & HAS_MIG))
        return NVML_ERROR_NOT_SUPPORTED;
    if (moment->view.mig >= 0 || index >= moment->state.mig)
        return NVML_ERROR_NOT_FOUND;
    *out = device_handle(moment->view.gpu, index);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device, nvmlDevice_t *out)
{
    struct moment *moment;
    nvmlReturn_t result = out == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter(device, GROUP_MIG, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (moment->view.mig < 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = device_handle(moment->view.gpu, MAX_MIG);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *out)
{
    struct moment *moment;
    nvmlMemory_v2_t memory = {.version = STRUCT_VERSION(nvmlMemory_v2_t, 2)};
    nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t, nvmlMemory_v2_t *);
    nvmlReturn_t result = out == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter(device, GROUP_MIG, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (moment->view.mig < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    unsigned int slices = moment->state.mig_slices[moment->view.mig % MAX_MIG];
    unsigned int units = moment->view.id->multiprocessors;
    if ((result = nvmlDeviceGetMemoryInfo_v2(device, &memory)) != NVML_SUCCESS)
        return result;
    memset(out, 0, sizeof *out);
    out->multiprocessorCount = units / 8 * slices;
    out->sharedCopyEngineCount = slices;
    out->gpuInstanceSliceCount = out->computeInstanceSliceCount = slices;
    out->memorySizeMB = memory.total >> 20;
    return NVML_SUCCESS;
}

static const struct world *system_world(nvmlReturn_t *result)
{
    const struct world *world = NULL;
    *result = enter_node(GROUP_IDENTITY, &world);
    return world;
}

static nvmlReturn_t system_text(char *out, unsigned int length, size_t offset)
{
    nvmlReturn_t result;
    char copy[65] = "";
    const struct world *world = system_world(&result);
    if (result != NVML_SUCCESS)
        return result;
    memcpy(copy, (const char *)&world->header + offset, 64);
    return put_string(out, length, copy, 1);
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned int length)
{
    return system_text(out, length, offsetof(struct header, driver));
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *out, unsigned int length)
{
    return system_text(out, length, offsetof(struct header, nvml));
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *out)
{
    nvmlReturn_t result;
    const struct world *world = system_world(&result);
    if (result != NVML_SUCCESS || out == NULL)
        return out == NULL ? NVML_ERROR_INVALID_ARGUMENT : result;
    *out = (int)world->header.cuda;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *out)
{
    return nvmlSystemGetCudaDriverVersion_v2(out);
}

EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *out, unsigned int length)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return NVML_ERROR_NOT_FOUND;
    size_t size = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[size] = '\0'; /* the first argument ends at its NUL */
    if (out == NULL || length == 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    snprintf(out, length, "%s", line);
    return NVML_SUCCESS;
}

EXPORT const char *nvmlErrorString(nvmlReturn_t code)
{
    static const char *const known[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions",
        "Already Initialized",
        "Not Found", "Insufficient Size", "Insufficient External Power", "Driver Not Loaded", "Timeout",
        "Interrupt Request Issue", "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM",
        "GPU is lost",
        "GPU requires reset", "The operating system has blocked the request", "Driver/library version mismatch",
        "In use by another client", "Insufficient Memory", "No data", "vGPU with ECC is not supported",
        "Insufficient resources", "Frequency not supported", "Argument version mismatch", "Deprecated", "Not ready",
        "GPU not found", "Invalid state", "Reset type not supported"};
    return code < sizeof known / sizeof *known ? known[code] : "Unknown Error";
}

/* By this symbol a reader knows that nothing it sees is real. */
EXPORT const char gpuvigil_sim[] = "simulated";

/* What one GPU can do with another's memory: 0 reads, 1 writes, 2 over NVLink, 3 atomics, 4 over PCIe. */
EXPORT nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t device, nvmlDevice_t other, unsigned int what, unsigned int *out)
{
    enum { P2P_OK, P2P_GPU_NOT_SUPPORTED = 2, P2P_NOT_SUPPORTED = 5, P2P_OVER_NVLINK = 2, BRAND_GEFORCE = 5 };
    struct moment *moment;
    nvmlReturn_t result = out == NULL || what > 4 || device == other ? NVML_ERROR_INVALID_ARGUMENT
                                                                     : enter(other, GROUP_NVLINK, &moment);
    if (result == NVML_SUCCESS)
        result = enter(device, GROUP_NVLINK, &moment);
    if (result != NVML_SUCCESS)
        return result;
    int64_t up = 0, one = 0;
    for (uint32_t link = 0; link < moment->view.id->links; link++)
        if (quantity(moment, Q_LINK_STATE, link, 0, 0, &one) == NVML_SUCCESS)
            up += one == 1;
    if (moment->view.id->brand == BRAND_GEFORCE)
        *out = P2P_GPU_NOT_SUPPORTED;
    else
        *out = what == P2P_OVER_NVLINK && up == 0 ? P2P_NOT_SUPPORTED : P2P_OK;
    return NVML_SUCCESS;
}
