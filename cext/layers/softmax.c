/* Softmax over the channels of each pixel, or its logarithm. Body: included by cext/isa/ only. */
#include "layer.h"

KERNEL const char *softmax_set_up(geometry *g)
{
    g->out = g->in[0];
    return NULL;
}

/* The vector at k of a pixel, what is past its end replaced by `rest`. */
INLINE vec softmax_load(const float *p, size_t k, size_t C, float rest)
{
    if (C - k >= VW)
        return vload(p + k);
    float lane[VW];
    vstore(lane, vload(p + k));
    for (size_t i = C - k; i < VW; i++)
        lane[i] = rest;
    return vload(lane);
}

INLINE float softmax_sum(vec v)
{
    float sum = 0;
    for (int i = 0; i < VW; i++)
        sum += v[i];
    return sum;
}

/* exp, 0 where it is below 2^-125 */
INLINE vec softmax_exp(vec x) { return vselect(x < -86.f, vset(0), vexp(x)); }

INLINE void softmax_forward_of(const geometry *g, const call *c, const int logarithm)
{
    const size_t C = (size_t)g->out.c, size = shape_size(g->out);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        for (size_t p = 0; p < size; p += C, x += C, y += C) { /* ascending: what spills over a pixel is written again */
            vec most = softmax_load(x, 0, C, x[0]), sum = vset(0);
            for (size_t k = VW; k < C; k += VW)
                most = vmax(most, softmax_load(x, k, C, x[0]));
            float top = most[0];
            for (int i = 1; i < VW; i++)
                top = most[i] > top ? most[i] : top;
            for (size_t k = 0; k < C; k += VW) {
                const vec e = softmax_exp(softmax_load(x, k, C, top - 100.f) - top);
                if (C - k < VW)
                    sum += softmax_load((const float *)&e, 0, C - k, 0);
                else
                    sum += e;
                if (!logarithm)
                    vstore(y + k, e);
            }
            const float total = softmax_sum(sum);
            const vec factor = vset(1 / total), log_total = vset(logf(total));
            for (size_t k = 0; k < C; k += VW)
                if (logarithm)
                    vstore(y + k, vload(x + k) - top - log_total);
                else
                    vstore(y + k, vload(y + k) * factor);
        }
    }
}

INLINE void softmax_backward_of(const geometry *g, const call *c, const int logarithm)
{
    const size_t C = (size_t)g->out.c, size = shape_size(g->out);
    for (int n = 0; c->dx[0].p && n < c->n; n++) {
        const float *y = c->y.p + (size_t)n * c->y.stride, *dy = c->dy.p + (size_t)n * c->dy.stride;
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        for (size_t p = 0; p < size; p += C, y += C, dy += C, dx += C) {
            vec sum = vset(0);
            for (size_t k = 0; k < C; k += VW) {
                const vec v = softmax_load(dy, k, C, 0);
                if (logarithm)
                    sum += v;
                else
                    sum += v * softmax_load(y, k, C, 0);
            }
            const vec total = vset(softmax_sum(sum));
            for (size_t k = 0; k < C; k += VW) {
                const vec v = vload(dy + k), of = vload(y + k);
                if (logarithm)
                    vstore(dx + k, v - softmax_exp(of) * total);
                else
                    vstore(dx + k, of * (v - total));
            }
        }
    }
}

#define SOFTMAX_ROW(id, logarithm)                                                                                          \
    KERNEL void id##_forward(const geometry *g, const call *c) { softmax_forward_of(g, c, logarithm); }                     \
    KERNEL void id##_backward(const geometry *g, const call *c) { softmax_backward_of(g, c, logarithm); }                   \
    static const layer_kind layer_##id = {                                                                                  \
        .name = #id, .set_up = softmax_set_up, .forward = id##_forward, .backward = id##_backward, .forgets = FORGETS_X};

SOFTMAX_ROW(softmax, 0)
SOFTMAX_ROW(log_softmax, 1)
