/* What an update rule provides, and what it is given. Included by the bodies in this folder, by cext/isa/ and by the engine. */
#ifndef CHAOS_UPDATE_H
#define CHAOS_UPDATE_H

#include <stddef.h>
#include <stdint.h>

enum { MAX_MOMENTS = 3, MAX_RULE_OPTIONS = 12 };

/* The options of every rule, in the order of chaos/updates/base.py; 0: none. The first two are the rule's business, the
 * others the engine's. A rule's own options follow. */
enum { RULE_WEIGHT_DECAY, RULE_L1, RULE_CLIP_VALUE, RULE_CLIP_NORM, RULE_MAX_NORM, RULE_OWN };

/* One update of a stretch of weights. */
typedef struct {
    float lr;
    double option[MAX_RULE_OPTIONS]; /* from RULE_OWN on: the rule's own, in the order of chaos/updates/ */
    uint32_t t; /* these weights' update number 1, 2, ...; 2^32 is 0 */
} update_step;

/* What is another for some of the weights than for the rest. */
typedef struct {
    double lr_scale;
    int undecayed; /* no weight decay, no l1 */
} update_class;

typedef struct {
    const char *name;
    int n_moments; /* vectors of state, laid out as the weights and updated with them */
    int plain; /* without weight decay it is w - lr * dw, nothing else */
    /* Applies the gradient dw to n weights; n is a multiple of LANES, all pointers 64-byte aligned. Where weight and
     * gradient are 0, as in the padding, the weight stays 0. */
    void (*apply)(size_t n, float *w, const float *dw, float *const *moment, const update_step *step);
} update_kind;

#endif
