/* What the GPUs are asked to do: workload and communication over time, with integrals in closed form. */
#include "model.h"

#include <math.h>

#define DAY 86400.0
#define PI 3.14159265358979323846

/* Training: 540 s of steps, 30 s of evaluation, 30 s of checkpoint, and again. */
#define TRAIN_STEPS 540.0
#define TRAIN_EVALUATION 570.0
#define TRAIN_CYCLE 600.0
#define STEP 2.0
#define STEP_COMPUTE 1.7 /* then all-reduce */
#define LEVEL_COMPUTE 0.96
#define LEVEL_REDUCE 0.52
#define LEVEL_EVALUATION 0.72
#define LEVEL_CHECKPOINT 0.06
#define COMM_COMPUTE 0.15
#define COMM_REDUCE 1.0
#define COMM_EVALUATION 0.1

/* Inference: a day's wave and bursts of 40 s. */
#define INFER_MEAN 0.40
#define INFER_WAVE 0.22
#define INFER_BURST 0.16
#define BURST 40.0
#define INFER_COMM 0.35 /* of the level: tensor parallelism */

#define LEVEL_IDLE 0.004
#define NOISE_BUCKET 0.1

double uniform(uint64_t seed, uint64_t a, uint64_t b)
{
    uint64_t x = seed + 0x9e3779b97f4a7c15ull * (a + 1) + 0xc2b2ae3d27d4eb4full * (b + 1); /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (double)((x ^ (x >> 31)) >> 11) * 0x1p-53;
}

/* Sums count from about `origin`, to stay small: rounding must never make a counter step back. */

/* Training: all GPUs march in step. */
static struct curve training(double t, double origin)
{
    const double step_sum = STEP_COMPUTE * LEVEL_COMPUTE + (STEP - STEP_COMPUTE) * LEVEL_REDUCE;
    const double step_comm = STEP_COMPUTE * COMM_COMPUTE + (STEP - STEP_COMPUTE) * COMM_REDUCE;
    const double steps = TRAIN_STEPS / STEP, evaluation = TRAIN_EVALUATION - TRAIN_STEPS;
    const double cycle_sum = steps * step_sum + evaluation * LEVEL_EVALUATION
                             + (TRAIN_CYCLE - TRAIN_EVALUATION) * LEVEL_CHECKPOINT;
    const double cycle_comm = steps * step_comm + evaluation * COMM_EVALUATION;
    double cycle = floor(t / TRAIN_CYCLE), x = t - cycle * TRAIN_CYCLE;
    double cycles = cycle - floor(origin / TRAIN_CYCLE);
    struct curve out = {0, cycles * cycle_sum, cycles * cycle_comm};
    if (x < TRAIN_STEPS) {
        double step = floor(x / STEP), y = x - step * STEP;
        double compute = y < STEP_COMPUTE ? y : STEP_COMPUTE, reduce = y - compute;
        out.level = reduce > 0 ? LEVEL_REDUCE : LEVEL_COMPUTE;
        out.level_sum += step * step_sum + compute * LEVEL_COMPUTE + reduce * LEVEL_REDUCE;
        out.comm_sum += step * step_comm + compute * COMM_COMPUTE + reduce * COMM_REDUCE;
    } else if (x < TRAIN_EVALUATION) {
        double y = x - TRAIN_STEPS;
        out.level = LEVEL_EVALUATION;
        out.level_sum += steps * step_sum + y * LEVEL_EVALUATION;
        out.comm_sum += steps * step_comm + y * COMM_EVALUATION;
    } else {
        out.level = LEVEL_CHECKPOINT;
        out.level_sum += cycle_sum - (TRAIN_CYCLE - x) * LEVEL_CHECKPOINT;
        out.comm_sum += cycle_comm;
    }
    return out;
}

/* Inference: bursts come in pairs of equal height, one up and one down, so that the integral has a closed form. */
static struct curve inference(uint64_t seed, double t, double origin)
{
    double angle = 2 * PI * (t / DAY - 8.0 / 24);
    double slot = floor(t / BURST), x = t - slot * BURST, pair = floor(slot / 2);
    double height = INFER_BURST * uniform(seed, 11, (uint64_t)(int64_t)pair);
    double sign = slot - 2 * pair < 0.5 ? 1 : -1, wave = 2 * PI * x / BURST;
    double burst_sum = height * (x / 2 - BURST / (4 * PI) * sin(wave));
    struct curve out;
    out.level = INFER_MEAN + INFER_WAVE * sin(angle) + sign * height * (1 - cos(wave)) / 2;
    out.level_sum = INFER_MEAN * (t - origin) - INFER_WAVE * DAY / (2 * PI) * cos(angle)
                    + (sign > 0 ? burst_sum : height * BURST / 2 - burst_sum);
    out.comm_sum = INFER_COMM * out.level_sum;
    return out;
}

/* Where counters begin: when the world was made, in seconds. */
double origin_of(const struct view *view)
{
    return (double)(view->world->header.epoch / QUANTUM) * (QUANTUM / 1e9);
}

struct curve curve_at(const struct view *view, double t)
{
    uint64_t seed = view->world->header.seed;
    double amplitude = 0.02, origin = origin_of(view);
    struct curve out = {LEVEL_IDLE, LEVEL_IDLE * (t - origin), 0};
    if (view->state->workload == WORKLOAD_TRAINING)
        out = training(t, origin);
    else if (view->state->workload == WORKLOAD_INFERENCE)
        out = inference(seed, t, origin), amplitude = 0.03;
    else
        amplitude = 0.002;
    /* Noise: what one bucket of a pair adds, the other takes away. */
    double bucket = floor(t / NOISE_BUCKET), pair = floor(bucket / 2), x = t - bucket * NOISE_BUCKET;
    double height = amplitude * (2 * uniform(seed, 100 + view->gpu, (uint64_t)(int64_t)pair) - 1);
    int second = bucket - 2 * pair > 0.5;
    out.level += second ? -height : height;
    out.level_sum += second ? height * (NOISE_BUCKET - x) : height * x;
    return out;
}
