/* Sums over the rows of images for each column, and maps with constants for each column, for all kinds that normalise. Included
 * by the bodies in this folder.
 *
 * A row is a pixel, or, where channels are few, as many neighbouring pixels as fill whole vectors: column j is of channel j % C.
 * What is left of an image behind its last row is a part of one.
 *
 * Sums are taken in single precision over COLUMN_ROWS rows at most and added up in double precision. Those of x and x^2 are of
 * x - shift, with the mean of the rows before as the shift: sum (x - shift)^2 over COLUMN_ROWS rows is at most their own square
 * deviation and COLUMN_ROWS times the square distance of their mean from the one before, which adds up to at most 4 times the
 * square deviation of all. A sum of n terms one after the other is off by at most n 2^-24 of the sum of their sizes, so
 * that the variance is off by at most 5 * (COLUMN_ROWS + 2) * 2^-24 of itself, whatever the mean and however many rows (some
 * 2^-23 of it for random numbers, where roundings cancel), and other sums by (COLUMN_ROWS + 2) * 2^-24 of the sum of sizes. */
#ifndef CHAOS_COLUMNS_H
#define CHAOS_COLUMNS_H

#include "layer.h"
#include "sums.h"

enum { COLUMN_ROWS = 32, COLUMN_BLOCK = 4, COLUMN_LONG = 64 }; /* vectors side by side; floats from which a row is a pixel */

typedef struct {
    size_t C, size, row, room; /* channels, floats of an image, of a row, of a row with padding */
    float *shift, *sum, *product; /* of the rows since the last flush */
    norm_double *sums, *products; /* of those before */
    int rows, parts; /* whole ones since the last flush, and parts of one */
} columns;

/* Floats of a row; at least one fits into an image. */
INLINE size_t columns_row(size_t C, size_t size)
{
    size_t row = C;
    while (C < COLUMN_LONG && (row % VW || row < COLUMN_BLOCK * VW) && row + C <= size)
        row += C;
    return row;
}
INLINE size_t columns_padded(size_t C, size_t size) { return round_up(columns_row(C, size), LANES); }
/* Floats that columns_in takes of the scratch memory. */
INLINE size_t columns_room(size_t C, size_t size) { return 7 * columns_padded(C, size); }

/* In scratch memory; *scratch moves behind it. */
INLINE columns columns_in(size_t C, size_t size, float **scratch)
{
    const size_t room = columns_padded(C, size);
    float *p = *scratch;
    *scratch += columns_room(C, size);
    return (columns){C,
                     size,
                     columns_row(C, size),
                     room,
                     p,
                     p + room,
                     p + 2 * room,
                     (norm_double *)(p + 3 * room),
                     (norm_double *)(p + 5 * room),
                     0,
                     0};
}

/* What is summed up: d = x - shift and d^2, or dy and dy * d. */
enum column_sums { OF_X, OF_DY };

INLINE void columns_add_block(const enum column_sums of, const int V, const float *x, const float *dy, size_t rows,
                              size_t step, const float *shift, float *sum, float *product)
{
    vec k[COLUMN_BLOCK], s[COLUMN_BLOCK], q[COLUMN_BLOCK];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
        k[v] = vload(shift + v * VW), s[v] = vload(sum + v * VW), q[v] = vload(product + v * VW);
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            const vec d = vload(x + i * step + v * VW) - k[v], a = of == OF_X ? d : vload(dy + i * step + v * VW);
            s[v] += a;
            q[v] += a * d;
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
        vstore(sum + v * VW, s[v]), vstore(product + v * VW, q[v]);
}

/* Whole rows from x on. Lanes past the end of a row hold what nobody looks at. */
INLINE void columns_add(const enum column_sums of, const columns *s, const float *x, const float *dy, size_t rows)
{
    size_t k = 0;
    for (; k + COLUMN_BLOCK * VW <= s->row; k += COLUMN_BLOCK * VW)
        columns_add_block(of, COLUMN_BLOCK, x + k, of == OF_X ? NULL : dy + k, rows, s->row, s->shift + k, s->sum + k,
                          s->product + k);
    for (; k < s->row; k += VW)
        columns_add_block(of, 1, x + k, of == OF_X ? NULL : dy + k, rows, s->row, s->shift + k, s->sum + k, s->product + k);
}

/* The first `left` floats of a row. */
INLINE void columns_add_part(const enum column_sums of, const columns *s, const float *x, const float *dy, size_t left)
{
    for (size_t k = 0; k < left; k += VW) {
        const int live = left - k < VW ? (int)(left - k) : VW;
        const vec d = vload(x + k) - vload(s->shift + k), a = of == OF_X ? d : vload(dy + k);
        vstore_n(s->sum + k, vload(s->sum + k) + a, live);
        vstore_n(s->product + k, vload(s->product + k) + a * d, live);
    }
}

