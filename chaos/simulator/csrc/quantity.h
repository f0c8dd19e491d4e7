/* Every integer reading by one name, so that a getter and its field id cannot disagree. */
#ifndef GPUVIGIL_QUANTITY_H
#define GPUVIGIL_QUANTITY_H

#include "device.h"

enum quantity {
    Q_POWER_AVERAGE, Q_POWER_INSTANT, Q_POWER_USAGE, Q_POWER_LIMIT, Q_POWER_DEFAULT, Q_POWER_MIN, Q_POWER_MAX, Q_ENERGY,
    Q_TEMPERATURE, Q_MEMORY_TEMPERATURE, Q_THRESHOLD, Q_TLIMIT, Q_MARGIN,
    Q_CLOCK, Q_CLOCK_MAX, Q_CLOCK_BY_ID, Q_PSTATE, Q_REASONS, Q_REASONS_SUPPORTED,
    Q_SW_POWER_NS, Q_SW_THERMAL_NS, Q_HW_THERMAL_NS, Q_HW_BRAKE_NS, Q_THERMAL_NS, Q_ZERO_NS,
    Q_ECC_MODE, Q_ECC_ERRORS, Q_ECC_TOTAL, Q_REMAPPED, Q_REMAP_PENDING, Q_REMAP_FAILURE,
    Q_RETIRED, Q_RETIRED_PENDING,
    Q_PCIE_GENERATION, Q_PCIE_WIDTH, Q_PCIE_GENERATION_MAX, Q_PCIE_WIDTH_MAX, Q_PCIE_SPEED, Q_PCIE_REPLAYS,
    Q_PCIE_ERRORS,
    Q_PCIE_BYTES, Q_PCIE_SPEED_CODE,
    Q_LINKS, Q_LINK_STATE, Q_LINK_VERSION, Q_LINK_SPEED, Q_LINK_ERRORS, Q_LINK_KIBIBYTES, Q_LINK_BYTES,
    Q_LINK_CAPABILITY,
    Q_LINK_REMOTE_TYPE, Q_LINK_POWER, Q_LINK_OLD_ERRORS,
    Q_C2C_LINKS, Q_C2C_STATE, Q_C2C_SPEED, Q_C2C_ERRORS, Q_C2C_POWER,
    Q_FAN, Q_FANS, Q_INDEX, Q_MINOR, Q_MODULE, Q_BRAND, Q_ARCHITECTURE, Q_CORES, Q_NUMA, Q_BUS_WIDTH, Q_BOARD,
    Q_ZERO, Q_ONE, Q_NOT_SUPPORTED, Q_DISPLAY, Q_RECOVERY_ACTION, Q_MIG_MAX, Q_GPU_INSTANCE, Q_COMPUTE_INSTANCE,
    Q_IS_MIG, Q_BUS_TYPE, Q_IRQ, Q_EVENT_TYPES,
};

#define ALL_LINKS UINT32_MAX

/* A reading of the GPU; a, b, c mean what the quantity says (sensor, link, location ...). */
nvmlReturn_t quantity(struct moment *moment, enum quantity what, uint32_t a, uint32_t b, uint32_t c, int64_t *value);

/* Per cent of the video encoder, or decoder, that the GPU's processes use together. */
unsigned int codec_load(const struct moment *moment, int decoder);

/* Lays the faults that change one reading over its healthy value. */
void lay(struct moment *moment, enum quantity what, uint32_t a, uint32_t b, uint32_t c, int64_t *value);

/* What a field id means: a quantity and its arguments. 0 if the id is unknown. */
struct meaning {
    enum quantity what;
    uint32_t type, a, b, c;
};
int field_meaning(const struct view *view, uint32_t id, uint32_t scope, struct meaning *out);

#endif
