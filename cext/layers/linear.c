/* Fully connected layer y = W x + b. Body: included by cext/isa/ only.
 *
 * Weight block: [input][output padded to LANES], then one row of biases. One sample streams the block once per pass, so
 * the loops keep many outputs in registers; several samples share each weight they load. */
#include "linear_tiles.h"
#include "loops.h"

enum { LINEAR_WIDE = 12, LINEAR_NARROW = 4 };
enum { LINEAR_BIAS }; /* option */

/* geometry.derived of a linear layer. */
typedef struct {
    int bias; /* it is trained */
    int row;  /* a row of biases lies behind the weights */
} linear_plan;

static const char *const linear_name = "linear";

INLINE const linear_plan *linear_of(const geometry *g) { return (const linear_plan *)g->derived; }

INLINE size_t linear_inputs(const geometry *g) { return shape_size(g->in[0]); }
INLINE size_t linear_pad(const geometry *g) { return round_up((size_t)g->out.c, LANES); }

#include "linear_bf16.h"

KERNEL const char *linear_set_up(geometry *g)
{
    if (g->out.c < 1)
        return "the number of outputs must be positive";
    if (g->in[0].h != 1 || g->in[0].w != 1)
        return "the input must be a vector: put Flatten() before it";
    g->out.h = g->out.w = 1;
    g->rows = linear_inputs(g);
    g->columns = linear_pad(g);
    g->weight_size = (g->rows + 1) * g->columns;
    linear_halves parts;
    const size_t halves = g->bf16 ? linear_halves_at(g->rows, g->columns, NULL, &parts) : 0;
    g->scratch_size = linear_pad(g) + (halves > LINEAR_PANEL ? halves : LINEAR_PANEL);
    *(linear_plan *)g->derived = (linear_plan){g->whole[LINEAR_BIAS], 1};
    return NULL;
}

KERNEL size_t linear_slice(geometry *g, int from, int n)
{
    linear_plan *plan = (linear_plan *)g->derived;
    plan->row = from + n == g->in[0].c;
    plan->bias = plan->bias && plan->row;
    g->in[0].c = n;
    return (size_t)from * linear_pad(g);
}

KERNEL ptrdiff_t linear_locate(const geometry *g, int k, ptrdiff_t i)
{
    ptrdiff_t in = (ptrdiff_t)linear_inputs(g), out = g->out.c, pad = (ptrdiff_t)linear_pad(g);
    if (k == 1)
        return i < out ? in * pad + i : -1;
    return i < in * out ? i % in * pad + i / in : -1;
}

/* One sample, V vectors of outputs. */
INLINE void linear_row(const int V, size_t in, size_t pad, const float *x, const float *w, const float *bias, float *y,
                       int tail)
{
    vec acc[LINEAR_WIDE];
#pragma GCC unroll 12
    for (int v = 0; v < V; v++)
        acc[v] = vload(bias + v * VW);
    for (size_t i = 0; i < in; i++, w += pad) {
        vec a = vset(x[i]);
#pragma GCC unroll 12
        for (int v = 0; v < V; v++)
            acc[v] += a * vload(w + v * VW);
    }
#pragma GCC unroll 12
    for (int v = 0; v < V - 1; v++)
        vstore(y + v * VW, acc[v]);
    vstore_n(y + (V - 1) * VW, acc[V - 1], tail);
}

