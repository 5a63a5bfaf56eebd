/* The table that every instruction set fills: the same kinds, compiled for it. Included by cext/isa/ and the engine. */
#ifndef CHAOS_ISA_H
#define CHAOS_ISA_H

#include "augment/augment.h"
#include "layers/layer.h"
#include "losses/loss.h"
#include "updates/update.h"

typedef struct {
    const char *name;
    int lanes;
    const layer_kind *const *layers; /* all lists end with NULL */
    const loss_kind *const *losses;
    const update_kind *const *updates;
    const augment_kind *const *augments;
    augment_mix (*augment_pick)(const augmentation *a, uint64_t image_key, shape s, int64_t images); /* see augment/run.h */
    void (*augment_image)(const augment_call *c);
    void (*add)(size_t n, float *to, const float *from); /* to += from, past the end into the slack */
    /* state += rate * (observed - part * state), see geometry.state_rate; n a multiple of LANES */
    void (*observe)(size_t n, float *state, const float *observed, float rate, float part);
    void (*clip_gradient)(size_t n, float *dw, double value, double norm); /* see updates/bounds.h */
    int (*column_factors)(size_t groups, size_t rows, size_t columns, const float *w, float most, float *factor);
    void (*scale_columns)(size_t at, size_t n, size_t rows, size_t columns, const float *factor, float *w);
    double (*fma_seconds)(long rounds); /* time of rounds * fma_flops floating-point operations at full speed */
    long fma_flops;
} instruction_set;

extern const instruction_set isa_generic;
#if defined(__x86_64__)
extern const instruction_set isa_avx2, isa_avx512;
#endif

#endif
