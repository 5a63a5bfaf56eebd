/* Drops entries with probability p while it trains and divides the others by 1 - p. A kind for tests/test_registration.py.
 * Body: included by cext/isa/. Keeps what each entry was multiplied with. */
#include "layer.h"
#include "random.h"

enum { DROPS_P }; /* real option */

KERNEL const char *drops_set_up(geometry *g)
{
    if (!(g->real[DROPS_P] >= 0 && g->real[DROPS_P] < 1))
        return "the probability must be in [0, 1)";
    g->out = g->in[0];
    g->properties = RANDOM;
    g->keep_size = round_up(shape_size(g->out), LANES) + SLACK;
    return NULL;
}

KERNEL void drops_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w;
    const float p = g->real[DROPS_P], rest = 1.f / (1.f - p);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride, *factor = c->keep.p + (size_t)n * c->keep.stride;
        for (size_t i = 0; i < P; i++)
            for (size_t k = 0; k < C; k++) {
                const float f = !c->training ? 1.f : random_uniform(c->key[n], k * P + i) < p ? 0.f : rest;
                factor[i * C + k] = f;
                y[i * C + k] = f * x[i * C + k];
            }
    }
}

KERNEL void drops_backward(const geometry *g, const call *c)
{
    for (int n = 0; c->dx[0].p && n < c->n; n++)
        for (size_t i = 0, size = shape_size(g->out); i < size; i += VW)
            vstore(c->dx[0].p + (size_t)n * c->dx[0].stride + i,
                   vload(c->keep.p + (size_t)n * c->keep.stride + i) * vload(c->dy.p + (size_t)n * c->dy.stride + i));
}

static const layer_kind layer_drops = {
    .name = "drops", .set_up = drops_set_up, .forward = drops_forward, .backward = drops_backward};
