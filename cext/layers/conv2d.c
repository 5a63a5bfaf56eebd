/* Convolution (cross-correlation) with stride, padding, dilation and groups. Body: included by cext/isa/ only.
 *
 * Weight block, for each group: [ky][kx][input channel][output channel padded to LANES], then one row of biases (depthwise:
 * [ky][kx][channel padded], then the biases). With channels innermost a row of a patch is kw*C contiguous floats of the
 * input, so neither im2col nor col2im is needed.
 *   forward          vectors over output channels, tiles of pixels, panels of weights that stay in the first cache; one-channel
 *                    images share what neighbours load, pixels with few channels share a vector; Winograd's algorithm where it
 *                    saves more than it costs
 *   weight gradient  dense dy: vectors over output channels, tiles of patch entries, summed over blocks of pixels in registers;
 *                    sparse dy: vectors over patch rows, one output channel at a time, its non-zero pixels only (copies of
 *                    the input that no load crosses a line of: see conv_view); small kernels and one-channel images have
 *                    loops of their own
 *   data gradient    dense dy: as forward, with transposed weights, phase by phase of the strides; sparse dy: vectors over patch
 *                    rows with transposed weights, one pixel at a time, its non-zero channels only
 *   single channels  (a group each) vectors over channels
 * dy is sparse behind max-pooling, which leaves one entry per window, and often behind ReLU. A max-pooling that only this
 * layer feeds hands its winners through (call.pool), so that nothing has to be searched for.
 * Which loop runs is decided by the lists at the end of this file, see loops.h.
 * Padding: forward keeps a copy of the input in a frame (single channels leave out the taps beside the image instead); a data
 * gradient from entries is formed in such a frame, what lies in a border that repeats the image is added to where it comes
 * from, and cropped; one from dense dy has dy in a frame of zeros. */

#include "conv2d_shape.h"
#include "conv2d_forward.h"
#include "conv2d_gradients.h"
#include "conv2d_panels.h"
#include "conv2d_depthwise.h"
#include "conv2d_winograd.h"
#include "conv2d_windows.h"
#include "loops.h"
#include "conv2d_set_up.h"

/* ---- what the loops share ---- */

/* What a loop works on: the call, or one sample and group of it. */
typedef struct {
    const conv_shape *s, *adjoint;
    conv_scratch t;
    conv_view v;
    const geometry *pool;
    source x; /* of all samples, padding included */
    /* of the sample and group under way: */
    const float *image, *w, *dy;
    const int32_t *won;
    float *dx, *dw; /* dx: NULL, or itself or the frame around it */
    float *dx_bare; /* dx itself, of the sample */
    int first;
} conv_work;

/* What a loop for gradients needs. */
enum {
    EACH_SAMPLE = 1, /* it is run for one sample and group after the other, else once */
    BY_PIXEL = 2,    /* the non-zero entries listed so */
    BY_CHANNEL = 4,
    OWN_FRAME = 8, /* it writes all of dx, padding or not */
};

/* The view that the loops behind this pooling take; NULL: that of all others. */
INLINE conv_view conv2d_view(const conv_shape *s, const geometry *pool)
{
    return view_of(s, pool && !takes_short_rows(s) && !has_few(s, pool));
}

INLINE void conv2d_prepare(const geometry *g, const call *c, conv_work *k)
{
    k->s = &conv_of(g)->s;
    k->adjoint = &conv_of(g)->adjoint;
    k->pool = c->pool;
    k->x = k->s->padded ? (source){c->keep.p, c->keep.stride} : c->x[0];
    conv_scratch_at(k->s, k->adjoint, c->scratch, &k->t);
    k->t.half.unit = g->bf16;
}

/* ---- forward loops ---- */

/* Sample n with its padding, which is kept for the way back. */
INLINE const float *conv2d_image(const geometry *g, const call *c, const conv_work *k, int n)
{
    const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
    if (!k->s->padded)
        return x;
    float *frame = c->keep.p + (size_t)n * c->keep.stride;
    frame_in(g, k->s, x, frame);
    return frame;
}

