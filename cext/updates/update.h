/* What an update rule provides, and what it is given. Included by the bodies in this folder, by cext/isa/ and by the engine. */
#ifndef CHAOS_UPDATE_H
#define CHAOS_UPDATE_H

#include <stddef.h>
#include <stdint.h>

enum { MAX_MOMENTS = 2, MAX_RULE_OPTIONS = 12 };

/* One update of a stretch of weights. */
typedef struct {
    float lr;
    float option[MAX_RULE_OPTIONS]; /* meaning: the rule's own, in the order of chaos/updates/ */
    uint32_t t;                     /* these weights' update number 1, 2, ... */
} update_step;

typedef struct {
    const char *name;
    int n_moments; /* vectors of state, laid out as the weights and updated with them */
    int plain;     /* it is w - lr * dw, nothing else */
    /* Applies the gradient dw to n weights; n is a multiple of LANES, all pointers 64-byte aligned. */
    void (*apply)(size_t n, float *w, const float *dw, float *const *moment, const update_step *step);
} update_kind;

#endif
