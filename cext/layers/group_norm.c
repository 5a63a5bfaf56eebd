/* Normalises sets of values of each image by their own mean and variance: y = weight * (x - mean) / sqrt(var + eps) + bias;
 * without the mean it is RMSNorm. Body: included by cext/isa/ only.
 *
 * A set is either a row of neighbours in memory, a whole image or a pixel, with a weight for each of its values (groups = 0),
 * or a group of channels over all pixels, with a weight for each channel. Weight block: weight, bias, where there are any,
 * each padded to LANES. Keeps 1 / sqrt(var + eps), the mean and what the mean was rounded by, of each row or channel; of rows
 * also what dx needs.
 *
 * Sums over a set are those of columns.h, as in batch_norm.c. */
#include "columns.h"

enum { GROUP_GROUPS, GROUP_PIXELS, GROUP_WEIGHT, GROUP_BIAS, GROUP_CENTRED }; /* whole options */
enum { GROUP_EPS }; /* real one */
enum { ROW_INVERSE, ROW_MEAN, ROW_REST, ROW_SLOPE, ROW_ROUNDED, ROW_LESS, ROW_STATISTICS }; /* what is kept of rows */

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
    g->keep_size = (groups ? 3 : ROW_STATISTICS) * group_statistic(g);
    g->scratch_size = ROW_STATISTICS * group_statistic(g) + /* what is kept of rows, where nothing is kept */
                      (groups               ? columns_room(C, size) + MAP_CONSTANTS * columns_padded(C, size)
                       : group_steps(g) > 1 ? 4 * group_pad(g)
                                            : 0);
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

/* Mean and square deviation of each of `rows` rows. */
INLINE void group_rows_moments(const int centred, const float *x, size_t width, size_t rows, double *middle, double *square)
{
    if (rows < 4 || width > STRETCH) {
        for (size_t i = 0; i < rows; i++)
            row_moments(centred, x + i * width, width, middle + i, square + i);
        return;
    }
    const double part = 1 / (double)width;
    for (size_t i = 0; i < rows; i += VW) { /* several at once, because the sum of a vector's lanes takes long */
        const size_t here = rows - i < VW ? rows - i : VW;
        float shift[VW] = {0}, sum[VW], product[VW];
        if (centred) {
            rows_sums(OF_X, x + i * width, NULL, NULL, shift, width, here, sum, product);
            for (size_t j = 0; j < VW; j++)
                shift[j] = sum[j] * (float)part;
        }
        rows_sums(OF_X, x + i * width, NULL, NULL, shift, width, here, sum, product);
        for (size_t j = 0; j < here; j++) {
            const double s = centred ? (double)sum[j] : 0, spread = (double)product[j] - s * s * part;
            middle[i + j] = (double)shift[j] + s * part;
            square[i + j] = spread < 0 ? 0 : spread;
        }
    }
}

/* Statistics of `rows` rows, all of them before the roots and quotients, which would be waited for. */
INLINE void group_rows_statistics(const geometry *g, const float *x, size_t rows, float *inverse)
{
    const size_t n = group_statistic(g);
    const double eps = (double)g->real[GROUP_EPS], part = 1 / (double)group_width(g);
    double middle[LANES] = {0}, square[LANES] = {0}, by[LANES];
    if (g->whole[GROUP_CENTRED])
        group_rows_moments(1, x, group_width(g), rows, middle, square);
    else
        group_rows_moments(0, x, group_width(g), rows, middle, square);
    for (size_t i = 0; i < LANES; i++)
        by[i] = 1 / sqrt(square[i] * part + eps);
    for (size_t i = 0; i < rows; i++) {
        const float mean = (float)middle[i];
        inverse[ROW_INVERSE * n + i] = (float)by[i];
        inverse[ROW_MEAN * n + i] = mean;
        inverse[ROW_REST * n + i] = (float)(middle[i] - (double)mean);
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
            const float by = inverse[ROW_INVERSE * n + i], mean = inverse[ROW_MEAN * n + i];
            const float more = -inverse[ROW_REST * n + i] * by;
            if (weight && bias)
                group_row_of(width, x, mean, by, more, weight, bias, y);
            else if (weight)
                group_row_of(width, x, mean, by, more, weight, NULL, y);
            else
                group_row_of(width, x, mean, by, more, NULL, bias, y);
        }
    }
}