#define FOR_EACH_IMAGE(x, y)                                                                                                \
    const conv_work *k = work;                                                                                              \
    const conv_shape *s = k->s;                                                                                             \
    for (int n = 0; n < c->n; n++) {                                                                                        \
        const float *x = conv2d_image(g, c, k, n);                                                                          \
        float *y = c->y.p + (size_t)n * c->y.stride;

KERNEL void conv2d_forward_channels(const geometry *g, const call *c, void *work)
{
    FOR_EACH_IMAGE(x, y)
    const panel_axis rows = panel_rows_of(s, g->in[0].h), columns = panel_columns_of(s, g->in[0].w);
    depthwise_forward(s, &k->t, &rows, &columns, x, c->w, y);
}
}

KERNEL void conv2d_forward_packed(const geometry *g, const call *c, void *work)
{
#if VW == 16
    conv2d_spread(((conv_work *)work)->s, &((conv_work *)work)->t, c->w);
    FOR_EACH_IMAGE(x, y)
    conv2d_packed_forward(s, &k->t, x, y);
}
#endif
}

KERNEL void conv2d_forward_winograd(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    for (int n = 0; n < c->n; n++)
        conv2d_image(g, c, k, n);
    conv2d_winograd_forward(k->s, &k->t, c, k->x);
}

KERNEL void conv2d_forward_strips(const geometry *g, const call *c, void *work)
{
    FOR_EACH_IMAGE(x, y)
    conv2d_strip_forward(s, x, c->w, c->w + s->block - s->o_pad, y);
}
}

KERNEL void conv2d_forward_tiles(const geometry *g, const call *c, void *work)
{
    FOR_EACH_IMAGE(x, y)
    for (int group = 0; group < s->groups; group++) {
        const float *w = c->w + group * s->block;
        conv2d_tile_forward(s, &k->t, x + group * s->C, w, w + s->block - s->o_pad, y + group * s->O);
    }
}
}

KERNEL void conv2d_forward_panels(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    for (int n = 0; n < c->n; n++)
        conv2d_image(g, c, k, n);
    conv2d_panel_forward(k->s, &k->t, c, k->x, NULL);
}

KERNEL void conv2d_forward_halves(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    for (int n = 0; n < c->n; n++)
        conv2d_image(g, c, k, n);
    conv2d_panel_forward(k->s, &k->t, c, k->x, &k->t.half);
}

/* ---- gradient loops ---- */

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

KERNEL void conv2d_dx_channels(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    const panel_axis rows = panel_rows_of(k->s, g->in[0].h), columns = panel_columns_of(k->s, g->in[0].w);
    for (int n = 0; n < c->n; n++) {
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        depthwise_data_gradient(k->s, &k->t, &rows, &columns, c->dy.p + (size_t)n * c->dy.stride, c->w,
                                k->s->mode ? k->t.frame : dx);
        if (k->s->mode)
            frame_out(g, k->s, &k->v, k->t.frame, dx);
    }
}

KERNEL void conv2d_dx_winograd(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    conv2d_winograd_data_gradient(k->s, k->adjoint, &k->t, c);
}

KERNEL void conv2d_dx_panels(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    conv2d_panel_data_gradient(g, k->s, &k->t, &k->v, c, NULL);
}

KERNEL void conv2d_dx_halves(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    const int most = k->pool ? panel_images(half_dense(k->s)) : c->n;
    call some = *c;
    for (int n = 0; n < c->n; n += some.n) {
        some.n = c->n - n < most ? c->n - n : most;
        some.dy = half_dy(k->s, &k->t.half, k->pool, c, n, some.n);
        some.dx[0].p = c->dx[0].p + (size_t)n * c->dx[0].stride;
        conv2d_panel_data_gradient(g, k->s, &k->t, &k->v, &some, &k->t.half);
    }
}

