/* Pooling by sums: means, norms, LeCun's subsampling, binomial filters; a row each, see pool_sums.h. Body: included by cext/isa/
 * only. */
#include "pool_sums.h"

#define POOL_ROW(id, ...) static const layer_kind layer_##id = {.name = #id, __VA_ARGS__};

/* Takes windows as a kind's geometry; NULL or a reason. */
INLINE const char *avg_set_up_windows(geometry *g, pool_side rows, pool_side columns, size_t images)
{
    if (rows.kernel < 1 || columns.kernel < 1 || rows.stride < 1 || columns.stride < 1)
        return "kernel and stride must be positive";
    if (rows.padding < 0 || columns.padding < 0 || rows.adaptive < 0 || columns.adaptive < 0)
        return "padding and numbers of windows must not be negative";
    g->out = (shape){g->in[0].c, pool_count(rows), pool_count(columns)};
    if (!g->out.h || !g->out.w)
        return "the window is larger than the input";
    if (!pool_side_is_full(rows) || !pool_side_is_full(columns))
        return "a window would hold nothing but padding";
    g->scratch_size = pool_mix_scratch(g, pool_side_entries(rows), pool_side_entries(columns), images);
    return NULL;
}

/* ---- means ---- */

enum { AVG_KH, AVG_KW, AVG_SH, AVG_SW, AVG_PH, AVG_PW, AVG_CEIL, AVG_COUNTS_PADDING, AVG_DIVISOR, AVG_ROWS, AVG_COLUMNS };

INLINE pool_side avg_pool_side(const geometry *g, int side)
{
    const int *o = g->whole;
    return (pool_side){side ? g->in[0].w : g->in[0].h,
                       o[AVG_KH + side],
                       o[AVG_SH + side],
                       o[AVG_PH + side],
                       1,
                       o[AVG_CEIL],
                       o[AVG_ROWS + side]};
}

INLINE pool_mix avg_pool_mix(const geometry *g, int side, float **scratch)
{
    const int divisor = g->whole[AVG_DIVISOR];
    if (divisor)
        return pool_mix_of_windows(avg_pool_side(g, side), BY_ONE, side ? 1 : 1 / (float)divisor, scratch);
    return pool_mix_of_windows(avg_pool_side(g, side), g->whole[AVG_COUNTS_PADDING] ? BY_WINDOW : BY_ENTRIES, 1, scratch);
}

KERNEL const char *avg_pool_set_up(geometry *g)
{
    return avg_set_up_windows(g, avg_pool_side(g, 0), avg_pool_side(g, 1), 0);
}
KERNEL void avg_pool_forward(const geometry *g, const call *c) { pool_mix_forward(g, c, avg_pool_mix, c->y); }
KERNEL void avg_pool_backward(const geometry *g, const call *c) { pool_mix_backward(g, c, avg_pool_mix); }

/* ---- norms: y = (sum of x^p)^(1/p) ---- */

enum { LP_KH, LP_KW, LP_SH, LP_SW, LP_CEIL }; /* whole options */
enum { LP_NORM }; /* real one */

INLINE pool_side lp_pool_side(const geometry *g, int side)
{
    const int *o = g->whole;
    return (pool_side){side ? g->in[0].w : g->in[0].h, o[LP_KH + side], o[LP_SH + side], 0, 1, o[LP_CEIL], 0};
}

/* The mean of a window that is cut off at the end counts for as many entries as a whole one has. */
INLINE pool_mix lp_pool_mix(const geometry *g, int side, float **scratch)
{
    return pool_mix_of_windows(lp_pool_side(g, side), BY_ENTRIES, (float)g->whole[LP_KH + side], scratch);
}

KERNEL const char *lp_pool_set_up(geometry *g)
{
    if (!(g->real[LP_NORM] >= 1))
        return "the norm must be at least 1";
    return avg_set_up_windows(g, lp_pool_side(g, 0), lp_pool_side(g, 1), 1);
}

KERNEL void lp_pool_forward(const geometry *g, const call *c)
{
    const float p = g->real[LP_NORM];
    float *scratch = c->scratch;
    const size_t C = (size_t)g->in[0].c, row = (size_t)g->in[0].w * C, size = shape_size(g->out);
    const pool_mix rows = lp_pool_mix(g, 0, &scratch), columns = lp_pool_mix(g, 1, &scratch);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        if (p == 1) {
            pool_mix_image(&rows, &columns, C, x, y, scratch);
        } else if (p == 2) {
            pool_mix_raised(POWER_TWO, p, &rows, &columns, C, x, row, y, scratch);
            for (size_t i = 0; i < size; i += VW)
                vstore(y + i, vsqrt(vload(y + i)));
        } else {
            pool_mix_raised(POWER_ANY, p, &rows, &columns, C, x, row, y, scratch);
            for (size_t i = 0; i < size; i += VW)
                vstore(y + i, vpow(vload(y + i), 1 / p));
        }
    }
}