/* Sums of dy * weight, and of that times x - mean, of each of `rows` rows. */
INLINE void group_rows_products(const float *x, const float *dy, const float *weight, const float *mean, size_t width,
                                size_t rows, double *sum, double *product)
{
    if (rows < 4 || width > STRETCH) {
        for (size_t i = 0; i < rows; i++)
            row_products(x + i * width, dy + i * width, weight, mean[i], width, sum + i, product + i);
        return;
    }
    for (size_t i = 0; i < rows; i += VW) {
        float s[VW], q[VW];
        const size_t here = rows - i < VW ? rows - i : VW;
        rows_sums(OF_DY, x + i * width, dy + i * width, weight, mean + i, width, here, s, q);
        for (size_t j = 0; j < here; j++)
            sum[i + j] = (double)s[j], product[i + j] = (double)q[j];
    }
}

/* dx = by * (d - mean of d - normal * slope), d = dy * weight: what it needs of an image's rows, with what the mean is rounded
 * by beside it. */
KERNEL void group_rows_constants(const geometry *g, const call *c, const float *x, const float *dy, float *kept)
{
    const size_t width = group_width(g), steps = group_steps(g), n = group_statistic(g);
    const float *weight = group_weights(g, c);
    const double part = 1 / (double)width;
    for (size_t i = 0; i < steps; i += LANES, x += LANES * width, dy += LANES * width) {
        const size_t rows = steps - i < LANES ? steps - i : LANES;
        double sum[LANES], product[LANES];
        if (weight)
            group_rows_products(x, dy, weight, kept + ROW_MEAN * n + i, width, rows, sum, product);
        else
            group_rows_products(x, dy, NULL, kept + ROW_MEAN * n + i, width, rows, sum, product);
        for (size_t j = i; j < i + rows; j++) {
            const double by = (double)kept[ROW_INVERSE * n + j], rest = (double)kept[ROW_REST * n + j];
            const float slope = (float)(-by * by * by * (product[j - i] - rest * sum[j - i]) * part);
            const double offset = (g->whole[GROUP_CENTRED] ? -by * sum[j - i] * part : 0) - (double)slope * rest;
            const float rounded = (float)offset;
            kept[ROW_SLOPE * n + j] = slope;
            kept[ROW_ROUNDED * n + j] = rounded;
            kept[ROW_LESS * n + j] = (float)(offset - (double)rounded);
        }
    }
}

