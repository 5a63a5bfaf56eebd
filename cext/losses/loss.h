/* What a loss provides, and what it is given. Included by the bodies in this folder, by cext/isa/ and by the engine. */
#ifndef CHAOS_LOSS_H
#define CHAOS_LOSS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_LOSS_OPTIONS = 4 };

/* An option: one number, or a list; none where it is not given. */
typedef struct {
    int count;
    const double *number;
} loss_option;

/* What a loss compares outputs with. */
enum target {
    TARGET_CLASS = 1, /* one number per sample: which output is right, counted in PyTorch's order */
    TARGET_MAP = 2,   /* one number per pixel: which channel is right there */
    TARGET_VALUES = 4 /* a float for every output, in PyTorch's order */
};

/* The number of an answer that counts nothing: no loss, no gradient, neither right nor wrong. */
enum { IGNORED = -1 };

/* One sample. Outputs lie in PyTorch's order: channel c of pixel p at c * pixels + p. */
typedef struct {
    int k;                 /* outputs: channels * pixels */
    int pixels;            /* TARGET_CLASS: 1, whatever the outputs' shape */
    enum target target;    /* one that the kind takes */
    const int64_t *number; /* TARGET_CLASS: one, TARGET_MAP: one per pixel; all in range, or IGNORED */
    const float *values;   /* TARGET_VALUES */
    const loss_option *option; /* MAX_LOSS_OPTIONS of them, of the loss, in the order of chaos/losses/ */
    float weight;          /* of the sample: 1, or what the caller gives */
    float scale; /* what the sample counts in the step, its weight included: the gradient is multiplied with it */
} loss_call;

typedef struct {
    const char *name;
    unsigned targets; /* all that it takes */
    int ignores;      /* it knows IGNORED */
    /* Whether lists among the options are as long as the outputs want; asked before a phase, without a sample. NULL: there
     * are none. */
    int (*fits)(const loss_call *c);
    /* Loss of the sample; writes scale * gradient to dy unless it is NULL. */
    double (*value)(const loss_call *c, const float *y, float *dy);
    /* How many of the sample's answers are wrong, of one per sample, pixel or value; -1, or NULL: there is no
     * right and wrong. */
    int (*wrong)(const loss_call *c, const float *y);
} loss_kind;

/* The option at place i where it is a number; 0 where it is not given. */
static inline double loss_number(const loss_call *c, int i) { return c->option[i].count ? c->option[i].number[0] : 0; }

/* How many classes an answer has. */
static inline int loss_classes(const loss_call *c) { return c->k / c->pixels; }

/* What the first option says about a class: a weight; 1 where no weights are given. */
static inline double loss_class_weight(const loss_call *c, int64_t label)
{
    return c->option[0].count ? c->option[0].number[label] : 1;
}

static inline int loss_class_weights_fit(const loss_call *c)
{
    return !c->option[0].count || c->option[0].count == loss_classes(c);
}

/* The first of the largest of k numbers `step` apart; a NaN is larger than all. */
static inline int loss_argmax(int k, size_t step, const float *y)
{
    int best = 0;
    for (int j = 1; j < k; j++)
        if (!(y[(size_t)j * step] <= y[(size_t)best * step]))
            best = j;
    return best;
}

/* The output with the largest value should be the right class; in maps that of each pixel; where the target is values, the
 * class with the largest of them is right. */
static inline int loss_wrong_classes(const loss_call *c, const float *y)
{
    const int k = loss_classes(c);
    const size_t step = (size_t)c->pixels;
    int wrong = 0;
    for (int p = 0; p < c->pixels; p++) {
        const int64_t right = c->target == TARGET_VALUES ? loss_argmax(k, step, c->values + p) : c->number[p];
        wrong += right != IGNORED && loss_argmax(k, step, y + p) != right;
    }
    return wrong;
}

#endif
