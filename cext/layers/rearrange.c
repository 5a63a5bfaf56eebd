/* rearrange: y[i] = x[start + sum of stride * index], i running through nested loops over all of y as it lies in memory: what permutes,
 * repeats, leaves out or turns round. reshape: the same numbers, counted channel by channel, in another shape, where no nested
 * loops describe that in memory. Body: included by cext/isa/ only. */
#include "layer.h"

enum { RE_C, RE_H, RE_W, RE_START, RE_LOOPS, RE_FIRST }; /* then extent and stride of each loop, the outermost first */

KERNEL const char *rearrange_set_up(geometry *g)
{
    const int *o = g->whole, loops = o[RE_LOOPS];
    if (loops < 1 || loops > (MAX_WHOLE - RE_FIRST) / 2)
        return "it takes too many nested loops";
    size_t count = 1;
    int64_t low = o[RE_START], high = low;
    for (int d = 0; d < loops; d++) {
        const int extent = o[RE_FIRST + 2 * d], stride = o[RE_FIRST + 2 * d + 1];
        if (extent < 1)
            return "loops must not be empty";
        count *= (size_t)extent;
        *(stride < 0 ? &low : &high) += (int64_t)(extent - 1) * stride;
    }
    g->out = (shape){o[RE_C], o[RE_H], o[RE_W]};
    if (o[RE_C] < 1 || o[RE_H] < 1 || o[RE_W] < 1 || count != shape_size(g->out))
        return "the loops do not fill the output";
    if (low < 0 || high >= (int64_t)shape_size(g->in[0]))
        return "the loops leave the input";
    return NULL;
}

/* The next line of the innermost loop: index counts in the loops around it. */
INLINE ptrdiff_t rearrange_advance(const geometry *g, int *index)
{
    ptrdiff_t by = 0;
    for (int d = g->whole[RE_LOOPS] - 2; d >= 0; d--) {
        const int extent = g->whole[RE_FIRST + 2 * d], stride = g->whole[RE_FIRST + 2 * d + 1];
        if (++index[d] < extent)
            return by + stride;
        index[d] = 0;
        by -= (ptrdiff_t)(extent - 1) * stride;
    }
    return by;
}

KERNEL void rearrange_forward(const geometry *g, const call *c)
{
    const int *last = g->whole + RE_FIRST + 2 * (g->whole[RE_LOOPS] - 1), extent = last[0], stride = last[1];
    const size_t size = shape_size(g->out);
    for (int n = 0; n < c->n; n++) {
        const float *from = c->x[0].p + (size_t)n * c->x[0].stride + g->whole[RE_START];
        float *y = c->y.p + (size_t)n * c->y.stride;
        int index[MAX_WHOLE] = {0};
        /* whole vectors: what spills over is written again, or lies in the slack */
        for (size_t i = 0; i < size; i += (size_t)extent, from += rearrange_advance(g, index)) {
            if (stride == 1)
                for (int k = 0; k < extent; k += VW)
                    vstore(y + i + k, vload(from + k));
            else if (stride == 0)
                for (int k = 0; k < extent; k += VW)
                    vstore(y + i + k, vset(*from));
            else
                for (int k = 0; k < extent; k++)
                    y[i + (size_t)k] = from[(ptrdiff_t)k * stride];
        }
    }
}

KERNEL void rearrange_backward(const geometry *g, const call *c)
{
    const int *last = g->whole + RE_FIRST + 2 * (g->whole[RE_LOOPS] - 1), extent = last[0], stride = last[1];
    const size_t size = shape_size(g->out);
    for (int n = 0; n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride, *to = dx + g->whole[RE_START];
        memset(dx, 0, shape_size(g->in[0]) * sizeof(float));
        int index[MAX_WHOLE] = {0};
        for (size_t i = 0; i < size; i += (size_t)extent, to += rearrange_advance(g, index)) {
            if (stride == 1) {
                int k = 0;
                for (; k + VW <= extent; k += VW)
                    vstore(to + k, vload(to + k) + vload(dy + i + k));
                for (; k < extent; k++)
                    to[k] += dy[i + (size_t)k];
            } else
                for (int k = 0; k < extent; k++)
                    to[(ptrdiff_t)k * stride] += dy[i + (size_t)k];
        }
    }
}

KERNEL const char *reshape_set_up(geometry *g)
{
    g->out = (shape){g->whole[0], g->whole[1], g->whole[2]};
    if (g->whole[0] < 1 || g->whole[1] < 1 || g->whole[2] < 1 || shape_size(g->out) != shape_size(g->in[0]))
        return "the shapes hold different numbers of values";
    return NULL;
}

/* to[...] = from[...] for all values in PyTorch's order */
INLINE void reshape_copy(shape a, shape b, const float *from, float *to)
{
    const size_t pixels = (size_t)b.h * (size_t)b.w, size = shape_size(b);
    size_t channel = 0, pixel = 0;
    for (int k = 0; k < a.c; k++)
        for (size_t p = 0; p < size / (size_t)a.c; p++) {
            to[pixel * (size_t)b.c + channel] = from[p * (size_t)a.c + (size_t)k];
            if (++pixel == pixels)
                pixel = 0, channel++;
        }
}

KERNEL void reshape_forward(const geometry *g, const call *c)
{
    for (int n = 0; n < c->n; n++)
        reshape_copy(g->in[0], g->out, c->x[0].p + (size_t)n * c->x[0].stride, c->y.p + (size_t)n * c->y.stride);
}

KERNEL void reshape_backward(const geometry *g, const call *c)
{
    for (int n = 0; n < c->n; n++)
        reshape_copy(g->out, g->in[0], c->dy.p + (size_t)n * c->dy.stride, c->dx[0].p + (size_t)n * c->dx[0].stride);
}

#define REARRANGE_ROW(id)                                                                                                   \
    static const layer_kind layer_##id = {                                                                                  \
        .name = #id, .set_up = id##_set_up, .forward = id##_forward, .backward = id##_backward};

REARRANGE_ROW(rearrange)
REARRANGE_ROW(reshape)
