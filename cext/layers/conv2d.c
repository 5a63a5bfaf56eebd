/* Convolution (cross-correlation) with stride, zero padding, dilation and groups. Body: included by cext/isa/ only.
 *
 * Weight block, for each group: [ky][kx][input channel][output channel padded to LANES], then one row of biases (depthwise:
 * [ky][kx][channel padded], then the biases). With channels innermost a row of a patch is kw*C contiguous floats of the
 * input, so neither im2col nor col2im is needed.
 *   forward          vectors over output channels, tiles of pixels; one-channel images share what neighbours load, pixels
 *                    with few channels share a vector; Winograd's algorithm where it saves more than it costs
 *   weight gradient  dense dy: vectors over output channels, tiles of patch entries, summed over all pixels in registers;
 *                    sparse dy: vectors over patch rows, one output channel at a time, its non-zero pixels only (copies of
 *                    the input that no load crosses a line of: see conv_view); small kernels and one-channel images have
 *                    loops of their own
 *   data gradient    vectors over patch rows with transposed weights, one pixel at a time, its non-zero channels only
 * dy is sparse behind max-pooling, which leaves one entry per window, and often behind ReLU. A max-pooling that only this
 * layer feeds hands its winners through (call.pool), so that nothing has to be searched for.
 * Padding: forward keeps a copy of the input with a zero frame; the data gradient is formed in such a frame and cropped. */

#include "conv2d_shape.h"
#include "conv2d_forward.h"
#include "conv2d_gradients.h"
#include "conv2d_winograd.h"
#include "conv2d_windows.h"

KERNEL const char *conv2d_set_up(geometry *g)
{
    const int *o = g->option;
    if (o[KH] < 1 || o[KW] < 1 || o[STRIDE_H] < 1 || o[STRIDE_W] < 1 || o[DILATION_H] < 1 || o[DILATION_W] < 1 ||
        g->out.c < 1)
        return "kernel, stride, dilation and channels must be positive";
    if (o[PAD_TOP] < 0 || o[PAD_BOTTOM] < 0 || o[PAD_LEFT] < 0 || o[PAD_RIGHT] < 0)
        return "padding must not be negative";
    if (o[GROUPS] < 1 || g->in[0].c % o[GROUPS] || g->out.c % o[GROUPS])
        return "input and output channels must be multiples of groups";
    const int64_t H = (int64_t)g->in[0].h + o[PAD_TOP] + o[PAD_BOTTOM], W = (int64_t)g->in[0].w + o[PAD_LEFT] + o[PAD_RIGHT];
    const int64_t reach_h = (int64_t)(o[KH] - 1) * o[DILATION_H], reach_w = (int64_t)(o[KW] - 1) * o[DILATION_W];
    const int64_t most = INT32_MAX; /* offsets within a sample or a kernel are 32-bit numbers */
    if (H > most || W > most || reach_h > most || reach_w > most || H * W > most / g->in[0].c ||
        (int64_t)o[KH] * o[KW] > most / g->in[0].c / (g->out.c + LANES))
        return "the padded input or the kernel is too large: more than 2^31 - 1 numbers";
    const int winograd = g->winograd;
    g->winograd = g->winograd_dx = 0;
    conv_shape s = conv_of(g);
    const int high = (int)reach_h + 1, wide = (int)reach_w + 1;
    if (s.H < high || s.W < wide)
        return "the kernel is larger than the padded input";
    g->out.h = (s.H - high) / s.sh + 1;
    g->out.w = (s.W - wide) / s.sw + 1;
    /* strides and dilations of a single step have no effect, however large: products of them need not be feared below */
    if (g->out.h == 1)
        g->option[STRIDE_H] = 1;
    if (g->out.w == 1)
        g->option[STRIDE_W] = 1;
    if (o[KH] == 1)
        g->option[DILATION_H] = 1;
    if (o[KW] == 1)
        g->option[DILATION_W] = 1;
    s = conv_of(g);
    g->option[PACKED_PART] = packed_part(&s);
    g->winograd = winograd && !g->option[PACKED_PART] ? winograd_tile(&s) : 0;
    conv_shape adjoint = adjoint_of(g, &s);
    if (winograd && o[PAD_TOP] < s.kh && o[PAD_BOTTOM] < s.kh && o[PAD_LEFT] < s.kw && o[PAD_RIGHT] < s.kw && s.sh == 1 &&
        s.sw == 1 && s.dh == 1 && s.dw == 1 && s.groups == 1)
        g->winograd_dx = winograd_tile(&adjoint);
    adjoint = adjoint_of(g, &s);
    s = conv_of(g);
    conv_scratch parts;
    g->rows = (size_t)s.K * s.R;
    g->columns = is_depthwise(&s) ? round_up((size_t)s.groups, LANES) : s.o_pad;
    g->weight_size = (g->rows + 1) * g->columns * (is_depthwise(&s) ? 1 : (size_t)s.groups);
    g->keep_size = s.padded ? conv_frame(&s) : 0;
    g->scratch_size = conv_scratch_at(&s, &adjoint, NULL, &parts);
    return NULL;
}

