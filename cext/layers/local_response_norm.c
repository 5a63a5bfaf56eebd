/* y = x / d^beta with d = k + alpha / size * (the sum of the squares of `size` channels around x's, where there are so many).
 * Keeps d. Body: included by cext/isa/ only. */
#include "layer.h"

enum { RESPONSE_SIZE }; /* whole option */
enum { RESPONSE_ALPHA, RESPONSE_BETA, RESPONSE_K }; /* real ones */

/* Pixels whose channels are written down before any are read again: what is read across two stores waits until they are done. */
enum { RESPONSE_PIXELS = 8 };

INLINE size_t response_room(const geometry *g) { return round_up(shape_size(g->out), LANES) + SLACK; }
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
    g->keep_size = response_room(g);
    g->scratch_size = RESPONSE_PIXELS * response_row(g);
    return NULL;
}

/* d^-beta: by roots for the usual exponents. */
INLINE vec response_power(vec d, float beta)
{
    if (beta == 0.5f)
        return 1.f / vsqrt(d);
    if (beta == 0.75f) {
        const vec root = vsqrt(d);
        return 1.f / (root * vsqrt(root));
    }
    if (beta == 1.f)
        return 1.f / d;
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

INLINE int response_live(size_t C, size_t k) { return C - k < VW ? (int)(C - k) : VW; }

/* The squares of a pixel's channels, to `row`. */
INLINE void response_squares(size_t C, const float *x, float *row)
{
    for (size_t k = 0; k < C; k += VW)
        vstore_n(row + k, vload(x + k) * vload(x + k), response_live(C, k));
}

INLINE void response_pixel(const int size, const geometry *g, const float *row, const float *x, float *y, float *d)
{
    const size_t C = (size_t)g->out.c;
    const vec scale = vset(g->real[RESPONSE_ALPHA] / (float)size), k0 = vset(g->real[RESPONSE_K]);
    const float beta = g->real[RESPONSE_BETA];
    for (size_t k = 0; k < C; k += VW) {
        const vec denominator = k0 + scale * response_sum(size, row, k);
        if (d)
            vstore_n(d + k, denominator, response_live(C, k));
        vstore_n(y + k, vload(x + k) * response_power(denominator, beta), response_live(C, k));
    }
}

INLINE void response_forward(const int size, const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, step = response_row(g);
    float *rows = memset(c->scratch, 0, RESPONSE_PIXELS * step * sizeof *c->scratch);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride, *d = c->keep.p + (size_t)n * c->keep.stride;
        for (size_t i = 0; i < P; i += RESPONSE_PIXELS) {
            const size_t end = P - i < RESPONSE_PIXELS ? P : i + RESPONSE_PIXELS;
            for (size_t p = i; p < end; p++)
                response_squares(C, x + p * C, rows + (p - i) * step + size / 2);
            for (size_t p = i; p < end; p++)
                response_pixel(size, g, rows + (p - i) * step, x + p * C, y + p * C, c->training ? d + p * C : NULL);
        }
    }
}

/* dy y / d of a pixel's channels, to `row`. */
INLINE void response_parts(size_t C, const float *dy, const float *y, const float *d, float *row)
{
    for (size_t k = 0; k < C; k += VW)
        vstore_n(row + k, vload(dy + k) * vload(y + k) / vload(d + k), response_live(C, k));
}

INLINE void response_pixel_back(const int size, const geometry *g, const float *row, const float *x, const float *d,
                                const float *dy, float *dx)
{
    const size_t C = (size_t)g->out.c;
    const float beta = g->real[RESPONSE_BETA];
    const vec scale = vset(2 * g->real[RESPONSE_ALPHA] * beta / (float)size);
    for (size_t k = 0; k < C; k += VW)
        vstore_n(dx + k,
                 vload(dy + k) * response_power(vload(d + k), beta) - scale * vload(x + k) * response_sum(size, row, k),
                 response_live(C, k));
}

KERNEL void local_response_norm_forward(const geometry *g, const call *c)
{
    if (g->whole[RESPONSE_SIZE] == 5) /* the usual one */
        response_forward(5, g, c);
    else
        response_forward(g->whole[RESPONSE_SIZE], g, c);
}

/* dx = dy d^-beta - 2 alpha beta / size * x * (the sum of dy y / d over the channels whose sums x's square is in). */
INLINE void response_backward(const int size, const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, step = response_row(g);
    float *rows = memset(c->scratch, 0, RESPONSE_PIXELS * step * sizeof *c->scratch);
    for (int n = 0; c->dx[0].p && n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride, *y = c->y.p + (size_t)n * c->y.stride;
        const float *d = c->keep.p + (size_t)n * c->keep.stride, *dy = c->dy.p + (size_t)n * c->dy.stride;
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        for (size_t i = 0; i < P; i += RESPONSE_PIXELS) {
            const size_t end = P - i < RESPONSE_PIXELS ? P : i + RESPONSE_PIXELS;
            for (size_t p = i; p < end; p++)
                response_parts(C, dy + p * C, y + p * C, d + p * C, rows + (p - i) * step + (size - 1) / 2);
            for (size_t p = i; p < end; p++)
                response_pixel_back(size, g, rows + (p - i) * step, x + p * C, d + p * C, dy + p * C, dx + p * C);
        }
    }
}

KERNEL void local_response_norm_backward(const geometry *g, const call *c)
{
    if (g->whole[RESPONSE_SIZE] == 5)
        response_backward(5, g, c);
    else
        response_backward(g->whole[RESPONSE_SIZE], g, c);
}

static const layer_kind layer_local_response_norm = {.name = "local_response_norm",
                                                     .set_up = local_response_norm_set_up,
                                                     .forward = local_response_norm_forward,
                                                     .backward = local_response_norm_backward};
