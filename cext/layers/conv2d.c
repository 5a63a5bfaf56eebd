/* Convolution (cross-correlation) with stride and zero padding. Body: included by cext/isa/ only.
 *
 * Weight block: [ky][kx][input channel][output channel padded to LANES], then one row of biases: with channels innermost,
 * a row of a patch is kw*C contiguous floats of the input, so neither im2col nor col2im is needed.
 *   forward          vectors over output channels, tiles of pixels
 *   weight gradient  dense dy: vectors over output channels, tiles of patch entries, summed over all pixels in registers;
 *                    sparse dy: vectors over patch rows, one output channel at a time, its non-zero pixels only
 *   data gradient    vectors over patch rows with transposed weights, one pixel at a time, its non-zero channels only
 * Max-pooling behind the layer leaves one in window-size entries of dy non-zero, ReLU about half.
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

/* The memory of one backward call. */
typedef struct {
    float *weights;     /* transposed: [ky][o][r padded] */
    float *gradient;    /* of the weights, likewise */
    float *frame;       /* dx with its padding */
    float *value;       /* the non-zero entries of one sample's dy, pixel by pixel, */
    int32_t *channel;   /* their output channels, */
    int32_t *start;     /* [pixel + 1] and the first entry of each pixel */
    float *by_channel;  /* the same entries channel by channel, [o][pixels]: values */
    int32_t *patch_at;  /* and where in x their patches start */
    int32_t *count;     /* per o */
} conv_scratch;

/* Lays the parts out from `memory` (NULL: only counts) and returns the floats they take. */
INLINE size_t conv_scratch_at(const conv_shape *s, float *memory, conv_scratch *c)
{
    const size_t pixels = (size_t)s->OH * s->OW, block = (size_t)s->kh * s->o_pad * s->r_pad;
    const size_t entries = round_up(pixels * s->O, LANES) + SLACK;
    float *at = memory;
    c->weights = at, at += block;
    c->gradient = at, at += block;
    c->frame = at, at += conv_frame(s);
    c->value = at, at += entries;
    c->channel = (int32_t *)at, at += entries;
    c->start = (int32_t *)at, at += round_up(pixels + 1, LANES);
    c->by_channel = at, at += entries;
    c->patch_at = (int32_t *)at, at += entries;
    c->count = (int32_t *)at, at += s->o_pad;
    return (size_t)(at - memory);
}

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
    g->weight_size = ((size_t)s.kh * s.R + 1) * s.o_pad;
    g->keep_size = s.padded ? conv_frame(&s) : 0;
    conv_scratch parts;
    g->scratch_size = conv_scratch_at(&s, NULL, &parts);
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

KERNEL void conv2d_dense_weight_gradient(const conv_shape *s, const call *c, source x)
{
    const pixel_walk walk = {c->n, s->OH, s->OW, x, c->dy, (ptrdiff_t)s->sh * s->W * s->C, (ptrdiff_t)s->sw * s->C, s->O};
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
}

/* Whether at most one entry of dy in three is non-zero: there the sparse loops win (their loads cross cache lines, so an
 * entry costs about twice a dense one, and the result has to be transposed). Not worth it for small kernels, whose rows
 * leave most lanes idle. */
KERNEL int conv2d_is_sparse(const conv_shape *s, const call *c)
{
    const size_t size = (size_t)s->OH * s->OW * s->O;
    if (s->R < 2 * LANES / 3)
        return 0;
    for (int n = 0; n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        ivec zeros = iset(0);
        for (size_t i = 0; i + VW <= size; i += VW)
            zeros -= vload(dy + i) == 0.f;
        size_t total = size % VW;
        for (int i = 0; i < VW; i++)
            total += (size_t)zeros[i];
        if (total * 3 < size * 2)
            return 0;
    }
    return 1;
}

/* Lists the non-zero entries of one sample's dy by pixel. */
KERNEL void conv2d_find(const conv_shape *s, const conv_scratch *t, const float *dy)
{
    const int pixels = s->OH * s->OW;
    int found = 0;
    for (int p = 0; p < pixels; p++, dy += s->O) {
        t->start[p] = found;
        for (int o = 0; o < s->O; o += VW)
            found += vpack_nonzero(dy + o, s->O - o < VW ? s->O - o : VW, o, t->value + found, t->channel + found);
    }
    t->start[pixels] = found;
}

/* The same by channel. */
KERNEL void conv2d_sort(const conv_shape *s, const conv_scratch *t)
{
    const int pixels = s->OH * s->OW;
    for (int o = 0; o < s->O; o++)
        t->count[o] = o * pixels;
    for (int i = 0, p = 0; i < s->OH; i++)
        for (int j = 0; j < s->OW; j++, p++) {
            const int32_t from = (i * s->sh * s->W + j * s->sw) * s->C;
            for (int q = t->start[p]; q < t->start[p + 1]; q++) {
                const int k = t->count[t->channel[q]]++;
                t->by_channel[k] = t->value[q];
                t->patch_at[k] = from;
            }
        }
    for (int o = 0; o < s->O; o++)
        t->count[o] -= o * pixels;
}

