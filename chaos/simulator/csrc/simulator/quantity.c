#include "quantity.h"

#include <math.h>

static int64_t rounded(double value)
{
    return value > 9e18 ? INT64_MAX : value > -9e18 ? llround(value) : INT64_MIN; /* NaN: the minimum */
}

static int has(const struct view *view, uint32_t feature)
{
    return (view->id->features & feature) != 0;
}

/* Quantities that an instance of a partitioned GPU answers; the rest is the whole GPU's business. */
static int answered_by_mig(enum quantity what)
{
    switch (what) {
    case Q_ARCHITECTURE: case Q_BRAND: case Q_GPU_INSTANCE: case Q_COMPUTE_INSTANCE: case Q_IS_MIG:
    case Q_NOT_SUPPORTED:
    case Q_BUS_WIDTH: case Q_INDEX: case Q_ECC_MODE:
        return 1;
    default:
        return 0;
    }
}

static nvmlReturn_t link_quantity(struct moment *moment, enum quantity what, uint32_t link, uint32_t kind,
                                  int64_t *value)
{
    const struct identity *id = moment->view.id;
    uint32_t links = id->links > MAX_LINKS ? MAX_LINKS : id->links;
    int sum = link == ALL_LINKS;
    double total = 0;
    *value = links;
    if (what == Q_LINKS)
        return NVML_SUCCESS;
    if (links == 0 || (what == Q_LINK_OLD_ERRORS && id->architecture >= ARCH_BLACKWELL))
        return NVML_ERROR_NOT_SUPPORTED;
    if (!sum && link >= links && !(garbage(moment, 1) && link < 91000))
        return NVML_ERROR_INVALID_ARGUMENT;
    switch (what) {
    case Q_LINK_STATE: *value = 1; break;
    case Q_LINK_VERSION: *value = id->link_version; break;
    case Q_LINK_SPEED: *value = id->link_mbps; break;
    case Q_LINK_REMOTE_TYPE: *value = has(&moment->view, HAS_FABRIC) ? 2 : 0; break; /* switch : GPU */
    case Q_LINK_POWER: *value = 0; break; /* full speed */
    case Q_LINK_CAPABILITY:
        *value = kind != 4; /* all but the SLI bridge */
        return kind > 5 ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
    case Q_LINK_ERRORS: case Q_LINK_OLD_ERRORS:
        *value = 0;
        return kind > 3 ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
    default: /* Q_LINK_KIBIBYTES, Q_LINK_BYTES; kind 1 = with protocol */
        for (uint32_t i = 0; i < links; i++)
            if (sum || i == link)
                total += counters_of(moment)->link_bytes[i];
        *value = rounded(total * (kind == 1 ? 1.04 : 1) / (what == Q_LINK_KIBIBYTES ? 1024 : 1));
    }
    return NVML_SUCCESS;
}

