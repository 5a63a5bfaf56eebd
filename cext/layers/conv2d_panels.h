/* Dense passes of a convolution as products of matrices cut for the caches. Included by conv2d.c only.
 *
 *   forward, data gradient  for some columns of outputs and so many rows of weights that both stay in the first cache (a panel,
 *                           packed): tiles of pixels x vectors in registers, all pixels of a band of images, whose inputs and
 *                           sums stay in the second cache. The data gradient of a strided convolution is one such sum per
 *                           phase: the pixels (i, j) of one remainder of i, j modulo the strides see the same taps.
 *   weight gradient         for a block of pixels, whose dy stays in the first cache beside a few columns of the input: tiles
 *                           of patch entries x vectors of outputs, summed over the block in registers and over blocks in dw.
 *
 * The sums of a pixel have the same order whatever tile, band or chunk it is in. */

/* y[pixel][o] = bias[o] + sum over d of x[pixel][d] * w[d][o], where the d-th input of a pixel is float d % R of run d / R. */
typedef struct {
    int H, W; /* rows and columns of pixels */
    ptrdiff_t x_row, x_step, y_row, y_step; /* floats from row to row and from pixel to pixel */
    int K, R, O;
    const ptrdiff_t *run;
    const float *bias; /* NULL: none */
    const float *w; /* see the packing functions */
    size_t w_row;
    int inner; /* of transposed weights: floats of a tap, */
    const int32_t *tap; /* and which row of w is the first of each tap; NULL: w[d][w_row] as it is */
    float *panel;
    const conv_halves *half; /* NULL, or factors are rounded to bfloat16 */
} panel_sum;

/* P pixels x V vectors; `left` inputs from float r0 of run k0; bias NULL: added to what is in y. */
typedef void conv_panel_fn(const panel_sum *s, int k0, int r0, int left, const float *x, const ptrdiff_t *at, const float *w,
                           const float *bias, float *y, const ptrdiff_t *to, int tail);

INLINE void conv_panel_tile(const int P, const int V, const panel_sum *s, int k0, int r0, int left, const float *x,
                            const ptrdiff_t *at, const float *w, const float *bias, float *y, const ptrdiff_t *to, int tail)
{
    vec acc[MAX_P][MAX_V];
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            acc[p][v] = vload((bias ? bias : y + to[p]) + v * VW);
    for (int k = k0; left > 0; k++, r0 = 0) {
        const int n = s->R - r0 < left ? s->R - r0 : left;
        const float *from[MAX_P];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
            from[p] = x + at[p] + s->run[k] + r0;
        for (ptrdiff_t r = 0; r < n; r++) {
            vec b[MAX_V];
#pragma GCC unroll 4
            for (int v = 0; v < V; v++)
                b[v] = vload(w + v * VW);
            w += V * VW;
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) {
                const vec a = vset(from[p][r]);
#pragma GCC unroll 4
                for (int v = 0; v < V; v++)
                    acc[p][v] += a * b[v];
            }
        }
        left -= n;
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++) {
#pragma GCC unroll 4
        for (int v = 0; v < V - 1; v++)
            vstore(y + to[p] + v * VW, acc[p][v]);
        vstore_n(y + to[p] + (V - 1) * VW, acc[p][V - 1], tail);
    }
}

#define CONV_PANEL_TILE(P, V)                                                                                               \
    KERNEL void conv_panel_##P##_##V(const panel_sum *s, int k0, int r0, int left, const float *x, const ptrdiff_t *at,     \
                                     const float *w, const float *bias, float *y, const ptrdiff_t *to, int tail)            \
    {                                                                                                                       \
        conv_panel_tile(P, V, s, k0, r0, left, x, at, w, bias, y, to, tail);                                                \
    }
