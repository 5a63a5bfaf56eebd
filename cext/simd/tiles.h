/* Register tiles shared by conv2d and linear. P pixels (or rows) x V vectors of outputs stay in registers while the
 * reduction runs; both counts are compile-time constants of each instance, so remainders have tiles of their own.
 * Included after simd.h. */
#ifndef CHAOS_TILES_H
#define CHAOS_TILES_H

#if VW == 16
enum { MAX_V = 4, MAX_P = 8, MAX_G = 12, MAX_LONG = 24, MAX_NARROW = 13 };
static const int tile_rows[MAX_V + 1] = {0, 8, 8, 8, 6}; /* 32 registers: rows x V accumulators + V weights */
#else
enum { MAX_V = 3, MAX_P = 8, MAX_G = 12, MAX_LONG = 12 };
static const int tile_rows[MAX_V + 1] = {0, 8, 6, 4}; /* 16 registers */
#endif

/* Splits `total` into blocks of at most `most`, as even as possible: the size of the block when `left` remain. */
INLINE int even_block(int left, int most)
{
    int blocks = (left + most - 1) / most;
    return (left + blocks - 1) / blocks;
}

/* y[p][o] = bias[o] + sum over k < K, r < R of x[at[p] + run[k] + r] * w[(k*R + r)*w_row + o] for V*VW outputs o, of
 * which the last vector keeps `tail` lanes. */
typedef void multiply_fn(const float *x, const ptrdiff_t *at, int K, const ptrdiff_t *run, int R, const float *w,
                         size_t w_row, const float *bias, float *y, size_t y_step, int tail);

INLINE void multiply(const int P, const int V, const float *x, const ptrdiff_t *at, int K, const ptrdiff_t *run, int R,
                     const float *w, size_t w_row, const float *bias, float *y, size_t y_step, int tail)
{
    vec acc[MAX_P][MAX_V];
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            acc[p][v] = vload(bias + v * VW);
    for (int k = 0; k < K; k++) {
        const float *from[MAX_P];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
            from[p] = x + at[p] + run[k];
        for (int r = 0; r < R; r++) {
            vec b[MAX_V];
#pragma GCC unroll 4
            for (int v = 0; v < V; v++)
                b[v] = vload(w + v * VW);
            w += w_row;
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) {
                vec a = vset(from[p][r]);
#pragma GCC unroll 4
                for (int v = 0; v < V; v++)
                    acc[p][v] += a * b[v];
            }
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++) {
#pragma GCC unroll 4
        for (int v = 0; v < V - 1; v++)
            vstore(y + (size_t)p * y_step + v * VW, acc[p][v]);
        vstore_n(y + (size_t)p * y_step + (V - 1) * VW, acc[p][V - 1], tail);
    }
}

/* Half a vector of outputs costs half where 512-bit operations run in two steps (Zen 4), and no more elsewhere: for a
 * remainder of up to 8 outputs there are tiles of half a vector. */