/* One sample streams the block: many outputs in registers. */
KERNEL void linear_forward_row(const geometry *g, const call *c, void *bias_row)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g);
    const float *bias = bias_row, *x = c->x[0].p;
    for (int o = 0, left = (g->out.c + VW - 1) / VW; left > 0;) {
        const int v = even_block(left, LINEAR_WIDE), tail = v == left ? g->out.c - o - (v - 1) * VW : VW;
        const float *w = c->w + o, *b = bias + o;
        float *y = c->y.p + o;
        switch (v) {
        case 12: linear_row(12, in, pad, x, w, b, y, tail); break;
        case 11: linear_row(11, in, pad, x, w, b, y, tail); break;
        case 10: linear_row(10, in, pad, x, w, b, y, tail); break;
        case 9: linear_row(9, in, pad, x, w, b, y, tail); break;
        case 8: linear_row(8, in, pad, x, w, b, y, tail); break;
        case 7: linear_row(7, in, pad, x, w, b, y, tail); break;
        case 6: linear_row(6, in, pad, x, w, b, y, tail); break;
        case 5: linear_row(5, in, pad, x, w, b, y, tail); break;
        case 4: linear_row(4, in, pad, x, w, b, y, tail); break;
        case 3: linear_row(3, in, pad, x, w, b, y, tail); break;
        case 2: linear_row(2, in, pad, x, w, b, y, tail); break;
        default: linear_row(1, in, pad, x, w, b, y, tail); break;
        }
        o += v * VW;
        left -= v;
    }
}

/* One sample streams the block, whose rows follow each other: so many rows at a time, with the sums in the first-level cache.
 * Inputs that are 0 (behind a ReLU, or where an image is empty) leave the sums as they are: their rows are not read. */
enum { LINEAR_STREAM = 8, LINEAR_LIST = 512 };
INLINE void linear_add_rows(const int R, size_t out, const float *value, const int32_t *at, size_t pad, const float *w,
                            float *y)
{
    const float *row[LINEAR_STREAM];
    vec a[LINEAR_STREAM];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        row[r] = w + (size_t)at[r] * pad;
        a[r] = vset(value[r]);
    }
    for (size_t o = 0; o < out; o += VW) {
        vec sum = vload(y + o);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
            sum += a[r] * vload(row[r] + o);
        vstore(y + o, sum);
    }
}

KERNEL void linear_forward_stream(const geometry *g, const call *c, void *bias_row)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g), out = (size_t)g->out.c;
    const float *bias = bias_row;
    float value[LINEAR_LIST + VW], *y = c->y.p;
    int32_t at[LINEAR_LIST + VW];
    for (size_t o = 0; o < out; o += VW)
        vstore(y + o, vload(bias + o));
    for (size_t i = 0; i < in;) {
        const size_t end = in - i < LINEAR_LIST ? in : i + LINEAR_LIST;
        int found = 0, q = 0;
        for (; i < end; i += VW)
            found += vpack_nonzero(c->x[0].p + i, end - i < VW ? (int)(end - i) : VW, (int)i, value + found, at + found);
        i = end;
        for (; q + LINEAR_STREAM <= found; q += LINEAR_STREAM)
            linear_add_rows(LINEAR_STREAM, out, value + q, at + q, pad, c->w, y);
        for (; q < found; q++)
            linear_add_rows(1, out, value + q, at + q, pad, c->w, y);
    }
}

/* Several samples share each weight they load: a panel of weights stays in the first-level cache while all of them pass. */
KERNEL void linear_forward_tiles(const geometry *g, const call *c, void *bias_row)
{
    const int vectors = (g->out.c + VW - 1) / VW; /* the first block of them is the widest */
    const size_t in = linear_inputs(g), pad = linear_pad(g),
                 most = (size_t)(LINEAR_PANEL / (even_block(vectors, MAX_V) * VW));
    float *const packed = c->scratch + pad;
    for (size_t i = 0, rows; i < in; i += rows) {
        rows = in - i < most ? in - i : most;
        for (int o = 0, left = vectors, v; left > 0; o += v * VW, left -= v) {
            v = even_block(left, MAX_V);
            const int packs = c->n > tile_rows[v];
            for (int n = 0, p; n < c->n; n += p) {
                p = c->n - n < tile_rows[v] ? c->n - n : tile_rows[v];
                const int first = n == 0, old = packs && !first;
                float *y = c->y.p + (size_t)n * c->y.stride + o;
                (packs && first ? packing_linear_panel[v] : linear_panel_tile[v][p])(
                    rows, c->x[0].p + (size_t)n * c->x[0].stride + i, c->x[0].stride, old ? packed : c->w + i * pad + o,
                    old ? (size_t)(v * VW) : pad, packed, i ? y : (const float *)bias_row + o, i ? c->y.stride : 0, y,
                    c->y.stride);
            }
        }
    }
}

