/* Register tiles of linear layers: products of a chunk of samples with the weights, of their gradients with the weights, and
 * of the two with each other. P samples (or rows) x V vectors of outputs stay in registers while the sum runs; both are
 * compile-time constants of each instance. Sums run in one order, whatever P, V and the number of samples: a sample's numbers
 * do not depend on who is beside it. Included by linear.c. */
#ifndef CHAOS_LINEAR_TILES_H
#define CHAOS_LINEAR_TILES_H

/* LINEAR_PANEL: so much of a panel of weights stays in the first-level cache beside the samples. */
enum { LINEAR_PANEL = 4608, DOT_SAMPLES = 3, DOT_ROWS = VW == 16 ? 8 : 4 };

/* y[p][o] = from[p][o] + sum over r < rows of x[p][r] * w[r][o]; the last vector may run into the slack. Where rows of w are a
 * power of two apart, few sets of a cache take them all: a tile that PACKS writes the panel down as it goes, for the others. */
typedef void linear_panel_fn(size_t rows, const float *x, size_t x_step, const float *w, size_t w_row, float *packed,
                             const float *from, size_t from_step, float *y, size_t y_step);

INLINE void linear_panel(const int P, const int V, const int packs, size_t rows, const float *x, size_t x_step,
                         const float *w, size_t w_row, float *packed, const float *from, size_t from_step, float *y,
                         size_t y_step)
{
    vec acc[MAX_P][MAX_V];
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            acc[p][v] = vload(from + (size_t)p * from_step + v * VW);
    for (size_t r = 0; r < rows; r++, w += w_row) {
        vec b[MAX_V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            b[v] = vload(w + v * VW);
#pragma GCC unroll 4
        for (int v = 0; packs && v < V; v++)
            vstore(packed + (r * (size_t)V + (size_t)v) * VW, b[v]);
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            const vec a = vset(x[(size_t)p * x_step + r]);
#pragma GCC unroll 4
            for (int v = 0; v < V; v++)
                acc[p][v] += a * b[v];
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            vstore(y + (size_t)p * y_step + v * VW, acc[p][v]);
}

/* What becomes of a gradient: it is written, added to what is there, or taken from the weights. */
enum fate { WRITTEN, ADDED, APPLIED };

INLINE void settle_sum(vec sum, enum fate fate, vec step, float *to)
{
    if (fate == WRITTEN)
        vstore(to, sum);
    else if (fate == ADDED)
        vstore(to, sum + vload(to));
    else
        vstore(to, vload(to) + step * sum);
}

/* The gradient of P rows of inputs x V vectors of outputs: sum over s < n of x[s][p] * dy[s][o]. Of the last vector `kept`
 * names the lanes that are not padding. */
typedef void products_fn(int n, const source *x, const source *dy, float *to, size_t row, enum fate fate, vec step,
                         ivec kept);

INLINE void products(const int P, const int V, int n, const source *x, const source *dy, float *to, size_t row,
                     enum fate fate, vec step, ivec kept)
{
    vec acc[MAX_P][MAX_V];
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            acc[p][v] = vset(0);
    const float *a = x->p, *d = dy->p;
    for (int s = 0; s < n; s++, a += x->stride, d += dy->stride) {
        vec b[MAX_V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            b[v] = vload(d + v * VW);
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            const vec m = vset(a[p]);
#pragma GCC unroll 4
            for (int v = 0; v < V; v++)
                acc[p][v] += m * b[v];
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++) {
        acc[p][V - 1] = (vec)((ivec)acc[p][V - 1] & kept);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            settle_sum(acc[p][v], fate, step, to + (size_t)p * row + v * VW);
    }
}

/* dx[p][i] = VW rows of W times dy[p]: the rows past `rows` are computed and thrown away. */
INLINE void dots(const int P, size_t out, const float *w, size_t pad, const float *dy, size_t dy_step, float *dx,
                 size_t dx_step, int rows)
{
    enum { MOST = VW };
    const int R = P == 1 ? VW : DOT_ROWS, tail = (int)(out % VW);
    const size_t whole = out - (size_t)tail;
    vec sum[DOT_SAMPLES][MOST];
    for (int h = 0; h < VW; h += R) {
        vec acc[MOST][DOT_SAMPLES];
        const float *row[MOST];
#pragma GCC unroll 16
        for (int i = 0; i < R; i++) {
            row[i] = w + (size_t)(h + i < rows ? h + i : rows - 1) * pad;
#pragma GCC unroll 3
            for (int p = 0; p < P; p++)
                acc[i][p] = vset(0);
        }
        for (size_t o = 0; o < whole; o += VW) {
            vec d[DOT_SAMPLES];
#pragma GCC unroll 3
            for (int p = 0; p < P; p++)
                d[p] = vload(dy + (size_t)p * dy_step + o);
#pragma GCC unroll 16
            for (int i = 0; i < R; i++) {
                const vec b = vload(row[i] + o);
#pragma GCC unroll 3
                for (int p = 0; p < P; p++)
                    acc[i][p] += d[p] * b;
            }
        }
        if (tail)
#pragma GCC unroll 3
            for (int p = 0; p < P; p++) {
                const vec d = vload_n(dy + (size_t)p * dy_step + whole, tail);
#pragma GCC unroll 16
                for (int i = 0; i < R; i++)
                    acc[i][p] += d * vload(row[i] + whole);
            }
#pragma GCC unroll 16
        for (int i = 0; i < R; i++)
#pragma GCC unroll 3
            for (int p = 0; p < P; p++)
                sum[p][h + i] = acc[i][p];
    }
#pragma GCC unroll 3
    for (int p = 0; p < P; p++)
        vstore_n(dx + (size_t)p * dx_step, vsum_rows(sum[p]), rows < VW ? rows : VW);
}

#define LINEAR_TILE(P, V)                                                                                                   \
    KERNEL void linear_panel_##P##_##V(size_t rows, const float *x, size_t x_step, const float *w, size_t w_row,            \
                                       float *packed, const float *from, size_t from_step, float *y, size_t y_step)         \
    {                                                                                                                       \
        linear_panel(P, V, 0, rows, x, x_step, w, w_row, packed, from, from_step, y, y_step);                               \
    }                                                                                                                       \
    KERNEL void products_##P##_##V(int n, const source *x, const source *dy, float *to, size_t row, enum fate fate,         \
                                   vec step, ivec kept)                                                                     \
    {                                                                                                                       \
        products(P, V, n, x, dy, to, row, fate, step, kept);                                                                \
    }
#define PACKING_TILE(P, V)                                                                                                  \
    KERNEL void packing_linear_panel_##V(size_t rows, const float *x, size_t x_step, const float *w, size_t w_row,          \
                                         float *packed, const float *from, size_t from_step, float *y, size_t y_step)       \
    {                                                                                                                       \
        linear_panel(P, V, 1, rows, x, x_step, w, w_row, packed, from, from_step, y, y_step);                               \
    }

