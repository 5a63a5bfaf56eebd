/* Normalises sets of values of each image by their own mean and variance: y = weight * (x - mean) / sqrt(var + eps) + bias;
 * without the mean it is RMSNorm. Body: included by cext/isa/ only.
 *
 * A set is either a row of neighbours in memory, a whole image or a pixel, with a weight for each of its values (groups = 0),
 * or a group of channels over all pixels, with a weight for each channel. Weight block: weight, bias, where there are any,
 * each padded to LANES. Keeps 1 / sqrt(var + eps), the mean and what the mean was rounded by, of each row or channel.
 *
 * Sums over a set are taken in double precision, as in batch_norm.c. */
#include "layer.h"
#include "sums.h"

enum { GROUP_GROUPS, GROUP_PIXELS, GROUP_WEIGHT, GROUP_BIAS, GROUP_CENTRED }; /* whole options */
enum { GROUP_EPS };                                                            /* real one */

INLINE int group_rows(const geometry *g) { return g->whole[GROUP_GROUPS] == 0; }
INLINE size_t group_pixels(const geometry *g) { return (size_t)g->out.h * (size_t)g->out.w; }
/* Steps through memory, and values at each, with a weight for each of them. */
INLINE size_t group_steps(const geometry *g) { return group_rows(g) && !g->whole[GROUP_PIXELS] ? 1 : group_pixels(g); }
INLINE size_t group_width(const geometry *g) { return shape_size(g->out) / group_steps(g); }
INLINE size_t group_pad(const geometry *g) { return round_up(group_width(g), LANES); }
/* Floats of one statistic of an image. */
INLINE size_t group_statistic(const geometry *g) { return round_up(group_rows(g) ? group_steps(g) : group_width(g), LANES); }

KERNEL const char *group_norm_set_up(geometry *g)
{
    const int groups = g->whole[GROUP_GROUPS];
    g->out = g->in[0];
    if (groups < 0 || (groups && g->out.c % groups))
        return "the number of groups must divide the number of channels";
    g->weight_size = (size_t)(g->whole[GROUP_WEIGHT] + g->whole[GROUP_BIAS]) * group_pad(g);
    g->keep_size = 3 * group_statistic(g);
    /* statistics outside of training; two sums of each channel, in double precision, and three numbers of each */
    g->scratch_size = 3 * group_statistic(g) + (group_rows(g) ? 0 : 7 * group_pad(g));
    return NULL;
}

/* The weights of a whole image lie as its values do, channels innermost. */
KERNEL ptrdiff_t group_norm_locate(const geometry *g, int k, ptrdiff_t i)
{
    const ptrdiff_t width = (ptrdiff_t)group_width(g), P = (ptrdiff_t)group_pixels(g);
    if (!g->whole[k ? GROUP_BIAS : GROUP_WEIGHT] || i >= width)
        return -1;
    const int whole = group_rows(g) && !g->whole[GROUP_PIXELS];
    return k * (ptrdiff_t)group_pad(g) + (whole ? i % P * g->out.c + i / P : i);
}

/* The first `live` lanes of what is there, the others 0. */
INLINE vec group_load(const float *p, int live) { return live == VW ? vload(p) : vload_n(p, live); }

INLINE int group_live(size_t width, size_t k) { return width - k < VW ? (int)(width - k) : VW; }

INLINE vec group_weight(const geometry *g, const call *c, size_t k)
{
    return g->whole[GROUP_WEIGHT] ? vload(c->w + k) : vset(1);
}
INLINE vec group_bias(const geometry *g, const call *c, size_t k)
{
    return g->whole[GROUP_BIAS] ? vload(c->w + group_pad(g) + k) : vset(0);
}

/* ---- rows ---- */

KERNEL void group_row_statistics(const geometry *g, const float *x, float *inverse, float *mean, float *rest)
{
    const size_t width = group_width(g);
    double middle = 0;
    if (g->whole[GROUP_CENTRED]) {
        norm_sum sum = {0};
        for (size_t k = 0; k < width; k += VW)
            sum += norm_wide(group_load(x + k, group_live(width, k)));
        middle = norm_total(&sum) / (double)width;
    }
    *mean = (float)middle;
    *rest = (float)(middle - (double)*mean);
    norm_sum square = {0};
    size_t k = 0;
    for (; k + VW <= width; k += VW) {
        const norm_sum d = norm_wide(vload(x + k) - *mean - *rest);
        square += d * d;
    }
    double total = norm_total(&square);
    for (; k < width; k++) {
        const double d = (double)(x[k] - *mean - *rest);
        total += d * d;
    }
    *inverse = (float)(1 / sqrt(total / (double)width + (double)g->real[GROUP_EPS]));
}

