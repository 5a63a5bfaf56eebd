/* Normalises each channel by mean and variance of the step's images while it trains, and by running ones otherwise, or always:
 * y = weight * (x - mean) / sqrt(var + eps) + bias. Body: included by cext/isa/ only.
 *
 * Weight block, where it is affine: weight, bias; state block: running mean, running variance; each padded to LANES. Keeps, of
 * all images that are normalised together behind the first, 1 / sqrt(var + eps), the mean, what the mean was rounded by and the
 * unbiased variance; where it goes by running statistics only the first two of them.
 *
 * Sums over a step are those of columns.h: what their rounding would change is alike for all entries of a channel, and would
 * not cancel in the sums of the layers before. */
#include "columns.h"

enum { NORM_AFFINE, NORM_RUNNING, NORM_GROUP }; /* whole options */
enum { NORM_EPS, NORM_MOMENTUM }; /* real ones */
enum { NORM_INVERSE, NORM_MEAN, NORM_REST, NORM_VARIANCE, NORM_STATISTICS }; /* what is kept */

INLINE size_t norm_pad(const geometry *g) { return round_up((size_t)g->out.c, LANES); }

KERNEL const char *batch_norm_set_up(geometry *g)
{
    const size_t C = (size_t)g->in[0].c, size = shape_size(g->in[0]);
    g->out = g->in[0];
    g->group = g->whole[NORM_GROUP];
    g->properties = g->whole[NORM_RUNNING] || g->group ? 0 : WHOLE_BATCH;
    g->state_size = 2 * norm_pad(g);
    g->weight_size = g->whole[NORM_AFFINE] ? 2 * norm_pad(g) : 0;
    g->state_rate = g->real[NORM_MOMENTUM];
    g->keep_size = (g->whole[NORM_RUNNING] ? NORM_REST : NORM_STATISTICS) * norm_pad(g);
    g->scratch_size = columns_room(C, size) + MAP_CONSTANTS * columns_padded(C, size);
    return NULL;
}

/* Parts are counted weight, bias, mean, variance, also where there are only the last two. */
KERNEL ptrdiff_t batch_norm_locate(const geometry *g, int k, ptrdiff_t i)
{
    if (i >= g->out.c || (k < 2 && !g->whole[NORM_AFFINE]))
        return -1;
    return (k - (g->whole[NORM_AFFINE] ? 0 : 2)) * (ptrdiff_t)norm_pad(g) + i;
}

INLINE double norm_values(const geometry *g, const call *c) { return (double)c->n * (double)g->out.h * (double)g->out.w; }

INLINE columns norm_columns(const geometry *g, float **scratch)
{
    return columns_in((size_t)g->out.c, shape_size(g->out), scratch);
}

/* Sums of a step's images, or of its gradients with constants for the shift. */
INLINE void norm_sums(const enum column_sums of, const call *c, columns *s)
{
    columns_begin(of, s, c->x[0].p);
    for (int n = 0; n < c->n; n++)
        columns_image(of, s, c->x[0].p + (size_t)n * c->x[0].stride, of == OF_X ? NULL : c->dy.p + (size_t)n * c->dy.stride);
    columns_end(of, s);
}

/* The statistics of VW channels from k on. */
INLINE void norm_observe(const geometry *g, const call *c, const columns *s, size_t k, float *statistics)
{
    const size_t pad = norm_pad(g);
    const double m = norm_values(g, c);
    const norm_sum middle = *(const norm_sum_u *)(s->sums + k) / m;
    norm_sum square = *(const norm_sum_u *)(s->products + k) - *(const norm_sum_u *)(s->sums + k) * middle, inverse;
    for (int i = 0; i < VW; i++) {
        square[i] = square[i] < 0 ? 0 : square[i]; /* of equal values: rounding of double precision */
        inverse[i] = 1 / sqrt(square[i] / m + (double)g->real[NORM_EPS]);
    }
    const vec mean = norm_narrow(middle);
    vstore(statistics + NORM_INVERSE * pad + k, norm_narrow(inverse));
    vstore(statistics + NORM_MEAN * pad + k, mean);
    vstore(statistics + NORM_REST * pad + k, norm_narrow(middle - norm_wide(mean)));
    vstore(statistics + NORM_VARIANCE * pad + k, norm_narrow(square / (m > 1 ? m - 1 : 1)));
}

