/* Pooling over regions of an image, a row for each way. Input 0: (c, h, w) features; input 1: K boxes x1, y1, x2, y2, number k
 * of them with coordinate q at q * K + k. Output: K * c channels, a box after the other, computed box by box in scratch memory.
 * The boxes get no gradient, and may be any numbers. Body: included by cext/isa/ only. */
#include "pool_sums.h"

#define ROI_ROW(id, ...) static const layer_kind layer_##id = {.name = #id, __VA_ARGS__};

enum { ROI_HIGH, ROI_WIDE, ROI_SAMPLES, ROI_ALIGNED }; /* whole options; the last two: roi_align */
enum { ROI_SCALE }; /* real one */

INLINE size_t roi_size(const geometry *g) { return (size_t)g->in[0].c * (size_t)g->out.h * (size_t)g->out.w; }

/* NULL or a reason. */
INLINE const char *roi_set_up(geometry *g)
{
    if (g->n_inputs != 2 || g->in[1].h != 1 || g->in[1].w != 4)
        return "boxes must be of 4 numbers";
    if (g->whole[ROI_HIGH] < 1 || g->whole[ROI_WIDE] < 1)
        return "the output must have windows";
    if ((size_t)g->in[0].c * (size_t)g->in[1].c > INT32_MAX)
        return "the output is too large: more than 2^31 - 1 numbers";
    g->out = (shape){g->in[0].c * g->in[1].c, g->whole[ROI_HIGH], g->whole[ROI_WIDE]};
    return NULL;
}

/* A coordinate of a box, in pixels of the features, far outside at most; NaN is. */
INLINE double roi_coordinate(const geometry *g, const float *boxes, int k, int q)
{
    const double at = (double)boxes[(size_t)q * (size_t)g->in[1].c + (size_t)k] * (double)g->real[ROI_SCALE];
    return at > -1e6 ? (at < 1e6 ? at : 1e6) : -1e6;
}

/* From a box's own outputs, which lie together, to its channels of the output. */
INLINE void roi_put(const geometry *g, int k, const float *box, float *y)
{
    const size_t C = (size_t)g->in[0].c, all = (size_t)g->out.c;
    for (size_t i = 0, P = (size_t)g->out.h * (size_t)g->out.w; i < P; i++)
        memcpy(y + i * all + (size_t)k * C, box + i * C, C * sizeof *y);
}

/* The way back, of gradients. */
INLINE void roi_get(const geometry *g, int k, const float *dy, float *box)
{
    const size_t C = (size_t)g->in[0].c, all = (size_t)g->out.c;
    for (size_t i = 0, P = (size_t)g->out.h * (size_t)g->out.w; i < P; i++)
        memcpy(box + i * C, dy + i * all + (size_t)k * C, C * sizeof *box);
}

/* Gradients begin with none. */
INLINE void roi_no_gradient(const geometry *g, const call *c)
{
    for (int k = 0; k < 2; k++)
        for (int n = 0; c->dx[k].p && n < c->n; n++)
            memset(c->dx[k].p + (size_t)n * c->dx[k].stride, 0, shape_size(g->in[k]) * sizeof(float));
}

/* ---- the largest entry of each window, between whole pixels ---- */

KERNEL const char *roi_pool_set_up(geometry *g)
{
    const char *reason = roi_set_up(g);
    if (reason)
        return reason;
    g->keep_size = round_up(shape_size(g->out), LANES) + SLACK;
    g->scratch_size = pool_axis_room(g->in[0].h, g->out.h) + pool_axis_room(g->in[0].w, g->out.w) + roi_size(g) + SLACK;
    return NULL;
}

