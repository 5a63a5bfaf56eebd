/* Weighted sums over the rows and columns of an image, for all kinds that pool by them. Included by the bodies in this folder.
 *
 * A sum over windows is one over rows of sums over columns: both are given as sparse matrices, and backward is the same with
 * them transposed. Rows are mixed as they lie in memory, all pixels and channels of a row together, columns pixel by pixel;
 * whole vectors are stored there even where the channels end inside one: addresses ascend, so what spills over is written
 * again. */
#ifndef CHAOS_POOL_SUMS_H
#define CHAOS_POOL_SUMS_H

#include "pool_windows.h"

/* Output i = sum of weight[e] * entry index[e], e from begin[i] up to begin[i + 1]. */
typedef struct {
    int size, count;
    int32_t *begin, *index;
    float *weight;
} pool_mix;

/* Floats that a mix takes of the scratch memory. */
INLINE size_t pool_mix_room(int count, size_t entries) { return (size_t)count + 1 + 2 * entries; }

INLINE pool_mix pool_mix_in(int size, int count, size_t entries, float **scratch)
{
    int32_t *p = (int32_t *)*scratch;
    *scratch += pool_mix_room(count, entries);
    p[0] = 0;
    return (pool_mix){size, count, p, p + count + 1, (float *)(p + count + 1 + entries)};
}

/* Appends an entry to output i; outputs come in ascending order, and pool_mix_done after each. */
INLINE void pool_mix_add(pool_mix *m, int32_t *e, int index, float weight)
{
    m->index[*e] = index;
    m->weight[(*e)++] = weight;
}

KERNEL pool_mix pool_mix_transposed(const pool_mix *m, float **scratch)
{
    const int32_t entries = m->begin[m->count];
    pool_mix t = pool_mix_in(m->count, m->size, (size_t)entries, scratch);
    memset(t.begin, 0, ((size_t)t.count + 1) * sizeof *t.begin);
    for (int32_t e = 0; e < entries; e++)
        t.begin[m->index[e] + 1]++;
    for (int x = 0; x < t.count; x++)
        t.begin[x + 1] += t.begin[x];
    for (int i = 0; i < m->count; i++)
        for (int32_t e = m->begin[i]; e < m->begin[i + 1]; e++) {
            const int32_t to = t.begin[m->index[e]]++; /* for now: where the next one goes */
            t.index[to] = i;
            t.weight[to] = m->weight[e];
        }
    for (int x = t.count; x > 0; x--)
        t.begin[x] = t.begin[x - 1];
    t.begin[0] = 0;
    return t;
}

/* The number of entries that all windows of a side have together. */
INLINE size_t pool_side_entries(pool_side o)
{
    size_t found = 0;
    for (int i = 0, n = pool_count(o); i < n; i++) {
        int64_t begin, end;
        pool_window_at(o, i, &begin, &end);
        found += (size_t)((end < o.size ? end : o.size) - (begin < 0 ? 0 : begin));
    }
    return found;
}

/* What a window's weights are `top` divided by: the entries that it has, these and those in the padding, or 1. */
enum pool_divisor { BY_ENTRIES, BY_WINDOW, BY_ONE };

KERNEL pool_mix pool_mix_of_windows(pool_side o, enum pool_divisor by, float top, float **scratch)
{
    pool_mix m = pool_mix_in(o.size, pool_count(o), pool_side_entries(o), scratch);
    int32_t e = 0;
    for (int i = 0; i < m.count; i++) {
        int64_t begin, end;
        pool_window_at(o, i, &begin, &end);
        const int64_t lo = begin < 0 ? 0 : begin, hi = end < o.size ? end : o.size;
        const int64_t last = end < (int64_t)o.size + o.padding ? end : (int64_t)o.size + o.padding;
        const float weight = top / (by == BY_ONE ? 1.f : (float)(by == BY_WINDOW ? last - begin : hi - lo));
        for (int64_t x = lo; x < hi; x++)
            pool_mix_add(&m, &e, (int)x, weight);
        m.begin[i + 1] = e;
    }
    return m;
}