/* ---- the gradient of the weights ---- */

/* Lanes of the last of `vectors` vectors of outputs from o on that are outputs, not padding. */
INLINE ivec linear_kept(const geometry *g, int o, int vectors)
{
    ivec lane;
    for (int i = 0; i < VW; i++)
        lane[i] = i;
    return lane < iset(g->out.c - o - (vectors - 1) * VW);
}

/* Columns [o, end) of row i, of whole vectors, for few samples: the row is written as it lies. */
INLINE void linear_row_products(const int N, const geometry *g, const call *c, size_t i, size_t o, size_t end, float *to,
                                enum fate fate, vec step)
{
    const size_t in = linear_inputs(g), out = (size_t)g->out.c;
    vec a[LINEAR_NARROW];
#pragma GCC unroll 4
    for (int s = 0; s < N; s++)
        a[s] = vset(i < in ? c->x[0].p[(size_t)s * c->x[0].stride + i] : 1);
    for (; o < end && o < out; o += VW, to += VW) {
        vec sum = vset(0);
        if (out - o < VW)
#pragma GCC unroll 4
            for (int s = 0; s < N; s++)
                sum += a[s] * vload_n(c->dy.p + (size_t)s * c->dy.stride + o, (int)(out - o));
        else
#pragma GCC unroll 4
            for (int s = 0; s < N; s++)
                sum += a[s] * vload(c->dy.p + (size_t)s * c->dy.stride + o);
        settle_sum(sum, fate, step, to);
    }
}

/* The same for any number of samples; i may be the row of biases. */
KERNEL void linear_piece(const geometry *g, const call *c, size_t i, size_t o, size_t end, float *to, enum fate fate,
                         vec step)
{
    const source one = {&(const float){1}, 0};
    source x = i < linear_inputs(g) ? (source){c->x[0].p + i, c->x[0].stride} : one;
    for (; o < end && o < (size_t)g->out.c; o += VW, to += VW) {
        const source dy = {c->dy.p + o, c->dy.stride};
        products_tile[1][1](c->n, &x, &dy, to, 0, fate, step, linear_kept(g, (int)o, 1));
    }
}

/* Rows [i, end), which do not include the biases. */
KERNEL void linear_products(const geometry *g, const call *c, size_t i, size_t end, float *to, enum fate fate, float step)
{
    const size_t pad = linear_pad(g), from = i;
    const vec by = vset(step);
    if (c->n < LINEAR_NARROW) {
        for (; i < end; i++, to += pad)
            switch (c->n) {
            case 3: linear_row_products(3, g, c, i, 0, pad, to, fate, by); break;
            case 2: linear_row_products(2, g, c, i, 0, pad, to, fate, by); break;
            default: linear_row_products(1, g, c, i, 0, pad, to, fate, by); break;
            }
        return;
    }
    for (int o = 0, left = (g->out.c + VW - 1) / VW, v; left > 0; o += v * VW, left -= v) {
        v = even_block(left, MAX_V);
        const source dy = {c->dy.p + o, c->dy.stride};
        const ivec kept = linear_kept(g, o, v);
        for (i = from; i < end;) {
            const int rows = end - i < (size_t)tile_rows[v] ? (int)(end - i) : tile_rows[v];
            const source x = {c->x[0].p + i, c->x[0].stride};
            products_tile[v][rows](c->n, &x, &dy, to + (i - from) * pad + (size_t)o, pad, fate, by, kept);
            i += (size_t)rows;
        }
    }
}

