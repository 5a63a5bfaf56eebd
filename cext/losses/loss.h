/* What a loss provides, and what it is given. Included by the bodies in this folder, by cext/isa/ and by the engine. */
#ifndef CHAOS_LOSS_H
#define CHAOS_LOSS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_LOSS_OPTIONS = 4 };

/* What a loss compares outputs with. */
enum target {
    TARGET_CLASS = 1, /* one number per sample: which output is right, counted in PyTorch's order */
    TARGET_MAP = 2,   /* one number per pixel: which channel is right there */
    TARGET_VALUES = 4 /* a float for every output, in PyTorch's order */
};

/* One sample. Outputs lie in PyTorch's order: channel c of pixel p at c * pixels + p. */
typedef struct {
    int k;                 /* outputs: channels * pixels */
    int pixels;
    enum target target;    /* one that the kind takes */
    const int64_t *number; /* TARGET_CLASS: one, TARGET_MAP: one per pixel; all in range */
    const float *values;   /* TARGET_VALUES */
    const double *option;  /* of the loss, in the order of chaos/losses/ */
    float weight;          /* of the sample: 1, or what the caller gives */
    float scale; /* what the sample counts in the step, its weight included: the gradient is multiplied with it */
} loss_call;

typedef struct {
    const char *name;
    unsigned targets; /* all that it takes */
    /* Loss of the sample; writes scale * gradient to dy unless it is NULL. */
    double (*value)(const loss_call *c, const float *y, float *dy);
    /* How many of the sample's answers are wrong, of one per sample, pixel or value; NULL: there is no right and wrong. */
    int (*wrong)(const loss_call *c, const float *y);
} loss_kind;

/* The first of the largest of k numbers `step` apart; a NaN is larger than all. */
static inline int loss_argmax(int k, size_t step, const float *y)
{
    int best = 0;
    for (int j = 1; j < k; j++)
        if (!(y[(size_t)j * step] <= y[(size_t)best * step]))
            best = j;
    return best;
}

/* The output with the largest value should be the right class; in maps that of each pixel. */
static inline int loss_wrong_classes(const loss_call *c, const float *y)
{
    if (c->target == TARGET_CLASS)
        return loss_argmax(c->k, 1, y) != c->number[0];
    int wrong = 0;
    for (int p = 0; p < c->pixels; p++)
        wrong += loss_argmax(c->k / c->pixels, (size_t)c->pixels, y + p) != c->number[p];
    return wrong;
}

#endif
