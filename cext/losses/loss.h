/* What a loss provides. Included by the bodies in this folder, by cext/isa/ and by the engine. */
#ifndef CHAOS_LOSS_H
#define CHAOS_LOSS_H

typedef struct {
    const char *name;
    /* Loss of one sample with k outputs y and the class `label`; writes scale * gradient to dy unless it is NULL. */
    double (*value)(int k, const float *y, int label, float scale, float *dy);
} loss_kind;

#endif