/* Adds what there is to the sums in double precision. */
KERNEL void columns_flush(const enum column_sums of, columns *s)
{
    const size_t left = s->size % s->row;
    const float one = s->rows + s->parts ? 1 / (float)(s->rows + s->parts) : 0;
    for (size_t k = 0; k < s->room; k += VW) {
        const vec sum_of = vload(s->sum + k), shift_of = vload(s->shift + k);
        norm_sum sum = norm_wide(sum_of), product = norm_wide(vload(s->product + k));
        if (of == OF_X) {
            const norm_sum shift = norm_wide(shift_of);
            norm_sum n = (double)s->rows - (norm_sum){0};
            for (size_t i = 0; s->parts && i < VW; i++)
                n[i] += k + i < left ? (double)s->parts : 0;
            product += shift * (sum + sum + n * shift);
            sum += n * shift;
            vstore(s->shift + k, shift_of + one * sum_of);
        }
        *(norm_sum_u *)(s->sums + k) += sum;
        *(norm_sum_u *)(s->products + k) += product;
        vstore(s->sum + k, vset(0));
        vstore(s->product + k, vset(0));
    }
    s->rows = s->parts = 0;
}

/* Begins sums of images of which x is the first; those of dy and dy * d have their shift already. */
KERNEL void columns_begin(const enum column_sums of, columns *s, const float *x)
{
    const size_t rows = s->size / s->row, some = rows < 8 ? rows : 8;
    memset(s->sum, 0, 6 * s->room * sizeof(float));
    s->rows = s->parts = 0;
    if (of == OF_DY)
        return;
    memset(s->shift, 0, s->room * sizeof(float));
    columns_add(of, s, x, NULL, some);
    for (size_t k = 0; k < s->room; k += VW)
        vstore(s->shift + k, vload(s->sum + k) * (1 / (float)some));
    memset(s->sum, 0, 2 * s->room * sizeof(float));
}

/* Another image. */
INLINE void columns_image(const enum column_sums of, columns *s, const float *x, const float *dy)
{
    const size_t rows = s->size / s->row, left = s->size % s->row;
    for (size_t i = 0; i < rows;) {
        const size_t room = (size_t)(COLUMN_ROWS - s->rows), n = rows - i < room ? rows - i : room;
        columns_add(of, s, x + i * s->row, of == OF_X ? NULL : dy + i * s->row, n);
        s->rows += (int)n;
        i += n;
        if (s->rows == COLUMN_ROWS)
            columns_flush(of, s);
    }
    if (left) {
        columns_add_part(of, s, x + rows * s->row, of == OF_X ? NULL : dy + rows * s->row, left);
        if (++s->parts == COLUMN_ROWS)
            columns_flush(of, s);
    }
}

/* Sums of each channel at the first C places. */
KERNEL void columns_end(const enum column_sums of, columns *s)
{
    columns_flush(of, s);
    for (size_t j = s->C; j < s->row; j++) {
        s->sums[j % s->C] += s->sums[j];
        s->products[j % s->C] += s->products[j];
    }
}

/* ---- rows that are summed up as a whole ---- */

enum { STRETCH = COLUMN_BLOCK * COLUMN_ROWS * VW }; /* floats that are added up in single precision */

/* All bits of the first n lanes. */
INLINE ivec first_lanes(size_t n)
{
    ivec lane;
    for (int i = 0; i < VW; i++)
        lane[i] = i;
    return lane < (int32_t)(n < VW ? n : VW);
}

/* Sums over n <= STRETCH neighbours, with d = x - shift: of d and d^2, or of dy * weight and dy * weight * d, for their lanes.
 * weight: NULL for ones. */
INLINE void stretch_lanes(const enum column_sums of, const float *x, const float *dy, const float *weight, float shift,
                          size_t n, vec *sum, vec *product)
{
    vec s[COLUMN_BLOCK] = {{0}}, q[COLUMN_BLOCK] = {{0}};
    size_t k = 0;
    for (; k + COLUMN_BLOCK * VW <= n; k += COLUMN_BLOCK * VW)
#pragma GCC unroll 4
        for (size_t v = 0; v < COLUMN_BLOCK; v++) {
            const size_t at = k + v * VW;
            const vec d = vload(x + at) - shift, one = of == OF_X ? d : vload(dy + at);
            const vec a = of == OF_DY && weight ? (vec)(one * vload(weight + at)) : one;
            s[v] += a;
            q[v] += a * d;
        }
    for (; k < n; k += VW) {
        const ivec there = first_lanes(n - k);
        const vec d = (vec)((ivec)(vload(x + k) - shift) & there), one = of == OF_X ? d : (vec)((ivec)vload(dy + k) & there);
        const vec a = of == OF_DY && weight ? (vec)(one * (vec)((ivec)vload(weight + k) & there)) : one;
        s[0] += a;
        q[0] += a * d;
    }
    *sum = (s[0] + s[1]) + (s[2] + s[3]);
    *product = (q[0] + q[1]) + (q[2] + q[3]);
}

INLINE void stretch_sums(const enum column_sums of, const float *x, const float *dy, const float *weight, float shift,
                         size_t n, double *sum, double *product)
{
    vec s, q;
    stretch_lanes(of, x, dy, weight, shift, n, &s, &q);
    *sum = (double)vtotal(s);
    *product = (double)vtotal(q);
}

