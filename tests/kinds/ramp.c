/* x where x > 0, else negative_slope * x; NaN stays NaN. A kind for tests/test_registration.py. Body: included by cext/isa/. */
#include "layer.h"

enum { RAMP_SLOPE }; /* real option */

KERNEL const char *ramp_set_up(geometry *g)
{
    g->out = g->in[0];
    g->properties = g->real[RAMP_SLOPE] >= 0 ? MONOTONE : 0;
    return NULL;
}

KERNEL void ramp_forward(const geometry *g, const call *c)
{
    const vec slope = vset(g->real[RAMP_SLOPE]);
    for (int n = 0; n < c->n; n++)
        for (size_t i = 0, size = shape_size(g->out); i < size; i += VW) {
            const vec x = vload(c->x[0].p + (size_t)n * c->x[0].stride + i);
            vstore(c->y.p + (size_t)n * c->y.stride + i, vselect(x <= 0.f, slope * x, x));
        }
}

KERNEL void ramp_backward(const geometry *g, const call *c)
{
    const vec slope = vset(g->real[RAMP_SLOPE]);
    for (int n = 0; c->dx[0].p && n < c->n; n++)
        for (size_t i = 0, size = shape_size(g->out); i < size; i += VW) {
            const vec x = vload(c->x[0].p + (size_t)n * c->x[0].stride + i);
            const vec dy = vload(c->dy.p + (size_t)n * c->dy.stride + i);
            vstore(c->dx[0].p + (size_t)n * c->dx[0].stride + i, vselect(x <= 0.f, slope * dy, dy));
        }
}

static const layer_kind layer_ramp = {
    .name = "ramp", .set_up = ramp_set_up, .forward = ramp_forward, .backward = ramp_backward};
