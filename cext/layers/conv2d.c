/* Convolution (cross-correlation) with stride and zero padding. Body: included by cext/isa/ only.
 *
 * Weight block: [ky][kx][input channel][output channel padded to LANES], then one row of biases: with channels innermost,
 * a row of a patch is kw*C contiguous floats of the input, so neither im2col nor col2im is needed.
 *   forward          vectors over output channels, tiles of pixels; one-channel images share what neighbours load
 *   weight gradient  dense dy: vectors over output channels, tiles of patch entries, summed over all pixels in registers;
 *                    sparse dy: vectors over patch rows, one output channel at a time, its non-zero pixels only
 *   data gradient    vectors over patch rows with transposed weights, one pixel at a time, its non-zero channels only
 * dy is sparse behind max-pooling, which leaves one entry per window, and often behind ReLU. A max-pooling that only this
 * layer feeds hands its winners through (call.pool), so that nothing has to be searched for.
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
    float *by_channel;  /* the same entries channel by channel, [o][room]: values */
    int32_t *patch_at;  /* and where in x their patches start */
    int32_t *count;     /* per o */
    int room;
    int32_t *window;    /* per entry of a pooling window: how far its patch is from the first one's */
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
    c->window = (int32_t *)at, at += entries; /* a window has no more entries than the image */
    c->room = 0;
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

/* One-channel images with stride 1: neighbouring pixels read neighbouring floats, so a strip of P pixels loads P + kw - 1
 * of them per row instead of P * kw. The last strip of a row overlaps the one before. */
INLINE void strip(const int P, const int V, const int KW, const conv_shape *s, const float *x, const float *w, const float *bias,
                  float *y, int tail)
{
    for (int i = 0; i < s->OH; i++)
        for (int j = 0;; j = j + 2 * P <= s->OW ? j + P : s->OW - P) {
            vec acc[13][2];
#pragma GCC unroll 13
            for (int p = 0; p < P; p++)
#pragma GCC unroll 2
                for (int v = 0; v < V; v++)
                    acc[p][v] = vload(bias + v * VW);
            const float *row = x + (size_t)(i * s->sh) * s->W + j, *wk = w;
            for (int k = 0; k < s->kh; k++, row += s->W, wk += KW * s->o_pad) {
                vec b[5][2];
#pragma GCC unroll 5
                for (int r = 0; r < KW; r++)
#pragma GCC unroll 2
                    for (int v = 0; v < V; v++)
                        b[r][v] = vload(wk + r * s->o_pad + v * VW);
#pragma GCC unroll 18
                for (int q = 0; q < P + KW - 1; q++) {
                    const vec a = vset(row[q]);
#pragma GCC unroll 5
                    for (int r = 0; r < KW; r++)
                        if (q - r >= 0 && q - r < P)
#pragma GCC unroll 2
                            for (int v = 0; v < V; v++)
                                acc[q - r][v] += a * b[r][v];
                }
            }
            float *to = y + ((size_t)i * s->OW + j) * s->O;
#pragma GCC unroll 13
            for (int p = 0; p < P; p++, to += s->O) {
                if (V == 2)
                    vstore(to, acc[p][0]);
                vstore_n(to + (V - 1) * VW, acc[p][V - 1], tail);
            }
            if (j + P == s->OW)
                break;
        }
}

#if VW == 16
/* The same with few output channels: a vector holds G = 16 / O neighbouring pixels of all O channels (5 channels: 15 of 16
 * lanes at work instead of 5). Lane l is pixel l / O; its input is fetched by a permutation of 16 floats of the image row. */
