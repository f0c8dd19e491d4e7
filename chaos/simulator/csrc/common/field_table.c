/* What each field id means: one table for the simulator and the overlay. */
#include "quantity.h"


struct field {
    uint16_t first, last; /* ids; with INTO_A an id's distance in its range is added to a */
    uint16_t what;
    uint8_t type, into;
    uint8_t a, b, c;
};

enum { FIXED, INTO_A, SCOPE /* a is the scope: a link */ };

#define ONE(id, what, type, a, b, c) {id, id, what, type, FIXED, a, b, c}
#define LINK(id, what, type, kind) {id, id, what, type, SCOPE, 0, kind, 0}

static const struct field fields[] = {
    ONE(1, Q_ECC_MODE, VALUE_UINT, 0, 0, 0), ONE(2, Q_ECC_MODE, VALUE_UINT, 0, 0, 0),
    ONE(3, Q_ECC_TOTAL, VALUE_ULLONG, ECC_CORRECTED, ECC_VOLATILE, 0),
    ONE(4, Q_ECC_TOTAL, VALUE_ULLONG, ECC_UNCORRECTED, ECC_VOLATILE, 0),
    ONE(5, Q_ECC_TOTAL, VALUE_ULLONG, ECC_CORRECTED, ECC_AGGREGATE, 0),
    ONE(6, Q_ECC_TOTAL, VALUE_ULLONG, ECC_UNCORRECTED, ECC_AGGREGATE, 0),
    ONE(7, Q_ECC_ERRORS, VALUE_ULLONG, 0, 0, ECC_L1), ONE(8, Q_ECC_ERRORS, VALUE_ULLONG, 1, 0, ECC_L1),
    ONE(9, Q_ECC_ERRORS, VALUE_ULLONG, 0, 0, ECC_L2), ONE(10, Q_ECC_ERRORS, VALUE_ULLONG, 1, 0, ECC_L2),
    ONE(11, Q_ECC_ERRORS, VALUE_ULLONG, 0, 0, ECC_DRAM), ONE(12, Q_ECC_ERRORS, VALUE_ULLONG, 1, 0, ECC_DRAM),
    ONE(13, Q_ECC_ERRORS, VALUE_ULLONG, 0, 0, ECC_REGISTER), ONE(14, Q_ECC_ERRORS, VALUE_ULLONG, 1, 0, ECC_REGISTER),
    ONE(15, Q_ECC_ERRORS, VALUE_ULLONG, 0, 0, ECC_TEXTURE), ONE(16, Q_ECC_ERRORS, VALUE_ULLONG, 1, 0, ECC_TEXTURE),
    ONE(17, Q_ECC_ERRORS, VALUE_ULLONG, 1, 0, ECC_CBU),
    ONE(18, Q_ECC_ERRORS, VALUE_ULLONG, 0, 1, ECC_L1), ONE(19, Q_ECC_ERRORS, VALUE_ULLONG, 1, 1, ECC_L1),
    ONE(20, Q_ECC_ERRORS, VALUE_ULLONG, 0, 1, ECC_L2), ONE(21, Q_ECC_ERRORS, VALUE_ULLONG, 1, 1, ECC_L2),
    ONE(22, Q_ECC_ERRORS, VALUE_ULLONG, 0, 1, ECC_DRAM), ONE(23, Q_ECC_ERRORS, VALUE_ULLONG, 1, 1, ECC_DRAM),
    ONE(24, Q_ECC_ERRORS, VALUE_ULLONG, 0, 1, ECC_REGISTER), ONE(25, Q_ECC_ERRORS, VALUE_ULLONG, 1, 1, ECC_REGISTER),
    ONE(26, Q_ECC_ERRORS, VALUE_ULLONG, 0, 1, ECC_TEXTURE), ONE(27, Q_ECC_ERRORS, VALUE_ULLONG, 1, 1, ECC_TEXTURE),
    ONE(28, Q_ECC_ERRORS, VALUE_ULLONG, 1, 1, ECC_CBU),
    {29, 30, Q_RETIRED, VALUE_UINT, INTO_A, 0, 0, 0}, ONE(31, Q_RETIRED_PENDING, VALUE_UINT, 0, 0, 0),
    ONE(74, Q_SW_POWER_NS, VALUE_ULLONG, 0, 0, 0), ONE(75, Q_THERMAL_NS, VALUE_ULLONG, 0, 0, 0),
    {76, 79, Q_ZERO_NS, VALUE_ULLONG, FIXED, 0, 0, 0}, ONE(81, Q_ZERO_NS, VALUE_ULLONG, 0, 0, 0),
    ONE(82, Q_MEMORY_TEMPERATURE, VALUE_UINT, 0, 0, 0), ONE(83, Q_ENERGY, VALUE_ULLONG, 0, 0, 0),
    {84, 89, Q_LINK_SPEED, VALUE_UINT, INTO_A, 0, 0, 0}, ONE(90, Q_LINK_SPEED, VALUE_UINT, 0, 0, 0),
    ONE(91, Q_LINKS, VALUE_UINT, 0, 0, 0), {92, 93, Q_RETIRED_PENDING, VALUE_UINT, FIXED, 0, 0, 0},
    ONE(94, Q_PCIE_REPLAYS, VALUE_UINT, 0, 0, 0), ONE(95, Q_PCIE_ERRORS, VALUE_UINT, 1, 0, 0),
    {132, 137, Q_LINK_SPEED, VALUE_UINT, INTO_A, 6, 0, 0},
    {138, 139, Q_LINK_KIBIBYTES, VALUE_ULLONG, SCOPE, 0, 0, 0}, {140, 141, Q_LINK_KIBIBYTES, VALUE_ULLONG, SCOPE, 0,
    1, 0},
    {142, 143, Q_REMAPPED, VALUE_UINT, INTO_A, 0, 0, 0}, ONE(144, Q_REMAP_PENDING, VALUE_UINT, 0, 0, 0),
    ONE(145, Q_REMAP_FAILURE, VALUE_UINT, 0, 0, 0),
    LINK(161, Q_LINK_OLD_ERRORS, VALUE_ULLONG, 0), LINK(162, Q_LINK_OLD_ERRORS, VALUE_ULLONG, 1),
    LINK(163, Q_LINK_OLD_ERRORS, VALUE_ULLONG, 2), LINK(164, Q_LINK_SPEED, VALUE_UINT, 0),
    LINK(165, Q_LINK_STATE, VALUE_UINT, 0), LINK(166, Q_LINK_VERSION, VALUE_UINT, 0), LINK(167, Q_LINK_POWER,
    VALUE_UINT, 0),
    ONE(169, Q_PCIE_ERRORS, VALUE_UINT, 1, 0, 0), ONE(170, Q_C2C_LINKS, VALUE_UINT, 0, 0, 0),
    LINK(171, Q_C2C_STATE, VALUE_UINT, 0), LINK(172, Q_C2C_SPEED, VALUE_UINT, 0),
    {173, 174, Q_PCIE_ERRORS, VALUE_UINT, FIXED, 0, 0, 0},
    {175, 183, Q_PCIE_ERRORS, VALUE_UINT, FIXED, 1, 0, 0},
    ONE(185, Q_POWER_AVERAGE, VALUE_UINT, 0, 0, 0), ONE(186, Q_POWER_INSTANT, VALUE_UINT, 0, 0, 0),
    ONE(187, Q_POWER_MIN, VALUE_UINT, 0, 0, 0), ONE(188, Q_POWER_MAX, VALUE_UINT, 0, 0, 0),
    ONE(189, Q_POWER_DEFAULT, VALUE_UINT, 0, 0, 0), ONE(190, Q_POWER_LIMIT, VALUE_UINT, 0, 0, 0),
    ONE(191, Q_ENERGY, VALUE_ULLONG, 0, 0, 0), ONE(192, Q_POWER_LIMIT, VALUE_UINT, 0, 0, 0),
    {193, 196, Q_TLIMIT, VALUE_INT, INTO_A, 0, 0, 0}, {197, 198, Q_PCIE_BYTES, VALUE_UINT, INTO_A, 0, 0, 0},
    LINK(202, Q_LINK_BYTES, VALUE_ULLONG, 0), LINK(204, Q_LINK_BYTES, VALUE_ULLONG, 0),
    LINK(208, Q_LINK_ERRORS, VALUE_ULLONG, 2), LINK(211, Q_LINK_ERRORS, VALUE_ULLONG, 2),
    LINK(213, Q_LINK_ERRORS, VALUE_ULLONG, 1), LINK(215, Q_LINK_ERRORS, VALUE_ULLONG, 1),
    LINK(219, Q_LINK_ERRORS, VALUE_ULLONG, 2), LINK(221, Q_LINK_ERRORS, VALUE_ULLONG, 2),
    ONE(230, Q_RECOVERY_ACTION, VALUE_UINT, 0, 0, 0),
    LINK(231, Q_C2C_ERRORS, VALUE_UINT, 0), LINK(232, Q_C2C_ERRORS, VALUE_UINT, 1),
    LINK(233, Q_C2C_ERRORS, VALUE_UINT, 2), LINK(234, Q_C2C_POWER, VALUE_UINT, 0),
    {301, 302, Q_REMAPPED, VALUE_UINT, FIXED, 0, 0, 0},
};

