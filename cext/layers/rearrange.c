/* rearrange: y[i] = x[start + sum of stride * index], i running through nested loops over all of y as it lies in memory: what permutes,
 * repeats, leaves out or turns round. reshape: the same numbers, counted channel by channel, in another shape, where no nested
 * loops describe that in memory. Body: included by cext/isa/ only. */
#include "layer.h"

enum { RE_C, RE_H, RE_W, RE_START, RE_LOOPS, RE_FIRST }; /* then extent and stride of each loop, the outermost first */
enum { RE_MOST = (MAX_WHOLE - RE_FIRST) / 2, RE_TABLE = 1024 };
enum { RE_WINDOWS = 4, RE_OFTEN = 8 }; /* windows of a vector; lines from which on they are worth looking for */

/* Nested loops, of which those from `inner` on are one line: its places in `from` are consecutive, all the same, or in a table. */
typedef struct {
    int loops, start, inner, line;
    int extent[RE_MOST], stride[RE_MOST];
} re_walk;

typedef struct {
    re_walk there, back; /* back: no loops where entries of x are used more than once, or not at all */
} re_plan;

/* Loops that run on where the one inside them ends become one; then chooses the lines. */
INLINE void re_walk_finish(re_walk *w)
{
    int n = 0;
    for (int d = 0; d < w->loops; d++) {
        const int extent = w->extent[d], stride = w->stride[d];
        if (extent == 1)
            continue;
        if (n && (int64_t)stride * extent == w->stride[n - 1])
            w->extent[n - 1] *= extent, w->stride[n - 1] = stride;
        else
            w->extent[n] = extent, w->stride[n++] = stride;
    }
    if (!n)
        w->extent[n] = 1, w->stride[n++] = 1;
    w->loops = n;
    w->inner = n - 1;
    w->line = w->extent[n - 1];
    if ((w->stride[n - 1] == 0 || w->stride[n - 1] == 1) && w->line >= VW)
        return;
    while (w->inner > 0 && (int64_t)w->line * w->extent[w->inner - 1] <= RE_TABLE)
        w->line *= w->extent[--w->inner];
}

/* The walk through x that finds for each entry where it is in y; 0 where entries are used more than once or not at all. */
INLINE int re_walk_back(const re_walk *w, size_t size, re_walk *back)
{
    *back = (re_walk){0};
    int64_t covered = 1;
    int used[RE_MOST] = {0};
    for (int k = w->loops - 1; k >= 0; k--) { /* from the shortest stride on */
        int d = -1, place = 1;
        for (int i = 0; i < w->loops; i++)
            if (!used[i] && (w->stride[i] == covered || w->stride[i] == -covered))
                d = i;
        if (d < 0)
            return 0;
        used[d] = 1;
        covered *= w->extent[d];
        for (int i = d + 1; i < w->loops; i++)
            place *= w->extent[i];
        back->extent[k] = w->extent[d];
        back->stride[k] = w->stride[d] > 0 ? place : -place;
        back->start += w->stride[d] > 0 ? 0 : (w->extent[d] - 1) * place;
    }
    back->loops = w->loops;
    return covered == (int64_t)size;
}

KERNEL const char *rearrange_set_up(geometry *g)
{
    const int *o = g->whole, loops = o[RE_LOOPS];
    if (loops < 1 || loops > RE_MOST)
        return "it takes too many nested loops";
    re_plan *plan = (re_plan *)g->derived;
    *plan = (re_plan){.there = {.loops = loops, .start = o[RE_START]}};
    size_t count = 1;
    int64_t low = o[RE_START], high = low;
    for (int d = 0; d < loops; d++) {
        const int extent = o[RE_FIRST + 2 * d], stride = o[RE_FIRST + 2 * d + 1];
        if (extent < 1)
            return "loops must not be empty";
        count *= (size_t)extent;
        *(stride < 0 ? &low : &high) += (int64_t)(extent - 1) * stride;
        plan->there.extent[d] = extent, plan->there.stride[d] = stride;
    }
    g->out = (shape){o[RE_C], o[RE_H], o[RE_W]};
    if (o[RE_C] < 1 || o[RE_H] < 1 || o[RE_W] < 1 || count != shape_size(g->out))
        return "the loops do not fill the output";
    if (low < 0 || high >= (int64_t)shape_size(g->in[0]))
        return "the loops leave the input";
    re_walk_finish(&plan->there);
    if (re_walk_back(&plan->there, shape_size(g->in[0]), &plan->back))
        re_walk_finish(&plan->back);
    else
        plan->back.loops = 0;
    g->scratch_size = RE_TABLE + LANES + RE_WINDOWS * (RE_TABLE / 4 + 1); /* vectors of at least four */
    return NULL;
}