/* 1 / sqrt(var + eps) by running statistics. */
INLINE vec norm_fixed(const geometry *g, const call *c, size_t k)
{
    return 1.f / vsqrt(vload(c->state + norm_pad(g) + k) + g->real[NORM_EPS]);
}

KERNEL void norm_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, pad = norm_pad(g);
    const int observes = c->training && !g->whole[NORM_RUNNING], affine = g->whole[NORM_AFFINE];
    float *scratch = c->scratch, *statistics = c->keep.p;
    columns s = norm_columns(g, &scratch);
    if (observes)
        norm_sums(OF_X, c, &s);
    for (size_t k = 0; k < C; k += VW) {
        vec mean, inverse, rest = vset(0);
        if (observes) {
            norm_observe(g, c, &s, k, statistics);
            inverse = vload(statistics + NORM_INVERSE * pad + k), mean = vload(statistics + NORM_MEAN * pad + k);
            rest = vload(statistics + NORM_REST * pad + k);
        } else {
            mean = vload(c->state + k), inverse = norm_fixed(g, c, k);
            if (c->training) { /* others may change the state until back-propagation */
                vstore(statistics + NORM_INVERSE * pad + k, inverse);
                vstore(statistics + NORM_MEAN * pad + k, mean);
            }
        }
        const vec factor = inverse * (affine ? vload(c->w + k) : vset(1));
        vstore(scratch + k, mean);
        vstore(scratch + s.room + k, factor);
        vstore(scratch + 2 * s.room + k, (affine ? vload(c->w + pad + k) : vset(0)) - rest * factor);
    }
    columns_repeat(&s, 3, scratch);
    for (int n = c->n - 1; n >= 0; n--) { /* those summed up last are still in the caches */
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        columns_map(MAP_X, &s, scratch, x, x, c->y.p + (size_t)n * c->y.stride);
    }
}

/* dx = factor * dy, with constants of the channels. */
INLINE void norm_scale(const call *c, const columns *s, const float *constants)
{
    for (int n = 0; c->dx[0].p && n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        columns_map(MAP_DY, s, constants, dy, dy, c->dx[0].p + (size_t)n * c->dx[0].stride);
    }
}

/* dw of channels [k, k + VW) by the sums of dy and of dy * (x - mean). */
INLINE void norm_dw(const geometry *g, const call *c, size_t k, const norm_double *product, const norm_double *sum)
{
    const int live = (size_t)g->out.c - k < VW ? (int)((size_t)g->out.c - k) : VW;
    const vec keep = vset(c->first ? 0 : 1);
    float *bias = c->dw + norm_pad(g);
    vstore_n(c->dw + k, norm_narrow(*(const norm_sum_u *)product) + keep * vload(c->dw + k), live);
    vstore_n(bias + k, norm_narrow(*(const norm_sum_u *)sum) + keep * vload(bias + k), live);
}

/* Where it goes by running statistics, or its state is frozen: they are constants. Observed, where it trains, are the mean and
 * the mean square distance from the running one, which add up over the images of a step, wherever it is cut. */
KERNEL void norm_running_backward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, pad = norm_pad(g);
    const int affine = g->whole[NORM_AFFINE];
    const double m = norm_values(g, c), share = (double)c->share * (double)c->n / m;
    float *scratch = c->scratch;
    columns s = norm_columns(g, &scratch);
    float *const inverse = scratch, *const mean = scratch + s.room, *const factor = scratch + 3 * s.room;
    for (size_t k = 0; k < C; k += VW) {
        vstore(mean + k, c->training ? vload(c->keep.p + pad + k) : vload(c->state + k));
        vstore(inverse + k, c->training ? vload(c->keep.p + k) : norm_fixed(g, c, k));
        vstore(factor + k, vload(inverse + k) * (affine ? vload(c->w + k) : vset(1)));
    }
    columns_repeat(&s, 4, scratch);
    norm_scale(c, &s, scratch); /* before dw, which may be the weights themselves */
    if (affine && !c->frozen) {
        memcpy(s.shift, mean, s.room * sizeof *mean);
        norm_sums(OF_DY, c, &s);
        for (size_t k = 0; k < C; k += VW) {
            *(norm_sum_u *)(s.products + k) *= norm_wide(vload(inverse + k));
            norm_dw(g, c, k, s.products + k, s.sums + k);
        }
    }
    if (!c->training)
        return;
    norm_sums(OF_X, c, &s);
    const vec keep = vset(c->first ? 0 : 1);
    for (size_t k = 0; k < C; k += VW) {
        const int live = C - k < VW ? (int)(C - k) : VW;
        const norm_sum sum = *(const norm_sum_u *)(s.sums + k), from = norm_wide(vload(mean + k));
        const norm_sum square = *(const norm_sum_u *)(s.products + k) - from * (sum + sum - m * from);
        vstore_n(c->dstate + k, norm_narrow(share * sum) + keep * vload(c->dstate + k), live);
        vstore_n(c->dstate + pad + k, norm_narrow(share * square) + keep * vload(c->dstate + pad + k), live);
    }
}