/* clang-format off */
CONV_PANEL_TILE(1, 1) CONV_PANEL_TILE(2, 1) CONV_PANEL_TILE(3, 1) CONV_PANEL_TILE(4, 1) CONV_PANEL_TILE(5, 1) CONV_PANEL_TILE(6, 1) CONV_PANEL_TILE(7, 1)
CONV_PANEL_TILE(8, 1)
CONV_PANEL_TILE(1, 2) CONV_PANEL_TILE(2, 2) CONV_PANEL_TILE(3, 2) CONV_PANEL_TILE(4, 2) CONV_PANEL_TILE(5, 2) CONV_PANEL_TILE(6, 2)
CONV_PANEL_TILE(1, 3) CONV_PANEL_TILE(2, 3) CONV_PANEL_TILE(3, 3) CONV_PANEL_TILE(4, 3)
#if VW == 16
CONV_PANEL_TILE(7, 2) CONV_PANEL_TILE(8, 2) CONV_PANEL_TILE(5, 3) CONV_PANEL_TILE(6, 3) CONV_PANEL_TILE(7, 3) CONV_PANEL_TILE(8, 3)
CONV_PANEL_TILE(1, 4) CONV_PANEL_TILE(2, 4) CONV_PANEL_TILE(3, 4) CONV_PANEL_TILE(4, 4) CONV_PANEL_TILE(5, 4) CONV_PANEL_TILE(6, 4)
#endif
    /* clang-format on */
    static conv_panel_fn *const conv_panel_tiles[MAX_V + 1][MAX_P + 1] = TILE_TABLE(conv_panel);

/* ---- the sums ---- */

/* Whether the weights do not stay in the first cache by themselves. */
INLINE int takes_panels(const conv_shape *s) { return (size_t)s->K * s->R * s->o_pad > CONV_PANEL_FLOATS; }

/* Rows [d, d + rows) of w, columns [o, o + V * VW), to the panel; where they lie so already, that is where they are read. */
INLINE const float *conv_panel_pack(const panel_sum *s, int d, int rows, int o, int V)
{
    const int wide = V * VW;
    float *to = s->panel;
    if (!s->tap) {
        const float *from = s->w + (size_t)d * s->w_row + o;
        if (s->w_row == (size_t)wide)
            return from;
        for (int r = 0; r < rows; r++, from += s->w_row, to += wide)
            for (int v = 0; v < V; v++)
                vstore(to + v * VW, vload(from + v * VW));
        return s->panel;
    }
    /* a tap's columns are its rows in w: they end with the last input channel */
    const int columns = s->O - o < wide ? s->O - o : wide;
    for (int n, tap = d / s->inner, at = d % s->inner; rows > 0; rows -= n, tap++, at = 0, to += (size_t)n * wide) {
        n = s->inner - at < rows ? s->inner - at : rows;
        transpose(s->w + ((size_t)s->tap[tap] + o) * s->w_row + at, s->w_row, columns, n, to, wide, (size_t)wide);
    }
    return s->panel;
}

/* `pixels` of them from (i, 0) in reading order. */
INLINE void panel_pixels(const panel_sum *s, int i, int pixels, int V, int k0, int r0, int left, const float *x,
                         const float *w, const float *bias, float *y, int tail)
{
    const int most = tile_rows[V];
    ptrdiff_t at[MAX_P], to[MAX_P], x_at = i * s->x_row, y_at = i * s->y_row;
    for (int j = 0; pixels > 0;) {
        const int n = even_block(pixels, most);
        for (int p = 0; p < n; p++) {
            at[p] = x_at + j * s->x_step, to[p] = y_at + j * s->y_step;
            if (++j == s->W)
                j = 0, x_at += s->x_row, y_at += s->y_row;
        }
        conv_panel_tiles[V][n](s, k0, r0, left, x, at, w, bias, y, to, tail);
        pixels -= n;
    }
}

