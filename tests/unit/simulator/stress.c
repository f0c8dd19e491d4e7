/* Eight threads read all that there is while one writes; built by test_sim_stress.py with a sanitizer, or for valgrind.
 *
 *     stress STATE SECONDS [ROUNDS [OVERLAY-STATE]]
 *
 * With the overlay's state (then built from the overlay's sources) the writer writes to both worlds.
 * The writer changes workload, processes, MIG, clock and faults through the control library's own functions. Readers
 * check what must hold: counters never step back, memory adds up, no process list has a torn row. */
#define _GNU_SOURCE
#include "abi.h"
#include "state.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define READERS 8
#define GPUS 4

nvmlReturn_t nvmlInit_v2(void), nvmlShutdown(void);
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int, nvmlDevice_t *);
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t, nvmlMemory_v2_t *);
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t, unsigned long long *);
nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t, unsigned int, unsigned int, unsigned long long *);
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t, unsigned int, unsigned int *);
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t, char *, unsigned int);
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t, int, nvmlFieldValue_t *);
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t, unsigned int *, nvmlProcessInfo_t *);
nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t, unsigned int, nvmlDevice_t *);
nvmlReturn_t nvmlGpmSampleAlloc(nvmlGpmSample_t *), nvmlGpmSampleFree(nvmlGpmSample_t);
nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t, nvmlGpmSample_t);
nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *), nvmlEventSetFree(nvmlEventSet_t);
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t, unsigned long long, nvmlEventSet_t);
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t, nvmlEventData_t *, unsigned int);

struct control;
struct control *gpuvigil_open(const char *, char *);
void gpuvigil_close(struct control *);
int64_t gpuvigil_set(struct control *, unsigned int, uint32_t, int64_t, int64_t, const double *);
int gpuvigil_clear(struct control *, unsigned int, uint32_t);
int gpuvigil_set_clock(struct control *, double, int64_t);
void gpuvigil_change(struct control *, unsigned int, const struct gpu_state *);
void gpuvigil_read(const struct control *, unsigned int, struct gpu_state *);

static int stop; /* atomic */

#define MUST(truth) \
    do { \
        if (!(truth)) { \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #truth); \
            abort(); \
        } \
    } while (0)

static void read_once(nvmlDevice_t gpu, unsigned long long last[3], nvmlGpmSample_t sample)
{
    nvmlMemory_v2_t memory = {.version = STRUCT_VERSION(nvmlMemory_v2_t, 2)};
    nvmlProcessInfo_t process[MAX_PROCESSES];
    nvmlFieldValue_t field[64];
    unsigned long long energy, corrected, uncorrected;
    unsigned int temperature, count = MAX_PROCESSES;
    char uuid[96];
    nvmlDevice_t mig;
    if (nvmlDeviceGetMemoryInfo_v2(gpu, &memory) == NVML_SUCCESS)
        MUST(memory.total == memory.reserved + memory.used + memory.free);
    if (nvmlDeviceGetTotalEnergyConsumption(gpu, &energy) == NVML_SUCCESS) {
        MUST(energy >= last[0]);
        last[0] = energy;
    }
    if (nvmlDeviceGetTotalEccErrors(gpu, 0, 0, &corrected) == NVML_SUCCESS) {
        MUST(corrected >= last[1]);
        last[1] = corrected;
    }
    if (nvmlDeviceGetTotalEccErrors(gpu, 1, 0, &uncorrected) == NVML_SUCCESS) {
        MUST(uncorrected >= last[2]);
        last[2] = uncorrected;
    }
    if (nvmlDeviceGetTemperature(gpu, 0, &temperature) == NVML_SUCCESS)
        MUST(temperature > 10 && temperature < 120);
    if (nvmlDeviceGetUUID(gpu, uuid, sizeof uuid) == NVML_SUCCESS)
        MUST(strncmp(uuid, "GPU-", 4) == 0);
    if (nvmlDeviceGetComputeRunningProcesses_v3(gpu, &count, process) == NVML_SUCCESS)
        for (unsigned int i = 0; i < count; i++)
            MUST(process[i].usedGpuMemory == process[i].pid * 4096ull); /* as the writer writes them, both or neither */
    for (int i = 0; i < 64; i++)
        field[i] = (nvmlFieldValue_t){.fieldId = (unsigned int)(i * 5 + 1), .scopeId = (unsigned int)i % 18};
    nvmlDeviceGetFieldValues(gpu, 64, field);
    nvmlDeviceGetMigDeviceHandleByIndex(gpu, 1, &mig);
    nvmlGpmSampleGet(gpu, sample);
}