/* log x for x > 0 and not denormal: x = m 2^e with m around 1, log m = 2 atanh(s), s = (m - 1) / (m + 1) <= 0.172, by its series
 * up to s^9; the rest is below 2^-28 of it. */
INLINE vec vlog(vec x)
{
    const ivec bits = (ivec)x - 0x3f3504f3; /* the square root of 1/2 */
    const vec e = __builtin_convertvector(bits >> 23, vec), m = (vec)((bits & 0x7fffff) + 0x3f3504f3);
    const vec s = (m - 1.f) / (m + 1.f), q = s * s;
    vec p = vset(1.f / 9);
    p = p * q + 1.f / 7;
    p = p * q + 1.f / 5;
    p = p * q + 1.f / 3;
    p = p * q + 1.f;
    return e * 0.693359375f + (e * -2.12194440e-4f + 2.f * s * p);
}

/* x^p for p >= 0; NaN for x < 0 unless p is a whole number, by multiplications then. */
INLINE vec vpow(vec x, float p)
{
    if (p <= 32 && p == (float)(int)p) {
        vec y = vset(1);
        for (int n = (int)p; n; n >>= 1, x *= x)
            if (n & 1)
                y *= x;
        return y;
    }
    const vec least = vset(1.17549435e-38f), infinite = vset(__builtin_inff());
    const vec to = p * vlog(vmax(x, least));
    const vec y = vselect(to < -87.f, vset(0), vselect((to > 87.f) | (x == infinite), infinite, vexp(to)));
    return vselect(x >= least, y, vselect(x >= 0.f, vset(0), vset(__builtin_nanf(""))));
}

enum pool_power { POWER_ONE, POWER_TWO, POWER_ANY };

INLINE vec pool_raised(const enum pool_power how, float p, vec x)
{
    if (how == POWER_ONE)
        return x;
    return how == POWER_TWO ? (vec)(x * x) : vpow(x, p);
}

/* to = sum of weight * factor * x^p over n <= 4 entries, `step` floats apart; beside what is there, where not `fresh`. */
INLINE void pool_mix_few(const int n, const int fresh, const enum pool_power how, float p, size_t size, const int32_t *index,
                         const float *weight, float factor, const float *x, size_t step, float *to)
{
    const float *from[4];
    vec by[4];
#pragma GCC unroll 4
    for (int e = 0; e < n; e++) {
        from[e] = x + (size_t)index[e] * step;
        by[e] = vset(weight[e] * factor);
    }
    for (size_t k = 0; k < size; k += VW) {
        vec sum = by[0] * pool_raised(how, p, vload(from[0] + k));
#pragma GCC unroll 4
        for (int e = 1; e < n; e++)
            sum += by[e] * pool_raised(how, p, vload(from[e] + k));
        vstore(to + k, fresh ? sum : (vec)(sum + vload(to + k)));
    }
}

/* The same for n > 0 entries. */
INLINE void pool_mix_some(const enum pool_power how, float p, size_t size, int n, const int32_t *index, const float *weight,
                          float factor, const float *x, size_t step, float *to)
{
    switch (n) {
    case 1: pool_mix_few(1, 1, how, p, size, index, weight, factor, x, step, to); return;
    case 2: pool_mix_few(2, 1, how, p, size, index, weight, factor, x, step, to); return;
    case 3: pool_mix_few(3, 1, how, p, size, index, weight, factor, x, step, to); return;
    default: pool_mix_few(4, 1, how, p, size, index, weight, factor, x, step, to);
    }
    int e = 4;
    for (; e + 4 <= n; e += 4)
        pool_mix_few(4, 0, how, p, size, index + e, weight + e, factor, x, step, to);
    for (; e < n; e++)
        pool_mix_few(1, 0, how, p, size, index + e, weight + e, factor, x, step, to);
}