KERNEL void group_rows_forward(const geometry *g, const call *c, const float *x, float *y, float *inverse)
{
    const size_t width = group_width(g), steps = group_steps(g), n = group_statistic(g);
    for (size_t i = 0; i < steps; i++, x += width, y += width) {
        group_row_statistics(g, x, inverse + i, inverse + n + i, inverse + 2 * n + i);
        const vec by = vset(inverse[i]), mean = vset(inverse[n + i]), rest = vset(inverse[2 * n + i]);
        for (size_t k = 0; k < width; k += VW) {
            const vec normal = (vload(x + k) - mean - rest) * by;
            vstore_n(y + k, normal * group_weight(g, c, k) + group_bias(g, c, k), group_live(width, k));
        }
    }
}

KERNEL void group_rows_dx(const geometry *g, const call *c, const float *x, const float *dy, float *dx, const float *inverse)
{
    const size_t width = group_width(g), steps = group_steps(g), n = group_statistic(g);
    for (size_t i = 0; i < steps; i++, x += width, dy += width, dx += width) {
        const vec by = vset(inverse[i]), mean = vset(inverse[n + i]), rest = vset(inverse[2 * n + i]);
        norm_sum sum = {0}, product = {0};
        for (size_t k = 0; k < width; k += VW) {
            const int live = group_live(width, k);
            const vec d = group_load(dy + k, live) * group_weight(g, c, k);
            sum += norm_wide(d);
            product += norm_wide(d) * norm_wide((group_load(x + k, live) - mean - rest) * by);
        }
        const double middle = g->whole[GROUP_CENTRED] ? norm_total(&sum) / (double)width : 0;
        const vec less = vset((float)middle), less_still = vset((float)(middle - (double)(float)middle));
        const vec slope = vset((float)(norm_total(&product) / (double)width));
        for (size_t k = 0; k < width; k += VW) {
            const vec d = vload(dy + k) * group_weight(g, c, k);
            const vec normal = (vload(x + k) - mean - rest) * by;
            vstore_n(dx + k, by * (d - less - less_still - normal * slope), group_live(width, k));
        }
    }
}

/* ---- groups of channels ---- */

/* Of each group: the mean of what its channels have in `sums`, rounded, and the rest, for each of them. */
KERNEL void group_means(const geometry *g, const norm_double *sums, float *mean, float *rest)
{
    const size_t C = (size_t)g->out.c, each = C / (size_t)g->whole[GROUP_GROUPS], P = group_pixels(g);
    for (size_t first = 0; first < C; first += each) {
        double total = 0;
        for (size_t k = first; k < first + each; k++)
            total += sums[k];
        total /= (double)each * (double)P;
        for (size_t k = first; k < first + each; k++) {
            mean[k] = (float)total;
            rest[k] = (float)(total - (double)mean[k]);
        }
    }
}

KERNEL void group_statistics(const geometry *g, const float *x, float *inverse, norm_double *sums)
{
    const size_t C = (size_t)g->out.c, P = group_pixels(g), n = group_statistic(g),
                 each = C / (size_t)g->whole[GROUP_GROUPS];
    for (size_t k = 0; k < C; k += VW) {
        norm_sum sum = {0};
        for (size_t i = 0; i < P; i++)
            sum += norm_wide(vload(x + i * C + k));
        *(norm_sum_u *)(sums + k) = sum;
    }
    group_means(g, sums, inverse + n, inverse + 2 * n);
    for (size_t k = 0; k < C; k += VW) {
        const vec mean = vload(inverse + n + k), rest = vload(inverse + 2 * n + k);
        norm_sum square = {0};
        for (size_t i = 0; i < P; i++) {
            const norm_sum d = norm_wide(vload(x + i * C + k) - mean - rest);
            square += d * d;
        }
        *(norm_sum_u *)(sums + k) = square;
    }
    for (size_t first = 0; first < C; first += each) {
        double total = 0;
        for (size_t k = first; k < first + each; k++)
            total += sums[k];
        const double by = 1 / sqrt(total / ((double)each * (double)P) + (double)g->real[GROUP_EPS]);
        for (size_t k = first; k < first + each; k++)
            inverse[k] = (float)by;
    }
}

KERNEL void group_forward(const geometry *g, const call *c, const float *x, float *y, float *inverse)
{
    const size_t C = (size_t)g->out.c, P = group_pixels(g), n = group_statistic(g);
    group_statistics(g, x, inverse, (norm_double *)(c->scratch + 3 * n));
    for (size_t k = 0; k < C; k += VW) {
        const int live = group_live(C, k);
        const vec mean = vload(inverse + n + k), rest = vload(inverse + 2 * n + k), by = vload(inverse + k);
        const vec weight = group_weight(g, c, k);
        const vec bias = group_bias(g, c, k);
        for (size_t i = 0; i < P; i++)
            vstore_n(y + i * C + k, (vload(x + i * C + k) - mean - rest) * by * weight + bias, live);
    }
}

