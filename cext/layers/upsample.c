/* An image at other sizes: output i of an axis sees the input at i * scale + shift, in single precision as PyTorch computes
 * it: the entry below or above that place, or both, weighted by how near they are. Body: included by cext/isa/ only. */
#include "pool_sums.h"

#include <math.h>

enum { UP_H, UP_W, UP_MODE };
enum { UP_FLOOR, UP_CEIL, UP_LINEAR };
enum { UP_SCALE_H, UP_SHIFT_H, UP_SCALE_W, UP_SHIFT_W };

KERNEL const char *upsample_set_up(geometry *g)
{
    const int *o = g->whole;
    if (o[UP_H] < 1 || o[UP_W] < 1)
        return "the output would be empty";
    if (o[UP_MODE] < UP_FLOOR || o[UP_MODE] > UP_LINEAR)
        return "no such mode";
    g->out = (shape){g->in[0].c, o[UP_H], o[UP_W]};
    g->scratch_size = pool_mix_scratch(g, 2 * (size_t)o[UP_H], 2 * (size_t)o[UP_W], 0);
    return NULL;
}

typedef struct {
    int low, high;
    float part; /* of the entry `high` */
} place;

INLINE place upsample_place(const geometry *g, int axis, int i)
{
    const int last = (axis ? g->in[0].w : g->in[0].h) - 1, mode = g->whole[UP_MODE];
    const float exact = (float)i * g->real[2 * axis] + g->real[2 * axis + 1];
    const float at = fminf(fmaxf(exact, 0), (float)last);
    int low = (int)(mode == UP_CEIL ? ceilf(at) : at);
    low = low > last ? last : low;
    return (place){low, mode == UP_LINEAR && low < last ? low + 1 : low, mode == UP_LINEAR ? at - (float)low : 0};
}

INLINE pool_mix upsample_mix(const geometry *g, int side, float **scratch)
{
    const int count = side ? g->out.w : g->out.h;
    pool_mix m = pool_mix_in(side ? g->in[0].w : g->in[0].h, count, 2 * (size_t)count, scratch);
    int32_t e = 0;
    for (int i = 0; i < count; i++) {
        const place p = upsample_place(g, side, i);
        pool_mix_add(&m, &e, p.low, 1 - p.part);
        if (p.high != p.low)
            pool_mix_add(&m, &e, p.high, p.part);
        m.begin[i + 1] = e;
    }
    return m;
}

/* to[0 .. n) = from[0 .. n): addresses ascend, what spills over is written again. */
INLINE void upsample_copy(float *to, const float *from, size_t n)
{
    for (size_t k = 0; k < n; k += VW)
        vstore(to + k, vload(from + k));
}

/* Each output is one entry of the input; a row that is like the one above it is copied from there. */
KERNEL void upsample_nearest(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->in[0].c, row = (size_t)g->in[0].w * C, wide = (size_t)g->out.w * C;
    int32_t *column = (int32_t *)c->scratch, *line = column + g->out.w;
    for (int j = 0; j < g->out.w; j++)
        column[j] = upsample_place(g, 1, j).low;
    for (int i = 0; i < g->out.h; i++)
        line[i] = upsample_place(g, 0, i).low;
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        for (int i = 0; i < g->out.h; i++, y += wide) {
            if (i && line[i] == line[i - 1]) {
                upsample_copy(y, y - wide, wide);
                continue;
            }
            const float *from = x + (size_t)line[i] * row;
            for (int j = 0; j < g->out.w; j++)
                upsample_copy(y + (size_t)j * C, from + (size_t)column[j] * C, C);
        }
    }
}

KERNEL void upsample_forward(const geometry *g, const call *c)
{
    if (g->whole[UP_MODE] == UP_LINEAR)
        pool_mix_forward(g, c, upsample_mix, c->y);
    else
        upsample_nearest(g, c);
}

KERNEL void upsample_backward(const geometry *g, const call *c) { pool_mix_backward(g, c, upsample_mix); }

static const layer_kind layer_upsample = {.name = "upsample",
                                          .set_up = upsample_set_up,
                                          .forward = upsample_forward,
                                          .backward = upsample_backward,
                                          .forgets = FORGETS_X | FORGETS_Y};