KERNEL ptrdiff_t conv2d_locate(const geometry *g, int k, ptrdiff_t i)
{
    const conv_shape s = conv_of(g);
    const ptrdiff_t taps = (ptrdiff_t)s.kh * s.kw, o = k == 1 ? i : i / taps / s.C;
    if (o >= s.y_step)
        return -1;
    const ptrdiff_t c = i / taps % s.C, row = k == 1 ? taps * s.C : i % taps * s.C + c;
    if (is_depthwise(&s))
        return row * (ptrdiff_t)round_up((size_t)s.groups, LANES) + o;
    return o / s.O * (ptrdiff_t)s.block + row * (ptrdiff_t)s.o_pad + o % s.O;
}

KERNEL void conv2d_forward(const geometry *g, const call *c)
{
    const conv_shape s = conv_of(g);
    conv_scratch t;
    const conv_shape adjoint = adjoint_of(g, &s);
    conv_scratch_at(&s, &adjoint, c->scratch, &t);
#if VW == 16
    if (s.part)
        conv2d_spread(&s, &t, c->w);
#endif
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        if (s.padded) {
            float *frame = c->keep.p + (size_t)n * c->keep.stride;
            frame_in(g, &s, x, frame);
            x = frame;
        }
        if (s.wino)
            continue;
        if (is_depthwise(&s))
            depthwise_forward(&s, &t, x, c->w, y);
#if VW == 16
        else if (s.part)
            conv2d_packed_forward(&s, &t, x, y);
#endif
        else if (takes_strips(&s))
            conv2d_strip_forward(&s, x, c->w, c->w + s.block - s.o_pad, y);
        else
            for (int group = 0; group < s.groups; group++) {
                const float *w = c->w + group * s.block;
                conv2d_tile_forward(&s, &t, x + group * s.C, w, w + s.block - s.o_pad, y + group * s.O);
            }
    }
    if (s.wino)
        conv2d_winograd_forward(&s, &t, c, s.padded ? (source){c->keep.p, c->keep.stride} : c->x[0]);
}

/* The data gradient of one sample goes here first: dx itself or the frame around it. */
INLINE int has_frame(const conv_shape *s, const conv_view *v) { return s->padded || v->pixel != s->x_step; }

INLINE float *dx_of(const conv_shape *s, const conv_view *v, const conv_scratch *t, const call *c, int n)
{
    return has_frame(s, v) ? t->frame : c->dx[0].p + (size_t)n * c->dx[0].stride;
}

INLINE void clear_dx(const conv_shape *s, const conv_view *v, float *dx)
{
    memset(dx, 0, (size_t)s->H * s->W * v->pixel * sizeof(float));
}

