/* Normalises sets of values of each image by their own mean and variance: y = weight * (x - mean) / sqrt(var + eps) + bias;
 * without the mean it is RMSNorm. Body: included by cext/isa/ only.
 *
 * A set is either a row of neighbours in memory, a whole image or a pixel, with a weight for each of its values (groups = 0),
 * or a group of channels over all pixels, with a weight for each channel. Weight block: weight, bias, where there are any,
 * each padded to LANES. Keeps 1 / sqrt(var + eps), the mean and what the mean was rounded by, of each row or channel.
 *
 * Sums over a set are those of columns.h, as in batch_norm.c. */
#include "columns.h"

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
    const size_t C = (size_t)g->in[0].c, size = shape_size(g->in[0]);
    g->out = g->in[0];
    if (groups < 0 || (groups && g->out.c % groups))
        return "the number of groups must divide the number of channels";
    g->weight_size = (size_t)(g->whole[GROUP_WEIGHT] + g->whole[GROUP_BIAS]) * group_pad(g);
    g->keep_size = 3 * group_statistic(g);
    g->scratch_size = 3 * group_statistic(g) +
                      (groups ? columns_room(C, size) + MAP_CONSTANTS * columns_padded(C, size) : 0);
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

/* NULL where there are none. */
INLINE const float *group_weights(const geometry *g, const call *c) { return g->whole[GROUP_WEIGHT] ? c->w : NULL; }
INLINE const float *group_biases(const geometry *g, const call *c)
{
    return g->whole[GROUP_BIAS] ? c->w + group_pad(g) : NULL;
}
INLINE vec group_at(const float *p, size_t k, float otherwise) { return p ? vload(p + k) : vset(otherwise); }

/* ---- rows ---- */

/* y = ((x - mean) * by + more) * weight + bias for a row; addresses ascend, what spills over is written again. */
INLINE void group_row_of(size_t width, const float *x, float mean, float by, float more, const float *weight,
                         const float *bias, float *y)
{
    for (size_t k = 0; k < width; k += VW) {
        const vec normal = (vload(x + k) - mean) * by + more;
        vstore(y + k, normal * group_at(weight, k, 1) + group_at(bias, k, 0));
    }
}

/* Statistics of `rows` rows, all of them before the roots and quotients, which would be waited for. */
INLINE void group_rows_statistics(const geometry *g, const float *x, size_t rows, float *inverse)
{
    const size_t width = group_width(g), n = group_statistic(g);
    const double eps = (double)g->real[GROUP_EPS], part = 1 / (double)width;
    const int centred = g->whole[GROUP_CENTRED];
    double middle[LANES], square[LANES];
    for (size_t i = 0; i < rows; i++)
        row_moments(centred, x + i * width, width, middle + i, square + i);
    for (size_t i = 0; i < rows; i++) {
        const float mean = (float)middle[i];
        inverse[i] = (float)(1 / sqrt(square[i] * part + eps));
        inverse[n + i] = mean;
        inverse[2 * n + i] = (float)(middle[i] - (double)mean);
    }
}

KERNEL void group_rows_forward(const geometry *g, const call *c, const float *x, float *y, float *inverse)
{
    const size_t width = group_width(g), steps = group_steps(g), n = group_statistic(g);
    const float *weight = group_weights(g, c), *bias = group_biases(g, c);
    for (size_t base = 0; base < steps; base += LANES) {
        const size_t rows = steps - base < LANES ? steps - base : LANES;
        group_rows_statistics(g, x, rows, inverse + base);
        for (size_t i = base; i < base + rows; i++, x += width, y += width) {
            const float by = inverse[i], mean = inverse[n + i], more = -inverse[2 * n + i] * by;
            if (weight && bias)
                group_row_of(width, x, mean, by, more, weight, bias, y);
            else if (weight)
                group_row_of(width, x, mean, by, more, weight, NULL, y);
            else
                group_row_of(width, x, mean, by, more, NULL, bias, y);
        }
    }
}

/* dx = by * (d - mean of d - normal * slope), d = dy * weight, with what the mean is rounded by beside it. */
INLINE void group_row_back(size_t width, const float *x, const float *dy, const float *weight, float mean, float a,
                           float less, float by, float rounded, float *dx)
{
    for (size_t k = 0; k < width; k += VW) {
        const vec d = vload(dy + k) * group_at(weight, k, 1);
        vstore(dx + k, ((vload(x + k) - mean) * a + less) + (d * by + rounded));
    }
}

