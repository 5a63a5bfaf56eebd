/* Products of matrices whose factors are rounded to bfloat16 (float32 with the upper 8 bits of its mantissa) and whose sums are
 * of float32. Included by layers, the engine, the registry and the units in this folder.
 *
 * A matrix is cut into blocks of 32 terms of the sums. The left factor is read where it lies, row by row, a block being 32
 * neighbours; the right one is packed into tiles [columns / 16][blocks][16 pairs of terms][16 columns][2]. What a block adds is
 * the sum of its even terms plus the sum of its odd ones, each added up in float32 one after the other, whatever unit
 * computes it: so AMX does it. Numbers below float32's normal ones are 0, as factors and as sums (sums of the plain
 * unit: where the caller has set that mode, as workers do). Rounding is to nearest, ties to even; NaN stays NaN. */
#ifndef CHAOS_BF16_H
#define CHAOS_BF16_H

#include <stddef.h>
#include <stdint.h>

enum { BF16_LINES = 16, BF16_DEPTH = 32, BF16_TILE = BF16_LINES * BF16_DEPTH };

/* to[m][n] = (adds ? what is there : from ? from[n] : 0) + sum over blocks k of a[m] block k times b[n / 16][k]. */
typedef struct {
    int rows, depth, columns; /* depth: in blocks */
    int wide; /* rows m and m + 1 are a_step and to_step apart, m and m + wide a_row and to_row */
    const uint16_t *a;
    ptrdiff_t a_row, a_step;
    const ptrdiff_t *run; /* where in a row its k-th block begins */
    const uint16_t *b;
    const float *from; /* read in whole vectors of 16 */
    int adds;
    float *to;
    ptrdiff_t to_row, to_step;
    uint16_t *room; /* 2 * depth tiles, for rows that are not evenly spaced */
} bf16_product;

typedef struct {
    const char *name;
    /* n neighbours; zeros up to a whole block. */
    void (*round)(size_t n, const float *from, uint16_t *to);
    /* The terms of a block are rows, NULL: zeros: a tile for each 16 columns, `panel` numbers apart; columns past the last are
     * zeros. */
    void (*pairs)(const float *const row[BF16_DEPTH], size_t columns, uint16_t *to, size_t panel);
    /* The same for the left factor: column c becomes a block at to + c * step. */
    void (*turned)(const float *const row[BF16_DEPTH], size_t columns, uint16_t *to, size_t step);
    /* The rows are the columns of the factor, NULL: zeros; `terms` of each: tiles one behind the other, with zeros up to a whole
     * block. */
    void (*turned_pairs)(const float *const row[BF16_LINES], size_t terms, uint16_t *to);
    void (*product)(const bf16_product *p);
} bf16_unit;

/* AMX; NULL where the processor has none, the system does not let it be used, or the compiler does not know it. */
const bf16_unit *bf16_amx(void);
/* Why it is NULL, in words. */
const char *bf16_amx_missing(void);
/* Plain C: the definition, for tests and for who repeats elsewhere what AMX has computed. */
extern const bf16_unit bf16_plain;
/* Seconds of so many operations of *flops each at full speed, for benchmarks: AMX's tile products, or (dots) AVX512_BF16's dot
 * products; only where bf16_amx is not NULL. */
double bf16_seconds(int dots, long rounds, long *flops);

#endif