/* The next line: index counts in the loops around it. */
INLINE ptrdiff_t re_advance(const re_walk *w, int *index)
{
    ptrdiff_t by = 0;
    for (int d = w->inner - 1; d >= 0; d--) {
        if (++index[d] < w->extent[d])
            return by + w->stride[d];
        index[d] = 0;
        by -= (ptrdiff_t)(w->extent[d] - 1) * w->stride[d];
    }
    return by;
}

/* Whether a line is one of a table. */
INLINE int re_has_table(const re_walk *w)
{
    return w->line < VW || w->inner < w->loops - 1 || w->stride[w->inner] < 0 || w->stride[w->inner] > 1;
}

/* The places of a line's entries, and the last one again behind them; a line that is longer than the table is one loop. */
INLINE void re_table(const re_walk *w, int32_t *table)
{
    int index[RE_MOST] = {0};
    int32_t at = 0;
    for (int i = 0; i < w->line && i < RE_TABLE; i++) {
        table[i] = at;
        for (int d = w->loops - 1; d >= w->inner; d--) {
            at += w->stride[d];
            if (++index[d] < w->extent[d])
                break;
            at -= w->extent[d] * w->stride[d];
            index[d] = 0;
        }
    }
    const int n = w->line < RE_TABLE ? w->line : RE_TABLE;
    for (int i = n; i < n + LANES; i++)
        table[i] = table[n - 1];
}

INLINE void re_line(const int32_t *table, int n, const float *from, float *to)
{
    for (int k = 0; k < n; k += VW) {
        vec v;
#pragma GCC unroll 16
        for (int l = 0; l < VW; l++)
            v[l] = from[table[k + l]];
        vstore(to + k, v);
    }
}

#if VW > 4
/* Whether each vector of a line comes from at most RE_WINDOWS windows of VW floats; if so, their beginnings, and in the table
 * which number of all of them each entry is. */
INLINE int re_windows(int n, int32_t *table, int32_t *begin)
{
    for (int pass = 0; pass < 2; pass++) /* first looks whether, then writes */
        for (int k = 0; k < n; k += VW) {
            int32_t at[VW], *to = begin + k / VW * RE_WINDOWS;
            uint32_t open = (1u << VW) - 1;
            for (int l = 0; l < VW; l++)
                at[l] = table[k + l];
            for (int w = 0; w < RE_WINDOWS; w++) {
                int32_t low = INT32_MAX;
                for (int l = 0; l < VW; l++)
                    if (open >> l & 1 && at[l] < low)
                        low = at[l];
                for (int l = 0; l < VW; l++)
                    if (open >> l & 1 && at[l] < low + VW) {
                        open &= ~(1u << l);
                        if (pass)
                            table[k + l] = w * VW + at[l] - low;
                    }
                if (pass)
                    to[w] = low == INT32_MAX ? to[0] : low;
            }
            if (open)
                return 0;
        }
    return 1;
}

/* Entries of two windows, side by side. */
INLINE vec re_pick(const float *from, const int32_t *begin, ivec number)
{
    const vec a = vload(from + begin[0]), b = vload(from + begin[1]);
#if VW == 16
    return (vec)_mm512_permutex2var_ps((__m512)a, (__m512i)number, (__m512)b);
#else
    return (vec)_mm256_blendv_ps(_mm256_permutevar8x32_ps((__m256)a, (__m256i)number),
                                 _mm256_permutevar8x32_ps((__m256)b, (__m256i)number), (__m256)(number << 28));
#endif
}