enum { GROUPS = 5, MAX_KW = 8 };
INLINE void grouped_strip(const int KW, const conv_shape *s, const float *x, const float *w, const float *bias, float *y)
{
    const int G = VW / s->O, wide = GROUPS * G;
    int32_t pixel[VW], channel[VW];
    for (int l = 0; l < VW; l++) {
        pixel[l] = l / s->O < G ? l / s->O : 0;
        channel[l] = l % s->O;
    }
    const __m512i which = _mm512_loadu_si512(channel), first = _mm512_loadu_si512(pixel);
    const __m512 base = _mm512_permutexvar_ps(which, _mm512_loadu_ps(bias));
    __m512 spread[MAX_KW * MAX_KW]; /* weights, one copy per pixel */
    for (int k = 0; k < s->kh * KW; k++)
        spread[k] = _mm512_permutexvar_ps(which, _mm512_loadu_ps(w + (size_t)k * s->o_pad));
    const __mmask16 lanes = (__mmask16)(0xffffu >> (16 - G * s->O));
    for (int i = 0; i < s->OH; i++)
        for (int j = 0;; j = j + 2 * wide <= s->OW ? j + wide : s->OW - wide) {
            __m512 acc[GROUPS];
#pragma GCC unroll 5
            for (int t = 0; t < GROUPS; t++)
                acc[t] = base;
            const float *row = x + (size_t)(i * s->sh) * s->W + j;
            for (int k = 0; k < s->kh; k++, row += s->W) {
                __m512 a[GROUPS];
#pragma GCC unroll 5
                for (int t = 0; t < GROUPS; t++)
                    a[t] = _mm512_loadu_ps(row + t * G);
#pragma GCC unroll 5
                for (int r = 0; r < KW; r++) {
                    const __m512i at = _mm512_add_epi32(first, _mm512_set1_epi32(r));
#pragma GCC unroll 5
                    for (int t = 0; t < GROUPS; t++)
                        acc[t] = _mm512_fmadd_ps(_mm512_permutexvar_ps(at, a[t]), spread[k * KW + r], acc[t]);
                }
            }
            float *to = y + ((size_t)i * s->OW + j) * s->O;
#pragma GCC unroll 5
            for (int t = 0; t < GROUPS; t++)
                _mm512_mask_storeu_ps(to + (size_t)t * G * s->O, lanes, acc[t]);
            if (j + wide == s->OW)
                break;
        }
}
#endif

