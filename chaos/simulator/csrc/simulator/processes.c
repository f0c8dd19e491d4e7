/* Processes on a GPU: lists by kind, and their share of it. */
#include "quantity.h"

#include <string.h>

enum { COMPUTE, GRAPHICS, MPS, ALL };

/* Copies the GPU's (or instance's) processes of a kind; returns how many there are. */
static unsigned int collect(const struct moment *moment, unsigned int kind, struct process *out)
{
    unsigned int count = 0;
    for (uint32_t i = 0; i < moment->state.processes; i++) {
        const struct process *process = &moment->state.process[i];
        if (moment->view.mig >= 0 && process->gpu_instance != (uint32_t)moment->view.mig + 1)
            continue;
        if (kind == ALL || (kind == COMPUTE && !process->graphics) || (kind == GRAPHICS && process->graphics))
            out[count++] = *process;
    }
    return count;
}

#define HUGE_COUNT 91000 /* what a driver once answered */

/* Room and count as NVML wants them: too small tells the need. 0 = go on and fill. */
static nvmlReturn_t make_room(const struct moment *moment, unsigned int *count, unsigned int have, const void *array)
{
    unsigned int room = *count;
    if (garbage(moment, 1)) {
        *count = HUGE_COUNT;
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    *count = have;
    return have > 0 && (room < have || array == NULL) ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

static nvmlReturn_t list(nvmlDevice_t device, unsigned int kind, unsigned int *count, nvmlProcessInfo_t *out)
{
    struct moment *moment;
    struct process found[MAX_PROCESSES];
    nvmlReturn_t result = count == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter(device, GROUP_PROCESSES, &moment);
    if (result != NVML_SUCCESS)
        return result;
    unsigned int have = collect(moment, kind, found);
    if ((result = make_room(moment, count, have, out)) != NVML_SUCCESS)
        return result;
    for (unsigned int i = 0; i < have; i++) {
        memset(&out[i], 0, sizeof out[i]);
        out[i].pid = found[i].pid;
        out[i].usedGpuMemory = found[i].memory;
        out[i].gpuInstanceId = found[i].gpu_instance ? found[i].gpu_instance : INSTANCE_ANY;
        out[i].computeInstanceId = found[i].gpu_instance ? found[i].compute_instance : INSTANCE_ANY;
    }
    return NVML_SUCCESS;
}

#define LIST(name, kind) \
    EXPORT nvmlReturn_t name(nvmlDevice_t d, unsigned int *count, nvmlProcessInfo_t *out) \
    { return list(d, kind, count, out); }

LIST(nvmlDeviceGetComputeRunningProcesses_v3, COMPUTE)
LIST(nvmlDeviceGetComputeRunningProcesses_v2, COMPUTE)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, GRAPHICS)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, GRAPHICS)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, MPS)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, MPS)

static nvmlReturn_t old_list(nvmlDevice_t device, unsigned int kind, unsigned int *count, nvmlProcessInfo_v1_t *out)
{
    nvmlProcessInfo_t found[MAX_PROCESSES];
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned int have = MAX_PROCESSES, room = *count;
    nvmlReturn_t result = list(device, kind, &have, found);
    if (result != NVML_SUCCESS)
        return result;
    *count = have;
    if (have > 0 && (room < have || out == NULL))
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < have; i++) {
        out[i].pid = found[i].pid;
        out[i].usedGpuMemory = found[i].usedGpuMemory;
    }
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int *count,
                                                         nvmlProcessInfo_v1_t *out)
{
    return old_list(device, COMPUTE, count, out);
}

EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t device, unsigned int *count,
                                                          nvmlProcessInfo_v1_t *out)
{
    return old_list(device, GRAPHICS, count, out);
}