/* Rows [from, to) of all images one behind the other. */
INLINE void panel_band(const panel_sum *s, source x, sink y, int from, int to)
{
    static const float none[MAX_V * VW];
    const int depth = s->K * s->R, vectors = (s->O + VW - 1) / VW, widest = even_block(vectors, MAX_V) * VW;
    /* all columns of some rows of the weights one after the other: their pages are few */
    for (int d = 0, rows; d < depth; d += rows) {
        rows = even_block(depth - d, CONV_PANEL_FLOATS / widest);
        for (int o = 0, left = vectors, V; left > 0; o += V * VW, left -= V) {
            V = even_block(left, MAX_V);
            const int tail = V == left ? s->O - o - (V - 1) * VW : VW;
            const float *w = conv_panel_pack(s, d, rows, o, V), *bias = d ? NULL : s->bias ? s->bias + o : none;
            for (int row = from, end; row < to; row = end) {
                const int n = row / s->H, i = row % s->H;
                end = (n + 1) * s->H < to ? (n + 1) * s->H : to;
                panel_pixels(s, i, (end - row) * s->W, V, d / s->R, d % s->R, rows, x.p + (size_t)n * x.stride, w, bias,
                             y.p + (size_t)n * y.stride + o, tail);
            }
        }
    }
}

#include "conv2d_bf16.h"

/* Of n images. */
KERNEL void panel_run(const panel_sum *s, int n, source x, sink y)
{
    if (s->half) {
        half_run(s, n, x, y);
        return;
    }
    const size_t pixel = (size_t)(s->x_step < 0 ? -s->x_step : s->x_step) + (size_t)s->y_step;
    const int rows = n * s->H, fit = (int)(BAND_FLOATS / pixel), pixels = fit > BAND_PIXELS ? fit : BAND_PIXELS;
    for (int from = 0, band; from < rows; from += band) {
        band = even_block(rows - from, pixels / s->W > 0 ? pixels / s->W : 1);
        panel_band(s, x, y, from, from + band);
    }
}

KERNEL void conv2d_panel_forward(const conv_shape *s, const conv_scratch *t, const call *c, source x,
                                 const conv_halves *half)
{
    for (int group = 0; group < s->groups; group++) {
        const float *w = c->w + group * s->block;
        const panel_sum sum = {.H = s->OH,
                               .W = s->OW,
                               .x_row = patch_at(s, 1, 0),
                               .x_step = patch_at(s, 0, 1),
                               .y_row = (ptrdiff_t)s->OW * s->y_step,
                               .y_step = s->y_step,
                               .K = s->K,
                               .R = s->R,
                               .O = s->O,
                               .run = t->run,
                               .bias = w + s->block - s->o_pad,
                               .w = w,
                               .w_row = s->o_pad,
                               .panel = t->panel,
                               .half = half};
        panel_run(&sum, c->n, (source){x.p + group * s->C, x.stride}, (sink){c->y.p + group * s->O, c->y.stride});
    }
}

/* ---- the data gradient, phase by phase ---- */

/* dx of some images (or of one in its padding) from dy in frames, one group. */
KERNEL void panel_phases(const conv_shape *s, const conv_scratch *t, const panel_axis *rows, const panel_axis *columns,
                         int n, source dy, const float *w, sink dx, const conv_halves *half)
{
    const ptrdiff_t line = (ptrdiff_t)columns->frame * s->y_step, out_line = (ptrdiff_t)columns->size * s->x_step;
    for (int i = 0; i < rows->stride && i < rows->size; i++)
        for (int j = 0; j < columns->stride && j < columns->size; j++) {
            const panel_phase down = panel_phase_at(rows, i), across = panel_phase_at(columns, j);
            if (!down.taps || !across.taps)
                continue;
            const int joined = across.step * s->dw == s->sw &&
                               s->groups == 1; /* neighbouring taps see neighbouring pixels */
            int tap = 0, run = 0;
            for (int a = 0; a < down.taps; a++)
                for (int b = 0; b < across.taps; b++) {
                    const int ky = down.last - a * down.step, kx = across.last - b * across.step;
                    if (!b || !joined)
                        t->back_run[run++] = panel_tap_at(rows, i, ky) * line + panel_tap_at(columns, j, kx) * s->y_step;
                    t->back_tap[tap++] = (ky * s->kw + kx) * s->C;
                }
            const panel_sum sum = {.H = down.size,
                                   .W = across.size,
                                   .x_row = line,
                                   .x_step = s->y_step,
                                   .y_row = out_line * rows->stride,
                                   .y_step = (ptrdiff_t)s->x_step * columns->stride,
                                   .K = run,
                                   .R = joined ? across.taps * s->O : s->O,
                                   .O = s->C,
                                   .run = t->back_run,
                                   .w = w,
                                   .w_row = s->o_pad,
                                   .inner = s->O,
                                   .tap = t->back_tap,
                                   .panel = t->panel,
                                   .half = half};
            panel_run(&sum, n, dy, (sink){dx.p + i * out_line + (ptrdiff_t)j * s->x_step, dx.stride});
        }
}