/* dx of images [from, to), and what they add to the gradients of the weights, of V vectors of values from value k on. */
INLINE void group_rows_back_block(const int V, const int with_dx, const int with_dw, const geometry *g, const call *c,
                                  int from, int to, size_t k, int live, norm_double *product, norm_double *sum)
{
    const size_t width = group_width(g), steps = group_steps(g), m = group_statistic(g);
    vec s[COLUMN_BLOCK] = {{0}}, q[COLUMN_BLOCK] = {{0}}, w[COLUMN_BLOCK];
    int rows = 0;
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
        w[v] = group_at(group_weights(g, c), k + (size_t)v * VW, 1);
    for (int n = from; n < to; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride + k, *dy = c->dy.p + (size_t)n * c->dy.stride + k;
        const float *kept = c->keep.p + (size_t)n * c->keep.stride;
        float *dx = with_dx ? c->dx[0].p + (size_t)n * c->dx[0].stride + k : NULL;
        for (size_t i = 0; i < steps; i++, x += width, dy += width, dx += with_dx ? width : 0) {
            const float by = kept[ROW_INVERSE * m + i], mean = kept[ROW_MEAN * m + i];
            const float more = -kept[ROW_REST * m + i] * by;
            const float slope = with_dx ? kept[ROW_SLOPE * m + i] : 0, less = with_dx ? kept[ROW_LESS * m + i] : 0;
            const float rounded = with_dx ? kept[ROW_ROUNDED * m + i] : 0;
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) {
                const vec d = vload(dy + v * VW), apart = vload(x + v * VW) - mean;
                if (with_dx) {
                    const vec back = (apart * slope + less) + (d * w[v] * by + rounded);
                    if (V == 1)
                        vstore_n(dx, back, live);
                    else
                        vstore(dx + v * VW, back);
                }
                if (with_dw) {
                    s[v] += d;
                    q[v] += d * (apart * by + more);
                }
            }
            if (!with_dw || (++rows < COLUMN_ROWS && (n + 1 < to || i + 1 < steps)))
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
}

/* Gradients of V vectors of weights by their sums. */
INLINE void group_rows_dw(const int V, const geometry *g, const call *c, size_t k, int live, const norm_double *product,
                          const norm_double *sum)
{
    const vec keep = vset(c->first ? 0 : 1);
    for (int v = 0; v < V; v++) {
        float *weight = c->dw + k + (size_t)v * VW, *bias = weight + group_pad(g);
        vstore_n(weight, norm_narrow(*(const norm_sum_u *)(product + v * VW)) + keep * vload(weight), live);
        if (g->whole[GROUP_BIAS])
            vstore_n(bias, norm_narrow(*(const norm_sum_u *)(sum + v * VW)) + keep * vload(bias), live);
    }
}

INLINE int group_live(size_t width, size_t k) { return width - k < VW ? (int)(width - k) : VW; }

/* Image by image, while it is in a cache, with the sums in scratch memory; gradients last, because they may be written where the
 * weights are. */
INLINE void group_pixels_back(const int with_dx, const int with_dw, const geometry *g, const call *c)
{
    const size_t width = group_width(g), pad = group_pad(g);
    norm_double *product = (norm_double *)(c->scratch + ROW_STATISTICS * group_statistic(g)), *sum = product + pad;
    if (with_dw)
        memset(product, 0, 2 * pad * sizeof *product);
    for (int n = 0; n < c->n; n++) {
        if (with_dx)
            group_rows_constants(g, c, c->x[0].p + (size_t)n * c->x[0].stride, c->dy.p + (size_t)n * c->dy.stride,
                                 c->keep.p + (size_t)n * c->keep.stride);
        size_t k = 0;
        for (; k + COLUMN_BLOCK * VW <= width; k += COLUMN_BLOCK * VW)
            group_rows_back_block(COLUMN_BLOCK, with_dx, with_dw, g, c, n, n + 1, k, VW, product + k, sum + k);
        for (; k < width; k += VW)
            group_rows_back_block(1, with_dx, with_dw, g, c, n, n + 1, k, group_live(width, k), product + k, sum + k);
    }
    for (size_t k = 0; with_dw && k < width; k += VW)
        group_rows_dw(1, g, c, k, group_live(width, k), product + k, sum + k);
}

/* All images for some of their values, then for the next ones: there are as many weights as values. */
INLINE void group_images_back(const int with_dx, const int with_dw, const geometry *g, const call *c)
{
    const size_t width = group_width(g);
    for (int n = 0; with_dx && n < c->n; n++)
        group_rows_constants(g, c, c->x[0].p + (size_t)n * c->x[0].stride, c->dy.p + (size_t)n * c->dy.stride,
                             c->keep.p + (size_t)n * c->keep.stride);
    for (size_t k = 0; k < width;) {
        norm_double product[COLUMN_BLOCK * VW] = {0}, sum[COLUMN_BLOCK * VW] = {0};
        if (k + COLUMN_BLOCK * VW <= width) {
            group_rows_back_block(COLUMN_BLOCK, with_dx, with_dw, g, c, 0, c->n, k, VW, product, sum);
            if (with_dw)
                group_rows_dw(COLUMN_BLOCK, g, c, k, VW, product, sum);
            k += COLUMN_BLOCK * VW;
            continue;
        }
        group_rows_back_block(1, with_dx, with_dw, g, c, 0, c->n, k, group_live(width, k), product, sum);
        if (with_dw)
            group_rows_dw(1, g, c, k, group_live(width, k), product, sum);
        k += VW;
    }
}

INLINE void group_rows_back(const int with_dx, const int with_dw, const geometry *g, const call *c)
{
    if (group_steps(g) > 1)
        group_pixels_back(with_dx, with_dw, g, c);
    else
        group_images_back(with_dx, with_dw, g, c);
}

KERNEL void group_rows_backward(const geometry *g, const call *c)
{
    const int with_dw = g->whole[GROUP_WEIGHT] && !c->frozen;
    if (c->dx[0].p && with_dw)
        group_rows_back(1, 1, g, c);
    else if (c->dx[0].p)
        group_rows_back(1, 0, g, c);
    else if (with_dw)
        group_rows_back(0, 1, g, c);
}

/* ---- groups of channels ---- */

INLINE columns group_columns(const geometry *g, const call *c, float **constants)
{
    *constants = c->scratch + ROW_STATISTICS * group_statistic(g);
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
    if (group_rows(g)) {
        group_rows_backward(g, c);
        return;
    }
    for (int n = 0; n < c->n; n++)
        group_backward(g, c, c->x[0].p + (size_t)n * c->x[0].stride, c->dy.p + (size_t)n * c->dy.stride,
                       c->dx[0].p ? c->dx[0].p + (size_t)n * c->dx[0].stride : NULL, c->keep.p + (size_t)n * c->keep.stride,
                       c->first && n == 0);
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