KERNEL void depthwise_backward(const geometry *g, const conv_shape *s, const conv_scratch *t, const call *c, source x)
{
    const conv_view v = view_of(s, 0);
    for (int n = 0; c->dx[0].p && n < c->n; n++) {
        float *dx = dx_of(s, &v, t, c, n);
        clear_dx(s, &v, dx);
        depthwise_data_gradient(s, t, c->dy.p + (size_t)n * c->dy.stride, c->w, dx);
        if (s->padded)
            frame_out(g, s, &v, dx, c->dx[0].p + (size_t)n * c->dx[0].stride);
    }
    depthwise_weight_gradient(s, t, c, x, s->K + g->option[HAS_BIAS]);
}

INLINE call conv2d_one_sample(const call *c, int n)
{
    call one = *c;
    one.n = 1;
    one.first = c->first && n == 0;
    one.x[0].p += (size_t)n * c->x[0].stride;
    one.y.p += (size_t)n * c->y.stride;
    one.keep.p += (size_t)n * c->keep.stride;
    one.dy.p += (size_t)n * c->dy.stride;
    if (c->pool)
        one.won.p += (size_t)n * c->won.stride;
    if (c->dx[0].p)
        one.dx[0].p += (size_t)n * c->dx[0].stride;
    return one;
}

/* Everything that goes through the non-zero entries: one sample, one group. */
KERNEL void conv2d_listed_gradients(const geometry *g, const conv_shape *s, const conv_view *v, conv_scratch *t,
                                    const call *c, int group, int sparse)
{
    const geometry *pool = c->pool;
    const float *w = c->w + group * s->block, *dy = c->dy.p + group * s->O;
    const int32_t *won = pool ? c->won.p + group * s->O : NULL;
    float *dx = c->dx[0].p ? dx_of(s, v, t, c, 0) + group * s->C : NULL;
    const float *x = (s->padded ? c->keep.p : c->x[0].p) + group * s->C;
    float *dw = c->dw + group * s->block;
    const int few = has_few(s, pool), windows = pool && takes_short_rows(s), whole = pool && takes_whole_kernels(s);
    if (!pool)
        conv2d_find(s, t, dy);
    else if (dx && !few)
        conv2d_find_winners(s, t, pool, dy, won);
    if (pool && !windows && !whole)
        conv2d_sort_winners(s, v, t, pool, dy, won);
    else if (sparse && !pool)
        conv2d_sort(s, t);
    if (dx && few) /* before the weight gradient, because dw may be the weights themselves */
        conv2d_scatter_data_gradient(g, s, t, pool, dy, won, w, c->dx[0].p);
    else if (dx)
        conv2d_data_gradient(s, v, t, w, dx);
#if VW == 16
    if (pool && takes_woven_rows(s))
        conv2d_woven_weight_gradient(s, t, pool, dy, won, x, c->first, dw);
    else
#endif
        if (windows)
        conv2d_windows_weight_gradient(s, t, pool, dy, won, x, c->first, dw);
    else if (whole)
        conv2d_whole_weight_gradient(s, t, pool, dy, won, x, c->first, dw);
    else if (sparse)
        conv2d_sparse_weight_gradient(s, v, t, view_in(s, v, x, t->image),
                                      pool ? rows_together(s, v, pool) * pool->out.w : t->room, c->first, dw);
}

/* The view that the loops behind this pooling take; NULL: that of all others. */
INLINE conv_view conv2d_view(const conv_shape *s, const geometry *pool)
{
    return view_of(s, pool && !takes_short_rows(s) && !has_few(s, pool));
}