/* Links to the processor on the same module (NVLink-C2C). */
static nvmlReturn_t c2c_quantity(const struct view *view, enum quantity what, uint32_t link, int64_t *value)
{
    if (view->id->c2c_links == 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *value = what == Q_C2C_LINKS ? view->id->c2c_links : what == Q_C2C_STATE ? 1 : what == Q_C2C_SPEED ? 44712 : 0;
    return what == Q_C2C_LINKS || link < view->id->c2c_links ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

static nvmlReturn_t pcie_quantity(struct moment *moment, enum quantity what, uint32_t a, int64_t *value)
{
    static const int64_t mbps[] = {0, 2500, 5000, 8000, 16000, 32000, 64000};
    const struct identity *id = moment->view.id;
    const struct physics *physics = physics_of(moment);
    int asleep = physics->level < 0.02 && physics->hung < 0.5; /* idle links fall to generation 1 */
    uint32_t generation = asleep ? 1 : id->pcie_generation;
    switch (what) {
    case Q_PCIE_GENERATION: *value = generation; break;
    case Q_PCIE_WIDTH: *value = id->pcie_width; break;
    case Q_PCIE_SPEED: *value = mbps[generation > 6 ? 6 : generation]; break;
    case Q_PCIE_REPLAYS: case Q_PCIE_ERRORS: *value = 0; break;
    default: /* Q_PCIE_BYTES: 32 bits wrap every 70 ms at full speed */
        *value = (int64_t)to_count(a == 0 ? counters_of(moment)->pcie_tx : counters_of(moment)->pcie_rx);
        if (!(moment->view.world->header.quirks & WIDE_PCIE_COUNTERS))
            *value &= UINT32_MAX;
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t ecc_quantity(struct moment *moment, enum quantity what, uint32_t a, uint32_t b, uint32_t c,
                                 int64_t *value)
{
    const struct view *view = &moment->view;
    int of_remapper = what == Q_REMAPPED || what == Q_REMAP_PENDING || what == Q_REMAP_FAILURE;
    int of_pages = what == Q_RETIRED || what == Q_RETIRED_PENDING;
    if (!has(view, HAS_ECC) || (of_remapper && !has(view, HAS_REMAP)) || (of_pages && has(view, HAS_REMAP)))
        return NVML_ERROR_NOT_SUPPORTED;
    int counts = what == Q_ECC_TOTAL || what == Q_ECC_ERRORS;
    if (counts && (a > 1 || b > 1 || (what == Q_ECC_ERRORS && c >= ECC_LOCATIONS)))
        return NVML_ERROR_INVALID_ARGUMENT;
    *value = what == Q_ECC_MODE;
    if (counts && a == ECC_CORRECTED && b == ECC_AGGREGATE && (what == Q_ECC_TOTAL || c == ECC_DRAM))
        *value = (int64_t)(4 * uniform(view->world->header.seed, 500, view->gpu)); /* of an earlier life */
    return NVML_SUCCESS;
}

static nvmlReturn_t thermal_quantity(struct moment *moment, enum quantity what, uint32_t a, int64_t *value)
{
    const struct view *view = &moment->view;
    const struct identity *id = view->id;
    double temperature = physics_of(moment)->temperature;
    switch (what) {
    case Q_TEMPERATURE:
        if (a > 1)
            return NVML_ERROR_INVALID_ARGUMENT;
        *value = rounded(temperature);
        return NVML_SUCCESS;
    case Q_MEMORY_TEMPERATURE:
        *value = rounded(physics_of(moment)->memory_temperature);
        return has(view, HAS_MEMORY_TEMPERATURE) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
    case Q_THRESHOLD:
        if (a > THRESHOLD_GPU_MAX || !has(view, HAS_THRESHOLDS) || id->threshold[a] == 0)
            return NVML_ERROR_NOT_SUPPORTED;
        *value = id->threshold[a];
        return NVML_SUCCESS;
    case Q_TLIMIT: /* degrees relative to gpu max: negative beyond it */
        if (!has(view, HAS_TLIMIT))
            return NVML_ERROR_NOT_SUPPORTED;
        *value = (int64_t)id->threshold[THRESHOLD_GPU_MAX] - id->threshold[a & 3];
        return NVML_SUCCESS;
    default: /* Q_MARGIN */
        *value = (int64_t)id->threshold[THRESHOLD_GPU_MAX] - rounded(temperature);
        return has(view, HAS_TLIMIT) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
    }
}

static nvmlReturn_t power_quantity(struct moment *moment, enum quantity what, int64_t *value)
{
    const struct identity *id = moment->view.id;
    switch (what) {
    case Q_POWER_USAGE:
        *value = rounded((id->features & HAS_POWER_AVERAGE) ? physics_of(moment)->power_average
                                                            : physics_of(moment)->power_instant);
        break;
    case Q_POWER_AVERAGE:
        if (!(id->features & HAS_POWER_AVERAGE))
            return NVML_ERROR_NOT_SUPPORTED;
        *value = rounded(physics_of(moment)->power_average);
        break;
    case Q_POWER_INSTANT:
        *value = rounded(physics_of(moment)->power_instant);
        break;
    case Q_POWER_LIMIT:
    case Q_POWER_DEFAULT:
        *value = id->power_default;
        break;
    case Q_POWER_MIN:
        *value = id->power_min;
        break;
    case Q_POWER_MAX:
        *value = id->power_max;
        break;
    default: /* Q_ENERGY */
        *value = rounded(counters_of(moment)->energy_mj);
        break;
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t constant_quantity(struct moment *moment, enum quantity what, int64_t *value)
{
    const struct view *view = &moment->view;
    const struct identity *id = view->id;
    switch (what) {
    case Q_INDEX: *value = device_index(view->gpu); break;
    case Q_MINOR: *value = id->minor; break;
    case Q_MODULE: *value = id->module; break;
    case Q_BRAND: *value = id->brand; break;
    case Q_ARCHITECTURE: *value = id->architecture; break;
    case Q_CORES: *value = id->cores; break;
    case Q_NUMA: *value = id->numa; break;
    case Q_BUS_WIDTH: *value = id->bus_width; break;
    case Q_BOARD: *value = id->pci_bus << 8; break;
    case Q_BUS_TYPE: *value = 2; break; /* PCIe */
    case Q_ZERO: *value = 0; break;
    case Q_IRQ: *value = 100 + id->minor; break;
    case Q_PCIE_SPEED_CODE: *value = id->pcie_generation; break;
    case Q_ONE: *value = 1; break;
    case Q_DISPLAY: *value = 0; break;
    case Q_PCIE_GENERATION_MAX: *value = id->pcie_generation; break;
    case Q_PCIE_WIDTH_MAX: *value = id->pcie_width; break;
    case Q_REASONS_SUPPORTED: *value = (int64_t)REASONS_ALL; break;
    case Q_EVENT_TYPES:
        *value = (int64_t)(EVENT_XID | EVENT_RECOVERY_ACTION);
        if (has(view, HAS_ECC))
            *value |= (int64_t)(EVENT_SINGLE_BIT_ECC | EVENT_DOUBLE_BIT_ECC);
        break;
    case Q_MIG_MAX: *value = has(view, HAS_MIG) ? MAX_MIG : 0; break;
    case Q_IS_MIG: *value = view->mig >= 0; break;
    case Q_GPU_INSTANCE: *value = view->mig + 1; return view->mig >= 0 ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
    case Q_COMPUTE_INSTANCE: *value = 0; return view->mig >= 0 ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
    case Q_FANS: *value = id->fans; break;
    case Q_RECOVERY_ACTION: *value = 0; break;
    default: return NVML_ERROR_NOT_SUPPORTED;
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t changing_quantity(struct moment *moment, enum quantity what, uint32_t a, uint32_t b, int64_t *value)
{
    const struct view *view = &moment->view;
    switch (what) {
    case Q_CLOCK: case Q_CLOCK_MAX:
        if (a >= CLOCK_COUNT)
            return NVML_ERROR_INVALID_ARGUMENT;
        *value = what == Q_CLOCK ? rounded(physics_of(moment)->clock[a]) : view->id->clock_max[a];
        break;
    case Q_CLOCK_BY_ID: /* b: current, application target, default, customer maximum */
        return b > 3 ? NVML_ERROR_INVALID_ARGUMENT : changing_quantity(moment, b == 0 ? Q_CLOCK : Q_CLOCK_MAX, a, 0,
            value);
    case Q_PSTATE: *value = physics_of(moment)->pstate; break;
    case Q_REASONS: *value = (int64_t)physics_of(moment)->reasons; break;
    case Q_SW_POWER_NS: case Q_SW_THERMAL_NS: case Q_HW_THERMAL_NS: case Q_HW_BRAKE_NS: case Q_THERMAL_NS:
    case Q_ZERO_NS:
        *value = 0;
        break;
    case Q_FAN:
        if (!has(view, HAS_FAN))
            return NVML_ERROR_NOT_SUPPORTED;
        if (a >= view->id->fans)
            return NVML_ERROR_INVALID_ARGUMENT;
        *value = rounded(fmin(100, fmax(0, 30 + 1.4 * (physics_of(moment)->temperature - 40))));
        break;
    default: return constant_quantity(moment, what, value);
    }
    return NVML_SUCCESS;
}

nvmlReturn_t quantity(struct moment *moment, enum quantity what, uint32_t a, uint32_t b, uint32_t c, int64_t *value)
{
    nvmlReturn_t result;
    *value = 0;
    if (moment->view.mig >= 0 && !answered_by_mig(what))
        return NVML_ERROR_NOT_SUPPORTED;
    if (what <= Q_ENERGY)
        result = power_quantity(moment, what, value);
    else if (what <= Q_MARGIN)
        result = thermal_quantity(moment, what, a, value);
    else if (what <= Q_ZERO_NS)
        result = changing_quantity(moment, what, a, b, value);
    else if (what <= Q_RETIRED_PENDING)
        result = ecc_quantity(moment, what, a, b, c, value);
    else if (what <= Q_PCIE_BYTES && what != Q_PCIE_GENERATION_MAX && what != Q_PCIE_WIDTH_MAX)
        result = pcie_quantity(moment, what, a, value);
    else if (what >= Q_LINKS && what <= Q_LINK_OLD_ERRORS)
        result = link_quantity(moment, what, a, b, value);
    else if (what >= Q_C2C_LINKS && what <= Q_C2C_POWER)
        result = c2c_quantity(&moment->view, what, a, value);
    else
        result = changing_quantity(moment, what, a, b, value);
    if (result == NVML_SUCCESS)
        lay(moment, what, a, b, c, value);
    return result;
}
