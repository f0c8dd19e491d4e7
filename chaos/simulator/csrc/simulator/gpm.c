/* GPU performance monitoring (Hopper and newer): two samples, and means between them. */
#include "quantity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_MARK 0x47504d53u
#define MIBIBYTE 1048576.0

struct gpm_sample {
    uint32_t mark, gpu, mig, taken;
    uint32_t workload, garbage, c2c, unused;
    double share; /* of the GPU: 1, or that of an instance */
    struct integrals at;
    double pcie_tx, pcie_rx, link_bytes[MAX_LINKS];
};

EXPORT nvmlReturn_t nvmlGpmSampleAlloc(nvmlGpmSample_t *out)
{
    const struct world *world;
    nvmlReturn_t result = out == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter_node(GROUP_GPM, &world);
    if (result != NVML_SUCCESS)
        return result;
    struct gpm_sample *sample = calloc(1, sizeof *sample);
    if (sample == NULL)
        return NVML_ERROR_MEMORY;
    sample->mark = SAMPLE_MARK;
    *out = sample;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpmSampleFree(nvmlGpmSample_t sample)
{
    if (sample == NULL || sample->mark != SAMPLE_MARK)
        return NVML_ERROR_INVALID_ARGUMENT;
    sample->mark = 0;
    free(sample);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *out)
{
    struct moment *moment;
    nvmlReturn_t result = out == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter(device, GROUP_GPM, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (out->version != 1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    out->isSupportedDevice = (moment->view.id->features & HAS_GPM) != 0;
    return NVML_SUCCESS;
}

static nvmlReturn_t sample_of(nvmlDevice_t device, uint32_t mig, nvmlGpmSample_t out)
{
    struct moment *moment;
    if (out == NULL || out->mark != SAMPLE_MARK)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, GROUP_GPM, &moment);
    if (result != NVML_SUCCESS)
        return result;
    if (!(moment->view.id->features & HAS_GPM))
        return NVML_ERROR_NOT_SUPPORTED;
    if (mig > moment->state.mig)
        return NVML_ERROR_INVALID_ARGUMENT;
    const struct counters *counters = counters_of(moment);
    out->gpu = moment->view.gpu;
    out->mig = mig;
    out->workload = moment->state.workload;
    out->garbage = (uint32_t)garbage(moment, 0);
    out->c2c = moment->view.id->c2c_links;
    out->share = mig == 0 ? 1 : fmin(1, moment->state.mig_slices[(mig - 1) % MAX_MIG] / 7.0);
    out->at = integrals_at(&moment->view, view_seconds(&moment->view));
    out->pcie_tx = counters->pcie_tx;
    out->pcie_rx = counters->pcie_rx;
    memcpy(out->link_bytes, counters->link_bytes, sizeof out->link_bytes);
    out->taken = 1;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, nvmlGpmSample_t out)
{
    return sample_of(device, 0, out);
}

EXPORT nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned int gpu_instance, nvmlGpmSample_t out)
{
    return gpu_instance == 0 || gpu_instance > MAX_MIG ? NVML_ERROR_INVALID_ARGUMENT : sample_of(device, gpu_instance,
        out);
}

/* Bytes over one link, or over all of them (link < 0), between the samples. */
static double link_bytes(const struct gpm_sample *a, const struct gpm_sample *b, int link)
{
    double sum = 0;
    for (int i = 0; i < MAX_LINKS; i++)
        if (link < 0 || i == link)
            sum += b->link_bytes[i] - a->link_bytes[i];
    return sum;
}

static nvmlReturn_t metric(const struct gpm_sample *a, const struct gpm_sample *b, unsigned int id, double *out)
{
    double seconds = b->at.t - a->at.t;
    double level = (b->at.level - a->at.level) / seconds, hung = (b->at.hung - a->at.hung) / seconds;
    int training = b->workload == WORKLOAD_TRAINING;
    double sm = 100 * fmin(1, 0.95 * level + 0.08 * hung), tensor = 100 * level * (training ? 0.60 : 0.22);
    if (id >= 62 && id <= 97) {
        *out = link_bytes(a, b, (int)(id - 62) / 2) / seconds / MIBIBYTE;
        return NVML_SUCCESS;
    }
    if (id >= 100 && id <= 103) { /* C2C: sent, received; with protocol, without. It takes the part of PCIe, and more. */
        if (b->c2c == 0)
            return NVML_ERROR_NOT_SUPPORTED;
        double bytes = id % 2 == 0 ? b->pcie_tx - a->pcie_tx : b->pcie_rx - a->pcie_rx;
        *out = (id < 102 ? 3.3 : 3) * bytes / seconds / MIBIBYTE;
        return NVML_SUCCESS;
    }
    switch (id) {
    case 1: *out = 100 * fmin(1, level / 0.45 + hung); break;
    case 2: *out = sm; break;
    case 3: *out = 0.45 * sm; break;
    case 4: *out = 0.12 * sm; break;
    case 5: case 7: *out = tensor; break;
    case 6: case 8: case 9: case 11: *out = 0; break;
    case 10: *out = 100 * fmin(0.92, level * (training ? 0.48 : 0.95)); break;
    case 12: *out = 0.18 * sm; break;
    case 13: *out = 0.07 * sm; break;
    case 20: *out = (b->pcie_tx - a->pcie_tx) / seconds / MIBIBYTE; break;
    case 21: *out = (b->pcie_rx - a->pcie_rx) / seconds / MIBIBYTE; break;
    case 60: case 61: *out = link_bytes(a, b, -1) / seconds / MIBIBYTE; break;
    default: return NVML_ERROR_NOT_SUPPORTED;
    }
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *get)
{
    const struct world *world;
    nvmlReturn_t result = get == NULL ? NVML_ERROR_INVALID_ARGUMENT : enter_node(GROUP_GPM, &world);
    if (result != NVML_SUCCESS)
        return result;
    if (get->version != 1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    const struct gpm_sample *a = get->sample1, *b = get->sample2;
    if (a == NULL || b == NULL || a->mark != SAMPLE_MARK || b->mark != SAMPLE_MARK || !a->taken || !b->taken
        || a->gpu != b->gpu || a->mig != b->mig || get->numMetrics > 1024)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (b->at.t <= a->at.t)
        return NVML_ERROR_INVALID_ARGUMENT; /* no time passed between the samples */
    for (unsigned int i = 0; i < get->numMetrics; i++) {
        nvmlGpmMetric_t *m = &get->metrics[i];
        m->value = 0;
        memset(&m->metricInfo, 0, sizeof m->metricInfo);
        m->nvmlReturn = metric(a, b, m->metricId, &m->value);
        if (m->nvmlReturn == NVML_SUCCESS && b->garbage)
            m->value = (double)NAN;
    }
    return NVML_SUCCESS;
}