KERNEL void conv2d_dx_scatter(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    conv2d_scatter_data_gradient(g, k->s, &k->t, k->pool, k->dy, k->won, k->w, k->dx_bare);
}

KERNEL void conv2d_dx_entries(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    conv2d_data_gradient(k->s, &k->v, &k->t, k->w, k->dx);
}

KERNEL void conv2d_dw_channels(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    const panel_axis rows = panel_rows_of(k->s, g->in[0].h), columns = panel_columns_of(k->s, g->in[0].w);
    depthwise_weight_gradient(k->s, &k->t, &rows, &columns, c, k->x);
}

KERNEL void conv2d_dw_woven(const geometry *g, const call *c, void *work)
{
#if VW == 16
    const conv_work *k = work;
    conv2d_woven_weight_gradient(k->s, &k->t, k->pool, k->dy, k->won, k->image, k->first, k->dw);
#endif
}

KERNEL void conv2d_dw_windows(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    conv2d_windows_weight_gradient(k->s, &k->t, k->pool, k->dy, k->won, k->image, k->first, k->dw);
}

KERNEL void conv2d_dw_kernels(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    conv2d_whole_weight_gradient(k->s, &k->t, k->pool, k->dy, k->won, k->image, k->first, k->dw);
}

KERNEL void conv2d_dw_entries(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    const int together = k->pool ? rows_together(k->s, &k->v, k->pool) * k->pool->out.w : k->t.room;
    conv2d_sparse_weight_gradient(k->s, &k->v, &k->t, view_in(k->s, &k->v, k->image, k->t.image), together, k->first, k->dw);
}

KERNEL void conv2d_dw_winograd(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    conv2d_winograd_weight_gradient(k->s, &k->t, c, k->x);
}

KERNEL void conv2d_dw_tiles(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    for (int group = 0; group < k->s->groups; group++)
        conv2d_dense_weight_gradient(k->s, &k->t, c, (source){k->x.p + group * k->s->C, k->x.stride},
                                     (source){c->dy.p + group * k->s->O, c->dy.stride}, c->dw + group * k->s->block);
}

KERNEL void conv2d_dw_halves(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    for (int n = 0; n < c->n; n++)
        half_weight_gradient(k->s, &k->t.half, k->x.p + (size_t)n * k->x.stride,
                             half_dy(k->s, &k->t.half, k->pool, c, n, 1).p, c->first && !n, c->dw);
}

KERNEL void conv2d_dw_blocks(const geometry *g, const call *c, void *work)
{
    const conv_work *k = work;
    for (int group = 0; group < k->s->groups; group++)
        conv2d_block_weight_gradient(k->s, &k->t, c, (source){k->x.p + group * k->s->C, k->x.stride},
                                     (source){c->dy.p + group * k->s->O, c->dy.stride}, c->dw + group * k->s->block);
}

/* ---- which loop runs ---- */

#define CASE(name, condition)                                                                                               \
    KERNEL int conv2d_##name(const geometry *g, const call *c, int sparse)                                                  \
    {                                                                                                                       \
        const conv_shape *s = &conv_of(g)->s;                                                                               \
        const geometry *pool = c->pool;                                                                                     \
        (void)s, (void)pool;                                                                                                \
        return condition;                                                                                                   \
    }