/* dx = x^(p - 1) * (the windows' weights times dy / y^(p - 1)); none where y is 0. */
KERNEL void lp_pool_backward(const geometry *g, const call *c)
{
    const float p = g->real[LP_NORM];
    float *scratch = c->scratch, *q;
    const size_t C = (size_t)g->in[0].c, size = shape_size(g->out);
    pool_mix back[2];
    if (p == 1) {
        pool_mix_backward(g, c, lp_pool_mix);
        return;
    }
    pool_mix_both_transposed(g, lp_pool_mix, &scratch, back);
    q = scratch, scratch += size + SLACK;
    for (int n = 0; c->dx[0].p && n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride, *dy = c->dy.p + (size_t)n * c->dy.stride;
        const float *y = c->y.p + (size_t)n * c->y.stride;
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        for (size_t i = 0; i < size; i += VW) {
            const vec down = p == 2 ? vload(y + i) : vpow(vload(y + i), p - 1);
            vstore(q + i, vselect(down == 0.f, vset(0), vload(dy + i) / down));
        }
        pool_mix_image(&back[0], &back[1], C, q, dx, scratch);
        for (size_t i = 0; i < shape_size(g->in[0]); i += VW)
            vstore(dx + i, vload(dx + i) * (p == 2 ? vload(x + i) : vpow(vload(x + i), p - 1)));
    }
}

/* ---- subsampling: y = weight * mean + bias, channel by channel; keeps the means ---- */

enum { SUB_KH, SUB_KW };

INLINE pool_side subsampling_side(const geometry *g, int side)
{
    const int k = g->whole[SUB_KH + side];
    return (pool_side){side ? g->in[0].w : g->in[0].h, k, k, 0, 1, 0, 0};
}

INLINE pool_mix subsampling_mix(const geometry *g, int side, float **scratch)
{
    return pool_mix_of_windows(subsampling_side(g, side), BY_ENTRIES, 1, scratch);
}

INLINE size_t subsampling_pad(const geometry *g) { return round_up((size_t)g->in[0].c, LANES); }

KERNEL const char *subsampling_set_up(geometry *g)
{
    const char *reason = avg_set_up_windows(g, subsampling_side(g, 0), subsampling_side(g, 1), 1);
    g->weight_size = 2 * subsampling_pad(g);
    g->keep_size = round_up(shape_size(g->out), LANES) + SLACK;
    return reason;
}

KERNEL ptrdiff_t subsampling_locate(const geometry *g, int k, ptrdiff_t i)
{
    return i >= g->out.c ? -1 : k * (ptrdiff_t)subsampling_pad(g) + i;
}

/* to = weight * from + bias of one image; bias: NULL for none. */
INLINE void subsampling_scale(const geometry *g, const float *weight, const float *bias, const float *from, float *to)
{
    const size_t C = (size_t)g->out.c;
    for (size_t i = 0, P = (size_t)g->out.h * (size_t)g->out.w; i < P; i++)
        for (size_t k = 0; k < C; k += VW)
            vstore(to + i * C + k, vload(weight + k) * vload(from + i * C + k) + (bias ? vload(bias + k) : vset(0)));
}

KERNEL void subsampling_forward(const geometry *g, const call *c)
{
    pool_mix_forward(g, c, subsampling_mix, c->keep);
    for (int n = 0; n < c->n; n++)
        subsampling_scale(g, c->w, c->w + subsampling_pad(g), c->keep.p + (size_t)n * c->keep.stride,
                          c->y.p + (size_t)n * c->y.stride);
}

KERNEL void subsampling_backward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->out.c, P = (size_t)g->out.h * (size_t)g->out.w, pad = subsampling_pad(g);
    float *scratch = c->scratch, *q;
    pool_mix back[2];
    pool_mix_both_transposed(g, subsampling_mix, &scratch, back);
    q = scratch, scratch += shape_size(g->out) + SLACK;
    for (int n = 0; c->dx[0].p && n < c->n; n++) { /* before dw, which may be the weights themselves */
        subsampling_scale(g, c->w, NULL, c->dy.p + (size_t)n * c->dy.stride, q);
        pool_mix_image(&back[0], &back[1], C, q, c->dx[0].p + (size_t)n * c->dx[0].stride, scratch);
    }
    for (size_t k = 0; k < C; k += VW) {
        const int live = C - k < VW ? (int)(C - k) : VW;
        vec weight = c->first ? vset(0) : vload(c->dw + k), bias = c->first ? vset(0) : vload(c->dw + pad + k);
        for (int n = 0; n < c->n; n++) {
            const float *dy = c->dy.p + (size_t)n * c->dy.stride + k, *mean = c->keep.p + (size_t)n * c->keep.stride + k;
            for (size_t i = 0; i < P; i++) {
                weight += vload(dy + i * C) * vload(mean + i * C);
                bias += vload(dy + i * C);
            }
        }
        vstore_n(c->dw + k, weight, live);
        vstore_n(c->dw + pad + k, bias, live);
    }
}