/* dx = factor * (dy - mean of dy - normal * slope), as (x - mean) * a + (dy * factor + b) with what b was rounded by beside it:
 * the sum of dx over a channel is 0 by definition, and layers before may take it. */
INLINE void norm_constants(const geometry *g, const call *c, const columns *s, size_t k, float *p)
{
    const float *statistics = c->keep.p;
    const size_t pad = norm_pad(g);
    const double m = norm_values(g, c);
    const vec inverse_of = vload(statistics + NORM_INVERSE * pad + k), mean = vload(statistics + NORM_MEAN * pad + k);
    const vec factor_of = inverse_of * (g->whole[NORM_AFFINE] ? vload(c->w + k) : vset(1));
    const norm_sum inverse = norm_wide(inverse_of), rest = norm_wide(vload(statistics + NORM_REST * pad + k));
    const norm_sum sum = *(const norm_sum_u *)(s->sums + k), factor = norm_wide(factor_of);
    const norm_sum product = *(const norm_sum_u *)(s->products + k) - rest * sum; /* of dy and x - mean */
    const vec slope = norm_narrow(-factor * inverse * inverse * product / m);
    const norm_sum offset = -factor * sum / m - norm_wide(slope) * rest;
    const vec rounded = norm_narrow(offset);
    vstore(p + k, mean);
    vstore(p + s->room + k, slope);
    vstore(p + 2 * s->room + k, norm_narrow(offset - norm_wide(rounded)));
    vstore(p + 3 * s->room + k, factor_of);
    vstore(p + 4 * s->room + k, rounded);
    *(norm_sum_u *)(s->products + k) = product * inverse;
}

KERNEL void norm_backward(const geometry *g, const call *c)
{
    if (!c->training || g->whole[NORM_RUNNING]) {
        norm_running_backward(g, c);
        return;
    }
    const size_t C = (size_t)g->out.c, pad = norm_pad(g);
    const float *statistics = c->keep.p;
    float *scratch = c->scratch;
    columns s = norm_columns(g, &scratch);
    memcpy(s.shift, statistics + NORM_MEAN * pad, C * sizeof *statistics);
    columns_repeat(&s, 1, s.shift);
    norm_sums(OF_DY, c, &s);
    for (size_t k = 0; k < C; k += VW)
        norm_constants(g, c, &s, k, scratch);
    columns_repeat(&s, MAP_CONSTANTS, scratch);
    for (int n = c->dx[0].p ? c->n - 1 : -1; n >= 0; n--) /* before dw, which may be the weights themselves */
        columns_map(MAP_BOTH, &s, scratch, c->x[0].p + (size_t)n * c->x[0].stride, c->dy.p + (size_t)n * c->dy.stride,
                    c->dx[0].p + (size_t)n * c->dx[0].stride);
    const vec share = vset(c->share * (float)c->n), keep = vset(c->first ? 0 : 1);
    for (size_t k = 0; k < C; k += VW) {
        const int live = C - k < VW ? (int)(C - k) : VW;
        if (g->whole[NORM_AFFINE])
            norm_dw(g, c, k, s.products + k, s.sums + k);
        static const int observed[] = {NORM_MEAN, NORM_VARIANCE};
        for (size_t i = 0; i < 2; i++) {
            float *to = c->dstate + i * pad + k;
            vstore_n(to, share * vload(statistics + (size_t)observed[i] * pad + k) + keep * vload(to), live);
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
                                            .backward = batch_norm_backward,
                                            .forgets = FORGETS_Y};