KERNEL void group_rows_dx(const geometry *g, const call *c, const float *x, const float *dy, float *dx, const float *inverse)
{
    const size_t width = group_width(g), steps = group_steps(g), n = group_statistic(g);
    const float *weight = group_weights(g, c);
    const int centred = g->whole[GROUP_CENTRED];
    for (size_t i = 0; i < steps; i++, x += width, dy += width, dx += width) {
        const double by = (double)inverse[i], rest = (double)inverse[2 * n + i], m = (double)width;
        double sum, product;
        row_products(x, dy, weight, inverse[n + i], width, &sum, &product);
        const float slope = (float)(-by * by * by * (product - rest * sum) / m);
        const double offset = (centred ? -by * sum / m : 0) - (double)slope * rest;
        const float rounded = (float)offset, less = (float)(offset - (double)rounded);
        if (weight)
            group_row_back(width, x, dy, weight, inverse[n + i], slope, less, inverse[i], rounded, dx);
        else
            group_row_back(width, x, dy, NULL, inverse[n + i], slope, less, inverse[i], rounded, dx);
    }
}

/* Gradients of the weights of V vectors of values, from value k on, over the rows of all images. */
INLINE void group_rows_dw_block(const int V, const geometry *g, const call *c, size_t k, int live)
{
    const size_t width = group_width(g), steps = group_steps(g), pad = group_pad(g), m = group_statistic(g);
    norm_double sum[COLUMN_BLOCK * VW] = {0}, product[COLUMN_BLOCK * VW] = {0};
    const vec keep = vset(c->first ? 0 : 1);
    vec s[COLUMN_BLOCK] = {{0}}, q[COLUMN_BLOCK] = {{0}};
    int rows = 0;
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride + k, *dy = c->dy.p + (size_t)n * c->dy.stride + k;
        const float *inverse = c->keep.p + (size_t)n * c->keep.stride;
        for (size_t i = 0; i < steps; i++, x += width, dy += width) {
            const vec by = vset(inverse[i]), mean = vset(inverse[m + i]), more = vset(-inverse[2 * m + i] * inverse[i]);
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) {
                const vec d = vload(dy + v * VW);
                s[v] += d;
                q[v] += d * ((vload(x + v * VW) - mean) * by + more);
            }
            if (++rows < COLUMN_ROWS && (n + 1 < c->n || i + 1 < steps))
                continue;
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) {
                *(norm_sum_u *)(sum + v * VW) += norm_wide(s[v]);
                *(norm_sum_u *)(product + v * VW) += norm_wide(q[v]);
                s[v] = q[v] = vset(0);
            }
            rows = 0;
        }
    }
    for (int v = 0; v < V; v++) {
        float *weight = c->dw + k + (size_t)v * VW, *bias = weight + pad;
        vstore_n(weight, norm_narrow(*(norm_sum_u *)(product + v * VW)) + keep * vload(weight), live);
        if (g->whole[GROUP_BIAS])
            vstore_n(bias, norm_narrow(*(norm_sum_u *)(sum + v * VW)) + keep * vload(bias), live);
    }
}

KERNEL void group_rows_dw(const geometry *g, const call *c)
{
    const size_t width = group_width(g);
    size_t k = 0;
    for (; k + COLUMN_BLOCK * VW <= width; k += COLUMN_BLOCK * VW)
        group_rows_dw_block(COLUMN_BLOCK, g, c, k, VW);
    for (; k < width; k += VW)
        group_rows_dw_block(1, g, c, k, width - k < VW ? (int)(width - k) : VW);
}

/* ---- groups of channels ---- */

INLINE columns group_columns(const geometry *g, const call *c, float **constants)
{
    *constants = c->scratch + 3 * group_statistic(g);
    return columns_in((size_t)g->out.c, shape_size(g->out), constants);
}

/* Statistics of an image's groups, for each of their channels. */
KERNEL void group_statistics(const geometry *g, columns *s, const float *x, float *inverse)
{
    const size_t C = (size_t)g->out.c, n = group_statistic(g), each = C / (size_t)g->whole[GROUP_GROUPS];
    const double m = (double)each * (double)group_pixels(g);
    columns_begin(OF_X, s, x);
    columns_image(OF_X, s, x, NULL);
    columns_end(OF_X, s);
    for (size_t first = 0; first < C; first += each) {
        double sum = 0, square = 0;
        for (size_t k = first; k < first + each; k++)
            sum += s->sums[k], square += s->products[k];
        const double middle = sum / m, spread = square - sum * middle;
        const double by = 1 / sqrt((spread < 0 ? 0 : spread) / m + (double)g->real[GROUP_EPS]); /* NaN stays NaN */
        const float mean = (float)middle;
        for (size_t k = first; k < first + each; k++)
            inverse[k] = (float)by, inverse[n + k] = mean, inverse[2 * n + k] = (float)(middle - (double)mean);
    }
}