CASE(is_by_channels, is_depthwise(s))
CASE(is_packed, s->part > 0)
CASE(is_6x6, s->wino == 6)
CASE(is_8x8, s->wino == 8)
CASE(is_6x6_densely, s->wino == 6 && !pool)
CASE(is_8x8_densely, s->wino == 8 && !pool)
CASE(is_6x6_backwards, conv_of(g)->adjoint.wino == 6 && !pool)
CASE(is_8x8_backwards, conv_of(g)->adjoint.wino == 8 && !pool)
CASE(is_in_strips, takes_strips(s) && s->groups == 1)
CASE(has_wide_winners, pool &&takes_wide_pixels(s))
CASE(has_few_winners, has_few(s, pool))
CASE(has_winners, !!pool)
CASE(has_woven_winners, pool &&takes_woven_rows(s))
CASE(has_short_winners, pool &&takes_short_rows(s))
CASE(has_whole_winners, pool &&takes_whole_kernels(s))
CASE(has_shifted_copy, pool &&conv2d_view(s, pool).copies == 2)
CASE(has_whole_vectors, pool &&conv2d_view(s, pool).pieces > 1)
CASE(has_sparse_entries, sparse)
CASE(is_in_groups, !is_depthwise(s))
CASE(has_dense_dy, !pool && !is_depthwise(s))
CASE(is_dense, !sparse)
CASE(has_panels, takes_panels(s))
CASE(has_phases, s->phases && !pool)
CASE(has_dense_phases, s->phases == 2 && !sparse)
CASE(has_blocks, takes_blocks(s))
CASE(has_halves, s->halves)
CASE(has_halves_back, s->halves && s->phases)
CASE(has_halves_across, s->halves &&half_width(s) <= HALF_PIXELS)
CASE(halves_pay, half_pays(s, s->O, s->R, s->K * s->R))
CASE(halves_pay_back, half_pays(s, s->C, s->O, s->kh * s->kw * s->O))
CASE(halves_pay_across, s->C >= LANES && s->O >= LANES && s->OH * s->OW >= LANES)
CASE(has_many_tiles, c->n *(size_t)winograd_count(s) >= 8) /* fewer cost more than they save */
#undef CASE

static const loop conv2d_forward_loops[] = {{"bf16", conv2d_has_halves, conv2d_halves_pay, conv2d_forward_halves, 0},
                                            {"channels", conv2d_is_by_channels, NULL, conv2d_forward_channels, 0},
                                            {"several pixels a vector", conv2d_is_packed, NULL, conv2d_forward_packed, 0},
                                            {"Winograd, 6x6", conv2d_is_6x6, NULL, conv2d_forward_winograd, 0},
                                            {"Winograd, 8x8", conv2d_is_8x8, NULL, conv2d_forward_winograd, 0},
                                            {"strips", conv2d_is_in_strips, NULL, conv2d_forward_strips, 0},
                                            {"panels", conv2d_is_in_groups, conv2d_has_panels, conv2d_forward_panels, 0},
                                            {"tiles", conv2d_is_in_groups, NULL, conv2d_forward_tiles, 0},
                                            {0}};

static const loop conv2d_dw_loops[] = {
    {"bf16", conv2d_has_halves_across, conv2d_halves_pay_across, conv2d_dw_halves, 0},
    {"channels", conv2d_is_by_channels, NULL, conv2d_dw_channels, 0},
    {"winners, woven rows", conv2d_has_woven_winners, NULL, conv2d_dw_woven, EACH_SAMPLE},
    {"winners, short rows", conv2d_has_short_winners, NULL, conv2d_dw_windows, EACH_SAMPLE},
    {"winners, kernels", conv2d_has_whole_winners, NULL, conv2d_dw_kernels, EACH_SAMPLE},
    {"winners, shifted copy", conv2d_has_shifted_copy, NULL, conv2d_dw_entries, EACH_SAMPLE | BY_CHANNEL},
    {"winners, whole vectors", conv2d_has_whole_vectors, NULL, conv2d_dw_entries, EACH_SAMPLE | BY_CHANNEL},
    {"winners, rows", conv2d_has_winners, NULL, conv2d_dw_entries, EACH_SAMPLE | BY_CHANNEL},
    {"entries", conv2d_has_dense_dy, conv2d_has_sparse_entries, conv2d_dw_entries, EACH_SAMPLE | BY_CHANNEL},
    {"Winograd, 6x6", conv2d_is_6x6_densely, conv2d_has_many_tiles, conv2d_dw_winograd, 0},
    {"Winograd, 8x8", conv2d_is_8x8_densely, conv2d_has_many_tiles, conv2d_dw_winograd, 0},
    {"blocks", conv2d_has_dense_dy, conv2d_has_blocks, conv2d_dw_blocks, 0},
    {"tiles", conv2d_has_dense_dy, NULL, conv2d_dw_tiles, 0},
    {0}};