/* w[i][o] += step * (x[i] * dy[o]) for whole rows of V vectors. */
INLINE void linear_rank_one(const int V, size_t rows, const float *x, const vec *dy, vec step, float *w)
{
    vec d[LINEAR_NARROW];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
        d[v] = dy[v];
    for (size_t i = 0; i < rows; i++, w += V * VW) {
        const vec a = vset(x[i]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            vstore(w + v * VW, vload(w + v * VW) + step * (a * d[v]));
    }
}

/* Rows [i, i + rows) for one sample. Where an input is 0 the row of weights stays as it is, unread. */
INLINE void linear_apply_one(const geometry *g, const call *c, size_t i, size_t rows, float *w, vec step)
{
    const size_t pad = linear_pad(g), out = (size_t)g->out.c;
    const float *x = c->x[0].p + i;
    if (pad <= LINEAR_NARROW * VW) {
        vec dy[LINEAR_NARROW];
        for (size_t v = 0; v < pad / VW; v++)
            dy[v] = v * VW + VW <= out ? vload(c->dy.p + v * VW)
                    : v * VW < out     ? vload_n(c->dy.p + v * VW, (int)(out - v * VW))
                                       : vset(0);
        switch (pad / VW) {
        case 4: linear_rank_one(4, rows, x, dy, step, w); break;
        case 3: linear_rank_one(3, rows, x, dy, step, w); break;
        case 2: linear_rank_one(2, rows, x, dy, step, w); break;
        default: linear_rank_one(1, rows, x, dy, step, w); break;
        }
        return;
    }
    for (size_t r = 0; r < rows; r++, w += pad)
        if (x[r] != 0)
            linear_row_products(1, g, c, i + r, 0, pad, w, APPLIED, step);
}

/* Stripes of wide layers are few rows, or parts of one: too few for a tile. */
KERNEL int linear_applies(const geometry *g, int n)
{
    return n == 1 || (linear_pad(g) <= 512 && !(g->bf16 && halves_pay(g, n, BF16_DEPTH)));
}

/* A gradient that is applied while it is in registers is neither written nor read: of one sample it is a matrix of rank one,
 * of several a sum of such. Rounded as if it were written: an update has the same bits whether or not it waited. */
KERNEL void linear_apply(const geometry *g, const call *c, size_t from, size_t n, float *w, float lr)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g), end = from + n;
    const vec step = vset(-lr);
    for (size_t run; from < end; from += run) {
        const size_t i = from / pad, o = from % pad, rows = i < in ? (end - from) / pad : 0;
        run = pad - o < end - from ? pad - o : end - from;
        if (i < in && !o && rows) {
            const size_t whole = rows < in - i ? rows : in - i;
            if (c->n == 1)
                linear_apply_one(g, c, i, whole, w + from, step);
            else
                linear_products(g, c, i, i + whole, w + from, APPLIED, -lr);
            run = whole * pad;
        } else if (i < in || linear_of(g)->bias) {
            linear_piece(g, c, i, o, o + run, w + from, APPLIED, step);
        }
    }
}

KERNEL void linear_dw(const geometry *g, const call *c, void *work)
{
    linear_products(g, c, 0, linear_inputs(g), c->dw, c->first ? WRITTEN : ADDED, 0);
}

KERNEL void linear_bias_gradient(const geometry *g, const call *c)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g);
    linear_piece(g, c, in, 0, pad, c->dw + in * pad, c->first ? WRITTEN : ADDED, vset(0));
}

/* ---- the gradient of the input ---- */

/* A few rows of weights at a time meet all samples. */
KERNEL void linear_dx_dots(const geometry *g, const call *c, void *work)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g), out = (size_t)g->out.c;
    for (size_t i = 0; i < in; i += VW) {
        const int rows = in - i < VW ? (int)(in - i) : VW;
        const float *w = c->w + i * pad;
        for (int n = 0, p; n < c->n; n += p) {
            const float *dy = c->dy.p + (size_t)n * c->dy.stride;
            float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride + i;
            switch (p = c->n - n < DOT_SAMPLES ? c->n - n : DOT_SAMPLES) {
            case 3: dots(3, out, w, pad, dy, c->dy.stride, dx, c->dx[0].stride, rows); break;
            case 2: dots(2, out, w, pad, dy, c->dy.stride, dx, c->dx[0].stride, rows); break;
            default: dots(1, out, w, pad, dy, c->dy.stride, dx, c->dx[0].stride, rows); break;
            }
        }
    }
}

