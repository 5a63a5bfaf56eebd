/* Normalises each channel by mean and variance of the step's images while it trains, and by running ones otherwise:
 * y = weight * (x - mean) / sqrt(var + eps) + bias. Body: included by cext/isa/ only.
 *
 * Weight block, where it is affine: weight, bias; state block: running mean, running variance; each padded to LANES. Keeps
 * the normalised input, and behind that of the first sample 1 / sqrt(var + eps), the mean and the unbiased variance.
 *
 * Sums over a step are taken in double precision, for VW channels at a time: what their rounding would change is alike for all
 * entries of a channel, and would not cancel in the sums of the layers before. */
#include "layer.h"

enum { NORM_AFFINE };            /* whole option */
enum { NORM_EPS, NORM_MOMENTUM }; /* real ones */

INLINE size_t norm_pad(const geometry *g) { return round_up((size_t)g->out.c, LANES); }
INLINE size_t norm_room(const geometry *g) { return round_up(shape_size(g->out), LANES) + SLACK; }

KERNEL const char *batch_norm_set_up(geometry *g)
{
    g->out = g->in[0];
    g->properties = WHOLE_BATCH;
    g->state_size = 2 * norm_pad(g);
    g->weight_size = g->whole[NORM_AFFINE] ? 2 * norm_pad(g) : 0;
    g->state_rate = g->real[NORM_MOMENTUM];
    g->keep_size = norm_room(g) + 3 * norm_pad(g);
    return NULL;
}

/* Parts are counted weight, bias, mean, variance, also where there are only the last two. */
KERNEL ptrdiff_t batch_norm_locate(const geometry *g, int k, ptrdiff_t i)
{
    if (i >= g->out.c || (k < 2 && !g->whole[NORM_AFFINE]))
        return -1;
    return (k - (g->whole[NORM_AFFINE] ? 0 : 2)) * (ptrdiff_t)norm_pad(g) + i;
}

typedef double norm_sum __attribute__((vector_size(8 * VW), aligned(64), may_alias));

#define norm_wide(x) __builtin_convertvector(x, norm_sum)
#define norm_narrow(x) __builtin_convertvector(x, vec)

/* Statistics and normalised inputs of channels [k, k + VW), of which `live` are there. */
KERNEL void norm_observe(const geometry *g, const call *c, size_t k, int live, float *statistics)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, pad = norm_pad(g);
    const double m = (double)c->n * (double)P;
    norm_sum sum = {0}, square = {0}, inverse_of;
    for (int n = 0; n < c->n; n++)
        for (size_t i = 0; i < P; i++)
            sum += norm_wide(vload(c->x[0].p + (size_t)n * c->x[0].stride + k + i * C));
    sum /= m;
    const vec mean = norm_narrow(sum), rest = norm_narrow(sum - norm_wide(mean));
    for (int n = 0; n < c->n; n++)
        for (size_t i = 0; i < P; i++) {
            const norm_sum d = norm_wide(vload(c->x[0].p + (size_t)n * c->x[0].stride + k + i * C) - mean - rest);
            square += d * d;
        }
    for (int i = 0; i < VW; i++)
        inverse_of[i] = 1 / sqrt(square[i] / m + (double)g->real[NORM_EPS]);
    const vec inverse = norm_narrow(inverse_of);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride + k;
        float *normal = c->keep.p + (size_t)n * c->keep.stride + k;
        for (size_t i = 0; i < P; i++)
            vstore_n(normal + i * C, (vload(x + i * C) - mean - rest) * inverse, live);
    }
    vstore_n(statistics + k, inverse, live);
    vstore_n(statistics + pad + k, mean, live);
    vstore_n(statistics + 2 * pad + k, norm_narrow(square / (m > 1 ? m - 1 : 1)), live);
}

KERNEL void batch_norm_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, pad = norm_pad(g);
    float *statistics = c->keep.p + norm_room(g);
    for (size_t k = 0; k < C; k += VW) {
        const int live = C - k < VW ? (int)(C - k) : VW;
        const int affine = g->whole[NORM_AFFINE];
        const vec weight = affine ? vload(c->w + k) : vset(1), bias = affine ? vload(c->w + pad + k) : vset(0);
        vec factor = weight, offset = bias;
        if (c->training)
            norm_observe(g, c, k, live, statistics);
        else {
            factor = weight / vsqrt(vload(c->state + pad + k) + g->real[NORM_EPS]);
            offset = bias - vload(c->state + k) * factor;
        }
        for (int n = 0; n < c->n; n++) {
            const float *x = (c->training ? c->keep.p + (size_t)n * c->keep.stride
                                          : c->x[0].p + (size_t)n * c->x[0].stride) +
                             k;
            float *y = c->y.p + (size_t)n * c->y.stride + k;
            for (size_t i = 0; i < P; i++)
                vstore_n(y + i * C, vload(x + i * C) * factor + offset, live);
        }
    }
}

