/* Windows over an image and their winners, for all kinds that pool by choosing an entry. Included by the bodies in this folder.
 *
 * The winner of a window is kept as its number, (y - rows.lo) * span + (x - columns.lo) for the entry (y, x); -1: none. Vectors
 * run over channels. Whole vectors are stored even where the channels end inside one: addresses ascend, so what spills over is
 * written again. */
#ifndef CHAOS_POOL_WINDOWS_H
#define CHAOS_POOL_WINDOWS_H

#include "layer.h"

/* How windows lie along one axis, as options say it. */
typedef struct {
    int size, kernel, stride, padding, dilation, ceil, adaptive; /* adaptive: so many windows over all, or 0 */
} pool_side;

/* The windows along one axis: number i takes entries[i] entries from tap[i] on, every `step`; [lo[i], hi[i]) holds them, and both
 * ascend. Windows [from[x], to[x]) are the only ones that may hold entry x. */
typedef struct {
    int size, count, step;
    int32_t *lo, *hi, *tap, *entries, *from, *to;
} pool_axis;

/* The number of windows, as PyTorch counts them; 0 where none fits. */
INLINE int pool_count(pool_side o)
{
    if (o.adaptive)
        return o.adaptive;
    const int64_t reach = (int64_t)o.dilation * (o.kernel - 1) + 1, room = (int64_t)o.size + 2 * (int64_t)o.padding - reach;
    const int64_t more = o.ceil ? o.stride - 1 : 0;
    if (room + more < 0)
        return 0;
    const int64_t n = (room + more) / o.stride + 1;
    const int64_t behind = o.ceil && (n - 1) * o.stride >= (int64_t)o.size + o.padding; /* begins in the padding: left out */
    return n - behind < INT32_MAX ? (int)(n - behind) : INT32_MAX;
}

/* Floats that pool_axis_of takes of the scratch memory. */
INLINE size_t pool_axis_room(int size, int count) { return 4 * (size_t)count + 2 * (size_t)size; }

INLINE void pool_window_at(pool_side o, int64_t i, int64_t *begin, int64_t *end)
{
    if (o.adaptive) {
        *begin = i * o.size / o.adaptive;
        *end = ((i + 1) * o.size + o.adaptive - 1) / o.adaptive;
    } else {
        *begin = i * o.stride - o.padding;
        *end = *begin + (int64_t)o.dilation * (o.kernel - 1) + 1;
    }
}

/* An axis without windows, in scratch memory; *scratch moves behind it. */
INLINE pool_axis pool_axis_in(int size, int count, int step, float **scratch)
{
    int32_t *p = (int32_t *)*scratch;
    const size_t n = (size_t)count;
    *scratch += pool_axis_room(size, count);
    return (pool_axis){size, count, step, p, p + n, p + 2 * n, p + 3 * n, p + 4 * n, p + 4 * n + size};
}

/* Once lo and hi are known. */
INLINE void pool_axis_cover(pool_axis *a)
{
    int f = 0, t = 0;
    for (int x = 0; x < a->size; x++) {
        while (f < a->count && a->hi[f] <= x)
            f++;
        while (t < a->count && a->lo[t] <= x)
            t++;
        a->from[x] = f, a->to[x] = t;
    }
}

INLINE pool_axis pool_axis_of(pool_side o, float **scratch)
{
    pool_axis a = pool_axis_in(o.size, pool_count(o), o.adaptive ? 1 : o.dilation, scratch);
    for (int i = 0; i < a.count; i++) {
        int64_t begin, end;
        pool_window_at(o, i, &begin, &end);
        const int64_t lo = begin < 0 ? 0 : begin, hi = end < o.size ? end : o.size;
        int64_t tap = lo;
        if (begin < 0 && a.step > 1)
            tap = begin + (-begin + a.step - 1) / a.step * a.step;
        a.lo[i] = (int32_t)lo, a.hi[i] = (int32_t)hi, a.tap[i] = (int32_t)tap;
        a.entries[i] = tap >= hi ? 0 : (int32_t)(a.step > 1 ? (hi - 1 - tap) / a.step + 1 : hi - tap);
    }
    a.step = a.step < a.size ? a.step : a.size; /* a larger one has no effect */
    pool_axis_cover(&a);
    return a;
}

/* Whether each window has an entry. */
INLINE int pool_side_is_full(pool_side o)
{
    for (int i = 0, n = pool_count(o); i < n; i++) {
        int64_t begin, end;
        pool_window_at(o, i, &begin, &end);
        const int64_t tap = begin < 0 ? begin + (-begin + o.dilation - 1) / o.dilation * o.dilation : begin;
        if (tap >= (end < o.size ? end : o.size))
            return 0;
    }
    return 1;
}

/* A NaN wins, and no number wins over it. */
INLINE void keep_larger(vec v, int number, vec *best, ivec *which)
{
#if VW == 16
    const __mmask16 better = (__mmask16)(_mm512_cmp_ps_mask((__m512)v, (__m512)*best, _CMP_GT_OQ) |
                                         _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q));
    *best = (vec)_mm512_mask_mov_ps((__m512)*best, better, (__m512)v);
    *which = (ivec)_mm512_mask_mov_epi32((__m512i)*which, better, _mm512_set1_epi32(number));
#else
    const ivec better = (v > *best) | (v != v);
    *best = vselect(better, v, *best);
    *which = iselect(better, iset(number), *which);
#endif
}