static const loop conv2d_dx_loops[] = {
    {"bf16", conv2d_has_halves_back, conv2d_halves_pay_back, conv2d_dx_halves, 0},
    {"channels", conv2d_is_by_channels, NULL, conv2d_dx_channels, 0},
    {"winners one by one", conv2d_has_wide_winners, conv2d_has_few_winners, conv2d_dx_scatter, EACH_SAMPLE | OWN_FRAME},
    {"winners by pixel and tap", conv2d_has_whole_vectors, NULL, conv2d_dx_entries, EACH_SAMPLE | BY_PIXEL},
    {"winners by pixel", conv2d_has_winners, NULL, conv2d_dx_entries, EACH_SAMPLE | BY_PIXEL},
    {"Winograd, 6x6", conv2d_is_6x6_backwards, conv2d_is_dense, conv2d_dx_winograd, 0},
    {"Winograd, 8x8", conv2d_is_8x8_backwards, conv2d_is_dense, conv2d_dx_winograd, 0},
    {"panels", conv2d_has_phases, conv2d_has_dense_phases, conv2d_dx_panels, 0},
    {"entries by pixel", conv2d_has_dense_dy, NULL, conv2d_dx_entries, EACH_SAMPLE | BY_PIXEL},
    {0}};

static const loop *const conv2d_loops[] = {conv2d_forward_loops, conv2d_dw_loops, conv2d_dx_loops};

KERNEL void conv2d_forward(const geometry *g, const call *c)
{
    conv_work k;
    conv2d_prepare(g, c, &k);
    loop_for(conv2d_forward_loops, g, c, 0, conv2d_name, PASS_FORWARD)->run(g, c, &k);
}

/* One sample and group through the loops that want them so; dx or dw may be NULL. */
KERNEL void conv2d_sample_backward(const geometry *g, const call *c, conv_work *k, int n, int group, const loop *dx,
                                   const loop *dw)
{
    const conv_shape *s = k->s;
    const unsigned lists = (dx ? dx->flags : 0) | (dw ? dw->flags : 0);
    k->first = c->first && n == 0;
    k->w = c->w + group * s->block;
    k->dw = dw ? c->dw + group * s->block : NULL;
    k->image = k->x.p + (size_t)n * k->x.stride + group * s->C;
    k->dy = c->dy.p + (size_t)n * c->dy.stride + group * s->O;
    k->won = k->pool ? c->won.p + (size_t)n * c->won.stride + group * s->O : NULL;
    k->dx_bare = dx ? c->dx[0].p + (size_t)n * c->dx[0].stride + group * s->C : NULL;
    k->dx = dx ? dx_of(s, &k->v, &k->t, c, n) + group * s->C : NULL;
    if (lists & (k->pool ? BY_PIXEL : BY_PIXEL | BY_CHANNEL)) {
        if (k->pool)
            conv2d_find_winners(s, &k->t, k->pool, k->dy, k->won);
        else
            conv2d_find(s, &k->t, k->dy);
    }
    if (lists & BY_CHANNEL) {
        if (k->pool)
            conv2d_sort_winners(s, &k->v, &k->t, k->pool, k->dy, k->won);
        else
            conv2d_sort(s, &k->t);
    }
    if (dx) /* before the weight gradient, because dw may be the weights themselves */
        dx->run(g, c, k);
    if (dw)
        dw->run(g, c, k);
}

