#include "model.h"

#include <math.h>
#include <stdlib.h>

#define HUNG_POWER 0.15 /* of the dynamic power: kernels spin, tensor cores rest */

double view_seconds(const struct view *view)
{
    return (double)(view->sim / QUANTUM) * (QUANTUM / 1e9);
}

void view_freeze(struct view *view)
{
    const struct fault *first = NULL;
    for (uint32_t i = 0; i < view->state->faults; i++) {
        const struct fault *fault = &view->state->fault[i];
        if (fault->kind == VALUES_FROZEN && fault_active(fault, view->boot) && (first == NULL || fault->on < first->on))
            first = fault;
    }
    if (first == NULL)
        return;
    int64_t on = first->sim_on != UNKNOWN_TIME ? first->sim_on : sim_at(&view->state->clock, first->on);
    view->sim = on < view->sim ? on : view->sim;
    view->boot = first->on;
}

int fault_span(const struct view *view, const struct fault *fault, double *from, double *to)
{
    if (fault->kind == FAULT_NONE || fault->on > view->boot)
        return 0;
    int64_t on = fault->sim_on != UNKNOWN_TIME ? fault->sim_on : sim_at(&view->state->clock, fault->on);
    int64_t off = view->sim;
    if (fault->off != 0 && fault->off <= view->boot)
        off = fault->sim_off != UNKNOWN_TIME ? fault->sim_off : sim_at(&view->state->clock, fault->off);
    *from = (double)(on / QUANTUM) * (QUANTUM / 1e9);
    *to = (double)(off / QUANTUM) * (QUANTUM / 1e9);
    double now = view_seconds(view);
    if (*to > now)
        *to = now;
    if (*from > *to)
        *from = *to;
    return 1;
}

const struct fault *fault_find(const struct view *view, enum kind kind)
{
    const struct fault *found = NULL;
    for (uint32_t i = 0; i < view->state->faults; i++) {
        const struct fault *fault = &view->state->fault[i];
        if (fault->kind == kind && fault_active(fault, view->boot) && (found == NULL || fault->id > found->id))
            found = fault;
    }
    return found;
}

double pcie_rate(const struct identity *id)
{
    /* 0.985 GB/s a lane at generation 3, doubling with each. */
    uint32_t generation = id->pcie_generation < 1 ? 1 : id->pcie_generation > 6 ? 6 : id->pcie_generation;
    return ldexp(0.246e9, (int)generation - 1) * id->pcie_width;
}

double link_rate(const struct identity *id)
{
    return id->link_mbps * 1e6;
}

/* What a fault leaves of the workload: level * scale, and whether the collective hangs. */
static int effect_of(const struct view *view, const struct fault *fault, double *scale)
{
    const struct identity *id = view->id;
    double clock = 1, top = id->clock_max[CLOCK_SM] ? id->clock_max[CLOCK_SM] : 1;
    switch (fault->kind) {
    case HUNG_COLLECTIVE:
        *scale = 0;
        return 1;
    case GPU_LOST:
    case RESET_REQUIRED:
        *scale = 0;
        return 1;
    case THERMAL_THROTTLE:
    case POWER_BRAKE:
        clock = fault->kind == POWER_BRAKE ? 0.5 : 0.6;
        break;
    case CLOCK_DROP:
        clock = fault->p[0] / top;
        break;
    case POWER_CAP: {
        double idle = id->power_idle, peak = id->power_peak > id->power_idle ? id->power_peak : id->power_idle + 1.0;
        double left = (fault->p[0] * 1000 - idle) / (peak - idle);
        *scale = left < 0.05 ? 0.05 : left < 1 ? left : 1;
        return 1;
    }
    default:
        return 0;
    }
    clock = clock > 0.05 ? clock < 1 ? clock : 1 : 0.05;
    *scale = clock * clock; /* voltage falls with the clock */
    return 1;
}

struct piece {
    double from, to, scale;
    int hung;
};