/* One window of kh x kw entries from x on, `down` and `right` floats apart; their numbers begin with `first`. */
INLINE void pool_largest(const int kh, const int kw, const float *x, size_t down, size_t right, int first, int number_down,
                         int number_right, size_t C, float *y, int32_t *won)
{
    for (size_t k = 0; k < C; k += VW) {
        vec best = vload(x + k);
        ivec which = iset(first);
#pragma GCC unroll 3
        for (int a = 0; a < kh; a++)
#pragma GCC unroll 3
            for (int b = 0; b < kw; b++)
                if (a + b)
                    keep_larger(vload(x + (size_t)a * down + (size_t)b * right + k),
                                first + a * number_down + b * number_right, &best, &which);
        vstore(y + k, best);
        istore(won + k, which);
    }
}

/* The largest entry of each window of one image, the first of equals; 0, and no winner, where a window is empty. */
KERNEL void pool_largest_of_all(const pool_axis *rows, const pool_axis *columns, int span, size_t C, const float *x,
                                float *y, int32_t *won)
{
    const size_t row = (size_t)columns->size * C, down = (size_t)rows->step * row, right = (size_t)columns->step * C;
    const int number_down = rows->step * span, number_right = columns->step;
    for (int i = 0; i < rows->count; i++) {
        const int kh = rows->entries[i];
        for (int j = 0; j < columns->count; j++, y += C, won += C) {
            const int kw = columns->entries[j];
            const float *from = x + (size_t)rows->tap[i] * row + (size_t)columns->tap[j] * C;
            const int first = (rows->tap[i] - rows->lo[i]) * span + columns->tap[j] - columns->lo[j];
            if (!kh || !kw) {
                for (size_t k = 0; k < C; k += VW) {
                    vstore(y + k, vset(0));
                    istore(won + k, iset(-1));
                }
            } else if (kh == 3 && kw == 3)
                pool_largest(3, 3, from, down, right, first, number_down, number_right, C, y, won);
            else
                pool_largest(kh, kw, from, down, right, first, number_down, number_right, C, y, won);
        }
    }
}

/* dx of C channels, the sum of dy where the entry is the winner `number` of a window. */
INLINE void pool_take(const int add, size_t C, const float *dy, const int32_t *won, int number, float *dx)
{
    for (size_t k = 0; k < C; k += VW) {
        const vec there = (vec)((ivec)vload(dy + k) & (iload(won + k) == number));
        vstore(dx + k, (add ? vload(dx + k) : vset(0)) + there);
    }
}

/* The same where the pixels that follow must stay as they are. */
INLINE void pool_take_within(size_t C, const float *dy, const int32_t *won, int number, float *dx)
{
    for (size_t k = 0; k < C; k += VW) {
        const vec there = (vec)((ivec)vload(dy + k) & (iload(won + k) == number));
        vstore_n(dx + k, vload(dx + k) + there, C - k < VW ? (int)(C - k) : VW);
    }
}

/* The same for windows [i0, i0 + ni) x [j0, j0 + nj), at most 2 x 2 of them, at once. */
INLINE void pool_take_four(const int ni, const int nj, size_t C, const float *dy, const int32_t *won, size_t at, size_t down,
                           const int number[4], float *dx)
{
    for (size_t k = 0; k < C; k += VW) {
        vec sum = vset(0);
#pragma GCC unroll 2
        for (int i = 0; i < ni; i++)
#pragma GCC unroll 2
            for (int j = 0; j < nj; j++) {
                const size_t from = at + (size_t)i * down + (size_t)j * C + k;
                sum += (vec)((ivec)vload(dy + from) & (iload(won + from) == number[2 * i + j]));
            }
        vstore(dx + k, sum);
    }
}

/* The gradient of one image: entries get that of the windows which they have won. `add`: beside what dx holds. */
INLINE void pool_winners_backward(const int add, const pool_axis *rows, const pool_axis *columns, int span, size_t C,
                                  const float *dy, const int32_t *won, float *dx)
{
    const size_t down = (size_t)columns->count * C;
    for (int y = 0; y < rows->size; y++) {
        const int i0 = rows->from[y], i1 = rows->to[y], ni = i1 - i0;
        if (add && ni <= 0) {
            dx += (size_t)columns->size * C;
            continue;
        }
        const int first = ni > 0 ? (y - rows->lo[i0]) * span : 0, second = ni > 1 ? (y - rows->lo[i0 + 1]) * span : 0;
        for (int x = 0; x < columns->size; x++, dx += C) {
            const int j0 = columns->from[x], j1 = columns->to[x], nj = j1 - j0;
            const size_t at = (size_t)i0 * down + (size_t)j0 * C;
            if (!add && ni > 0 && nj > 0 && ni <= 2 && nj <= 2) {
                const int left = x - columns->lo[j0], right = nj > 1 ? x - columns->lo[j0 + 1] : 0;
                const int number[4] = {first + left, first + right, second + left, second + right};
                if (ni == 1 && nj == 1)
                    pool_take_four(1, 1, C, dy, won, at, down, number, dx);
                else if (ni == 1)
                    pool_take_four(1, 2, C, dy, won, at, down, number, dx);
                else if (nj == 1)
                    pool_take_four(2, 1, C, dy, won, at, down, number, dx);
                else
                    pool_take_four(2, 2, C, dy, won, at, down, number, dx);
                continue;
            }
            if (!add && (ni <= 0 || nj <= 0))
                for (size_t k = 0; k < C; k += VW)
                    vstore(dx + k, vset(0));
            for (int i = i0, old = 0; i < i1; i++)
                for (int j = j0; j < j1; j++, old = 1) {
                    const int number = (y - rows->lo[i]) * span + x - columns->lo[j];
                    const size_t from = (size_t)i * down + (size_t)j * C;
                    if (add)
                        pool_take_within(C, dy + from, won + from, number, dx);
                    else if (old)
                        pool_take(1, C, dy + from, won + from, number, dx);
                    else
                        pool_take(0, C, dy + from, won + from, number, dx);
                }
        }
    }
}

#endif