KERNEL void conv2d_bias_backward(const call *c, const conv_work *k)
{
    const conv_shape *s = k->s;
    const size_t pixels = k->pool ? (size_t)k->pool->out.h * k->pool->out.w : (size_t)s->OH * s->OW;
    if (is_depthwise(s))
        conv2d_bias_gradient(s, c, c->dy, pixels, s->groups, c->dw + s->K * round_up((size_t)s->groups, LANES));
    for (int group = 0; group < s->groups && !is_depthwise(s); group++)
        conv2d_bias_gradient(s, c, (source){c->dy.p + group * s->O, c->dy.stride}, pixels, s->O,
                             c->dw + group * s->block + s->block - s->o_pad);
}

KERNEL void conv2d_backward(const geometry *g, const call *c)
{
    conv_work k;
    conv2d_prepare(g, c, &k);
    const conv_shape *s = k.s;
    const int sparse = !k.pool && !is_depthwise(s) && conv2d_is_sparse(s, c);
    const loop *dw = c->frozen || !c->dw ? NULL : loop_for(conv2d_dw_loops, g, c, sparse, conv2d_name, PASS_WEIGHT_GRADIENT);
    const loop *dx = c->dx[0].p ? loop_for(conv2d_dx_loops, g, c, sparse, conv2d_name, PASS_BACKWARD) : NULL;
    const int dx_each = dx && dx->flags & EACH_SAMPLE, dw_each = dw && dw->flags & EACH_SAMPLE;
    const int framed = dx_each && !(dx->flags & OWN_FRAME);
    k.v = conv2d_view(s, k.pool);
    for (int a = 0, number = 0; k.pool && a < k.pool->window.kh; a++)
        for (int b = 0; b < k.pool->window.kw; b++)
            k.t.window[number++] = (int32_t)view_patch(s, &k.v, a, b);
    if (dx && !dx_each)
        dx->run(g, c, &k);
    for (int n = 0; n < c->n && (dx_each || dw_each); n++) {
        if (framed)
            clear_dx(s, &k.v, dx_of(s, &k.v, &k.t, c, n));
        for (int group = 0; group < s->groups; group++)
            conv2d_sample_backward(g, c, &k, n, group, dx_each ? dx : NULL, dw_each ? dw : NULL);
        if (framed && has_frame(s, &k.v))
            frame_out(g, s, &k.v, k.t.frame, c->dx[0].p + (size_t)n * c->dx[0].stride);
    }
    if (dw && !dw_each)
        dw->run(g, c, &k);
    if (dw && s->has_bias)
        conv2d_bias_backward(c, &k);
    if (dw && g->whole[CONNECTIONS])
        disconnect(g, c->dw);
}

/* Without data (c->dy.p is NULL) that of dense gradients. */
KERNEL const char *conv2d_loop(const geometry *g, const call *c, enum pass pass)
{
    const conv_shape *s = &conv_of(g)->s;
    if (pass == PASS_UPDATE)
        return NULL;
    const int sparse = pass != PASS_FORWARD && !c->pool && !is_depthwise(s) && c->dy.p && conv2d_is_sparse(s, c);
    return loop_for(conv2d_loops[pass], g, c, sparse, conv2d_name, pass)->name;
}

KERNEL const char *conv2d_loop_at(enum pass pass, int i)
{
    return pass == PASS_UPDATE ? NULL : loop_name(conv2d_loops[pass], i);
}

KERNEL int conv2d_takes_winners(const geometry *g) { return !is_depthwise(&conv_of(g)->s); }

static const part conv2d_parts[] = {{"weight", 0}, {"bias", 0}};
static const layer_kind layer_conv2d = {.name = "conv2d",
                                        .n_parts = 2,
                                        .parts = conv2d_parts,
                                        .set_up = conv2d_set_up,
                                        .locate = conv2d_locate,
                                        .forward = conv2d_forward,
                                        .backward = conv2d_backward,
                                        .forgets = FORGETS_Y,
                                        .takes_winners = conv2d_takes_winners,
                                        .loop = conv2d_loop,
                                        .loop_at = conv2d_loop_at};