KERNEL void conv2d_backward(const geometry *g, const call *c)
{
    const conv_shape s = conv_of(g);
    const source x = s.padded ? (source){c->keep.p, c->keep.stride} : c->x[0];
    const geometry *pool = c->pool;
    const int sparse = pool || conv2d_is_sparse(&s, c), few = has_few(&s, pool);
    const conv_view v = conv2d_view(&s, pool);
    conv_scratch t;
    const conv_shape adjoint = adjoint_of(g, &s);
    conv_scratch_at(&s, &adjoint, c->scratch, &t);
    if (is_depthwise(&s)) {
        depthwise_backward(g, &s, &t, c, x);
        return;
    }
    for (int a = 0, number = 0; pool && a < pool->option[0]; a++)
        for (int b = 0; b < pool->option[1]; b++)
            t.window[number++] = (int32_t)view_patch(&s, &v, a, b);
    const int dx_first = !sparse && c->dx[0].p && adjoint.wino;
    if (dx_first)
        conv2d_winograd_data_gradient(g, &s, &adjoint, &t, c);
    for (int n = 0; n < c->n && (sparse || c->dx[0].p) && !dx_first; n++) {
        const call one = conv2d_one_sample(c, n);
        const int framed = one.dx[0].p && !few;
        if (framed)
            clear_dx(&s, &v, dx_of(&s, &v, &t, &one, 0));
        for (int group = 0; group < s.groups; group++)
            conv2d_listed_gradients(g, &s, &v, &t, &one, group, sparse);
        if (framed && has_frame(&s, &v))
            frame_out(g, &s, &v, t.frame, one.dx[0].p);
    }
    for (int group = 0; group < s.groups; group++) {
        const source dy = {c->dy.p + group * s.O, c->dy.stride};
        float *dw = c->dw + group * s.block;
        if (!sparse && s.wino)
            conv2d_winograd_weight_gradient(&s, &t, c, x);
        else if (!sparse)
            conv2d_dense_weight_gradient(&s, &t, c, (source){x.p + group * s.C, x.stride}, dy, dw);
        if (g->option[HAS_BIAS])
            conv2d_bias_gradient(&s, c, dy, pool ? (size_t)pool->out.h * pool->out.w : (size_t)s.OH * s.OW,
                                 dw + s.block - s.o_pad);
    }
}

KERNEL const char *conv2d_loop(const geometry *g, const geometry *pool, int n, enum pass pass)
{
    const conv_shape s = conv_of(g);
    const conv_view v = conv2d_view(&s, pool);
    if (is_depthwise(&s))
        return pass == PASS_UPDATE ? NULL : "channels";
    switch (pass) {
    case PASS_FORWARD:
        return s.part             ? "several pixels a vector"
               : takes_strips(&s) ? "strips"
               : s.wino == 6      ? "Winograd, 6x6"
               : s.wino == 8      ? "Winograd, 8x8"
                                  : "tiles";
    case PASS_WEIGHT_GRADIENT:
        if (pool)
            return takes_woven_rows(&s)      ? "winners, woven rows"
                   : takes_short_rows(&s)    ? "winners, short rows"
                   : takes_whole_kernels(&s) ? "winners, kernels"
                   : v.copies == 2           ? "winners, shifted copy"
                   : v.pieces > 1            ? "winners, whole vectors"
                                             : "winners, rows";
        return s.wino ? "Winograd, or entries where sparse" : "tiles, or entries where sparse";
    case PASS_BACKWARD:
        if (pool)
            return has_few(&s, pool) ? "winners one by one" : v.pieces > 1 ? "winners by pixel and tap" : "winners by pixel";
        return g->winograd_dx ? "Winograd, or entries where sparse" : "entries by pixel";
    default: return NULL;
    }
}

KERNEL int conv2d_takes_winners(const geometry *g)
{
    const conv_shape s = conv_of(g);
    return !is_depthwise(&s);
}

static const layer_kind layer_conv2d = {"conv2d",        2,    conv2d_set_up,        conv2d_locate, conv2d_forward,
                                        conv2d_backward, NULL, conv2d_takes_winners, NULL,          conv2d_loop};