/* Of VW rows of width <= STRETCH, one behind the other, each with its own shift; those from `rows` on repeat the last one. */
INLINE void rows_sums(const enum column_sums of, const float *x, const float *dy, const float *weight, const float *shift,
                      size_t width, size_t rows, float *sum, float *product)
{
    vec s[VW], q[VW];
    for (size_t i = 0; i < VW; i++) {
        const size_t row = i < rows ? i : rows - 1;
        stretch_lanes(of, x + row * width, of == OF_X ? NULL : dy + row * width, weight, shift[row], width, s + i, q + i);
    }
    vstore(sum, vsum_rows(s));
    vstore(product, vsum_rows(q));
}

/* Mean and square deviation of n neighbours, the mean 0 unless `centred`. */
INLINE void row_moments(const int centred, const float *x, size_t n, double *mean, double *square)
{
    double sum = 0, squares = 0, s, q;
    float shift = 0;
    if (centred) {
        const size_t some = n < STRETCH ? n : STRETCH;
        stretch_sums(OF_X, x, NULL, NULL, 0, some, &s, &q);
        shift = (float)(s / (double)some);
    }
    for (size_t i = 0; i < n; i += STRETCH) {
        const size_t some = n - i < STRETCH ? n - i : STRETCH;
        const double from = (double)shift, m = (double)some;
        stretch_sums(OF_X, x + i, NULL, NULL, shift, some, &s, &q);
        squares += q + from * (s + s + m * from);
        sum += s + m * from;
        shift = centred ? (float)(from + s / m) : 0;
    }
    *mean = centred ? sum / (double)n : 0;
    *square = squares - *mean * sum;
    *square = *square < 0 ? 0 : *square;
}

/* Sums of dy * weight, and of that times x - shift, over n neighbours. */
INLINE void row_products(const float *x, const float *dy, const float *weight, float shift, size_t n, double *sum,
                         double *product)
{
    double s, q;
    *sum = *product = 0;
    for (size_t i = 0; i < n; i += STRETCH) {
        stretch_sums(OF_DY, x + i, dy + i, weight ? weight + i : NULL, shift, n - i < STRETCH ? n - i : STRETCH, &s, &q);
        *sum += s;
        *product += q;
    }
}

/* ---- maps ---- */

/* What becomes of x and dy with constants p of their column: (x - p0) p1 + p2, that + dy p3 + p4, or dy p3. */
enum column_map { MAP_X, MAP_BOTH, MAP_DY, MAP_CONSTANTS = 5 };

INLINE void columns_map_block(const enum column_map map, const int V, const float *x, const float *dy, float *to,
                              size_t rows, size_t step, const float *p, size_t room)
{
    vec m[COLUMN_BLOCK], a[COLUMN_BLOCK], b[COLUMN_BLOCK], f[COLUMN_BLOCK], o[COLUMN_BLOCK];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
        if (map != MAP_DY)
            m[v] = vload(p + v * VW), a[v] = vload(p + room + v * VW), b[v] = vload(p + 2 * room + v * VW);
        if (map != MAP_X)
            f[v] = vload(p + 3 * room + v * VW);
        if (map == MAP_BOTH)
            o[v] = vload(p + 4 * room + v * VW);
    }
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            const size_t at = i * step + (size_t)v * VW;
            if (map == MAP_X)
                vstore(to + at, (vload(x + at) - m[v]) * a[v] + b[v]);
            else if (map == MAP_DY)
                vstore(to + at, vload(dy + at) * f[v]);
            else
                vstore(to + at, ((vload(x + at) - m[v]) * a[v] + b[v]) + (vload(dy + at) * f[v] + o[v]));
        }
    }
}

/* An image; p: MAP_CONSTANTS rows of constants. Stores ascend, or write the same again: what spills over is written again, or
 * lies in the slack. */
INLINE void columns_map(const enum column_map map, const columns *s, const float *p, const float *x, const float *dy,
                        float *to)
{
    const int V = map == MAP_BOTH && VW < 16 ? 2 : COLUMN_BLOCK; /* as the registers allow */
    const size_t row = s->row, rows = s->size / row, left = s->size % row;
    for (size_t i = 0; i < rows; i += COLUMN_ROWS) {
        const size_t n = rows - i < COLUMN_ROWS ? rows - i : COLUMN_ROWS, at = i * row;
        size_t k = 0;
        for (; k + (size_t)V * VW <= row; k += (size_t)V * VW)
            columns_map_block(map, V, x + at + k, dy + at + k, to + at + k, n, row, p + k, s->room);
        for (; k < row; k += VW) {
            const size_t from = k + VW > row && row > VW ? row - VW : k;
            columns_map_block(map, 1, x + at + from, dy + at + from, to + at + from, n, row, p + from, s->room);
        }
    }
    for (size_t k = 0, at = rows * row; k < left; k += VW)
        columns_map_block(map, 1, x + at + k, dy + at + k, to + at + k, 1, row, p + k, s->room);
}

/* Repeats the constants of the channels for a row. */
INLINE void columns_repeat(const columns *s, int rows, float *p)
{
    for (int r = 0; r < rows; r++, p += s->room)
        for (size_t j = s->C; j < s->row; j++)
            p[j] = p[j - s->C];
}

#endif