/* P samples, of VW inputs whose weights lie transposed. */
INLINE void linear_narrow_dx(const int P, int out, const vec *w, const float *dy, size_t dy_step, float *dx, size_t dx_step,
                             int rows)
{
    vec acc[LINEAR_NARROW];
#pragma GCC unroll 4
    for (int p = 0; p < P; p++)
        acc[p] = vset(0);
    for (int o = 0; o < out; o++)
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
            acc[p] += dy[(size_t)p * dy_step + (size_t)o] * w[o];
#pragma GCC unroll 4
    for (int p = 0; p < P; p++)
        vstore_n(dx + (size_t)p * dx_step, acc[p], rows);
}

/* Of few outputs a dot product is mostly the sum of its lanes. Several samples share rows of weights that are transposed (128
 * inputs of 10 outputs, 64 samples: 0.07 us each instead of 0.17). */
KERNEL void linear_dx_transposed(const geometry *g, const call *c, void *work)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g);
    vec w[LANES];
    for (size_t i = 0; i < in; i += VW) {
        const int rows = in - i < VW ? (int)(in - i) : VW;
        for (int o = 0; o < g->out.c; o += 4)
            vcolumns(c->w + i * pad + o, pad, rows, w + o);
        int n = 0;
        for (; n + LINEAR_NARROW <= c->n; n += LINEAR_NARROW)
            linear_narrow_dx(LINEAR_NARROW, g->out.c, w, c->dy.p + (size_t)n * c->dy.stride, c->dy.stride,
                             c->dx[0].p + (size_t)n * c->dx[0].stride + i, c->dx[0].stride, rows);
        for (; n < c->n; n++)
            linear_narrow_dx(1, g->out.c, w, c->dy.p + (size_t)n * c->dy.stride, c->dy.stride,
                             c->dx[0].p + (size_t)n * c->dx[0].stride + i, c->dx[0].stride, rows);
    }
}

/* Of many samples: a panel of weights is transposed, and stays in the first-level cache while all of them pass, as forward. */
KERNEL void linear_dx_panels(const geometry *g, const call *c, void *work)
{
    static const float nothing[MAX_V * VW];
    const size_t in = linear_inputs(g), pad = linear_pad(g), out = (size_t)g->out.c;
    float *const panel = c->scratch + pad;
    int v = 0;
    for (size_t i = 0, left = in / VW; left > 0; i += (size_t)v * VW, left -= (size_t)v) {
        v = even_block((int)left, MAX_V);
        const size_t width = (size_t)v * VW, most = LINEAR_PANEL / width & ~(size_t)3;
        for (size_t o = 0, rows; o < out; o += rows) {
            rows = out - o < most ? out - o : most;
            for (size_t k = 0; k < rows; k += 4)
                for (int b = 0; b < v; b++) {
                    vec column[4];
                    vcolumns(c->w + (i + (size_t)b * VW) * pad + o + k, pad, VW, column);
                    for (size_t j = 0; j < 4; j++)
                        vstore(panel + (k + j) * width + b * VW, column[j]);
                }
            for (int n = 0, p; n < c->n; n += p) {
                p = c->n - n < tile_rows[v] ? c->n - n : tile_rows[v];
                float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride + i;
                linear_panel_tile[v][p](rows, c->dy.p + (size_t)n * c->dy.stride + o, c->dy.stride, panel, width, NULL,
                                        o ? dx : nothing, o ? c->dx[0].stride : 0, dx, c->dx[0].stride);
            }
        }
    }
}

/* ---- which loop runs ---- */