/* With running statistics that are constants. */
KERNEL void norm_backward_fixed(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, pad = norm_pad(g);
    const vec keep = vset(c->first ? 0 : 1);
    for (size_t k = 0; k < C; k += VW) {
        const int live = C - k < VW ? (int)(C - k) : VW;
        const vec inverse = 1 / vsqrt(vload(c->state + pad + k) + g->real[NORM_EPS]), mean = vload(c->state + k);
        const vec factor = inverse * (g->whole[NORM_AFFINE] ? vload(c->w + k) : vset(1));
        for (int n = 0; c->dx[0].p && n < c->n; n++) { /* before dw, which may be the weights themselves */
            const float *dy = c->dy.p + (size_t)n * c->dy.stride + k;
            float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride + k;
            for (size_t i = 0; i < P; i++)
                vstore_n(dx + i * C, factor * vload(dy + i * C), live);
        }
        norm_sum sum = {0}, product = {0};
        for (int n = 0; g->whole[NORM_AFFINE] && !c->frozen && n < c->n; n++) {
            const float *dy = c->dy.p + (size_t)n * c->dy.stride + k, *x = c->x[0].p + (size_t)n * c->x[0].stride + k;
            for (size_t i = 0; i < P; i++) {
                sum += norm_wide(vload(dy + i * C));
                product += norm_wide(vload(dy + i * C)) * norm_wide((vload(x + i * C) - mean) * inverse);
            }
        }
        if (g->whole[NORM_AFFINE] && !c->frozen) {
            vstore_n(c->dw + k, norm_narrow(product) + keep * vload(c->dw + k), live);
            vstore_n(c->dw + pad + k, norm_narrow(sum) + keep * vload(c->dw + pad + k), live);
        }
    }
}

KERNEL void batch_norm_backward(const geometry *g, const call *c)
{
    if (!c->training) {
        norm_backward_fixed(g, c);
        return;
    }
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, pad = norm_pad(g);
    const float *statistics = c->keep.p + norm_room(g);
    const double m = (double)c->n * (double)P;
    const vec share = vset(c->share * (float)c->n), keep = vset(c->first ? 0 : 1);
    for (size_t k = 0; k < C; k += VW) {
        const int live = C - k < VW ? (int)(C - k) : VW;
        norm_sum sum = {0}, product = {0};
        for (int n = 0; n < c->n; n++) {
            const float *dy = c->dy.p + (size_t)n * c->dy.stride + k, *x = c->keep.p + (size_t)n * c->keep.stride + k;
            for (size_t i = 0; i < P; i++) {
                const norm_sum d = norm_wide(vload(dy + i * C));
                sum += d;
                product += d * norm_wide(vload(x + i * C));
            }
        }
        const vec total = norm_narrow(sum), with_x = norm_narrow(product), slope = norm_narrow(product / m);
        const vec mean = norm_narrow(sum / m), rest = norm_narrow(sum / m - norm_wide(mean));
        const vec factor = vload(statistics + k) * (g->whole[NORM_AFFINE] ? vload(c->w + k) : vset(1));
        for (int n = 0; c->dx[0].p && n < c->n; n++) { /* before dw, which may be the weights themselves */
            const float *dy = c->dy.p + (size_t)n * c->dy.stride + k, *x = c->keep.p + (size_t)n * c->keep.stride + k;
            float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride + k;
            for (size_t i = 0; i < P; i++)
                vstore_n(dx + i * C, factor * (vload(dy + i * C) - mean - rest - vload(x + i * C) * slope), live);
        }
        if (g->whole[NORM_AFFINE]) {
            vstore_n(c->dw + k, with_x + keep * vload(c->dw + k), live);
            vstore_n(c->dw + pad + k, total + keep * vload(c->dw + pad + k), live);
        }
        for (size_t s = 0; s < 2; s++) {
            float *observed = c->dstate + s * pad + k;
            vstore_n(observed, share * vload(statistics + (1 + s) * pad + k) + keep * vload(observed), live);
        }
    }
}

static const part batch_norm_parts[] = {{"weight", 0}, {"bias", 0}, {"running_mean", 1}, {"running_var", 1}};
static const layer_kind layer_batch_norm = {.name = "batch_norm",
                                            .n_parts = 4,
                                            .parts = batch_norm_parts,
                                            .set_up = batch_norm_set_up,
                                            .locate = batch_norm_locate,
                                            .forward = batch_norm_forward,
                                            .backward = batch_norm_backward};