static void *reader(void *unused)
{
    (void)unused;
    nvmlDevice_t gpu[GPUS];
    unsigned long long last[GPUS][3] = {{0}};
    nvmlGpmSample_t sample;
    MUST(nvmlInit_v2() == NVML_SUCCESS);
    MUST(nvmlGpmSampleAlloc(&sample) == NVML_SUCCESS);
    for (unsigned int i = 0; i < GPUS; i++)
        while (nvmlDeviceGetHandleByIndex_v2(i, &gpu[i]) != NVML_SUCCESS && !__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
            ; /* lost for a moment */
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
        for (unsigned int i = 0; i < GPUS; i++)
            read_once(gpu[i], last[i], sample);
    nvmlGpmSampleFree(sample);
    nvmlShutdown();
    return NULL;
}

static void *listener(void *unused)
{
    (void)unused;
    nvmlEventSet_t set;
    nvmlEventData_t event;
    nvmlDevice_t gpu;
    MUST(nvmlInit_v2() == NVML_SUCCESS);
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        MUST(nvmlEventSetCreate(&set) == NVML_SUCCESS);
        for (unsigned int i = 0; i < GPUS; i++)
            if (nvmlDeviceGetHandleByIndex_v2(i, &gpu) == NVML_SUCCESS)
                nvmlDeviceRegisterEvents(gpu, EVENT_XID | EVENT_DOUBLE_BIT_ECC, set);
        for (int i = 0; i < 20 && !__atomic_load_n(&stop, __ATOMIC_ACQUIRE); i++)
            if (nvmlEventSetWait_v2(set, &event, 5) == NVML_SUCCESS)
                MUST(event.eventType == EVENT_DOUBLE_BIT_ECC || event.eventData == 79);
        MUST(nvmlEventSetFree(set) == NVML_SUCCESS);
    }
    nvmlShutdown();
    return NULL;
}

static void write_once(struct control *control, unsigned int round)
{
    static const uint32_t kinds[] = {GPU_LOST, XID, ECC_CORRECTED_RATE, ECC_UNCORRECTED_COUNT, REMAP_PENDING,
                                     THERMAL_THROTTLE, POWER_BRAKE, NVLINK_DOWN, NVLINK_ERRORS, MEMORY_LEAK,
                                     HUNG_COLLECTIVE, VALUES_FROZEN, HANG, SLOW, POWER_CAP, RESET_REQUIRED};
    unsigned int gpu = round % GPUS, kind = kinds[round / GPUS % (sizeof kinds / sizeof *kinds)];
    double p[FAULT_PARAMETERS] = {kind == XID ? 79 : kind == SLOW ? 0 : 3, kind == SLOW ? 0.1 : 0, 0, 0};
    if (kind == GPU_LOST || kind == HANG)
        p[0] = 0;
    gpuvigil_set(control, gpu, kind, round % 3 ? 0 : 200000, 300000, p);
    struct gpu_state state;
    gpuvigil_read(control, gpu, &state);
    state.workload = round % WORKLOADS;
    state.processes = round % MAX_PROCESSES;
    for (uint32_t i = 0; i < state.processes; i++)
        state.process[i] = (struct process){.pid = round + i, .memory = (round + i) * 4096ull};
    state.mig = round % 3;
    state.mig_slices[0] = state.mig_slices[1] = 3;
    gpuvigil_change(control, gpu, &state);
    if (round % 7 == 0)
        gpuvigil_set_clock(control, round % 2 ? 1.0 : 60.0, 1000000);
    if (round % 11 == 0)
        gpuvigil_clear(control, gpu, 0);
}

int main(int count, char **words)
{
    char why[256] = "";
    pthread_t thread[READERS + 1];
    struct timespec now, pause = {0, 200000};
    if (count < 3)
        return 2;
    setenv("GPUVIGIL_SIM_STATE", words[1], 1);
    struct control *control = gpuvigil_open(words[1], why);
    if (control == NULL) {
        fprintf(stderr, "%s: %s\n", words[1], why);
        return 2;
    }
    for (int i = 0; i < READERS; i++)
        pthread_create(&thread[i], NULL, reader, NULL);
    pthread_create(&thread[READERS], NULL, listener, NULL);
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct control *overlay = count > 4 ? gpuvigil_open(words[4], why) : NULL;
    MUST(count < 5 || overlay != NULL);
    time_t end = now.tv_sec + atoi(words[2]);
    unsigned int round = 0, least = count > 3 ? (unsigned int)atoi(words[3]) : 100;
    for (; now.tv_sec < end || round < least; round++) {
        write_once(control, round);
        if (overlay != NULL)
            write_once(overlay, round + 1);
        nanosleep(&pause, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (unsigned int gpu = 0; gpu < GPUS; gpu++)
        gpuvigil_clear(control, gpu, 0);
    for (int i = 0; i <= READERS; i++)
        pthread_join(thread[i], NULL);
    gpuvigil_close(control);
    if (overlay != NULL)
        gpuvigil_close(overlay);
    printf("%u rounds\n", round);
    return 0;
}
