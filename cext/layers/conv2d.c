/* Convolution (cross-correlation) with stride and zero padding. Body: included by cext/isa/ only.
 *
 * Weight block: [ky][kx][input channel][output channel padded to LANES], then one row of biases: with channels innermost,
 * a row of a patch is kw*C contiguous floats of the input, so neither im2col nor col2im is needed.
 *   forward          vectors over output channels, tiles of pixels
 *   weight gradient  vectors over output channels, tiles of patch entries, summed over all pixels in registers
 *   data gradient    vectors over patch rows with transposed weights; runs over the non-zero entries of dy only, of which
 *                    max-pooling behind the layer leaves one in window-size, and ReLU about half
 * Padding: forward keeps a copy of the input with a zero frame; the data gradient is formed in such a frame and cropped. */

enum { KH, KW, STRIDE_H, STRIDE_W, PAD_TOP, PAD_BOTTOM, PAD_LEFT, PAD_RIGHT, HAS_BIAS };

typedef struct {
    int kh, kw, sh, sw, C, H, W, O, OH, OW; /* H, W include the padding */
    int R;                                  /* floats in a patch row: kw * C */
    size_t o_pad, r_pad;
    int padded;
} conv_shape;

INLINE conv_shape conv_of(const geometry *g)
{
    const int *o = g->option;
    conv_shape s = {o[KH], o[KW], o[STRIDE_H], o[STRIDE_W], g->in[0].c, g->in[0].h + o[PAD_TOP] + o[PAD_BOTTOM],
                    g->in[0].w + o[PAD_LEFT] + o[PAD_RIGHT], g->out.c, g->out.h, g->out.w, o[KW] * g->in[0].c,
                    round_up((size_t)g->out.c, LANES), round_up((size_t)(o[KW] * g->in[0].c), LANES),
                    o[PAD_TOP] || o[PAD_BOTTOM] || o[PAD_LEFT] || o[PAD_RIGHT]};
    return s;
}

INLINE size_t conv_frame(const conv_shape *s) { return round_up((size_t)s->H * s->W * s->C, LANES) + SLACK; }

KERNEL const char *conv2d_set_up(geometry *g)
{
    const int *o = g->option;
    if (o[KH] < 1 || o[KW] < 1 || o[STRIDE_H] < 1 || o[STRIDE_W] < 1 || g->out.c < 1)
        return "kernel, stride and channels must be positive";
    if (o[PAD_TOP] < 0 || o[PAD_BOTTOM] < 0 || o[PAD_LEFT] < 0 || o[PAD_RIGHT] < 0)
        return "padding must not be negative";
    conv_shape s = conv_of(g);
    if (s.H < s.kh || s.W < s.kw)
        return "the kernel is larger than the padded input";
    g->out.h = (s.H - s.kh) / s.sh + 1;
    g->out.w = (s.W - s.kw) / s.sw + 1;
    s = conv_of(g);
    size_t pixels = (size_t)s.OH * s.OW;
    g->weight_size = ((size_t)s.kh * s.R + 1) * s.o_pad;
    g->keep_size = s.padded ? conv_frame(&s) : 0;
    g->scratch_size = (size_t)s.kh * s.o_pad * s.r_pad           /* transposed weights */
                      + 2 * round_up(pixels * s.O + 1, LANES)    /* non-zero entries: value, row */
                      + round_up(pixels + 1, LANES)              /* where each pixel's entries start */
                      + conv_frame(&s);
    return NULL;
}

KERNEL ptrdiff_t conv2d_locate(const geometry *g, int k, ptrdiff_t i)
{
    conv_shape s = conv_of(g);
    if (k == 1)
        return i < s.O ? (ptrdiff_t)((size_t)s.kh * s.R * s.o_pad) + i : -1;
    int kx = (int)(i % s.kw), ky = (int)(i / s.kw % s.kh), c = (int)(i / s.kw / s.kh % s.C);
    ptrdiff_t o = i / s.kw / s.kh / s.C;
    return o < s.O ? (ptrdiff_t)((size_t)((ky * s.kw + kx) * s.C + c) * s.o_pad) + o : -1;
}

