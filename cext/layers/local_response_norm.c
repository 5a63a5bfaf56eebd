/* y = x / d^beta with d = k + alpha / size * (the sum of the squares of `size` channels around x's, where there are so many).
 * Keeps d. Body: included by cext/isa/ only. */
#include "layer.h"

enum { RESPONSE_SIZE }; /* whole option */
enum { RESPONSE_ALPHA, RESPONSE_BETA, RESPONSE_K }; /* real ones */

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
    g->scratch_size = response_row(g);
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
INLINE vec response_sum(const geometry *g, const float *row, size_t k)
{
    vec sum = vload(row + k);
    for (int j = 1; j < g->whole[RESPONSE_SIZE]; j++)
        sum += vload(row + k + j);
    return sum;
}

KERNEL void local_response_norm_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w;
    const int size = g->whole[RESPONSE_SIZE];
    const vec scale = vset(g->real[RESPONSE_ALPHA] / (float)size), k0 = vset(g->real[RESPONSE_K]);
    float *row = memset(c->scratch, 0, response_row(g) * sizeof *c->scratch), *inner = row + size / 2;
    for (int n = 0; n < c->n; n++)
        for (size_t i = 0; i < P; i++) {
            const float *x = c->x[0].p + (size_t)n * c->x[0].stride + i * C;
            float *y = c->y.p + (size_t)n * c->y.stride + i * C, *d = c->keep.p + (size_t)n * c->keep.stride + i * C;
            for (size_t k = 0; k < C; k += VW)
                vstore_n(inner + k, vload(x + k) * vload(x + k), C - k < VW ? (int)(C - k) : VW);
            for (size_t k = 0; k < C; k += VW) {
                const int live = C - k < VW ? (int)(C - k) : VW;
                const vec denominator = k0 + scale * response_sum(g, row, k);
                if (c->training)
                    vstore_n(d + k, denominator, live);
                vstore_n(y + k, vload(x + k) * response_power(denominator, g->real[RESPONSE_BETA]), live);
            }
        }
}

/* dx = dy d^-beta - 2 alpha beta / size * x * (the sum of dy y / d over the channels whose sums x's square is in). */
KERNEL void local_response_norm_backward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w;
    const int size = g->whole[RESPONSE_SIZE];
    const float beta = g->real[RESPONSE_BETA];
    const vec scale = vset(2 * g->real[RESPONSE_ALPHA] * beta / (float)size);
    float *row = memset(c->scratch, 0, response_row(g) * sizeof *c->scratch), *inner = row + (size - 1) / 2;
    for (int n = 0; c->dx[0].p && n < c->n; n++)
        for (size_t i = 0; i < P; i++) {
            const float *x = c->x[0].p + (size_t)n * c->x[0].stride + i * C;
            const float *y = c->y.p + (size_t)n * c->y.stride + i * C, *dy = c->dy.p + (size_t)n * c->dy.stride + i * C;
            const float *d = c->keep.p + (size_t)n * c->keep.stride + i * C;
            float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride + i * C;
            for (size_t k = 0; k < C; k += VW)
                vstore_n(inner + k, vload(dy + k) * vload(y + k) / vload(d + k), C - k < VW ? (int)(C - k) : VW);
            for (size_t k = 0; k < C; k += VW)
                vstore_n(dx + k,
                         vload(dy + k) * response_power(vload(d + k), beta) - scale * vload(x + k) * response_sum(g, row, k),
                         C - k < VW ? (int)(C - k) : VW);
        }
}

static const layer_kind layer_local_response_norm = {.name = "local_response_norm",
                                                     .set_up = local_response_norm_set_up,
                                                     .forward = local_response_norm_forward,
                                                     .backward = local_response_norm_backward};