#if VW == 16
/* With AVX-512 GCC 12 would keep addresses in vector registers, which is slower. */
#define HALF __attribute__((target("avx2,fma,no-avx512f")))
HALF INLINE void half_multiply(const int P, const float *x, const ptrdiff_t *at, int K, const ptrdiff_t *run, int R,
                               const float *w, size_t w_row, const float *bias, float *y, size_t y_step, int tail)
{
    narrow_8 acc[MAX_P];
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
        acc[p] = *(const narrow_8_u *)bias;
    for (int k = 0; k < K; k++) {
        const float *from[MAX_P];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
            from[p] = x + at[p] + run[k];
        for (int r = 0; r < R; r++) {
            const narrow_8 b = *(const narrow_8_u *)w;
            w += w_row;
#pragma GCC unroll 8
            for (int p = 0; p < P; p++)
                acc[p] += (from[p][r] - (narrow_8){0}) * b;
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
        if (tail == NARROW)
            *(narrow_8_u *)(y + (size_t)p * y_step) = acc[p];
        else
            for (int i = 0; i < tail; i++)
                y[(size_t)p * y_step + (size_t)i] = acc[p][i];
}
#endif

/* dw[r][o] (first ? = : +=) sum over samples s and pixels (i, j) of x[s][i*x_row + j*x_step + r] * dy[s][(i*W + j)*C + o]
 * for P consecutive r and V*VW outputs o, of which the last vector keeps `tail` lanes. */
typedef struct {
    int n, H, W; /* samples, rows and columns of pixels */
    source x, dy;
    ptrdiff_t x_row, x_step;
    int C; /* channels of dy */
} pixel_walk;

typedef void outer_fn(const pixel_walk *walk, ptrdiff_t x_at, int o_at, float *dw, size_t w_row, int first, int tail);

INLINE void outer(const int P, const int V, const pixel_walk *walk, ptrdiff_t x_at, int o_at, float *dw, size_t w_row,
                  int first, int tail)
{
    vec acc[MAX_P][MAX_V];
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            acc[p][v] = vset(0);
    for (int s = 0; s < walk->n; s++) {
        const float *d = walk->dy.p + (size_t)s * walk->dy.stride + o_at;
        for (int i = 0; i < walk->H; i++) {
            const float *x = walk->x.p + (size_t)s * walk->x.stride + x_at + i * walk->x_row;
            for (int j = 0; j < walk->W; j++, x += walk->x_step, d += walk->C) {
                vec b[MAX_V];
#pragma GCC unroll 4
                for (int v = 0; v < V; v++)
                    b[v] = vload(d + v * VW);
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) {
                    vec a = vset(x[p]);
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++)
                        acc[p][v] += a * b[v];
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            float *to = dw + (size_t)p * w_row + v * VW;
            vec sum = acc[p][v];
            if (!first)
                sum += vload(to);
            if (v < V - 1)
                vstore(to, sum);
            else
                vstore_n(to, sum, tail);
        }
}

/* to[0 .. G*VW) (fresh ? = : +=) sum over q < n of value[q] * rows[at[q] * step ...]: a weighted sum of rows, kept in
 * registers. */
typedef void gather_fn(int n, const float *value, const int32_t *at, const float *rows, size_t step, float *to, int fresh);

/* With few vectors two entries at a time, so that no sum waits for itself. */
#define GATHER_LOOP(type, G)                                                                                                \
    {                                                                                                                       \
        enum { SETS = G <= 4 ? 2 : 1 };                                                                                     \
        type acc[SETS][G];                                                                                                  \
        _Pragma("GCC unroll 2") for (int e = 0; e < SETS; e++) _Pragma("GCC unroll 24") for (int g = 0; g < G; g++)         \
            acc[e][g] = (type){0};                                                                                          \
        int q = 0;                                                                                                          \
        for (; q + SETS <= n; q += SETS)                                                                                    \
            _Pragma("GCC unroll 2") for (int e = 0; e < SETS; e++)                                                          \
            {                                                                                                               \
                const type##_u *row = (const type##_u *)(rows + (size_t)at[q + e] * step);                                  \
                const type a = value[q + e] - (type){0};                                                                    \
                _Pragma("GCC unroll 24") for (int g = 0; g < G; g++) acc[e][g] += a * row[g];                               \
            }                                                                                                               \
        if (SETS == 2 && q < n) {                                                                                           \
            const type##_u *row = (const type##_u *)(rows + (size_t)at[q] * step);                                          \
            const type a = value[q] - (type){0};                                                                            \
            _Pragma("GCC unroll 24") for (int g = 0; g < G; g++) acc[0][g] += a * row[g];                                   \
        }                                                                                                                   \
        type##_u *sum = (type##_u *)to;                                                                                     \
        _Pragma("GCC unroll 24") for (int g = 0; g < G; g++)                                                                \
        {                                                                                                                   \
            if (SETS == 2)                                                                                                  \
                acc[0][g] += acc[1][g];                                                                                     \
            if (!fresh)                                                                                                     \
                acc[0][g] += sum[g];                                                                                        \
            sum[g] = acc[0][g];                                                                                             \
        }                                                                                                                   \
    }

#define TILE(P, V)                                                                                                          \
    KERNEL void multiply_##P##_##V(const float *x, const ptrdiff_t *at, int K, const ptrdiff_t *run, int R, const float *w, \
                                   size_t w_row, const float *bias, float *y, size_t y_step, int tail)                      \
    {                                                                                                                       \
        multiply(P, V, x, at, K, run, R, w, w_row, bias, y, y_step, tail);                                                  \
    }                                                                                                                       \
    KERNEL void outer_##P##_##V(const pixel_walk *walk, ptrdiff_t x_at, int o_at, float *dw, size_t w_row, int first,       \
                                int tail)                                                                                   \
    {                                                                                                                       \
        outer(P, V, walk, x_at, o_at, dw, w_row, first, tail);                                                              \
    }
#define HALF_TILE(P)                                                                                                        \
    HALF KERNEL void half_multiply_##P(const float *x, const ptrdiff_t *at, int K, const ptrdiff_t *run, int R,             \
                                       const float *w, size_t w_row, const float *bias, float *y, size_t y_step, int tail)  \
    {                                                                                                                       \
        half_multiply(P, x, at, K, run, R, w, w_row, bias, y, y_step, tail);                                                \
    }