INLINE void frame_in(const geometry *g, const conv_shape *s, const float *x, float *to)
{
    size_t row = (size_t)g->in[0].w * s->C, wide = (size_t)s->W * s->C;
    memset(to, 0, conv_frame(s) * sizeof(float));
    for (int i = 0; i < g->in[0].h; i++)
        memcpy(to + (size_t)(i + g->option[PAD_TOP]) * wide + (size_t)g->option[PAD_LEFT] * s->C, x + i * row,
               row * sizeof(float));
}

INLINE void frame_out(const geometry *g, const conv_shape *s, const float *from, float *dx)
{
    size_t row = (size_t)g->in[0].w * s->C, wide = (size_t)s->W * s->C;
    for (int i = 0; i < g->in[0].h; i++)
        memcpy(dx + i * row, from + (size_t)(i + g->option[PAD_TOP]) * wide + (size_t)g->option[PAD_LEFT] * s->C,
               row * sizeof(float));
}

KERNEL void conv2d_forward(const geometry *g, const call *c)
{
    const conv_shape s = conv_of(g);
    const float *bias = c->w + (size_t)s.kh * s.R * s.o_pad;
    const int pixels = s.OH * s.OW;
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        if (s.padded) {
            float *frame = c->keep.p + (size_t)n * c->keep.stride;
            frame_in(g, &s, x, frame);
            x = frame;
        }
        for (int o = 0, left = (s.O + VW - 1) / VW; left > 0;) {
            const int v = even_block(left, MAX_V), most = tile_rows[v];
            const int tail = v == left ? s.O - o - (v - 1) * VW : VW;
            int row = 0, column = 0;
            for (int p = 0; p < pixels;) {
                const int rows = pixels - p < most ? pixels - p : most;
                ptrdiff_t at[MAX_P];
                for (int i = 0; i < rows; i++) {
                    at[i] = (ptrdiff_t)(row * s.sh * s.W + column * s.sw) * s.C;
                    if (++column == s.OW)
                        column = 0, row++;
                }
                multiply_tile[v][rows](x, at, s.kh, (ptrdiff_t)s.W * s.C, s.R, c->w + o, s.o_pad, bias + o,
                                       y + (size_t)p * s.O + o, (size_t)s.O, tail);
                p += rows;
            }
            o += v * VW;
            left -= v;
        }
    }
}

KERNEL void conv2d_bias_gradient(const conv_shape *s, const call *c, float *db)
{
    const size_t pixels = (size_t)s->OH * s->OW;
    for (int o = 0; o < s->O; o += VW) {
        vec sum = vset(0);
        for (int n = 0; n < c->n; n++) {
            const float *dy = c->dy.p + (size_t)n * c->dy.stride + o;
            for (size_t p = 0; p < pixels; p++, dy += s->O)
                sum += vload(dy);
        }
        if (!c->first)
            sum += vload(db + o);
        vstore_n(db + o, sum, s->O - o < VW ? s->O - o : VW);
    }
}

KERNEL void conv2d_weight_gradient(const geometry *g, const conv_shape *s, const call *c)
{
    pixel_walk walk = {c->n, s->OH, s->OW, c->x[0], c->dy, (ptrdiff_t)s->sh * s->W * s->C, (ptrdiff_t)s->sw * s->C, s->O};
    if (s->padded)
        walk.x = (source){c->keep.p, c->keep.stride};
    for (int o = 0, left = (s->O + VW - 1) / VW; left > 0;) {
        const int v = even_block(left, MAX_V), most = tile_rows[v];
        const int tail = v == left ? s->O - o - (v - 1) * VW : VW;
        for (int ky = 0; ky < s->kh; ky++)
            for (int r = 0; r < s->R;) {
                const int rows = even_block(s->R - r, most);
                outer_tile[v][rows](&walk, (ptrdiff_t)ky * s->W * s->C + r, o,
                                    c->dw + (size_t)(ky * s->R + r) * s->o_pad + o, s->o_pad, c->first, tail);
                r += rows;
            }
        o += v * VW;
        left -= v;
    }
    if (g->option[HAS_BIAS])
        conv2d_bias_gradient(s, c, c->dw + (size_t)s->kh * s->R * s->o_pad);
}