static int by_time(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The strongest effect at a moment, which rules: 1 = none. */
static double scale_at(const struct piece *piece, unsigned int pieces, double moment, int *hung)
{
    double scale = 1;
    *hung = 0;
    for (unsigned int i = 0; i < pieces; i++)
        if (piece[i].from <= moment && moment < piece[i].to && piece[i].scale <= scale) {
            scale = piece[i].scale;
            *hung |= piece[i].hung;
        }
    return scale;
}

/* Sums over the pieces between which faults come and go, from left to right: what a fault stops stands still. */
struct integrals integrals_at(const struct view *view, double t)
{
    struct piece piece[MAX_FAULTS];
    double edge[2 * MAX_FAULTS + 1], origin = origin_of(view);
    unsigned int pieces = 0, edges = 0;
    struct curve here = curve_at(view, origin);
    struct integrals sum = {t, 0, 0, 0};
    for (uint32_t i = 0; i < view->state->faults; i++) {
        const struct fault *fault = &view->state->fault[i];
        struct piece *p = &piece[pieces];
        if (!effect_of(view, fault, &p->scale) || !fault_span(view, fault, &p->from, &p->to) || p->from >= t)
            continue;
        p->hung = fault->kind == HUNG_COLLECTIVE;
        edge[edges++] = p->from;
        if (p->to < t)
            edge[edges++] = p->to;
        pieces++;
    }
    qsort(edge, edges, sizeof *edge, by_time);
    edge[edges++] = t;
    double from = origin;
    for (unsigned int i = 0; i < edges; i++) {
        int hung;
        double scale = scale_at(piece, pieces, (from + edge[i]) / 2, &hung);
        struct curve there = curve_at(view, edge[i]);
        sum.level += scale * (there.level_sum - here.level_sum);
        sum.comm += scale * (there.comm_sum - here.comm_sum);
        sum.hung += hung ? edge[i] - from : 0;
        here = there;
        from = edge[i];
    }
    return sum;
}

/* Dynamic power at full level, mW. No two boards are equal. */
static double power_slope(const struct view *view)
{
    double gain = 0.96 + 0.04 * uniform(view->world->header.seed, 200, view->gpu);
    double span = (double)view->id->power_peak - view->id->power_idle;
    return span > 0 ? gain * span : 0;
}

static double energy_between(const struct view *view, const struct integrals *a, const struct integrals *b)
{
    return view->id->power_idle * (b->t - a->t)
           + power_slope(view) * (b->level - a->level + HUNG_POWER * (b->hung - a->hung)); /* mW s = mJ */
}

/* First-order lag (20 s) over the power of the last 80 s, by means over growing windows. */
static double lagged_power(const struct view *view, const struct integrals *now)
{
    static const double age[] = {2, 5, 10, 20, 40, 80};
    static const double weight[] = {0.09693806, 0.12838815, 0.17548423, 0.24310382, 0.23688282, 0.11920292};
    struct integrals newer = *now;
    double sum = 0, last = 0;
    for (unsigned int i = 0; i < sizeof age / sizeof *age; i++) {
        struct integrals older = integrals_at(view, now->t - age[i]);
        sum += weight[i] * energy_between(view, &older, &newer) / (age[i] - last);
        newer = older;
        last = age[i];
    }
    return sum;
}

static double heat_of_faults(const struct view *view, double temperature)
{
    double now = view_seconds(view), limit = view->id->threshold[THRESHOLD_SLOWDOWN], most = temperature;
    for (uint32_t i = 0; i < view->state->faults; i++) {
        const struct fault *fault = &view->state->fault[i];
        double from, to;
        if (fault->kind != THERMAL_THROTTLE || !fault_span(view, fault, &from, &to))
            continue;
        double share = (1 - exp(-(to - from) / 4)) * exp(-(now - to) / 20);
        double heated = temperature + (limit + 2 - temperature) * share;
        if (heated > most)
            most = heated;
    }
    return most;
}

static void clocks_of(const struct view *view, struct physics *out)
{
    const struct identity *id = view->id;
    const struct fault *fault;
    int idle = out->level < 0.02 && out->hung < 0.5;
    out->pstate = idle ? id->pstate_idle : 0;
    for (int i = 0; i < CLOCK_COUNT; i++)
        out->clock[i] = idle ? id->clock_idle[i] : id->clock_max[i];
    double share = 1 - 0.1 * (out->level > 1 ? 1 : out->level);
    if (idle)
        out->reasons |= REASON_IDLE;
    if ((fault = fault_find(view, POWER_CAP)) != NULL && !idle) {
        double scale = 1;
        effect_of(view, fault, &scale);
        share *= sqrt(scale);
        out->reasons |= REASON_SW_POWER_CAP;
    }
    double clock = id->clock_max[CLOCK_SM] * share;
    if ((fault = fault_find(view, THERMAL_THROTTLE)) != NULL) {
        clock = fmin(clock, 0.6 * id->clock_max[CLOCK_SM]);
        out->reasons |= fault->p[0] != 0 ? REASON_HW_THERMAL | REASON_HW_SLOWDOWN : REASON_SW_THERMAL;
    }
    if (fault_find(view, POWER_BRAKE) != NULL) {
        clock = fmin(clock, 0.5 * id->clock_max[CLOCK_SM]);
        out->reasons |= REASON_HW_POWER_BRAKE | REASON_HW_SLOWDOWN;
    }
    if ((fault = fault_find(view, CLOCK_DROP)) != NULL)
        clock = fmin(clock, fault->p[0]);
    if (!idle || clock < id->clock_idle[CLOCK_SM])
        out->clock[CLOCK_SM] = out->clock[CLOCK_GRAPHICS] = clock < 15 ? 15 : floor(clock / 15) * 15;
}

struct physics physics_at(const struct view *view)
{
    const struct identity *id = view->id;
    struct physics out = {0};
    double t = view_seconds(view);
    struct integrals now = integrals_at(view, t), before = integrals_at(view, t - 1);
    struct integrals instant = integrals_at(view, t - 0.1);
    out.level = now.level - before.level;
    out.comm = now.comm - before.comm;
    out.hung = now.hung - before.hung;
    int training = view->state->workload == WORKLOAD_TRAINING, idle = view->state->workload == WORKLOAD_IDLE;
    double busy = idle ? 0 : fmin(1, out.level / 0.45 + out.hung);
    if (fault_find(view, HUNG_COLLECTIVE) != NULL)
        busy = 1, out.level = fmin(out.level, 0.02), out.hung = fmax(out.hung, 0.5);
    out.utilization = 100 * busy;
    out.memory_activity = 100 * fmin(1, out.level * (training ? 0.55 : 0.9));
    out.sm = 100 * fmin(1, 0.95 * out.level + 0.08 * out.hung);
    out.occupancy = 0.45 * out.sm;
    out.tensor = 100 * out.level * (training ? 0.60 : 0.22);
    out.dram = 100 * fmin(0.92, out.level * (training ? 0.48 : 0.95));
    out.power_average = energy_between(view, &before, &now);
    out.power_instant = energy_between(view, &instant, &now) / 0.1;
    double local = id->ambient + 4 * uniform(view->world->header.seed, 300, view->gpu);
    out.temperature = heat_of_faults(view, local + id->degrees_per_watt * lagged_power(view, &now) / 1000);
    out.memory_temperature = out.temperature + 3 + 7 * out.dram / 100;
    clocks_of(view, &out);
    return out;
}

double leaked_bytes(const struct view *view)
{
    double sum = 0, from, to;
    for (uint32_t i = 0; i < view->state->faults; i++) {
        const struct fault *fault = &view->state->fault[i];
        if (fault->kind == MEMORY_LEAK && fault_active(fault, view->boot) && fault_span(view, fault, &from, &to))
            sum += fault->p[0] * 1048576 * (to - from);
    }
    return sum > 0 ? sum : 0;
}

static double positive(double value)
{
    return value > 0 && value < 1e15 ? value : 0;
}

static void count_fault(const struct view *view, const struct fault *fault, struct counters *out)
{
    double from, to;
    if (!fault_span(view, fault, &from, &to))
        return;
    double seconds = to - from;
    unsigned int place = to_uint(fault->p[1]);
    switch (fault->kind) {
    case ECC_CORRECTED_RATE:
        out->ecc[ECC_CORRECTED][place < ECC_LOCATIONS ? place : ECC_DRAM] += floor(positive(fault->p[0]) * seconds);
        break;
    case ECC_UNCORRECTED_COUNT:
        out->ecc[ECC_UNCORRECTED][place < ECC_LOCATIONS ? place : ECC_DRAM] += positive(fault->p[0]);
        break;
    case REMAP_PENDING:
        out->remapped[fault->p[1] != 0 ? ECC_CORRECTED : ECC_UNCORRECTED] += positive(fault->p[0]);
        break;
    case THERMAL_THROTTLE:
        *(fault->p[0] != 0 ? &out->hw_thermal_ns : &out->sw_thermal_ns) += seconds * 1e9;
        break;
    case POWER_BRAKE:
        out->hw_brake_ns += seconds * 1e9;
        break;
    case POWER_CAP:
        out->sw_power_ns += seconds * 1e9;
        break;
    case PCIE_DEGRADED:
        out->replays += floor(positive(fault->p[2]) * seconds);
        break;
    case NVLINK_ERRORS:
        for (unsigned int link = 0; link < MAX_LINKS; link++)
            if (fault->p[0] < 0 || fault->p[0] == link)
                for (int kind = 0; kind < 3; kind++)
                    out->link_errors[link][kind] += floor(positive(fault->p[1 + kind]) * seconds);
        break;
    default:
        break;
    }
}

/* A time in which links were down: between two moments, with the communication seconds at each. */
struct outage {
    struct integrals from, to;
    double link; /* negative: all */
};

static int by_start(const void *a, const void *b)
{
    return by_time(&((const struct outage *)a)->from.t, &((const struct outage *)b)->from.t);
}

static unsigned int outages_of(const struct view *view, struct outage out[MAX_FAULTS])
{
    unsigned int count = 0;
    for (uint32_t i = 0; i < view->state->faults; i++) {
        const struct fault *fault = &view->state->fault[i];
        double from, to;
        if (fault->kind != NVLINK_DOWN || !fault_span(view, fault, &from, &to))
            continue;
        out[count++] = (struct outage){integrals_at(view, from), integrals_at(view, to), fault->p[0]};
    }
    qsort(out, count, sizeof *out, by_start);
    return count;
}

/* Communication seconds of a link: those in which it was up. Overlapping outages count once. */
static double link_seconds(const struct outage *outage, unsigned int count, unsigned int link,
                           const struct integrals *now)
{
    double sum = 0, up = 0, until = -INFINITY; /* communication when the link last came up; down until then */
    for (unsigned int i = 0; i < count; i++) {
        if (outage[i].link >= 0 && outage[i].link != link)
            continue;
        if (outage[i].from.t > until)
            sum += outage[i].from.comm - up;
        if (outage[i].to.t > until) {
            until = outage[i].to.t;
            up = outage[i].to.comm;
        }
    }
    return sum + (until < now->t ? now->comm - up : 0);
}

struct counters counters_at(const struct view *view)
{
    struct counters out = view->state->base;
    for (uint32_t i = 0; i < view->state->faults; i++)
        count_fault(view, &view->state->fault[i], &out);
    if (view->world->header.overlay)
        return out; /* the rest is counted by the real driver */
    struct integrals origin = {origin_of(view), 0, 0, 0}, now = integrals_at(view, view_seconds(view));
    out.energy_mj += energy_between(view, &origin, &now);
    out.pcie_rx += pcie_rate(view->id) * 0.18 * now.level;
    out.pcie_tx += pcie_rate(view->id) * 0.07 * now.level;
    struct outage outage[MAX_FAULTS];
    unsigned int outages = outages_of(view, outage);
    for (unsigned int link = 0; link < MAX_LINKS && link < view->id->links; link++)
        out.link_bytes[link] += link_rate(view->id) * 0.7 * link_seconds(outage, outages, link, &now);
    return out;
}