/* dy of image n in its frame. */
INLINE void panel_frame_in(const conv_shape *s, const panel_axis *rows, const panel_axis *columns, size_t frame,
                           const float *dy, float *to)
{
    const size_t line = (size_t)s->OW * s->y_step, wide = (size_t)columns->frame * s->y_step;
    memset(to, 0, frame * sizeof(float));
    to += (size_t)rows->lead * wide + (size_t)columns->lead * s->y_step;
    for (int i = 0; i < s->OH; i++)
        memcpy(to + i * wide, dy + i * line, line * sizeof(float));
}

KERNEL void conv2d_panel_data_gradient(const geometry *g, const conv_shape *s, const conv_scratch *t, const conv_view *v,
                                       const call *c, const conv_halves *half)
{
    const panel_axis rows = panel_rows_of(s, g->in[0].h), columns = panel_columns_of(s, g->in[0].w);
    const int framed = rows.frame > s->OH || columns.frame > s->OW;
    const int some = panel_leaves_out(&rows) || panel_leaves_out(&columns);
    const size_t frame = panel_frame(s, &rows, &columns);
    const int together = s->mode ? 1 : framed ? panel_images(frame) : c->n;
    for (int n = 0, images; n < c->n; n += images) {
        images = even_block(c->n - n, together);
        source dy = {c->dy.p + (size_t)n * c->dy.stride, c->dy.stride};
        sink dx = {s->mode ? t->frame : c->dx[0].p + (size_t)n * c->dx[0].stride, c->dx[0].stride};
        for (int k = 0; k < images && framed; k++)
            panel_frame_in(s, &rows, &columns, frame, dy.p + (size_t)k * dy.stride, t->back_frame + (size_t)k * frame);
        if (framed)
            dy = (source){t->back_frame, frame};
        for (int k = 0; k < images && some; k++)
            memset(dx.p + (size_t)k * dx.stride, 0, (size_t)rows.size * columns.size * s->x_step * sizeof(float));
        for (int group = 0; group < s->groups; group++)
            panel_phases(s, t, &rows, &columns, images, (source){dy.p + group * s->O, dy.stride}, c->w + group * s->block,
                         (sink){dx.p + group * s->C, dx.stride}, half);
        if (s->mode)
            frame_out(g, s, v, t->frame, c->dx[0].p + (size_t)n * c->dx[0].stride);
    }
}

/* ---- the weight gradient, block of pixels by block ---- */

enum { BLOCK_ROWS = 64 };

/* Whether adding to dw block by block costs less than reading dy and input from beyond the first cache. */
INLINE int takes_blocks(const conv_shape *s)
{
    return s->K * s->R >= BLOCK_ROWS / 2 && (double)s->OH * s->OW * s->O + (double)s->H * s->W * s->C > 1.25 * BLOCK_FLOATS;
}

/* A block: rows and columns of some images. */
typedef struct {
    int n, H, W;
    source x, dy;
    ptrdiff_t x_row, x_step;
    int copied, aligned; /* dy, and x: copied beforehand */
} pixel_block;

/* Columns [o, o + wide) of the block's dy, one pixel behind the other. */
INLINE void block_pack(const pixel_block *b, const float *from, size_t stride, ptrdiff_t row, ptrdiff_t step, int wide,
                       float *to)
{
    for (int n = 0; n < b->n; n++)
        for (int i = 0; i < b->H; i++) {
            const float *at = from + (size_t)n * stride + i * row;
            for (int j = 0; j < b->W; j++, at += step, to += wide)
                for (int v = 0; v < wide; v += VW)
                    vstore(to + v, vload(at + v));
        }
}