/* y = rows * x^p * columns, channel by channel, of an image whose rows are `step` floats apart; t: room for a row of it. */
INLINE void pool_mix_raised(const enum pool_power how, float p, const pool_mix *rows, const pool_mix *columns, size_t C,
                            const float *x, size_t step, float *y, float *t)
{
    const size_t row = (size_t)columns->size * C, wide = (size_t)columns->count * C;
    for (int i = 0; i < rows->count; i++, y += wide) {
        const int32_t first = rows->begin[i], n = rows->begin[i + 1] - first;
        const int direct = how == POWER_ONE && n == 1;
        const float *from = direct ? x + (size_t)rows->index[first] * step : t, factor = direct ? rows->weight[first] : 1;
        if (!n) {
            memset(y, 0, wide * sizeof *y);
            continue;
        }
        if (!direct)
            pool_mix_some(how, p, row, n, rows->index + first, rows->weight + first, 1, x, step, t);
        for (int j = 0; j < columns->count; j++) {
            const int32_t e = columns->begin[j], entries = columns->begin[j + 1] - e;
            float *to = y + (size_t)j * C;
            if (entries)
                pool_mix_some(POWER_ONE, 1, C, entries, columns->index + e, columns->weight + e, factor, from, C, to);
            else
                memset(to, 0, C * sizeof *to);
        }
    }
}

KERNEL void pool_mix_image(const pool_mix *rows, const pool_mix *columns, size_t C, const float *x, float *y, float *t)
{
    pool_mix_raised(POWER_ONE, 1, rows, columns, C, x, (size_t)columns->size * C, y, t);
}

/* ---- layers that are nothing but a mix ---- */

/* The mix of rows (0) or columns (1) that a kind makes of its input, in scratch memory. */
typedef pool_mix (*pool_mix_of)(const geometry *g, int side, float **scratch);

/* Scratch memory for the mixes of both sides and their transposes, a row, and `images` in the size of the output. */
INLINE size_t pool_mix_scratch(const geometry *g, size_t entries_of_rows, size_t entries_of_columns, size_t images)
{
    const size_t widest = (size_t)(g->in[0].w > g->out.w ? g->in[0].w : g->out.w) * (size_t)g->in[0].c;
    return pool_mix_room(g->out.h, entries_of_rows) + pool_mix_room(g->in[0].h, entries_of_rows) +
           pool_mix_room(g->out.w, entries_of_columns) + pool_mix_room(g->in[0].w, entries_of_columns) + widest + SLACK +
           images * (shape_size(g->out) + SLACK);
}

/* y = rows * x * columns. */
INLINE void pool_mix_forward(const geometry *g, const call *c, pool_mix_of of, sink y)
{
    float *scratch = c->scratch;
    const pool_mix rows = of(g, 0, &scratch), columns = of(g, 1, &scratch);
    for (int n = 0; n < c->n; n++)
        pool_mix_image(&rows, &columns, (size_t)g->in[0].c, c->x[0].p + (size_t)n * c->x[0].stride,
                       y.p + (size_t)n * y.stride, scratch);
}

/* The transposed mixes; *scratch moves behind them. */
INLINE void pool_mix_both_transposed(const geometry *g, pool_mix_of of, float **scratch, pool_mix back[2])
{
    for (int side = 0; side < 2; side++) {
        const pool_mix there = of(g, side, scratch);
        back[side] = pool_mix_transposed(&there, scratch);
    }
}

INLINE void pool_mix_backward(const geometry *g, const call *c, pool_mix_of of)
{
    float *scratch = c->scratch;
    pool_mix back[2];
    pool_mix_both_transposed(g, of, &scratch, back);
    for (int n = 0; c->dx[0].p && n < c->n; n++)
        pool_mix_image(&back[0], &back[1], (size_t)g->in[0].c, c->dy.p + (size_t)n * c->dy.stride,
                       c->dx[0].p + (size_t)n * c->dx[0].stride, scratch);
}

#endif