KERNEL void group_dx(const geometry *g, const call *c, const float *x, const float *dy, float *dx, const float *inverse)
{
    const size_t C = (size_t)g->out.c, P = group_pixels(g), pad = group_pad(g), n = group_statistic(g);
    norm_double *sum = (norm_double *)(c->scratch + 3 * n), *product = sum + pad;
    float *less = c->scratch + 3 * n + 4 * pad, *less_still = less + pad, *slope = less + 2 * pad;
    for (size_t k = 0; k < C; k += VW) {
        const vec mean = vload(inverse + n + k), rest = vload(inverse + 2 * n + k), by = vload(inverse + k);
        norm_sum of_dy = {0}, with_x = {0};
        for (size_t i = 0; i < P; i++) {
            const norm_sum d = norm_wide(vload(dy + i * C + k));
            of_dy += d;
            with_x += d * norm_wide((vload(x + i * C + k) - mean - rest) * by);
        }
        const norm_sum weight = norm_wide(group_weight(g, c, k));
        *(norm_sum_u *)(sum + k) = of_dy * weight;
        *(norm_sum_u *)(product + k) = with_x * weight;
    }
    group_means(g, product, slope, less); /* whose rest is not wanted */
    group_means(g, sum, less, less_still);
    for (size_t k = 0; k < C; k += VW) {
        const int live = group_live(C, k);
        const vec mean = vload(inverse + n + k), rest = vload(inverse + 2 * n + k), by = vload(inverse + k);
        const vec weight = group_weight(g, c, k);
        const vec a = vload(less + k), b = vload(less_still + k), s = vload(slope + k);
        for (size_t i = 0; i < P; i++) {
            const vec normal = (vload(x + i * C + k) - mean - rest) * by;
            vstore_n(dx + i * C + k, by * (weight * vload(dy + i * C + k) - a - b - normal * s), live);
        }
    }
}

/* ---- both ---- */

KERNEL void group_dw(const geometry *g, const call *c, const float *x, const float *dy, const float *inverse, int first)
{
    const size_t width = group_width(g), steps = group_steps(g), pad = group_pad(g), n = group_statistic(g);
    const int rows = group_rows(g);
    const vec keep = vset(first ? 0 : 1);
    for (size_t k = 0; k < width; k += VW) {
        const int live = group_live(width, k);
        norm_sum sum = {0}, product = {0};
        for (size_t i = 0; i < steps; i++) {
            const float *at = inverse + (rows ? i : k);
            const vec by = rows ? vset(at[0]) : vload(at), mean = rows ? vset(at[n]) : vload(at + n);
            const vec rest = rows ? vset(at[2 * n]) : vload(at + 2 * n);
            const norm_sum d = norm_wide(vload(dy + i * width + k));
            sum += d;
            product += d * norm_wide((vload(x + i * width + k) - mean - rest) * by);
        }
        vstore_n(c->dw + k, norm_narrow(product) + keep * vload(c->dw + k), live);
        if (g->whole[GROUP_BIAS])
            vstore_n(c->dw + pad + k, norm_narrow(sum) + keep * vload(c->dw + pad + k), live);
    }
}

KERNEL void group_norm_forward(const geometry *g, const call *c)
{
    for (int n = 0; n < c->n; n++) {
        float *statistics = c->training ? c->keep.p + (size_t)n * c->keep.stride : c->scratch;
        (group_rows(g) ? group_rows_forward : group_forward)(g, c, c->x[0].p + (size_t)n * c->x[0].stride,
                                                             c->y.p + (size_t)n * c->y.stride, statistics);
    }
}

KERNEL void group_norm_backward(const geometry *g, const call *c)
{
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride, *dy = c->dy.p + (size_t)n * c->dy.stride;
        const float *statistics = c->keep.p + (size_t)n * c->keep.stride;
        if (c->dx[0].p) /* first, because dw may be the weights themselves */
            (group_rows(g) ? group_rows_dx : group_dx)(g, c, x, dy, c->dx[0].p + (size_t)n * c->dx[0].stride, statistics);
        if (g->whole[GROUP_WEIGHT])
            group_dw(g, c, x, dy, statistics, c->first && n == 0);
    }
}

static const part group_norm_parts[] = {{"weight", 0}, {"bias", 0}};
static const layer_kind layer_group_norm = {.name = "group_norm",
                                            .n_parts = 2,
                                            .parts = group_norm_parts,
                                            .set_up = group_norm_set_up,
                                            .locate = group_norm_locate,
                                            .forward = group_norm_forward,
                                            .backward = group_norm_backward};
