/* Sums, maxima and minima over some of the axes. A row's sum is formed before it joins the others', so that rounding errors
 * grow with height plus width. Body: included by cext/isa/ only. */
#include "layer.h"

enum { REDUCE_C, REDUCE_H, REDUCE_W, REDUCE_TO_C, REDUCE_TO_H, REDUCE_TO_W }; /* which axes; the shape of what is left */
enum { REDUCE_FACTOR };                                                       /* of sums */

KERNEL const char *reduce_set_up(geometry *g)
{
    const int *o = g->whole;
    const shape s = g->in[0], left = {o[REDUCE_C] ? 1 : s.c, o[REDUCE_H] ? 1 : s.h, o[REDUCE_W] ? 1 : s.w};
    g->out = (shape){o[REDUCE_TO_C], o[REDUCE_TO_H], o[REDUCE_TO_W]};
    if (g->out.c < 1 || g->out.h < 1 || g->out.w < 1 || shape_size(g->out) != shape_size(left))
        return "the output has another size than what is left";
    return NULL;
}

KERNEL const char *select_set_up(geometry *g)
{
    const char *reason = reduce_set_up(g);
    g->keep_size = round_up(shape_size(g->out), LANES) + SLACK;
    return reason;
}

/* Where in the output the row's first pixel goes, and floats from pixel to pixel there. */
INLINE size_t reduce_row(const geometry *g, int i, size_t *step)
{
    const size_t C = g->whole[REDUCE_C] ? 1 : (size_t)g->in[0].c, wide = g->whole[REDUCE_W] ? 1 : (size_t)g->in[0].w;
    *step = g->whole[REDUCE_W] ? 0 : C;
    return g->whole[REDUCE_H] ? 0 : (size_t)i * wide * C;
}

KERNEL void reduce_sum_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->in[0].c, W = (size_t)g->in[0].w, size = shape_size(g->out);
    const vec factor = vset(g->real[REDUCE_FACTOR]);
    const int over_channels = g->whole[REDUCE_C];
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        memset(y, 0, size * sizeof(float));
        for (int i = 0; i < g->in[0].h; i++, x += W * C) {
            size_t step, at = reduce_row(g, i, &step);
            /* `together` pixels go to one place */
            const size_t together = step ? 1 : W;
            for (size_t j = 0; j < W; j += together, at += step)
                for (size_t k = 0; k < C; k += VW) {
                    const int lanes = C - k < VW ? (int)(C - k) : VW;
                    vec sum = vset(0);
                    for (size_t q = 0; q < together; q++)
                        sum += vload(x + (j + q) * C + k);
                    if (!over_channels)
                        vstore_n(y + at + k, vload_n(y + at + k, lanes) + sum, lanes);
                    else {
                        float total = 0;
                        for (int l = 0; l < lanes; l++)
                            total += sum[l];
                        y[at] += total;
                    }
                }
        }
        for (size_t k = 0; k < size; k += VW)
            vstore(y + k, factor * vload(y + k));
    }
}

KERNEL void reduce_sum_backward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->in[0].c, W = (size_t)g->in[0].w;
    const vec factor = vset(g->real[REDUCE_FACTOR]);
    for (int n = 0; n < c->n; n++) {
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        for (int i = 0; i < g->in[0].h; i++) {
            size_t step, at = reduce_row(g, i, &step);
            for (size_t j = 0; j < W; j++, at += step, dx += C) {
                const float *dy = c->dy.p + (size_t)n * c->dy.stride + at;
                for (size_t k = 0; k < C; k += VW)
                    vstore(dx + k, factor * (g->whole[REDUCE_C] ? vset(*dy) : vload(dy + k)));
            }
        }
    }
}

/* The larger, times `sign`; a NaN wins, and no number wins over it. */
INLINE ivec select_better(vec v, vec best, float sign) { return (sign * v > sign * best) | ((v != v) & (best == best)); }

/* The first of the largest, or smallest, and where it is in the input. */
INLINE void select_forward(const geometry *g, const call *c, const float sign)
{
    const size_t C = (size_t)g->in[0].c, W = (size_t)g->in[0].w, size = shape_size(g->out);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        int32_t *won = (int32_t *)(c->keep.p + (size_t)n * c->keep.stride);
        for (size_t q = 0; q < size; q++)
            won[q] = -1;
        for (int i = 0; i < g->in[0].h; i++) {
            size_t step, at = reduce_row(g, i, &step);
            for (size_t j = 0; j < W; j++, at += step) {
                const size_t pixel = ((size_t)i * W + j) * C;
                for (size_t k = 0; g->whole[REDUCE_C] && k < C; k++) {
                    const float v = x[pixel + k];
                    if (won[at] < 0 || sign * v > sign * y[at] || (v != v && y[at] == y[at]))
                        y[at] = v, won[at] = (int32_t)(pixel + k);
                }
                for (size_t k = 0; !g->whole[REDUCE_C] && k < C; k += VW) {
                    const int lanes = C - k < VW ? (int)(C - k) : VW;
                    const vec v = vload(x + pixel + k), best = vload_n(y + at + k, lanes);
                    const ivec had = (ivec)vload_n((const float *)won + at + k, lanes);
                    const ivec better = (had < 0) | select_better(v, best, sign);
                    vstore_n(y + at + k, vselect(better, v, best), lanes);
                    vstore_n((float *)won + at + k, (vec)((iset((int32_t)pixel) & better) | (had & ~better)), lanes);
                }
            }
        }
        for (size_t q = 0; !g->whole[REDUCE_C] && q < size; q++)
            won[q] += (int32_t)(q % C);
    }
}

KERNEL void select_backward(const geometry *g, const call *c)
{
    for (int n = 0; n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        const int32_t *won = (const int32_t *)(c->keep.p + (size_t)n * c->keep.stride);
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        memset(dx, 0, shape_size(g->in[0]) * sizeof(float));
        for (size_t q = 0; q < shape_size(g->out); q++)
            dx[won[q]] += dy[q];
    }
}

KERNEL void reduce_max_forward(const geometry *g, const call *c) { select_forward(g, c, 1); }
KERNEL void reduce_min_forward(const geometry *g, const call *c) { select_forward(g, c, -1); }

#define REDUCE_ROW(id, prepare, back)                                                                                       \
    static const layer_kind layer_##id = {                                                                                  \
        .name = #id, .set_up = prepare, .forward = id##_forward, .backward = back, .forgets = FORGETS_X | FORGETS_Y};

REDUCE_ROW(reduce_sum, reduce_set_up, reduce_sum_backward)
REDUCE_ROW(reduce_max, select_set_up, select_backward)
REDUCE_ROW(reduce_min, select_set_up, select_backward)