EXPORT nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *out)
{
    struct moment *moment;
    struct process found[MAX_PROCESSES];
    if (out == NULL || out->mode > ALL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != STRUCT_VERSION(nvmlProcessDetailList_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = enter(device, GROUP_PROCESSES, &moment);
    if (result != NVML_SUCCESS)
        return result;
    unsigned int have = collect(moment, out->mode, found);
    if ((result = make_room(moment, &out->numProcArrayEntries, have, out->procArray)) != NVML_SUCCESS)
        return result;
    for (unsigned int i = 0; i < have; i++) {
        nvmlProcessDetail_t *detail = &out->procArray[i];
        memset(detail, 0, sizeof *detail);
        detail->pid = found[i].pid;
        detail->usedGpuMemory = found[i].memory;
        detail->gpuInstanceId = found[i].gpu_instance ? found[i].gpu_instance : INSTANCE_ANY;
        detail->computeInstanceId = found[i].gpu_instance ? found[i].compute_instance : INSTANCE_ANY;
    }
    return NVML_SUCCESS;
}

unsigned int codec_load(const struct moment *moment, int decoder)
{
    unsigned int sum = 0;
    for (uint32_t i = 0; i < moment->state.processes; i++)
        sum += decoder ? moment->state.process[i].decoder : moment->state.process[i].encoder;
    return sum < 100 ? sum : 100;
}

/* Each process is said to take its share, by memory, of what the GPU does. */
static double share_of(const struct process *found, unsigned int have, unsigned int index)
{
    double sum = 0;
    for (unsigned int i = 0; i < have; i++)
        sum += (double)found[i].memory;
    return sum > 0 ? (double)found[index].memory / sum : 1.0 / have;
}

EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *out,
                                                    unsigned int *count,
                                                    unsigned long long last_seen)
{
    struct moment *moment;
    struct process found[MAX_PROCESSES];
    nvmlReturn_t result = count == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter(device, GROUP_PROCESSES, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (moment->view.mig >= 0 || moment->state.mig > 0)
        return NVML_ERROR_NOT_SUPPORTED;
    const struct physics *physics = physics_of(moment);
    unsigned int have = physics->utilization >= 1 || codec_load(moment, 0) || codec_load(moment, 1)
        ? collect(moment, ALL, found) : 0;
    unsigned long long now = (unsigned long long)(moment->view.sim / 1000);
    if (have == 0 || last_seen >= now) {
        *count = 0;
        return NVML_ERROR_NOT_FOUND;
    }
    if ((result = make_room(moment, count, have, out)) != NVML_SUCCESS)
        return result;
    for (unsigned int i = 0; i < have; i++) {
        double share = share_of(found, have, i);
        memset(&out[i], 0, sizeof out[i]);
        out[i].pid = found[i].pid;
        out[i].timeStamp = now;
        out[i].smUtil = to_uint(share * physics->utilization + 0.5);
        out[i].memUtil = to_uint(share * physics->memory_activity + 0.5);
        out[i].encUtil = found[i].encoder;
        out[i].decUtil = found[i].decoder;
    }
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device, nvmlProcessesUtilizationInfo_t *out)
{
    nvmlProcessUtilizationSample_t sample[MAX_PROCESSES];
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (out->version != STRUCT_VERSION(nvmlProcessesUtilizationInfo_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    unsigned int have = MAX_PROCESSES, room = out->processSamplesCount;
    nvmlReturn_t result = nvmlDeviceGetProcessUtilization(device, sample, &have, out->lastSeenTimeStamp);
    out->processSamplesCount = have;
    if (result != NVML_SUCCESS)
        return result;
    if (room < have || out->procUtilArray == NULL)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < have; i++) {
        nvmlProcessUtilizationInfo_t *info = &out->procUtilArray[i];
        memset(info, 0, sizeof *info);
        info->timeStamp = sample[i].timeStamp;
        info->pid = sample[i].pid;
        info->smUtil = sample[i].smUtil;
        info->memUtil = sample[i].memUtil;
        info->encUtil = sample[i].encUtil;
        info->decUtil = sample[i].decUtil;
    }
    return NVML_SUCCESS;
}

/* Six samples a second of the last two seconds, oldest first. */
EXPORT nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, unsigned int type, unsigned long long last_seen,
                                         unsigned int *value_type, unsigned int *count, nvmlSample_t *out)
{
    enum { SAMPLES = 12 };
    struct moment *moment;
    if (value_type == NULL || count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, GROUP_UTILIZATION, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (type > SAMPLES_MEMORY_CLOCK || moment->view.mig >= 0 || moment->state.mig > 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *value_type = VALUE_UINT;
    if (out == NULL) {
        *count = SAMPLES;
        return NVML_SUCCESS;
    }
    unsigned int filled = 0, room = *count;
    int64_t step = 166666667, last = moment->view.sim / step;
    struct view view = moment->view;
    for (int64_t i = last - SAMPLES + 1; i <= last && filled < room; i++) {
        view.sim = i * step;
        if ((unsigned long long)(view.sim / 1000) <= last_seen)
            continue;
        struct physics then = physics_at(&view);
        double value[] = {then.power_instant, then.utilization, then.memory_activity, 0, 0, then.clock[CLOCK_SM],
                          then.clock[CLOCK_MEMORY]};
        out[filled].timeStamp = (unsigned long long)(view.sim / 1000);
        out[filled].sampleValue.ullVal = 0;
        out[filled++].sampleValue.uiVal = to_uint(value[type] + 0.5);
    }
    *count = filled;
    return filled > 0 ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}