/* [ky][r][o] -> [ky][o][r padded with zeros] */
KERNEL void conv2d_transpose(const conv_shape *s, const float *w, float *to)
{
    for (int ky = 0; ky < s->kh; ky++, w += (size_t)s->R * s->o_pad, to += s->o_pad * s->r_pad)
        for (int r = 0; r < (int)s->r_pad; r += VW)
            for (int o = 0; o < s->O; o += VW) {
                vec m[VW];
#pragma GCC unroll 16
                for (int i = 0; i < VW; i++)
                    m[i] = r + i < s->R ? vload(w + (size_t)(r + i) * s->o_pad + o) : vset(0);
                vtranspose(m);
#pragma GCC unroll 16
                for (int i = 0; i < VW; i++)
                    vstore(to + (size_t)(o + i) * s->r_pad + r, m[i]);
            }
}

KERNEL void conv2d_data_gradient(const geometry *g, const conv_shape *s, const call *c)
{
    const int pixels = s->OH * s->OW, vectors = (s->R + VW - 1) / VW;
    float *rows = c->scratch;
    float *value = rows + (size_t)s->kh * s->o_pad * s->r_pad;
    int32_t *at = (int32_t *)(value + round_up((size_t)pixels * s->O + 1, LANES));
    int32_t *start = at + round_up((size_t)pixels * s->O + 1, LANES);
    float *frame = (float *)(start + round_up((size_t)pixels + 1, LANES));
    conv2d_transpose(s, c->w, rows);
    for (int n = 0; n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        float *dx = s->padded ? frame : c->dx[0].p + (size_t)n * c->dx[0].stride;
        int found = 0;
        for (int p = 0; p < pixels; p++) {
            start[p] = found;
            for (int o = 0; o < s->O; o++) {
                float d = dy[(size_t)p * s->O + o];
                value[found] = d;
                at[found] = o * (int32_t)s->r_pad;
                found += d != 0;
            }
        }
        start[pixels] = found;
        memset(dx, 0, (size_t)s->H * s->W * s->C * sizeof(float));
        for (int ky = 0; ky < s->kh; ky++)
            for (int left = vectors, r = 0; left > 0;) { /* ky and r outside: the rows in use stay in the first cache */
                const int block = even_block(left, MAX_G);
                const float *from = rows + (size_t)ky * s->o_pad * s->r_pad + r;
                gather_fn *const tile = gather_tile[block];
                for (int i = 0, p = 0; i < s->OH; i++) {
                    float *to = dx + (size_t)(i * s->sh + ky) * s->W * s->C + r;
                    for (int j = 0; j < s->OW; j++, p++, to += s->sw * s->C)
                        if (start[p + 1] > start[p])
                            tile(start[p + 1] - start[p], value + start[p], at + start[p], from, to);
                }
                r += block * VW;
                left -= block;
            }
        if (s->padded)
            frame_out(g, s, dx, c->dx[0].p + (size_t)n * c->dx[0].stride);
    }
}

KERNEL void conv2d_backward(const geometry *g, const call *c)
{
    const conv_shape s = conv_of(g);
    conv2d_weight_gradient(g, &s, c);
    if (c->dx[0].p)
        conv2d_data_gradient(g, &s, c);
}

static const layer_kind layer_conv2d = {"conv2d", 2, conv2d_set_up, conv2d_locate, conv2d_forward, conv2d_backward};
