/* What an update rule provides. Included by the bodies in this folder, by cext/isa/ and by the engine. */
#ifndef CHAOS_UPDATE_H
#define CHAOS_UPDATE_H

#include <stddef.h>

typedef struct {
    const char *name;
    /* Applies the gradient dw to n weights with the learning rate lr; n is a multiple of LANES, both 64-byte aligned. */
    void (*apply)(size_t n, float *w, const float *dw, float lr);
    int plain; /* it is w - lr * dw, nothing else */
} update_kind;

#endif