/* clang-format off */
LINEAR_TILE(1, 1) LINEAR_TILE(2, 1) LINEAR_TILE(3, 1) LINEAR_TILE(4, 1)
LINEAR_TILE(5, 1) LINEAR_TILE(6, 1) LINEAR_TILE(7, 1) LINEAR_TILE(8, 1)
LINEAR_TILE(1, 2) LINEAR_TILE(2, 2) LINEAR_TILE(3, 2) LINEAR_TILE(4, 2) LINEAR_TILE(5, 2) LINEAR_TILE(6, 2)
LINEAR_TILE(1, 3) LINEAR_TILE(2, 3) LINEAR_TILE(3, 3) LINEAR_TILE(4, 3)
#if VW == 16
LINEAR_TILE(7, 2) LINEAR_TILE(8, 2) LINEAR_TILE(5, 3) LINEAR_TILE(6, 3) LINEAR_TILE(7, 3) LINEAR_TILE(8, 3)
LINEAR_TILE(1, 4) LINEAR_TILE(2, 4) LINEAR_TILE(3, 4) LINEAR_TILE(4, 4) LINEAR_TILE(5, 4) LINEAR_TILE(6, 4)
PACKING_TILE(8, 1) PACKING_TILE(8, 2) PACKING_TILE(8, 3) PACKING_TILE(6, 4)
static linear_panel_fn *const packing_linear_panel[MAX_V + 1] = {0, packing_linear_panel_1, packing_linear_panel_2, packing_linear_panel_3, packing_linear_panel_4};
#else
PACKING_TILE(8, 1) PACKING_TILE(6, 2) PACKING_TILE(4, 3)
static linear_panel_fn *const packing_linear_panel[MAX_V + 1] = {0, packing_linear_panel_1, packing_linear_panel_2, packing_linear_panel_3};
#endif
static linear_panel_fn *const linear_panel_tile[MAX_V + 1][MAX_P + 1] = TILE_TABLE(linear_panel);
static products_fn *const products_tile[MAX_V + 1][MAX_P + 1] = TILE_TABLE(products);
/* clang-format on */

#endif