/* The windows of box k along one side: from floor(i * length / n) up to ceil((i + 1) * length / n), behind its first pixel. */
INLINE pool_axis roi_pool_axis(const geometry *g, const float *boxes, int k, int side, float **scratch)
{
    const int size = side ? g->in[0].w : g->in[0].h, count = side ? g->out.w : g->out.h;
    const int64_t first = (int64_t)round(roi_coordinate(g, boxes, k, side ? 0 : 1));
    const int64_t last = (int64_t)round(roi_coordinate(g, boxes, k, side ? 2 : 3));
    const int64_t length = last > first ? last - first + 1 : 1;
    pool_axis a = pool_axis_in(size, count, 1, scratch);
    for (int64_t i = 0; i < count; i++) {
        const int64_t lo = first + i * length / count, hi = first + ((i + 1) * length + count - 1) / count;
        a.lo[i] = a.tap[i] = (int32_t)(lo < 0 ? 0 : lo > size ? size : lo);
        a.hi[i] = (int32_t)(hi < 0 ? 0 : hi > size ? size : hi);
        a.entries[i] = a.hi[i] - a.lo[i];
    }
    pool_axis_cover(&a);
    return a;
}

KERNEL void roi_pool_forward(const geometry *g, const call *c)
{
    for (int n = 0; n < c->n; n++)
        for (int k = 0; k < g->in[1].c; k++) {
            float *box = c->scratch, *scratch = box + roi_size(g) + SLACK;
            const float *boxes = c->x[1].p + (size_t)n * c->x[1].stride;
            const pool_axis rows = roi_pool_axis(g, boxes, k, 0, &scratch),
                            columns = roi_pool_axis(g, boxes, k, 1, &scratch);
            int32_t *won = (int32_t *)(c->keep.p + (size_t)n * c->keep.stride) + (size_t)k * roi_size(g);
            pool_largest_of_all(&rows, &columns, g->in[0].w, (size_t)g->in[0].c, c->x[0].p + (size_t)n * c->x[0].stride, box,
                                won);
            roi_put(g, k, box, c->y.p + (size_t)n * c->y.stride);
        }
}

KERNEL void roi_pool_backward(const geometry *g, const call *c)
{
    roi_no_gradient(g, c);
    for (int n = 0; c->dx[0].p && n < c->n; n++)
        for (int k = 0; k < g->in[1].c; k++) {
            float *box = c->scratch, *scratch = box + roi_size(g) + SLACK;
            const float *boxes = c->x[1].p + (size_t)n * c->x[1].stride;
            const pool_axis rows = roi_pool_axis(g, boxes, k, 0, &scratch),
                            columns = roi_pool_axis(g, boxes, k, 1, &scratch);
            const int32_t *won = (const int32_t *)(c->keep.p + (size_t)n * c->keep.stride) + (size_t)k * roi_size(g);
            roi_get(g, k, c->dy.p + (size_t)n * c->dy.stride, box);
            pool_winners_backward(1, &rows, &columns, g->in[0].w, (size_t)g->in[0].c, box, won,
                                  c->dx[0].p + (size_t)n * c->dx[0].stride);
        }
}

/* ---- means of points between the pixels ---- */

KERNEL const char *roi_align_set_up(geometry *g)
{
    const char *reason = roi_set_up(g);
    if (reason)
        return reason;
    const size_t rows = (size_t)g->in[0].h * (size_t)g->out.h, columns = (size_t)g->in[0].w * (size_t)g->out.w;
    const size_t widest = (size_t)(g->in[0].w > g->out.w ? g->in[0].w : g->out.w) * (size_t)g->in[0].c;
    g->scratch_size = roi_size(g) + shape_size(g->in[0]) + widest + 3 * SLACK + (size_t)g->in[0].h + (size_t)g->in[0].w +
                      pool_mix_room(g->out.h, rows) + pool_mix_room(g->in[0].h, rows) + pool_mix_room(g->out.w, columns) +
                      pool_mix_room(g->in[0].w, columns);
    return NULL;
}

/* Adds to the weights of a side's pixels those of a point between them, as it is interpolated; none for points outside. */
INLINE void roi_interpolate(int size, double at, float by, float *weight)
{
    if (at < -1 || at > size)
        return;
    at = at < 0 ? 0 : at > size - 1 ? size - 1 : at;
    const int low = (int)at;
    const float rest = (float)(at - low);
    weight[low] += by * (1 - rest);
    if (low + 1 < size)
        weight[low + 1] += by * rest;
}