static const struct field *find(uint32_t id)
{
    unsigned int low = 0, high = sizeof fields / sizeof *fields;
    while (low < high) {
        unsigned int middle = (low + high) / 2;
        if (id > fields[middle].last)
            low = middle + 1;
        else if (id < fields[middle].first)
            high = middle;
        else
            return &fields[middle];
    }
    return NULL;
}

/* Clock event counters moved from 251-253 to 269-271 within 580; before and after, 251-253 are power smoothing's. */
static const struct field *find_renumbered(const struct view *view, uint32_t id)
{
    static const struct field reason[] = {ONE(0, Q_SW_THERMAL_NS, VALUE_ULLONG, 0, 0, 0),
                                          ONE(0, Q_HW_THERMAL_NS, VALUE_ULLONG, 0, 0, 0),
                                          ONE(0, Q_HW_BRAKE_NS, VALUE_ULLONG, 0, 0, 0)};
    uint32_t first = view->world->header.quirks & OLD_FIELD_IDS ? 251 : 269;
    return id >= first && id < first + 3 ? &reason[id - first] : NULL;
}

int field_meaning(const struct view *view, uint32_t id, uint32_t scope, struct meaning *out)
{
    const struct field *field = find_renumbered(view, id);
    uint32_t distance = 0;
    if (field == NULL) {
        field = find(id);
        if (field == NULL)
            return 0;
        distance = id - field->first;
    }
    out->what = field->what;
    out->type = field->type;
    out->a = field->into == SCOPE ? scope : field->a + (field->into == INTO_A ? distance : 0);
    out->b = field->b;
    out->c = field->c;
    if (field->what == Q_PCIE_BYTES && view->world->header.quirks & WIDE_PCIE_COUNTERS)
        out->type = VALUE_ULLONG;
    return 1;
}
