/* Compiles every body of cext/layers, losses, updates and augment for the instruction set of the includer, which has set VW and
 * ISA (the name) inside its target pragma and included isa/common.h before it. */
#include "simd/simd.h"
#include "simd/tiles.h"

#include "lists/layers_bodies.h"
#include "lists/losses_bodies.h"
#include "lists/updates_bodies.h"
#include "lists/augment_bodies.h"
#include "augment/run.h"
#include "updates/bounds.h"

#define KIND(name) &layer_##name,
static const layer_kind *const layers[] = {
#include "lists/layers.h"
    NULL};
#undef KIND
#define KIND(name) &loss_##name,
static const loss_kind *const losses[] = {
#include "lists/losses.h"
    NULL};
#undef KIND
#define KIND(name) &update_##name,
static const update_kind *const updates[] = {
#include "lists/updates.h"
    NULL};
#undef KIND
#define KIND(name) &augment_##name,
static const augment_kind *const augments[] = {
#include "lists/augment.h"
    NULL};
#undef KIND

KERNEL void add_into(size_t n, float *to, const float *from)
{
    for (size_t i = 0; i < n; i += VW)
        vstore(to + i, vload(to + i) + vload(from + i));
}

KERNEL void observe(size_t n, float *state, const float *observed, float rate, float part)
{
    const vec by = vset(rate), of = vset(part);
    for (size_t i = 0; i < n; i += VW) {
        const vec there = vload(state + i);
        vstore(state + i, there + by * (vload(observed + i) - of * there));
    }
}

/* Independent multiply-adds in registers: what this core can reach, the 100 % of `fraction_of_peak`. */
enum { CHAINS = VW == 16 ? 20 : 12 };
KERNEL double fma_seconds(long rounds)
{
    vec acc[CHAINS];
    volatile float one = 0.999999f, tiny = 1e-9f;
    const vec a = vset(one), b = vset(tiny);
#pragma GCC unroll 20
    for (int i = 0; i < CHAINS; i++)
        acc[i] = vset((float)i);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long r = 0; r < rounds; r++) {
#pragma GCC unroll 20
        for (int i = 0; i < CHAINS; i++)
            acc[i] = acc[i] * a + b;
#pragma GCC unroll 20
        for (int i = 0; i < CHAINS; i++)
            __asm__ volatile("" : "+" VECTOR_REGISTER(acc[i]));
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
#pragma GCC unroll 20
    for (int i = 1; i < CHAINS; i++)
        acc[0] += acc[i];
    volatile float sink = acc[0][0];
    (void)sink;
    return (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
}

#define NAME_(isa) isa_##isa
#define NAME(isa) NAME_(isa)
#define TEXT_(isa) #isa
#define TEXT(isa) TEXT_(isa)
const instruction_set NAME(ISA) = {.name = TEXT(ISA),
                                   .lanes = VW,
                                   .layers = layers,
                                   .losses = losses,
                                   .updates = updates,
                                   .augments = augments,
                                   .augment_pick = augment_pick,
                                   .augment_image = augment_image,
                                   .add = add_into,
                                   .observe = observe,
                                   .clip_gradient = clip_gradient,
                                   .column_factors = column_factors,
                                   .scale_columns = scale_columns,
                                   .fma_seconds = fma_seconds,
                                   .fma_flops = 2L * VW * CHAINS};
