/* Fully connected layer y = W x + b. Body: included by cext/isa/ only.
 *
 * Weight block: [input][output padded to LANES], then one row of biases. One sample streams the block once per pass, so
 * the loops keep many outputs in registers; several samples share each weight they load. */
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
    g->scratch_size = linear_pad(g);
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

/* Several samples share each weight they load. */
KERNEL void linear_forward_tiles(const geometry *g, const call *c, void *bias_row)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g);
    const float *bias = bias_row;
    const ptrdiff_t whole = 0;
    for (int o = 0, left = (g->out.c + VW - 1) / VW; left > 0;) {
        const int v = even_block(left, MAX_V), tail = v == left ? g->out.c - o - (v - 1) * VW : VW;
        for (int n = 0; n < c->n;) {
            const int rows = c->n - n < tile_rows[v] ? c->n - n : tile_rows[v];
            ptrdiff_t at[MAX_P];
            for (int i = 0; i < rows; i++)
                at[i] = (ptrdiff_t)((size_t)(n + i) * c->x[0].stride);
            multiply_tile[v][rows](c->x[0].p, at, 1, &whole, (int)in, c->w + o, pad, bias + o,
                                   c->y.p + (size_t)n * c->y.stride + o, c->y.stride, tail);
            n += rows;
        }
        o += v * VW;
        left -= v;
    }
}

/* dy of a sample with zeros behind it up to the padded length. */
INLINE const float *linear_dy(const geometry *g, const call *c, int n)
{
    const float *dy = c->dy.p + (size_t)n * c->dy.stride;
    const size_t out = (size_t)g->out.c, whole = out / VW * VW;
    for (size_t o = 0; o < whole; o += VW)
        vstore(c->scratch + o, vload(dy + o));
    for (size_t o = whole, pad = linear_pad(g); o < pad; o += VW)
        vstore(c->scratch + o, o < out ? vload_n(dy + o, (int)(out - o)) : vset(0));
    return c->scratch;
}

/* w[i][o] += step * (x[i] * dy[o]) for whole rows of V vectors. */
INLINE void linear_rank_one(const int V, size_t rows, const float *x, const float *dy, vec step, float *w)
{
    vec d[LINEAR_NARROW];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
        d[v] = vload(dy + v * VW);
    for (size_t i = 0; i < rows; i++, w += V * VW) {
        const vec a = vset(x[i]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            vstore(w + v * VW, vload(w + v * VW) + step * (a * d[v]));
    }
}

/* The gradient of one sample has rank one, its rows are multiples of dy: applying it saves writing and reading a matrix.
 * Rounded as if it were written: an update has the same bits whether or not it waited. */
KERNEL void linear_apply(const geometry *g, const call *c, size_t from, size_t n, float *w, float lr)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g), end = from + n;
    const float *dy = linear_dy(g, c, 0);
    const vec step = vset(-lr);
    size_t i = from / pad, o = from % pad;
    if (!o && i < in && pad <= LINEAR_NARROW * VW) {
        const size_t rows = n / pad < in - i ? n / pad : in - i;
        switch (pad / VW) {
        case 4: linear_rank_one(4, rows, c->x[0].p + i, dy, step, w + from); break;
        case 3: linear_rank_one(3, rows, c->x[0].p + i, dy, step, w + from); break;
        case 2: linear_rank_one(2, rows, c->x[0].p + i, dy, step, w + from); break;
        default: linear_rank_one(1, rows, c->x[0].p + i, dy, step, w + from); break;
        }
        i += rows;
        from += rows * pad;
    }
    for (; from < end; i++, o = 0) {
        const vec x = vset(i < in ? c->x[0].p[i] : (float)linear_of(g)->bias);
        for (; o < pad && from < end; o += VW, from += VW)
            vstore(w + from, vload(w + from) + step * (x * vload(dy + o)));
    }
}

KERNEL void linear_dw_rank_one(const geometry *g, const call *c, void *work)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g);
    const float *dy = linear_dy(g, c, 0);
    for (size_t i = 0; i < in; i++) {
        vec a = vset(c->x[0].p[i]);
        for (size_t o = 0; o < pad; o += VW)
            vstore(c->dw + i * pad + o, a * vload(dy + o));
    }
}

KERNEL void linear_dw_tiles(const geometry *g, const call *c, void *work)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g);
    const int out = g->out.c;
    pixel_walk walk = {c->n, 1, 1, c->x[0], c->dy, 0, 0, out};
    for (int o = 0, left = (out + VW - 1) / VW; left > 0;) {
        const int v = even_block(left, MAX_V), tail = v == left ? out - o - (v - 1) * VW : VW;
        for (size_t i = 0; i < in;) {
            const int rows = in - i < (size_t)tile_rows[v] ? (int)(in - i) : tile_rows[v];
            outer_tile[v][rows](&walk, (ptrdiff_t)i, o, c->dw + i * pad + o, pad, c->first, tail);
            i += rows;
        }
        o += v * VW;
        left -= v;
    }
}

KERNEL void linear_bias_gradient(const geometry *g, const call *c)
{
    float *db = c->dw + linear_inputs(g) * linear_pad(g);
    for (int n = 0; n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        for (int o = 0; o < g->out.c; o++)
            db[o] = c->first && n == 0 ? dy[o] : db[o] + dy[o];
    }
}

/* dx[i .. i + VW) = VW rows of W times dy; the rows past `in` are computed and thrown away. */
INLINE void linear_rows(const float *w, size_t pad, const float *dy, float *dx, int rows)
{
    vec acc[VW];
#pragma GCC unroll 16
    for (int i = 0; i < VW; i++)
        acc[i] = vset(0);
    for (size_t o = 0; o < pad; o += VW) {
        vec d = vload(dy + o);
#pragma GCC unroll 16
        for (int i = 0; i < VW; i++)
            acc[i] += d * vload(w + (size_t)(i < rows ? i : rows - 1) * pad + o);
    }
    vstore_n(dx, vsum_rows(acc), rows);
}

KERNEL void linear_dx_rows(const geometry *g, const call *c, void *work)
{
    const size_t in = linear_inputs(g), pad = linear_pad(g);
    for (int n = 0; n < c->n; n++) {
        const float *dy = linear_dy(g, c, n);
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        size_t i = 0;
        for (; i + VW <= in; i += VW)
            linear_rows(c->w + i * pad, pad, dy, dx + i, VW);
        if (i < in)
            linear_rows(c->w + i * pad, pad, dy, dx + i, (int)(in - i));
    }
}

/* ---- which loop runs ---- */

KERNEL int linear_is_single(const geometry *g, const call *c, int sparse) { return c->n == 1; }
KERNEL int linear_is_alone(const geometry *g, const call *c, int sparse) { return c->n == 1 && c->first; }

static const loop linear_forward_loops[] = {
    {"one row", linear_is_single, NULL, linear_forward_row, 0}, {"tiles", NULL, NULL, linear_forward_tiles, 0}, {0}};
static const loop linear_dw_loops[] = {
    {"rank one", linear_is_alone, NULL, linear_dw_rank_one, 0}, {"tiles", NULL, NULL, linear_dw_tiles, 0}, {0}};
static const loop linear_dx_loops[] = {{"dot products", NULL, NULL, linear_dx_rows, 0}, {0}};
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
        return c->dw ? NULL : "rank one";
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
                                        .apply = linear_apply,
                                        .slice = linear_slice,
                                        .loop = linear_loop,
                                        .loop_at = linear_loop_at};