/* 0: not for this shape. */
KERNEL int conv2d_strip_forward(const conv_shape *s, const float *x, const float *w, const float *bias, float *y)
{
    enum { P1 = VW == 16 ? 13 : 8, P2 = VW == 16 ? 9 : 5 };
#if VW == 16
    if (s->O <= VW / 2 && s->kh <= MAX_KW && s->OW >= GROUPS * (VW / s->O) && VW / s->O + s->kw <= VW + 1) {
        switch (s->kw) {
        case 3: grouped_strip(3, s, x, w, bias, y); return 1;
        case 4: grouped_strip(4, s, x, w, bias, y); return 1;
        case 5: grouped_strip(5, s, x, w, bias, y); return 1;
        }
    }
#endif
    if (s->kw < 3 || s->kw > 5 || s->OW < P1)
        return 0;
    for (int o = 0, left = (s->O + VW - 1) / VW; left > 0;) {
        const int v = even_block(left, 2), tail = v == left ? s->O - o - (v - 1) * VW : VW;
        switch (v * 8 + s->kw) {
        case 11: strip(P1, 1, 3, s, x, w + o, bias + o, y + o, tail); break;
        case 12: strip(P1, 1, 4, s, x, w + o, bias + o, y + o, tail); break;
        case 13: strip(P1, 1, 5, s, x, w + o, bias + o, y + o, tail); break;
        case 19: strip(P2, 2, 3, s, x, w + o, bias + o, y + o, tail); break;
        case 20: strip(P2, 2, 4, s, x, w + o, bias + o, y + o, tail); break;
        case 21: strip(P2, 2, 5, s, x, w + o, bias + o, y + o, tail); break;
        }
        o += v * VW;
        left -= v;
    }
    return 1;
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
        if (s.C == 1 && s.sw == 1 && conv2d_strip_forward(&s, x, c->w, bias, y))
            continue;
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

KERNEL void conv2d_bias_gradient(const call *c, int O, size_t pixels, float *db)
{
    for (int o = 0; o < O; o += VW) {
        vec sum = vset(0);
        for (int n = 0; n < c->n; n++) {
            const float *dy = c->dy.p + (size_t)n * c->dy.stride + o;
            for (size_t p = 0; p < pixels; p++, dy += O)
                sum += vload(dy);
        }
        if (!c->first)
            sum += vload(db + o);
        vstore_n(db + o, sum, O - o < VW ? O - o : VW);
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
KERNEL void conv2d_find(const conv_shape *s, conv_scratch *t, const float *dy)
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
KERNEL void conv2d_sort(const conv_shape *s, conv_scratch *t)
{
    t->room = s->OH * s->OW;
    for (int o = 0; o < s->O; o++)
        t->count[o] = o * t->room;
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
        t->count[o] -= o * t->room;
}

/* Lists the winners of one sample by pixel: pixel (i, j) is entry (i % step, j % step) of a window, if it is in one. */
KERNEL void conv2d_find_winners(const conv_shape *s, conv_scratch *t, const geometry *pool, const float *dy, const int32_t *won)
{
    const int kh = pool->option[0], kw = pool->option[1], sh = pool->option[2], sw = pool->option[3];
    int found = 0, p = 0;
    for (int i = 0, wi = 0, a = 0; i < s->OH; i++, wi += a + 1 == sh, a = a + 1 == sh ? 0 : a + 1)
        for (int j = 0, wj = 0, b = 0; j < s->OW; j++, p++, wj += b + 1 == sw, b = b + 1 == sw ? 0 : b + 1) {
            t->start[p] = found;
            if (a >= kh || b >= kw || wi >= pool->out.h || wj >= pool->out.w)
                continue;
            const size_t q = ((size_t)wi * pool->out.w + wj) * s->O;
            for (int o = 0; o < s->O; o += VW)
                found += vpack_equal(won + q + o, a * kw + b, dy + q + o, s->O - o < VW ? s->O - o : VW, o, t->value + found,
                                     t->channel + found);
        }
    t->start[p] = found;
}

/* The same by channel. */
KERNEL void conv2d_sort_winners(const conv_shape *s, conv_scratch *t, const geometry *pool, const float *dy, const int32_t *won)
{
    const int windows = pool->out.h * pool->out.w;
    t->room = windows;
    for (int o = 0; o < s->O; o++)
        t->count[o] = windows;
    for (int i = 0, q = 0; i < pool->out.h; i++)
        for (int j = 0; j < pool->out.w; j++, q++, dy += s->O, won += s->O) {
            const int32_t at = (i * pool->option[2] * s->sh * s->W + j * pool->option[3] * s->sw) * s->C;
            for (int o = 0; o < s->O; o++) {
                t->by_channel[(size_t)o * windows + q] = dy[o];
                t->patch_at[(size_t)o * windows + q] = at + t->window[won[o]];
            }
        }
}

/* Patch rows shorter than this many floats are kept in narrow vectors, all rows of a kernel at once. */
enum { SHORT = VW == 16 ? 8 : VW, MAX_SHORT_ROWS = 6 };
typedef float short_vec __attribute__((vector_size(4 * SHORT), may_alias));
typedef float short_vec_u __attribute__((vector_size(4 * SHORT), aligned(4), may_alias));

INLINE void gather_short(const int K, int n, const float *value, const int32_t *at, const float *x, ptrdiff_t x_row, float *to,
                         size_t step)
{
    short_vec even[MAX_SHORT_ROWS], odd[MAX_SHORT_ROWS]; /* two entries at a time: one alone would wait for itself */
#pragma GCC unroll 6
    for (int k = 0; k < K; k++)
        even[k] = odd[k] = (short_vec){0};
    for (int q = 0; q < n; q += 2) {
        const int other = q + 1 < n ? q + 1 : q;
        const float *row = x + at[q], *row2 = x + at[other];
        const short_vec v = value[q] - (short_vec){0}, v2 = (q + 1 < n ? value[other] : 0.f) - (short_vec){0};
#pragma GCC unroll 6
        for (int k = 0; k < K; k++, row += x_row, row2 += x_row) {
            even[k] += v * *(const short_vec_u *)row;
            odd[k] += v2 * *(const short_vec_u *)row2;
        }
    }
#pragma GCC unroll 6
    for (int k = 0; k < K; k++)
        *(short_vec_u *)(to + (size_t)k * step) += even[k] + odd[k];
}

KERNEL void conv2d_sparse_weight_gradient(const conv_shape *s, const conv_scratch *t, const float *x)
{
    const ptrdiff_t x_row = (ptrdiff_t)s->W * s->C;
    if (s->R <= SHORT && s->kh <= MAX_SHORT_ROWS)
        for (int o = 0; o < s->O; o++) {
            const int n = t->count[o];
            const float *value = t->by_channel + (size_t)o * t->room;
            const int32_t *at = t->patch_at + (size_t)o * t->room;
            float *to = t->gradient + (size_t)o * s->r_pad;
            const size_t step = s->o_pad * s->r_pad;
            switch (s->kh) {
            case 1: gather_short(1, n, value, at, x, x_row, to, step); break;
            case 2: gather_short(2, n, value, at, x, x_row, to, step); break;
            case 3: gather_short(3, n, value, at, x, x_row, to, step); break;
            case 4: gather_short(4, n, value, at, x, x_row, to, step); break;
            case 5: gather_short(5, n, value, at, x, x_row, to, step); break;
            default: gather_short(6, n, value, at, x, x_row, to, step); break;
            }
        }
    else
        for (int ky = 0; ky < s->kh; ky++, x += x_row)
            for (int o = 0; o < s->O; o++)
                for (int left = (s->R + VW - 1) / VW, r = 0; left > 0;) {
                    const int block = even_block(left, MAX_G);
                    gather_tile[block](t->count[o], t->by_channel + (size_t)o * t->room, t->patch_at + (size_t)o * t->room,
                                       x + r, 1, t->gradient + ((size_t)ky * s->o_pad + o) * s->r_pad + r);
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

/* The same channel by channel, entry by entry: for so few entries that a pixel has hardly more than one. */
KERNEL void conv2d_scatter_data_gradient(const conv_shape *s, const conv_scratch *t, float *dx)
{
    const ptrdiff_t x_row = (ptrdiff_t)s->W * s->C;
    memset(dx, 0, (size_t)s->H * s->W * s->C * sizeof(float));
    for (int o = 0; o < s->O; o++) {
        const float *value = t->by_channel + (size_t)o * t->room;
        const int32_t *at = t->patch_at + (size_t)o * t->room;
        const float *w = t->weights + (size_t)o * s->r_pad;
        for (int q = 0; q < t->count[o]; q++) {
            const vec v = vset(value[q]);
            for (int r = 0; r < s->R; r += VW) {
                float *to = dx + at[q] + r;
                for (int ky = 0; ky < s->kh; ky++, to += x_row) /* one row after the other: no load waits for a store */
                    vstore(to, vload(to) + v * vload(w + (size_t)ky * s->o_pad * s->r_pad + r));
            }
        }
    }
}

KERNEL void conv2d_backward(const geometry *g, const call *c)
{
    const conv_shape s = conv_of(g);
    const source x = s.padded ? (source){c->keep.p, c->keep.stride} : c->x[0];
    const int sparse = c->pool || conv2d_is_sparse(&s, c);
    const size_t windows = c->pool ? (size_t)c->pool->out.h * c->pool->out.w : 0;
    const int few = c->pool && windows * s.O < (size_t)2 * s.OH * s.OW; /* entries per pixel on average */
    conv_scratch t;
    conv_scratch_at(&s, c->scratch, &t);
    if (c->dx[0].p)
        conv2d_transpose(&s, c->w, t.weights);
    if (sparse)
        memset(t.gradient, 0, (size_t)s.kh * s.o_pad * s.r_pad * sizeof(float));
    if (c->pool)
        for (int a = 0, number = 0; a < c->pool->option[0]; a++)
            for (int b = 0; b < c->pool->option[1]; b++)
                t.window[number++] = (a * s.sh * s.W + b * s.sw) * s.C;
    for (int n = 0; n < c->n && (sparse || c->dx[0].p); n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        const int32_t *won = c->pool ? c->won.p + (size_t)n * c->won.stride : NULL;
        if (!won)
            conv2d_find(&s, &t, dy);
        else if (c->dx[0].p && !few)
            conv2d_find_winners(&s, &t, c->pool, dy, won);
        if (sparse) {
            if (won)
                conv2d_sort_winners(&s, &t, c->pool, dy, won);
            else
                conv2d_sort(&s, &t);
            conv2d_sparse_weight_gradient(&s, &t, x.p + (size_t)n * x.stride);
        }
        if (c->dx[0].p) {
            float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
            if (few)
                conv2d_scatter_data_gradient(&s, &t, s.padded ? t.frame : dx);
            else
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
        conv2d_bias_gradient(c, s.O, c->pool ? windows : (size_t)s.OH * s.OW,
                             c->dw + (size_t)s.kh * s.R * s.o_pad);
}

static const layer_kind layer_conv2d = {"conv2d", 2, conv2d_set_up, conv2d_locate, conv2d_forward, conv2d_backward, NULL, 1};
