/* The frame of every layer y = f(x) with f increasing and a derivative that is a function of y. Included by the bodies in this folder.
 * Whole vectors run into the slack behind a sample. */
#ifndef CHAOS_ELEMENTWISE_H
#define CHAOS_ELEMENTWISE_H

#include "layer.h"

KERNEL const char *elementwise_set_up(geometry *g)
{
    g->out = g->in[0];
    g->properties = MONOTONE;
    return NULL;
}

#define ELEMENTWISE(id, of_x, times_dy)                                                                                     \
    KERNEL void id##_forward(const geometry *g, const call *c)                                                              \
    {                                                                                                                       \
        for (int n = 0; n < c->n; n++)                                                                                      \
            for (size_t i = 0, size = shape_size(g->out); i < size; i += VW) {                                              \
                const vec x = vload(c->x[0].p + (size_t)n * c->x[0].stride + i);                                            \
                vstore(c->y.p + (size_t)n * c->y.stride + i, of_x);                                                         \
            }                                                                                                               \
    }                                                                                                                       \
    KERNEL void id##_backward(const geometry *g, const call *c)                                                             \
    {                                                                                                                       \
        if (!c->dx[0].p)                                                                                                    \
            return;                                                                                                         \
        for (int n = 0; n < c->n; n++)                                                                                      \
            for (size_t i = 0, size = shape_size(g->out); i < size; i += VW) {                                              \
                const vec y = vload(c->y.p + (size_t)n * c->y.stride + i);                                                  \
                const vec dy = vload(c->dy.p + (size_t)n * c->dy.stride + i);                                               \
                vstore(c->dx[0].p + (size_t)n * c->dx[0].stride + i, times_dy);                                             \
            }                                                                                                               \
    }                                                                                                                       \
    static const layer_kind layer_##id = {                                                                                  \
        .name = #id, .set_up = elementwise_set_up, .forward = id##_forward, .backward = id##_backward};

#endif
