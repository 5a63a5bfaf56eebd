/* Normalises each channel by mean and variance of the step's images while it trains, and by running ones otherwise, or always:
 * y = weight * (x - mean) / sqrt(var + eps) + bias. Body: included by cext/isa/ only.
 *
 * Weight block, where it is affine: weight, bias; state block: running mean, running variance; each padded to LANES. Keeps
 * the normalised input, and behind that of the first sample 1 / sqrt(var + eps), the mean and the unbiased variance; where it
 * goes by running statistics only the first two of them.
 *
 * Sums over a step are taken in double precision, for VW channels at a time: what their rounding would change is alike for all
 * entries of a channel, and would not cancel in the sums of the layers before. */
#include "layer.h"
#include "sums.h"

enum { NORM_AFFINE, NORM_RUNNING, NORM_GROUP }; /* whole options */
enum { NORM_EPS, NORM_MOMENTUM }; /* real ones */

INLINE size_t norm_pad(const geometry *g) { return round_up((size_t)g->out.c, LANES); }
INLINE size_t norm_room(const geometry *g) { return round_up(shape_size(g->out), LANES) + SLACK; }

KERNEL const char *batch_norm_set_up(geometry *g)
{
    g->out = g->in[0];
    g->group = g->whole[NORM_GROUP];
    g->properties = g->whole[NORM_RUNNING] || g->group ? 0 : WHOLE_BATCH;
    g->state_size = 2 * norm_pad(g);
    g->weight_size = g->whole[NORM_AFFINE] ? 2 * norm_pad(g) : 0;
    g->state_rate = g->real[NORM_MOMENTUM];
    g->keep_size = g->whole[NORM_RUNNING] ? 2 * norm_pad(g) : norm_room(g) + 3 * norm_pad(g);
    return NULL;
}

/* Parts are counted weight, bias, mean, variance, also where there are only the last two. */
KERNEL ptrdiff_t batch_norm_locate(const geometry *g, int k, ptrdiff_t i)
{
    if (i >= g->out.c || (k < 2 && !g->whole[NORM_AFFINE]))
        return -1;
    return (k - (g->whole[NORM_AFFINE] ? 0 : 2)) * (ptrdiff_t)norm_pad(g) + i;
}

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

KERNEL void norm_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, pad = norm_pad(g);
    const int observes = c->training && !g->whole[NORM_RUNNING];
    float *statistics = c->keep.p + (g->whole[NORM_RUNNING] ? 0 : norm_room(g));
    for (size_t k = 0; k < C; k += VW) {
        const int live = C - k < VW ? (int)(C - k) : VW;
        const int affine = g->whole[NORM_AFFINE];
        const vec weight = affine ? vload(c->w + k) : vset(1), bias = affine ? vload(c->w + pad + k) : vset(0);
        vec factor = weight, offset = bias;
        if (observes)
            norm_observe(g, c, k, live, statistics);
        else {
            const vec mean = vload(c->state + k), deviation = vsqrt(vload(c->state + pad + k) + g->real[NORM_EPS]);
            factor = weight / deviation;
            offset = bias - mean * factor;
            if (c->training) { /* others may change the state until back-propagation */
                vstore(statistics + k, 1.f / deviation);
                vstore(statistics + pad + k, mean);
            }
        }
        for (int n = 0; n < c->n; n++) {
            const float *x = (observes ? c->keep.p + (size_t)n * c->keep.stride : c->x[0].p + (size_t)n * c->x[0].stride) +
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

/* Where it goes by running statistics: they are constants, and observed are the mean and the mean square distance from the
 * running one, which add up over the images of a step, wherever it is cut. */
KERNEL void norm_running_backward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, pad = norm_pad(g);
    const vec share = vset(c->share / (float)P), keep = vset(c->first ? 0 : 1);
    for (size_t k = 0; k < C; k += VW) {
        const int live = C - k < VW ? (int)(C - k) : VW;
        const vec inverse = vload(c->keep.p + k), mean = vload(c->keep.p + pad + k);
        const vec factor = inverse * (g->whole[NORM_AFFINE] ? vload(c->w + k) : vset(1));
        norm_sum total = {0}, product = {0}, sum = {0}, square = {0};
        for (int n = 0; n < c->n; n++) {
            const float *dy = c->dy.p + (size_t)n * c->dy.stride + k, *x = c->x[0].p + (size_t)n * c->x[0].stride + k;
            float *dx = c->dx[0].p ? c->dx[0].p + (size_t)n * c->dx[0].stride + k : NULL;
            for (size_t i = 0; i < P; i++) {
                const norm_sum d = norm_wide(vload(dy + i * C)), apart = norm_wide(vload(x + i * C)) - norm_wide(mean);
                total += d;
                product += d * apart;
                sum += apart;
                square += apart * apart;
                if (dx) /* before dw, which may be the weights themselves */
                    vstore_n(dx + i * C, factor * vload(dy + i * C), live);
            }
        }
        if (g->whole[NORM_AFFINE]) {
            vstore_n(c->dw + k, norm_narrow(product) * inverse + keep * vload(c->dw + k), live);
            vstore_n(c->dw + pad + k, norm_narrow(total) + keep * vload(c->dw + pad + k), live);
        }
        const vec middle = norm_narrow(sum + norm_wide(mean) * (double)c->n * (double)P), spread = norm_narrow(square);
        vstore_n(c->dstate + k, share * middle + keep * vload(c->dstate + k), live);
        vstore_n(c->dstate + pad + k, share * spread + keep * vload(c->dstate + pad + k), live);
    }
}

KERNEL void norm_backward(const geometry *g, const call *c)
{
    if (!c->training || g->whole[NORM_RUNNING]) {
        (c->training ? norm_running_backward : norm_backward_fixed)(g, c);
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

/* The call with images [from, from + group) only, if there are so many. */
KERNEL call norm_part(const call *c, int from, int group)
{
    call part = *c;
    const size_t at = (size_t)from;
    part.n = c->n - from < group ? c->n - from : group;
    part.x[0].p += at * c->x[0].stride;
    part.y.p += at * c->y.stride;
    part.keep.p += at * c->keep.stride;
    return part;
}

KERNEL void batch_norm_forward(const geometry *g, const call *c)
{
    const int group = g->group && c->training ? g->group : c->n;
    for (int n = 0; n < c->n; n += group) {
        const call part = norm_part(c, n, group);
        norm_forward(g, &part);
    }
}

KERNEL void batch_norm_backward(const geometry *g, const call *c)
{
    const int group = g->group ? g->group : c->n;
    for (int n = 0; n < c->n; n += group) {
        call part = norm_part(c, n, group);
        part.first = c->first && n == 0;
        part.dy.p += (size_t)n * c->dy.stride;
        part.dx[0].p = c->dx[0].p ? c->dx[0].p + (size_t)n * c->dx[0].stride : NULL;
        norm_backward(g, &part);
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