INLINE void re_line_windows(const int32_t *table, const int32_t *begin, int n, const float *from, float *to)
{
    for (int k = 0; k < n; k += VW, begin += RE_WINDOWS) {
        const ivec number = iload(table + k);
        vec v = re_pick(from, begin, number);
        if (begin[2] != begin[0])
            v = vselect(number >= 2 * VW, re_pick(from, begin + 2, number), v);
        vstore(to + k, v);
    }
}
#endif

/* Whole vectors: what spills over is written again, or lies in the slack. */
INLINE void re_copy(const re_walk *w, size_t size, const int32_t *table, const int32_t *begin, const float *from, float *to)
{
    const int line = w->line, stride = w->stride[w->inner], part = line < RE_TABLE ? line : RE_TABLE;
    int index[RE_MOST] = {0};
    from += w->start;
    for (size_t i = 0; i < size; i += (size_t)line, from += re_advance(w, index)) {
        if (table)
            for (int k = 0; k < line; k += RE_TABLE) {
                const int at = line - k < part ? line - part : k; /* the last part may begin in the one before */
#if VW > 4
                if (begin) {
                    re_line_windows(table, begin, part, from + (ptrdiff_t)at * stride, to + i + at);
                    continue;
                }
#endif
                re_line(table, part, from + (ptrdiff_t)at * stride, to + i + at);
            }
        else if (stride)
            for (int k = 0; k < line; k += VW)
                vstore(to + i + k, vload(from + k));
        else
            for (int k = 0; k < line; k += VW)
                vstore(to + i + k, vset(*from));
    }
}

INLINE void re_images(const re_walk *w, const call *c, size_t size, source from, sink to)
{
    int32_t *table = re_has_table(w) ? (int32_t *)c->scratch : NULL, *begin = NULL;
    if (table)
        re_table(w, table);
#if VW > 4
    const int n = w->line < RE_TABLE ? w->line : RE_TABLE;
    if (table && (size_t)c->n * size >= (size_t)RE_OFTEN * (size_t)n && re_windows(n, table, table + RE_TABLE + LANES))
        begin = table + RE_TABLE + LANES;
#endif
    for (int n = 0; n < c->n; n++)
        re_copy(w, size, table, begin, from.p + (size_t)n * from.stride, to.p + (size_t)n * to.stride);
}

KERNEL void rearrange_forward(const geometry *g, const call *c)
{
    const re_plan *plan = (const re_plan *)g->derived;
    re_images(&plan->there, c, shape_size(g->out), c->x[0], c->y);
}

KERNEL void rearrange_backward(const geometry *g, const call *c)
{
    const re_plan *plan = (const re_plan *)g->derived;
    const int *last = g->whole + RE_FIRST + 2 * (g->whole[RE_LOOPS] - 1), extent = last[0], stride = last[1];
    const size_t size = shape_size(g->out);
    if (!c->dx[0].p)
        return;
    if (plan->back.loops) {
        re_images(&plan->back, c, size, c->dy, c->dx[0]);
        return;
    }
    re_walk w = {.loops = g->whole[RE_LOOPS], .inner = g->whole[RE_LOOPS] - 1, .line = extent}; /* as it was asked for */
    for (int d = 0; d < w.loops; d++)
        w.extent[d] = g->whole[RE_FIRST + 2 * d], w.stride[d] = g->whole[RE_FIRST + 2 * d + 1];
    for (int n = 0; n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride, *to = dx + g->whole[RE_START];
        memset(dx, 0, shape_size(g->in[0]) * sizeof(float));
        int index[RE_MOST] = {0};
        for (size_t i = 0; i < size; i += (size_t)extent, to += re_advance(&w, index)) {
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
    static const layer_kind layer_##id = {.name = #id,                                                                      \
                                          .set_up = id##_set_up,                                                            \
                                          .forward = id##_forward,                                                          \
                                          .backward = id##_backward,                                                        \
                                          .forgets = FORGETS_X | FORGETS_Y};

REARRANGE_ROW(rearrange)
REARRANGE_ROW(reshape)
