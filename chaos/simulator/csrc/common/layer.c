/* Faults that change a single reading, laid over what is healthy: the model's value or the real driver's. */
#include "quantity.h"

#include <math.h>

/* `down` strikes the link; links are NVLINK_DOWN's to other GPUs, C2C_DOWN's to the processor. */
static int is_down(const struct view *view, enum kind down, uint32_t link)
{
    for (uint32_t i = 0; i < view->state->faults; i++) {
        const struct fault *fault = &view->state->fault[i];
        if (fault->kind == down && fault_active(fault, view->boot) && (fault->p[0] < 0 || fault->p[0] == link))
            return 1;
    }
    return 0;
}

static int64_t lower(int64_t value, double limit)
{
    return limit >= 1 && limit < (double)value ? (int64_t)limit : value;
}

static int64_t sum_of(const double *counter, uint32_t count)
{
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += counter[i];
    return (int64_t)to_count(sum);
}

static int64_t link_errors(const struct counters *counters, uint32_t link, uint32_t kind)
{
    double sum = 0;
    for (uint32_t i = 0; i < MAX_LINKS && kind < 3; i++)
        if (link == ALL_LINKS || link == i)
            sum += counters->link_errors[i][kind];
    return (int64_t)to_count(sum);
}

/* The driver's own verdict: the heaviest of what acts. */
static int64_t recovery_action(const struct view *view, int64_t healthy)
{
    const struct fault *fault = fault_find(view, RECOVERY_ACTION);
    if (fault != NULL)
        return (int64_t)to_count(fault->p[0]);
    if (fault_find(view, RESET_REQUIRED) != NULL || fault_find(view, ECC_UNCORRECTED_COUNT) != NULL)
        return 1; /* GPU reset */
    return fault_find(view, REMAP_PENDING) != NULL ? 4 /* drain and reset */ : healthy;
}

static void lay_pcie(struct moment *moment, enum quantity what, int64_t *value)
{
    static const double mbps[] = {0, 2500, 5000, 8000, 16000, 32000, 64000};
    const struct fault *fault = fault_find(&moment->view, PCIE_DEGRADED);
    if (fault == NULL)
        return;
    if (what == Q_PCIE_GENERATION)
        *value = lower(*value, fault->p[0]);
    else if (what == Q_PCIE_WIDTH)
        *value = lower(*value, fault->p[1]);
    else
        *value = lower(*value, mbps[fault->p[0] >= 1 && fault->p[0] <= 6 ? (int)fault->p[0] : 0]);
}

void lay(struct moment *moment, enum quantity what, uint32_t a, uint32_t b, uint32_t c, int64_t *value)
{
    const struct view *view = &moment->view;
    const struct counters *counters = counters_of(moment);
    const struct fault *fault;
    switch (what) {
    case Q_ECC_TOTAL: *value += sum_of(counters->ecc[a & 1], ECC_LOCATIONS); break;
    case Q_ECC_ERRORS: *value += c < ECC_LOCATIONS ? sum_of(&counters->ecc[a & 1][c], 1) : 0; break;
    case Q_REMAPPED: case Q_RETIRED: *value += sum_of(&counters->remapped[a != 0], 1); break;
    case Q_REMAP_PENDING: case Q_RETIRED_PENDING: *value |= fault_find(view, REMAP_PENDING) != NULL; break;
    case Q_REMAP_FAILURE: *value |= fault_find(view, REMAP_FAILURE) != NULL; break;
    case Q_PCIE_GENERATION: case Q_PCIE_WIDTH: case Q_PCIE_SPEED: lay_pcie(moment, what, value); break;
    case Q_PCIE_REPLAYS: *value += sum_of(&counters->replays, 1); break;
    case Q_PCIE_ERRORS: *value += a == 0 ? sum_of(&counters->replays, 1) : 0; break;
    case Q_LINKS: *value = garbage(moment, 1) ? 91000 : *value; break;
    case Q_LINK_STATE: case Q_LINK_SPEED: *value = is_down(view, NVLINK_DOWN, a == ALL_LINKS ? 0 : a) ? 0 : *value; break;
    case Q_LINK_ERRORS: case Q_LINK_OLD_ERRORS: *value += link_errors(counters, a, b); break;
    case Q_C2C_STATE: case Q_C2C_SPEED: *value = is_down(view, C2C_DOWN, a) ? 0 : *value; break;
    case Q_SW_POWER_NS: *value += sum_of(&counters->sw_power_ns, 1); break;
    case Q_SW_THERMAL_NS: *value += sum_of(&counters->sw_thermal_ns, 1); break;
    case Q_HW_THERMAL_NS: *value += sum_of(&counters->hw_thermal_ns, 1); break;
    case Q_HW_BRAKE_NS: *value += sum_of(&counters->hw_brake_ns, 1); break;
    case Q_THERMAL_NS:
        *value += sum_of(&counters->sw_thermal_ns, 1) + sum_of(&counters->hw_thermal_ns, 1);
        break;
    case Q_RECOVERY_ACTION: *value = recovery_action(view, *value); break;
    case Q_POWER_LIMIT:
        if ((fault = fault_find(view, POWER_CAP)) != NULL)
            *value = lower(*value, fault->p[0] * 1000);
        break;
    default: break;
    }
    if (garbage(moment, 0))
        *value = -1;
}