KERNEL void block_weight_gradient(const conv_shape *s, const conv_scratch *t, const pixel_block *b, int first, float *dw)
{
    const int pixels = b->n * b->H * b->W, vectors = (s->O + VW - 1) / VW;
    for (int o = 0, left = vectors, V; left > 0 && b->copied; o += V * VW, left -= V) {
        V = even_block(left, MAX_V);
        block_pack(b, b->dy.p + o, b->dy.stride, (ptrdiff_t)s->OW * s->y_step, s->y_step, V * VW,
                   t->block_dy + (size_t)pixels * o);
    }
    for (int k = 0; k < s->K; k++)
        for (int r = 0, columns; r < s->R; r += columns) {
            columns = s->R - r < BLOCK_COLUMNS ? s->R - r : BLOCK_COLUMNS;
            pixel_walk walk = {b->n, b->H, b->W, {b->x.p + t->run[k] + r, b->x.stride}, {0, 0}, b->x_row, b->x_step, 0};
            if (b->aligned) {
                block_pack(b, walk.x.p, b->x.stride, b->x_row, b->x_step, BLOCK_COLUMNS, t->block_x);
                walk.x = (source){t->block_x, (size_t)b->H * b->W * BLOCK_COLUMNS};
                walk.x_row = (ptrdiff_t)b->W * BLOCK_COLUMNS, walk.x_step = BLOCK_COLUMNS;
            }
            for (int o = 0, left = vectors, V; left > 0; o += V * VW, left -= V) {
                V = even_block(left, MAX_V);
                const int tail = V == left ? s->O - o - (V - 1) * VW : VW;
                walk.dy = b->copied ? (source){t->block_dy + (size_t)pixels * o, (size_t)b->H * b->W * V * VW}
                                    : (source){b->dy.p + o, b->dy.stride};
                walk.C = b->copied ? V * VW : s->y_step;
                for (int q = 0, rows; q < columns; q += rows) {
                    rows = even_block(columns - q, tile_rows[V]);
                    outer_tile[V][rows](&walk, q, 0, dw + ((size_t)k * s->R + r + q) * s->o_pad + o, s->o_pad, first, tail);
                }
            }
        }
}

/* One group. */
KERNEL void conv2d_block_weight_gradient(const conv_shape *s, const conv_scratch *t, const call *c, source x, source dy,
                                         float *dw)
{
    pixel_block b = {.x_row = patch_at(s, 1, 0), .x_step = patch_at(s, 0, 1)};
    /* what lies a multiple of a large power of two apart is all in few sets of a cache */
    b.copied = s->K * s->R >= BLOCK_ROWS || s->y_step % 256 == 0;
    b.aligned = b.x_step % 64 == 0 && s->O > 2 * MAX_V * VW;
    const int most = b.copied ? BLOCK_PIXELS : BLOCK_PIXELS / 2;
    const int pixels = s->OH * s->OW, images = pixels < most ? most / pixels : 1;
    const int down = s->OW < most ? most / s->OW : 1, across = s->OW < most ? s->OW : most;
    int first = c->first;
    for (int n = 0; n < c->n; n += b.n) {
        b.n = even_block(c->n - n, images);
        for (int i = 0; i < s->OH; i += b.H) {
            b.H = even_block(s->OH - i, down);
            for (int j = 0; j < s->OW; j += b.W) {
                b.W = even_block(s->OW - j, across);
                b.x = (source){x.p + (size_t)n * x.stride + patch_at(s, i, j), x.stride};
                b.dy = (source){dy.p + (size_t)n * dy.stride + ((size_t)i * s->OW + j) * s->y_step, dy.stride};
                block_weight_gradient(s, t, &b, first, dw);
                first = 0;
            }
        }
    }
}
