/* While it trains: y = factor * (x, or with probability p `there`) + offset, for entries or for whole channels; y = x
 * otherwise. Keeps the factor of each entry, 0 where it is dropped. Body: included by cext/isa/ only. */
#include "layer.h"
#include "random.h"

enum { DROPOUT_CHANNELS };                                              /* whole option */
enum { DROPOUT_P, DROPOUT_THERE, DROPOUT_FACTOR, DROPOUT_OFFSET }; /* real ones */

KERNEL const char *dropout_set_up(geometry *g)
{
    g->out = g->in[0];
    g->properties = RANDOM;
    g->keep_size = round_up(shape_size(g->out), LANES) + SLACK;
    return NULL;
}

/* The factors of a sample, in the order of its values. */
KERNEL void dropout_draw(const geometry *g, uint64_t key, float *factor)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w;
    const float p = g->real[DROPOUT_P], rest = g->real[DROPOUT_FACTOR];
    if (!g->whole[DROPOUT_CHANNELS]) {
        for (size_t i = 0; i < P; i++)
            for (size_t k = 0; k < C; k++)
                factor[i * C + k] = random_uniform(key, k * P + i) < p ? 0.f : rest;
        return;
    }
    for (size_t k = 0; k < C; k++)
        factor[k] = random_uniform(key, k) < p ? 0.f : rest;
    for (size_t i = 1; i < P; i++)
        memcpy(factor + i * C, factor, C * sizeof *factor);
}

KERNEL void dropout_forward(const geometry *g, const call *c)
{
    const vec there = vset(g->real[DROPOUT_THERE] * g->real[DROPOUT_FACTOR]), offset = vset(g->real[DROPOUT_OFFSET]);
    const size_t size = shape_size(g->out);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride, *factor = c->keep.p + (size_t)n * c->keep.stride;
        if (!c->training) {
            memcpy(y, x, size * sizeof *y);
            continue;
        }
        dropout_draw(g, c->key[n], factor);
        for (size_t i = 0; i < size; i += VW) {
            const vec f = vload(factor + i);
            /* what is dropped is not multiplied: it may be infinite */
            vstore(y + i, vselect(f == 0.f, there, vload(x + i) * f) + offset);
        }
    }
}

KERNEL void dropout_backward(const geometry *g, const call *c)
{
    for (int n = 0; c->dx[0].p && n < c->n; n++)
        for (size_t i = 0, size = shape_size(g->out); i < size; i += VW)
            vstore(c->dx[0].p + (size_t)n * c->dx[0].stride + i,
                   vload(c->keep.p + (size_t)n * c->keep.stride + i) * vload(c->dy.p + (size_t)n * c->dy.stride + i));
}

static const layer_kind layer_dropout = {
    .name = "dropout", .set_up = dropout_set_up, .forward = dropout_forward, .backward = dropout_backward};