/* ---- binomial filters ---- */

enum { BLUR_KERNEL, BLUR_SH, BLUR_SW, BLUR_PADDING };
enum { BLUR_REFLECTS, BLUR_REPLICATES, BLUR_ZEROS };
enum { BLUR_WIDEST = 32 };

INLINE int blur_count(const geometry *g, int side)
{
    return ((side ? g->in[0].w : g->in[0].h) - 1) / g->whole[BLUR_SH + side] + 1;
}

/* Binomial coefficients over 2^(kernel - 1), (kernel - 1) / 2 entries before the output's own. */
INLINE pool_mix blur_mix(const geometry *g, int side, float **scratch)
{
    const int kernel = g->whole[BLUR_KERNEL], size = side ? g->in[0].w : g->in[0].h, how = g->whole[BLUR_PADDING];
    float filter[BLUR_WIDEST] = {1};
    for (int k = 1; k < kernel; k++)
        for (int a = k; a >= 0; a--)
            filter[a] = 0.5f * ((a < k ? filter[a] : 0) + (a ? filter[a - 1] : 0));
    pool_mix m = pool_mix_in(size, blur_count(g, side), (size_t)blur_count(g, side) * (size_t)kernel, scratch);
    int32_t e = 0;
    for (int i = 0; i < m.count; i++) {
        for (int a = 0; a < kernel; a++) {
            int x = i * g->whole[BLUR_SH + side] + a - (kernel - 1) / 2;
            if (how == BLUR_ZEROS && (x < 0 || x >= size))
                continue;
            if (how == BLUR_REFLECTS)
                x = x < 0 ? -x : x >= size ? 2 * size - 2 - x : x;
            else
                x = x < 0 ? 0 : x >= size ? size - 1 : x;
            pool_mix_add(&m, &e, x, filter[a]);
        }
        m.begin[i + 1] = e;
    }
    return m;
}

KERNEL const char *blur_pool_set_up(geometry *g)
{
    const int *o = g->whole, kernel = o[BLUR_KERNEL];
    if (kernel < 1 || kernel > BLUR_WIDEST || o[BLUR_SH] < 1 || o[BLUR_SW] < 1)
        return "the kernel must be 1 to 32 wide, the stride positive";
    if (o[BLUR_PADDING] == BLUR_REFLECTS && (g->in[0].h <= kernel / 2 || g->in[0].w <= kernel / 2))
        return "half of the kernel must be smaller than the input to be reflected";
    g->out = (shape){g->in[0].c, blur_count(g, 0), blur_count(g, 1)};
    g->scratch_size = pool_mix_scratch(g, (size_t)g->out.h * (size_t)kernel, (size_t)g->out.w * (size_t)kernel, 0);
    return NULL;
}
KERNEL void blur_pool_forward(const geometry *g, const call *c) { pool_mix_forward(g, c, blur_mix, c->y); }
KERNEL void blur_pool_backward(const geometry *g, const call *c) { pool_mix_backward(g, c, blur_mix); }

static const part subsampling_parts[] = {{"weight", 0}, {"bias", 0}};

/* clang-format off */
POOL_ROW(avg_pool,    .set_up = avg_pool_set_up, .forward = avg_pool_forward, .backward = avg_pool_backward, .forgets = FORGETS_X | FORGETS_Y)
POOL_ROW(lp_pool,     .set_up = lp_pool_set_up, .forward = lp_pool_forward, .backward = lp_pool_backward)
POOL_ROW(blur_pool,   .set_up = blur_pool_set_up, .forward = blur_pool_forward, .backward = blur_pool_backward, .forgets = FORGETS_X | FORGETS_Y)
POOL_ROW(subsampling, .set_up = subsampling_set_up, .forward = subsampling_forward, .backward = subsampling_backward, .forgets = FORGETS_X | FORGETS_Y,
                      .n_parts = 2, .parts = subsampling_parts, .locate = subsampling_locate)
/* clang-format on */