KERNEL void conv2d_sparse_weight_gradient(const conv_shape *s, const conv_scratch *t, const float *x)
{
    const int pixels = s->OH * s->OW;
    for (int ky = 0; ky < s->kh; ky++, x += (size_t)s->W * s->C)
        for (int o = 0; o < s->O; o++)
            for (int left = (s->R + VW - 1) / VW, r = 0; left > 0;) {
                const int block = even_block(left, MAX_G);
                gather_tile[block](t->count[o], t->by_channel + o * pixels, t->patch_at + o * pixels, x + r, 1,
                                   t->gradient + ((size_t)ky * s->o_pad + o) * s->r_pad + r);
                r += block * VW;
                left -= block;
            }
}

/* dw[ky][r][o] (first ? = : +=) gradient[ky][o][r]; lanes past the last output channel stay as they are. */
KERNEL void conv2d_transpose_back(const conv_shape *s, const float *from, int first, float *dw)
{
    for (int ky = 0; ky < s->kh; ky++, from += s->o_pad * s->r_pad, dw += (size_t)s->R * s->o_pad)
        for (int o = 0; o < s->O; o += VW) {
            const int lanes = s->O - o < VW ? s->O - o : VW;
            for (int r = 0; r < s->R; r += VW) {
                vec m[VW];
#pragma GCC unroll 16
                for (int i = 0; i < VW; i++)
                    m[i] = vload(from + (size_t)(o + i) * s->r_pad + r);
                vtranspose(m);
                const int rows = s->R - r < VW ? s->R - r : VW;
#pragma GCC unroll 16
                for (int i = 0; i < VW; i++)
                    if (i < rows) {
                        float *to = dw + (size_t)(r + i) * s->o_pad + o;
                        if (!first)
                            m[i] += vload(to);
                        vstore_n(to, m[i], lanes);
                    }
            }
        }
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

KERNEL void conv2d_data_gradient(const conv_shape *s, const conv_scratch *t, float *dx)
{
    memset(dx, 0, (size_t)s->H * s->W * s->C * sizeof(float));
    for (int ky = 0; ky < s->kh; ky++)
        for (int left = (s->R + VW - 1) / VW, r = 0; left > 0;) { /* pixels inside: the weights stay in the first cache */
            const int block = even_block(left, MAX_G);
            const float *from = t->weights + (size_t)ky * s->o_pad * s->r_pad + r;
            gather_fn *const tile = gather_tile[block];
            for (int i = 0, p = 0; i < s->OH; i++) {
                float *to = dx + (size_t)(i * s->sh + ky) * s->W * s->C + r;
                for (int j = 0; j < s->OW; j++, p++, to += s->sw * s->C) {
                    const int q = t->start[p], n = t->start[p + 1] - q;
                    if (n)
                        tile(n, t->value + q, t->channel + q, from, s->r_pad, to);
                }
            }
            r += block * VW;
            left -= block;
        }
}

KERNEL void conv2d_backward(const geometry *g, const call *c)
{
    const conv_shape s = conv_of(g);
    const source x = s.padded ? (source){c->keep.p, c->keep.stride} : c->x[0];
    const int sparse = conv2d_is_sparse(&s, c);
    conv_scratch t;
    conv_scratch_at(&s, c->scratch, &t);
    if (c->dx[0].p)
        conv2d_transpose(&s, c->w, t.weights);
    if (sparse)
        memset(t.gradient, 0, (size_t)s.kh * s.o_pad * s.r_pad * sizeof(float));
    for (int n = 0; n < c->n && (sparse || c->dx[0].p); n++) {
        conv2d_find(&s, &t, c->dy.p + (size_t)n * c->dy.stride);
        if (sparse) {
            conv2d_sort(&s, &t);
            conv2d_sparse_weight_gradient(&s, &t, x.p + (size_t)n * x.stride);
        }
        if (c->dx[0].p) {
            float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
            conv2d_data_gradient(&s, &t, s.padded ? t.frame : dx);
            if (s.padded)
                frame_out(g, &s, t.frame, dx);
        }
    }
    if (sparse)
        conv2d_transpose_back(&s, t.gradient, c->first, c->dw);
    else
        conv2d_dense_weight_gradient(&s, c, x);
    if (g->option[HAS_BIAS])
        conv2d_bias_gradient(&s, c, c->dw + (size_t)s.kh * s.R * s.o_pad);
}

static const layer_kind layer_conv2d = {"conv2d", 2, conv2d_set_up, conv2d_locate, conv2d_forward, conv2d_backward};