KERNEL int linear_is_single(const geometry *g, const call *c, int sparse) { return c->n == 1; }
KERNEL int linear_is_narrow(const geometry *g, const call *c, int sparse) { return g->out.c <= LINEAR_WIDE * VW; }

static const loop linear_forward_loops[] = {{"bf16", linear_has_halves, linear_halves_pay, linear_forward_halves, 0},
                                            {"one row", linear_is_single, linear_is_narrow, linear_forward_row, 0},
                                            {"stream", linear_is_single, NULL, linear_forward_stream, 0},
                                            {"tiles", NULL, NULL, linear_forward_tiles, 0},
                                            {0}};
static const loop linear_dw_loops[] = {
    {"bf16", linear_has_halves, linear_halves_pay_dw, linear_dw_halves, 0}, {"products", NULL, NULL, linear_dw, 0}, {0}};
KERNEL int linear_fits_lanes(const geometry *g, const call *c, int sparse) { return g->out.c <= LANES; }
KERNEL int linear_is_several(const geometry *g, const call *c, int sparse) { return c->n >= LINEAR_NARROW; }
KERNEL int linear_fills_vectors(const geometry *g, const call *c, int sparse) { return linear_inputs(g) % VW == 0; }
KERNEL int linear_are_many(const geometry *g, const call *c, int sparse) { return c->n >= 16; }

static const loop linear_dx_loops[] = {{"bf16", linear_has_halves, linear_halves_pay, linear_dx_halves, 0},
                                       {"transposed", linear_fits_lanes, linear_is_several, linear_dx_transposed, 0},
                                       {"panels", linear_fills_vectors, linear_are_many, linear_dx_panels, 0},
                                       {"dot products", NULL, NULL, linear_dx_dots, 0},
                                       {0}};
static const loop *const linear_loops[] = {linear_forward_loops, linear_dw_loops, linear_dx_loops};

INLINE const loop *linear_loop_for(const geometry *g, const call *c, enum pass pass)
{
    return loop_for(linear_loops[pass], g, c, 0, linear_name, pass);
}

KERNEL void linear_forward(const geometry *g, const call *c)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g);
    float *none = linear_of(g)->row ? NULL : memset(c->scratch, 0, pad * sizeof(float));
    linear_loop_for(g, c, PASS_FORWARD)->run(g, c, none ? none : (float *)c->w + in * pad);
}

KERNEL void linear_backward(const geometry *g, const call *c)
{
    if (c->dx[0].p) /* first, because dw may be the weights themselves */
        linear_loop_for(g, c, PASS_BACKWARD)->run(g, c, NULL);
    if (c->dw && !c->frozen) {
        linear_loop_for(g, c, PASS_WEIGHT_GRADIENT)->run(g, c, NULL);
        if (linear_of(g)->bias)
            linear_bias_gradient(g, c);
    }
}

KERNEL const char *linear_loop(const geometry *g, const call *c, enum pass pass)
{
    if (pass == PASS_UPDATE) /* only what `apply` does is this kind's */
        return c->dw ? NULL : c->n == 1 ? "rank one" : "products";
    if (pass == PASS_WEIGHT_GRADIENT && !c->dw)
        return "left to the update";
    return linear_loop_for(g, c, pass)->name;
}

KERNEL const char *linear_loop_at(enum pass pass, int i)
{
    return pass == PASS_UPDATE ? NULL : loop_name(linear_loops[pass], i);
}

static const part linear_parts[] = {{"weight", 0}, {"bias", 0}};
static const layer_kind layer_linear = {.name = "linear",
                                        .n_parts = 2,
                                        .parts = linear_parts,
                                        .set_up = linear_set_up,
                                        .locate = linear_locate,
                                        .forward = linear_forward,
                                        .backward = linear_backward,
                                        .forgets = FORGETS_Y,
                                        .applies = linear_applies,
                                        .apply = linear_apply,
                                        .slice = linear_slice,
                                        .loop = linear_loop,
                                        .loop_at = linear_loop_at};
