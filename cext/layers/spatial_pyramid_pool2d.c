/* The largest entries, or the means, of n x n windows over the whole image, for several n one after the other: a vector, in
 * which the windows of a channel lie together, level by level. Keeps the winners, channels innermost. Body: included by
 * cext/isa/ only. */
#include "pool_sums.h"

enum { PYRAMID_MEANS, PYRAMID_LEVELS, PYRAMID_FIRST }; /* then the n of each level */

INLINE pool_side pyramid_side(const geometry *g, int level, int side)
{
    return (pool_side){side ? g->in[0].w : g->in[0].h, 1, 1, 0, 1, 0, g->whole[PYRAMID_FIRST + level]};
}

KERNEL const char *spatial_pyramid_pool2d_set_up(geometry *g)
{
    const int levels = g->whole[PYRAMID_LEVELS];
    size_t size = 0, most = 0;
    if (levels < 1 || levels > MAX_WHOLE - PYRAMID_FIRST)
        return "a pyramid has 1 to 14 levels";
    for (int level = 0; level < levels; level++) {
        const int bins = g->whole[PYRAMID_FIRST + level];
        if (bins < 1)
            return "every level must have windows";
        const size_t here = (size_t)g->in[0].c * (size_t)bins * (size_t)bins;
        size_t room = here + SLACK; /* the level, channels innermost; then what forward or backward need */
        for (int side = 0; side < 2; side++) {
            const pool_side o = pyramid_side(g, level, side);
            const size_t entries = pool_side_entries(o);
            room += pool_axis_room(o.size, bins) + pool_mix_room(bins, entries) + pool_mix_room(o.size, entries);
        }
        room += (size_t)(bins > g->in[0].w ? bins : g->in[0].w) * (size_t)g->in[0].c + SLACK;
        size += here;
        most = room > most ? room : most;
        if (size > INT32_MAX)
            return "the output is too large: more than 2^31 - 1 numbers";
    }
    g->out = (shape){(int)size, 1, 1};
    g->keep_size = round_up(size, LANES) + SLACK;
    g->scratch_size = most + shape_size(g->in[0]) + SLACK;
    return NULL;
}

/* to[j * rows + i] = from[i * columns + j] */
INLINE void pyramid_transpose(size_t rows, size_t columns, const float *from, float *to)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            to[j * rows + i] = from[i * columns + j];
}

KERNEL void spatial_pyramid_pool2d_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->in[0].c;
    for (int level = 0, bins; level < g->whole[PYRAMID_LEVELS]; level++) {
        bins = g->whole[PYRAMID_FIRST + level];
        size_t before = 0, P = (size_t)bins * (size_t)bins;
        for (int l = 0; l < level; l++)
            before += C * (size_t)g->whole[PYRAMID_FIRST + l] * (size_t)g->whole[PYRAMID_FIRST + l];
        float *const pooled = c->scratch;
        for (int n = 0; n < c->n; n++) {
            float *scratch = c->scratch + C * P + SLACK;
            const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
            if (g->whole[PYRAMID_MEANS]) {
                const pool_mix rows = pool_mix_of_windows(pyramid_side(g, level, 0), BY_ENTRIES, 1, &scratch);
                const pool_mix columns = pool_mix_of_windows(pyramid_side(g, level, 1), BY_ENTRIES, 1, &scratch);
                pool_mix_image(&rows, &columns, C, x, pooled, scratch);
            } else {
                const pool_axis rows = pool_axis_of(pyramid_side(g, level, 0), &scratch);
                const pool_axis columns = pool_axis_of(pyramid_side(g, level, 1), &scratch);
                pool_largest_of_all(&rows, &columns, g->in[0].w, C, x, pooled,
                                    (int32_t *)(c->keep.p + (size_t)n * c->keep.stride) + before);
            }
            pyramid_transpose(P, C, pooled, c->y.p + (size_t)n * c->y.stride + before);
        }
    }
}

/* dx of one image from one level, whose dy lies channels innermost; beside what is there, unless it is the first. */
KERNEL void pyramid_backward_level(const geometry *g, int level, const float *dy, const int32_t *won, float *dx,
                                   float *scratch)
{
    const size_t C = (size_t)g->in[0].c, size = shape_size(g->in[0]);
    if (!g->whole[PYRAMID_MEANS]) {
        const pool_axis rows = pool_axis_of(pyramid_side(g, level, 0), &scratch);
        const pool_axis columns = pool_axis_of(pyramid_side(g, level, 1), &scratch);
        if (level)
            pool_winners_backward(1, &rows, &columns, g->in[0].w, C, dy, won, dx);
        else
            pool_winners_backward(0, &rows, &columns, g->in[0].w, C, dy, won, dx);
        return;
    }
    pool_mix back[2];
    for (int side = 0; side < 2; side++) {
        const pool_mix there = pool_mix_of_windows(pyramid_side(g, level, side), BY_ENTRIES, 1, &scratch);
        back[side] = pool_mix_transposed(&there, &scratch);
    }
    float *more = level ? scratch : dx;
    scratch += level ? size + SLACK : 0;
    pool_mix_image(&back[0], &back[1], C, dy, more, scratch);
    for (size_t i = 0; level && i < size; i += VW)
        vstore(dx + i, vload(dx + i) + vload(more + i));
}

KERNEL void spatial_pyramid_pool2d_backward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->in[0].c;
    for (int n = 0; c->dx[0].p && n < c->n; n++) {
        size_t before = 0;
        for (int level = 0; level < g->whole[PYRAMID_LEVELS]; level++) {
            const size_t P = (size_t)g->whole[PYRAMID_FIRST + level] * (size_t)g->whole[PYRAMID_FIRST + level];
            pyramid_transpose(C, P, c->dy.p + (size_t)n * c->dy.stride + before, c->scratch);
            pyramid_backward_level(g, level, c->scratch, (const int32_t *)(c->keep.p + (size_t)n * c->keep.stride) + before,
                                   c->dx[0].p + (size_t)n * c->dx[0].stride, c->scratch + C * P + SLACK);
            before += C * P;
        }
    }
}

static const layer_kind layer_spatial_pyramid_pool2d = {.name = "spatial_pyramid_pool2d",
                                                        .set_up = spatial_pyramid_pool2d_set_up,
                                                        .forward = spatial_pyramid_pool2d_forward,
                                                        .backward = spatial_pyramid_pool2d_backward,
                                                        .forgets = FORGETS_X | FORGETS_Y};
