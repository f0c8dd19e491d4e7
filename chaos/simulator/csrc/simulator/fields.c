/* nvmlDeviceGetFieldValues: many readings by one call, each with its own return code. */
#include "quantity.h"

/* Counters that one generation of links has and another has not. */
static int absent(const struct view *view, uint32_t id)
{
    int blackwell = view->id->architecture >= ARCH_BLACKWELL;
    return (id >= 201 && id <= 222 && !blackwell) || (id >= 138 && id <= 141 && blackwell);
}

static void answer(struct moment *moment, nvmlFieldValue_t *out)
{
    struct meaning meaning;
    int64_t value;
    out->timestamp = moment->view.sim / 1000;
    out->latencyUsec = 0;
    out->value.ullVal = 0; /* what an absent entry holds: never a reading */
    out->valueType = VALUE_UINT;
    out->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
    if (absent(&moment->view, out->fieldId) || !field_meaning(&moment->view, out->fieldId, out->scopeId, &meaning))
        return;
    out->valueType = meaning.type;
    out->nvmlReturn = quantity(moment, meaning.what, meaning.a, meaning.b, meaning.c, &value);
    if (out->nvmlReturn != NVML_SUCCESS)
        return;
    if (meaning.type == VALUE_UINT || meaning.type == VALUE_INT)
        out->value.uiVal = (unsigned int)value;
    else
        out->value.ullVal = (unsigned long long)value;
}

EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
    struct moment *moment;
    if (values == NULL || count < 1)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter(device, GROUP_FIELDS, &moment);
    for (int i = 0; i < count && result == NVML_SUCCESS; i++)
        answer(moment, &values[i]);
    return result;
}
