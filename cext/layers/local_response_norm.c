/* y = x / d^beta with d = k + alpha / size * (the sum of the squares of `size` channels around x's, where there are so many).
 * Nothing is kept: to form d again takes less time than to write it down and read it. Body: included by cext/isa/ only. */
#include "layer.h"

enum { RESPONSE_SIZE }; /* whole option */
enum { RESPONSE_ALPHA, RESPONSE_BETA, RESPONSE_K }; /* real ones */

/* Pixels whose channels are written down before any are read again: what is read across two stores waits until they are done. */
enum { RESPONSE_PIXELS = 8 };

/* Of a pixel, with nothing on both sides. */
INLINE size_t response_row(const geometry *g)
{
    return round_up((size_t)g->out.c + (size_t)g->whole[RESPONSE_SIZE], LANES) + SLACK;
}

KERNEL const char *local_response_norm_set_up(geometry *g)
{
    if (g->whole[RESPONSE_SIZE] < 1)
        return "the size must be positive";
    g->out = g->in[0];
    g->scratch_size = 3 * RESPONSE_PIXELS * response_row(g);
    return NULL;
}

/* d^-beta: by roots for the usual exponents. *inverse: 1 / d, for whoever looks at it. */
INLINE vec response_power(vec d, float beta, vec *inverse)
{
    if (beta == 0.5f || beta == 0.75f) {
        const vec r = vrsqrt(d);
        *inverse = r * r;
        if (beta == 0.5f)
            return r;
#if VW == 16
        return *inverse * vrsqrt(r);
#else
        return r * vsqrt(r);
#endif
    }
    *inverse = 1.f / d;
    if (beta == 1.f)
        return *inverse;
    for (int i = 0; i < VW; i++)
        d[i] = powf(d[i], -beta);
    return d;
}

/* Sums of `size` neighbours of what lies in row, from channel k on. */
INLINE vec response_sum(const int size, const float *row, size_t k)
{
    vec sum = vload(row + k);
#pragma GCC unroll 4
    for (int j = 1; j < size; j++)
        sum += vload(row + k + j);
    return sum;
}

/* Of vector k of a pixel; whole ones without a mask, behind which one would have to wait. */
INLINE void response_store(size_t C, float *to, size_t k, vec v)
{
    if (C - k >= VW)
        vstore(to + k, v);
    else
        vstore_n(to + k, v, (int)(C - k));
}

/* The squares of a pixel's channels, to `row`. */
INLINE void response_squares(size_t C, const float *x, float *row)
{
    for (size_t k = 0; k < C; k += VW)
        response_store(C, row, k, vload(x + k) * vload(x + k));
}

INLINE vec response_denominator(const int size, const geometry *g, const float *row, size_t k)
{
    return g->real[RESPONSE_K] + g->real[RESPONSE_ALPHA] / (float)size * response_sum(size, row, k);
}

INLINE void response_forward(const int size, const float beta, const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, step = response_row(g);
    float *rows = memset(c->scratch, 0, RESPONSE_PIXELS * step * sizeof *c->scratch);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        for (size_t i = 0; i < P; i += RESPONSE_PIXELS) {
            const size_t end = P - i < RESPONSE_PIXELS ? P : i + RESPONSE_PIXELS;
            for (size_t p = i; p < end; p++)
                response_squares(C, x + p * C, rows + (p - i) * step + size / 2);
            for (size_t p = i; p < end; p++)
                for (size_t k = 0; k < C; k += VW) {
                    vec inverse;
                    const vec d = response_denominator(size, g, rows + (p - i) * step, k);
                    response_store(C, y + p * C, k, vload(x + p * C + k) * response_power(d, beta, &inverse));
                }
        }
    }
}

/* dy d^-beta of a pixel's channels, and that times x / d, which is dy y / d. */
INLINE void response_parts(const int size, const float beta, const geometry *g, const float *row, const float *x,
                           const float *dy, float *own, float *part)
{
    const size_t C = (size_t)g->out.c;
    for (size_t k = 0; k < C; k += VW) {
        vec inverse;
        const vec d = response_denominator(size, g, row, k);
        const vec direct = vload(dy + k) * response_power(d, beta, &inverse);
        vstore(own + k, direct);
        response_store(C, part, k, direct * vload(x + k) * inverse);
    }
}

/* dx = dy d^-beta - 2 alpha beta / size * x * (the sum of dy y / d over the channels whose sums x's square is in). */
INLINE void response_backward(const int size, const float beta, const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, step = response_row(g);
    float *squares = memset(c->scratch, 0, 2 * RESPONSE_PIXELS * step * sizeof *c->scratch);
    float *parts = squares + RESPONSE_PIXELS * step, *own = parts + RESPONSE_PIXELS * step;
    const vec scale = vset(2 * g->real[RESPONSE_ALPHA] * beta / (float)size);
    for (int n = 0; c->dx[0].p && n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride, *dy = c->dy.p + (size_t)n * c->dy.stride;
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        for (size_t i = 0; i < P; i += RESPONSE_PIXELS) {
            const size_t end = P - i < RESPONSE_PIXELS ? P : i + RESPONSE_PIXELS;
            for (size_t p = i; p < end; p++)
                response_squares(C, x + p * C, squares + (p - i) * step + size / 2);
            for (size_t p = i, at = 0; p < end; p++, at += step)
                response_parts(size, beta, g, squares + at, x + p * C, dy + p * C, own + at, parts + at + (size - 1) / 2);
            for (size_t p = i, at = 0; p < end; p++, at += step)
                for (size_t k = 0; k < C; k += VW)
                    response_store(C, dx + p * C, k,
                                   vload(own + at + k) - scale * vload(x + p * C + k) * response_sum(size, parts + at, k));
        }
    }
}

/* The usual one apart, so that its loops have no branches. */
#define RESPONSE_EACH(pass)                                                                                                 \
    KERNEL void local_response_norm_##pass(const geometry *g, const call *c)                                                \
    {                                                                                                                       \
        if (g->whole[RESPONSE_SIZE] == 5 && g->real[RESPONSE_BETA] == 0.75f)                                                \
            response_##pass(5, 0.75f, g, c);                                                                                \
        else                                                                                                                \
            response_##pass(g->whole[RESPONSE_SIZE], g->real[RESPONSE_BETA], g, c);                                         \
    }
RESPONSE_EACH(forward)
RESPONSE_EACH(backward)

static const layer_kind layer_local_response_norm = {.name = "local_response_norm",
                                                     .set_up = local_response_norm_set_up,
                                                     .forward = local_response_norm_forward,
                                                     .backward = local_response_norm_backward};