KERNEL void group_forward(const geometry *g, const call *c, const float *x, float *y, float *inverse)
{
    const size_t C = (size_t)g->out.c, n = group_statistic(g);
    float *p;
    columns s = group_columns(g, c, &p);
    group_statistics(g, &s, x, inverse);
    for (size_t k = 0; k < C; k += VW) {
        const vec factor = vload(inverse + k) * group_at(group_weights(g, c), k, 1);
        vstore(p + k, vload(inverse + n + k));
        vstore(p + s.room + k, factor);
        vstore(p + 2 * s.room + k, group_at(group_biases(g, c), k, 0) - vload(inverse + 2 * n + k) * factor);
    }
    columns_repeat(&s, 3, p);
    columns_map(MAP_X, &s, p, x, x, y);
}

/* dx = by * (weight * dy - mean of that - normal * slope), as in batch_norm.c, but with means over groups; then dw. */
KERNEL void group_backward(const geometry *g, const call *c, const float *x, const float *dy, float *dx,
                           const float *inverse, int first)
{
    const size_t C = (size_t)g->out.c, n = group_statistic(g), each = C / (size_t)g->whole[GROUP_GROUPS];
    const double m = (double)each * (double)group_pixels(g);
    const float *weight = group_weights(g, c);
    float *p;
    columns s = group_columns(g, c, &p);
    memcpy(s.shift, inverse + n, C * sizeof *inverse);
    columns_repeat(&s, 1, s.shift);
    columns_begin(OF_DY, &s, x);
    columns_image(OF_DY, &s, x, dy);
    columns_end(OF_DY, &s);
    for (size_t from = 0; from < C; from += each) {
        const double by = (double)inverse[from], rest = (double)inverse[2 * n + from];
        double sum = 0, product = 0;
        for (size_t k = from; k < from + each; k++) {
            const double w = weight ? (double)weight[k] : 1;
            s.products[k] = (s.products[k] - rest * s.sums[k]) * by; /* of dy and normalised values */
            sum += w * s.sums[k];
            product += w * s.products[k];
        }
        const float slope = (float)(-by * by * product / m);
        const double offset = -by * sum / m - (double)slope * rest;
        const float rounded = (float)offset;
        for (size_t k = from; k < from + each; k++) {
            p[k] = inverse[n + k], p[s.room + k] = slope, p[2 * s.room + k] = (float)(offset - (double)rounded);
            p[3 * s.room + k] = inverse[k] * (weight ? weight[k] : 1), p[4 * s.room + k] = rounded;
        }
    }
    columns_repeat(&s, MAP_CONSTANTS, p);
    if (dx) /* first, because dw may be the weights themselves */
        columns_map(MAP_BOTH, &s, p, x, dy, dx);
    for (size_t k = 0; g->whole[GROUP_WEIGHT] && k < C; k++) {
        float *bias = c->dw + group_pad(g) + k;
        c->dw[k] = (float)s.products[k] + (first ? 0 : c->dw[k]);
        if (g->whole[GROUP_BIAS])
            *bias = (float)s.sums[k] + (first ? 0 : *bias);
    }
}

/* ---- both ---- */

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
        float *dx = c->dx[0].p ? c->dx[0].p + (size_t)n * c->dx[0].stride : NULL;
        if (!group_rows(g))
            group_backward(g, c, x, dy, dx, statistics, c->first && n == 0);
        else if (dx) /* first, because dw may be the weights themselves */
            group_rows_dx(g, c, x, dy, dx, statistics);
    }
    if (group_rows(g) && g->whole[GROUP_WEIGHT])
        group_rows_dw(g, c);
}

static const part group_norm_parts[] = {{"weight", 0}, {"bias", 0}};
static const layer_kind layer_group_norm = {.name = "group_norm",
                                            .n_parts = 2,
                                            .parts = group_norm_parts,
                                            .set_up = group_norm_set_up,
                                            .locate = group_norm_locate,
                                            .forward = group_norm_forward,
                                            .backward = group_norm_backward,
                                            .forgets = FORGETS_Y};