#define GATHER(G)                                                                                                           \
    KERNEL void gather_##G(int n, const float *value, const int32_t *at, const float *rows, size_t step, float *to,         \
                           int fresh) GATHER_LOOP(vec, G)
#define NARROW_GATHER(G)                                                                                                    \
    KERNEL void narrow_gather_##G(int n, const float *value, const int32_t *at, const float *rows, size_t step, float *to,  \
                                  int fresh) GATHER_LOOP(narrow_8, G)

/* clang-format off */
TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1) TILE(7, 1) TILE(8, 1)
TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2) TILE(5, 2) TILE(6, 2)
TILE(1, 3) TILE(2, 3) TILE(3, 3) TILE(4, 3)
GATHER(1) GATHER(2) GATHER(3) GATHER(4) GATHER(5) GATHER(6)
GATHER(7) GATHER(8) GATHER(9) GATHER(10) GATHER(11) GATHER(12)
#if VW == 16
TILE(7, 2) TILE(8, 2) TILE(5, 3) TILE(6, 3) TILE(7, 3) TILE(8, 3)
TILE(1, 4) TILE(2, 4) TILE(3, 4) TILE(4, 4) TILE(5, 4) TILE(6, 4)
HALF_TILE(1) HALF_TILE(2) HALF_TILE(3) HALF_TILE(4) HALF_TILE(5) HALF_TILE(6) HALF_TILE(7) HALF_TILE(8)
GATHER(13) GATHER(14) GATHER(15) GATHER(16) GATHER(17) GATHER(18)
GATHER(19) GATHER(20) GATHER(21) GATHER(22) GATHER(23) GATHER(24)
NARROW_GATHER(1) NARROW_GATHER(2) NARROW_GATHER(3) NARROW_GATHER(4) NARROW_GATHER(5) NARROW_GATHER(6) NARROW_GATHER(7)
NARROW_GATHER(8) NARROW_GATHER(9) NARROW_GATHER(10) NARROW_GATHER(11) NARROW_GATHER(12) NARROW_GATHER(13)
#endif

/* [V][P] */
#if VW == 16
#define TILE_TABLE(f)                                                                \
    {                                                                                \
        {0},                                                                         \
        {0, f##_1_1, f##_2_1, f##_3_1, f##_4_1, f##_5_1, f##_6_1, f##_7_1, f##_8_1}, \
        {0, f##_1_2, f##_2_2, f##_3_2, f##_4_2, f##_5_2, f##_6_2, f##_7_2, f##_8_2}, \
        {0, f##_1_3, f##_2_3, f##_3_3, f##_4_3, f##_5_3, f##_6_3, f##_7_3, f##_8_3}, \
        {0, f##_1_4, f##_2_4, f##_3_4, f##_4_4, f##_5_4, f##_6_4},                   \
    }
#else
#define TILE_TABLE(f)                                                                \
    {                                                                                \
        {0},                                                                         \
        {0, f##_1_1, f##_2_1, f##_3_1, f##_4_1, f##_5_1, f##_6_1, f##_7_1, f##_8_1}, \
        {0, f##_1_2, f##_2_2, f##_3_2, f##_4_2, f##_5_2, f##_6_2},                   \
        {0, f##_1_3, f##_2_3, f##_3_3, f##_4_3},                                     \
    }
#endif
static multiply_fn *const multiply_tile[MAX_V + 1][MAX_P + 1] = TILE_TABLE(multiply);
static outer_fn *const outer_tile[MAX_V + 1][MAX_P + 1] = TILE_TABLE(outer);
static gather_fn *const gather_tile[MAX_LONG + 1] = {
    0,         gather_1,  gather_2,  gather_3,  gather_4,  gather_5,  gather_6,
    gather_7,  gather_8,  gather_9,  gather_10, gather_11, gather_12,
#if VW == 16
    gather_13, gather_14, gather_15, gather_16, gather_17, gather_18, gather_19,
    gather_20, gather_21, gather_22, gather_23, gather_24
#endif
};
#if VW == 16
static multiply_fn *const multiply_half_tile[MAX_P + 1] = {
    0, half_multiply_1, half_multiply_2, half_multiply_3, half_multiply_4,
    half_multiply_5, half_multiply_6, half_multiply_7, half_multiply_8
};
static gather_fn *const narrow_gather_tile[MAX_NARROW + 1] = {
    0, narrow_gather_1, narrow_gather_2, narrow_gather_3, narrow_gather_4, narrow_gather_5, narrow_gather_6,
    narrow_gather_7, narrow_gather_8, narrow_gather_9, narrow_gather_10, narrow_gather_11, narrow_gather_12, narrow_gather_13
};
#endif
/* clang-format on */

#endif
