/* Numbers of the network's own that join the graph: trained, or not. The input says only for which images. Body: included by
 * cext/isa/ only. */
#include "layer.h"

KERNEL const char *constant_shape(geometry *g)
{
    g->out = (shape){g->whole[0], g->whole[1], g->whole[2]};
    return g->whole[0] < 1 || g->whole[1] < 1 || g->whole[2] < 1 ? "the shape must be positive" : NULL;
}

KERNEL const char *parameter_set_up(geometry *g)
{
    const char *reason = constant_shape(g);
    g->weight_size = reason ? 0 : round_up(shape_size(g->out), LANES);
    return reason;
}

KERNEL const char *constant_set_up(geometry *g)
{
    const char *reason = constant_shape(g);
    g->state_size = reason ? 0 : round_up(shape_size(g->out), LANES);
    g->state_rate = 0;
    return reason;
}

KERNEL ptrdiff_t constant_locate(const geometry *g, int k, ptrdiff_t i)
{
    const ptrdiff_t pixels = (ptrdiff_t)g->out.h * g->out.w;
    return i < pixels * g->out.c ? i % pixels * g->out.c + i / pixels : -1;
}

INLINE void constant_copy(const geometry *g, const call *c, const float *value)
{
    for (int n = 0; n < c->n; n++)
        memcpy(c->y.p + (size_t)n * c->y.stride, value, shape_size(g->out) * sizeof(float));
}

INLINE void constant_no_gradient(const geometry *g, const call *c)
{
    for (int n = 0; c->dx[0].p && n < c->n; n++)
        memset(c->dx[0].p + (size_t)n * c->dx[0].stride, 0, shape_size(g->in[0]) * sizeof(float));
}

KERNEL void parameter_forward(const geometry *g, const call *c) { constant_copy(g, c, c->w); }
KERNEL void constant_forward(const geometry *g, const call *c) { constant_copy(g, c, c->state); }

KERNEL void parameter_backward(const geometry *g, const call *c)
{
    constant_no_gradient(g, c);
    for (size_t i = 0, size = shape_size(g->out); i < size; i += VW) {
        const int lanes = size - i < VW ? (int)(size - i) : VW;
        vec sum = c->first ? vset(0) : vload(c->dw + i);
        for (int n = 0; n < c->n; n++)
            sum += vload(c->dy.p + (size_t)n * c->dy.stride + i);
        vstore_n(c->dw + i, sum, lanes); /* padding stays zero */
    }
}

KERNEL void constant_backward(const geometry *g, const call *c)
{
    constant_no_gradient(g, c);
    if (c->first)
        memset(c->dstate, 0, g->state_size * sizeof(float));
}

#define CONSTANT_ROW(id, observed)                                                                                          \
    static const part id##_parts[] = {{"value", observed}};                                                                 \
    static const layer_kind layer_##id = {.name = #id,                                                                      \
                                          .n_parts = 1,                                                                     \
                                          .parts = id##_parts,                                                              \
                                          .set_up = id##_set_up,                                                            \
                                          .locate = constant_locate,                                                        \
                                          .forward = id##_forward,                                                          \
                                          .backward = id##_backward,                                                        \
                                          .forgets = FORGETS_X | FORGETS_Y};

CONSTANT_ROW(parameter, 0)
CONSTANT_ROW(constant, 1)