/* The mix of the pixels [*from, *from + size) that box k touches along one side; sizes are of these. */
INLINE pool_mix roi_align_mix(const geometry *g, const float *boxes, int k, int side, int *from, float **scratch)
{
    const int size = side ? g->in[0].w : g->in[0].h, count = side ? g->out.w : g->out.h, fixed = g->whole[ROI_SAMPLES];
    const double offset = g->whole[ROI_ALIGNED] ? 0.5 : 0, begin = roi_coordinate(g, boxes, k, side ? 0 : 1) - offset;
    double length = roi_coordinate(g, boxes, k, side ? 2 : 3) - offset - begin;
    if (!g->whole[ROI_ALIGNED] && !(length > 1))
        length = 1;
    const double bin = length / count;
    const int samples = fixed > 0 ? fixed : (int)ceil(bin);
    float *weight = *scratch;
    *scratch += size;
    pool_mix m = pool_mix_in(size, count, (size_t)size * (size_t)count, scratch);
    int32_t e = 0, first = size, end = 0;
    for (int i = 0; i < count; i++) {
        memset(weight, 0, (size_t)size * sizeof *weight);
        for (int s = 0; s < samples; s++)
            roi_interpolate(size, begin + i * bin + (s + 0.5) * bin / samples, 1 / (float)samples, weight);
        for (int x = 0; x < size; x++)
            if (weight[x] != 0) {
                pool_mix_add(&m, &e, x, weight[x]);
                first = x < first ? x : first;
                end = x >= end ? x + 1 : end;
            }
        m.begin[i + 1] = e;
    }
    for (int32_t i = 0; i < e; i++)
        m.index[i] -= first;
    m.size = end > first ? end - first : 0;
    *from = end > first ? first : 0;
    return m;
}

KERNEL void roi_align_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->in[0].c, row = (size_t)g->in[0].w * C;
    for (int n = 0; n < c->n; n++)
        for (int k = 0, y0, x0; k < g->in[1].c; k++) {
            float *box = c->scratch, *scratch = box + roi_size(g) + SLACK;
            const float *boxes = c->x[1].p + (size_t)n * c->x[1].stride;
            const pool_mix rows = roi_align_mix(g, boxes, k, 0, &y0, &scratch);
            const pool_mix columns = roi_align_mix(g, boxes, k, 1, &x0, &scratch);
            const float *x = c->x[0].p + (size_t)n * c->x[0].stride + (size_t)y0 * row + (size_t)x0 * C;
            pool_mix_raised(POWER_ONE, 1, &rows, &columns, C, x, row, box, scratch);
            roi_put(g, k, box, c->y.p + (size_t)n * c->y.stride);
        }
}

KERNEL void roi_align_backward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->in[0].c, row = (size_t)g->in[0].w * C;
    roi_no_gradient(g, c);
    for (int n = 0; c->dx[0].p && n < c->n; n++)
        for (int k = 0, from[2]; k < g->in[1].c; k++) {
            float *box = c->scratch, *there = box + roi_size(g) + SLACK, *scratch = there + shape_size(g->in[0]) + SLACK;
            pool_mix back[2];
            for (int side = 0; side < 2; side++) {
                const pool_mix m = roi_align_mix(g, c->x[1].p + (size_t)n * c->x[1].stride, k, side, &from[side], &scratch);
                back[side] = pool_mix_transposed(&m, &scratch);
            }
            roi_get(g, k, c->dy.p + (size_t)n * c->dy.stride, box);
            pool_mix_image(&back[0], &back[1], C, box, there, scratch);
            const size_t wide = (size_t)back[1].count * C;
            float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride + (size_t)from[0] * row + (size_t)from[1] * C;
            for (int y = 0; y < back[0].count; y++)
                for (size_t i = 0; i < wide; i += VW)
                    vstore_n(dx + (size_t)y * row + i, vload(dx + (size_t)y * row + i) + vload(there + (size_t)y * wide + i),
                             wide - i < VW ? (int)(wide - i) : VW);
        }
}

/* clang-format off */
ROI_ROW(roi_pool,  .set_up = roi_pool_set_up, .forward = roi_pool_forward, .backward = roi_pool_backward, .forgets = FORGETS_Y)
ROI_ROW(roi_align, .set_up = roi_align_set_up, .forward = roi_align_forward, .backward = roi_align_backward, .forgets = FORGETS_Y)
/* clang-format on */
