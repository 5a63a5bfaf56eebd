/* Forward pass of a convolution. Included by conv2d.c only. */

/* One-channel images with stride 1: neighbouring pixels read neighbouring floats, so a strip of P pixels loads P + kw - 1
 * of them per row instead of P * kw. The last strip of a row overlaps the one before. */
INLINE void strip(const int P, const int V, const int KW, const conv_shape *s, const float *x, const float *w,
                  const float *bias, float *y, int tail)
{
    for (int i = 0; i < s->OH; i++)
        for (int j = 0;; j = j + 2 * P <= s->OW ? j + P : s->OW - P) {
            vec acc[13][2];
#pragma GCC unroll 13
            for (int p = 0; p < P; p++)
#pragma GCC unroll 2
                for (int v = 0; v < V; v++)
                    acc[p][v] = vload(bias + v * VW);
            const float *row = x + (size_t)i * s->sh * s->W + j, *wk = w;
            for (int k = 0; k < s->kh; k++, row += s->dh * s->W, wk += KW * s->o_pad) {
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

/* Whether the strips are for this shape: one channel, so that a run is a row of pixels. */
INLINE int takes_strips(const conv_shape *s)
{
    return s->x_step == 1 && s->sw == 1 && s->dw == 1 && s->kw >= 3 && s->kw <= 5 && s->OW >= 13;
}

typedef void strip_fn(const conv_shape *s, const float *x, const float *w, const float *bias, float *y, int tail);

/* Strips of one vector for a remainder of half a vector, as multiply_half_tile. */
#if VW == 16
HALF INLINE void half_strip(const int KW, const conv_shape *s, const float *x, const float *w, const float *bias, float *y,
                            int tail)
{
    enum { P = 9 };
    for (int i = 0; i < s->OH; i++)
        for (int j = 0;; j = j + 2 * P <= s->OW ? j + P : s->OW - P) {
            narrow_8 acc[P];
#pragma GCC unroll 9
            for (int p = 0; p < P; p++)
                acc[p] = *(const narrow_8_u *)bias;
            const float *row = x + (size_t)i * s->sh * s->W + j, *wk = w;
            for (int k = 0; k < s->kh; k++, row += s->dh * s->W, wk += KW * s->o_pad) {
                narrow_8 b[5];
#pragma GCC unroll 5
                for (int r = 0; r < KW; r++)
                    b[r] = *(const narrow_8_u *)(wk + r * s->o_pad);
#pragma GCC unroll 18
                for (int q = 0; q < P + KW - 1; q++) {
                    const narrow_8 a = row[q] - (narrow_8){0};
#pragma GCC unroll 5
                    for (int r = 0; r < KW; r++)
                        if (q - r >= 0 && q - r < P)
                            acc[q - r] += a * b[r];
                }
            }
            float *to = y + ((size_t)i * s->OW + j) * s->O;
#pragma GCC unroll 9
            for (int p = 0; p < P; p++, to += s->O)
                if (tail == NARROW)
                    *(narrow_8_u *)to = acc[p];
                else
                    for (int o = 0; o < tail; o++)
                        to[o] = acc[p][o];
            if (j + P == s->OW)
                break;
        }
}

#define HALF_STRIP(KW)                                                                                                      \
    HALF KERNEL void half_strip_##KW(const conv_shape *s, const float *x, const float *w, const float *bias, float *y,      \
                                     int tail)                                                                              \
    {                                                                                                                       \
        half_strip(KW, s, x, w, bias, y, tail);                                                                             \
    }
HALF_STRIP(3)
HALF_STRIP(4)
HALF_STRIP(5)
static strip_fn *const conv2d_half_strip[3] = {half_strip_3, half_strip_4, half_strip_5};
#endif

KERNEL void conv2d_strip_forward(const conv_shape *s, const float *x, const float *w, const float *bias, float *y)
{
    enum { P1 = VW == 16 ? 13 : 8, P2 = VW == 16 ? 9 : 5 };
    int o = 0, left = (s->O + VW - 1) / VW;
#if VW == 16
    const int rest = s->O % VW;
    if (rest && rest <= VW / 2) {
        const int at = s->O - rest;
        conv2d_half_strip[s->kw - 3](s, x, w + at, bias + at, y + at, rest);
        left--;
    }
#endif
    while (left > 0) {
        const int v = even_block(left, 2), lanes = s->O - o - (v - 1) * VW, tail = lanes < VW ? lanes : VW;
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
}

#if VW == 16
/* Few output channels: a vector holds `s->packed` neighbouring pixels of `s->part` channels, all or half of them (5 or 10
 * channels: 15 of 16 lanes at work instead of 5 or 10). Lane l is channel l % part of pixel l / part; its input is fetched by a
 * permutation of a stretch of the image row, which serves all parts and, as input row y is row y - i of the kernel for output
 * row i, several output rows. PACK vectors side by side, one or two
 * parts; at most as many rows as the kernel has. */
enum { PACK_ROWS = 4 };
typedef __m512 pack_sums[PACK_ROWS][PACK][2];

/* Adds one tap to the output rows from <= i < to: `a` is its input, w its weights in row k of the kernel for i = 0. */
INLINE void pack_tap(const int parts, const int from, const int to, const __m512 a[PACK], const float *w, size_t above,
                     pack_sums acc)
{
#pragma GCC unroll 4
    for (int i = from; i < to; i++)
#pragma GCC unroll 2
        for (int b = 0; b < parts; b++) {
            __m512 v = _mm512_loadu_ps(w - (ptrdiff_t)((size_t)i * above) + b * VW);
            __asm__("" : "+v"(v)); /* loaded once, not with each multiplication */
#pragma GCC unroll 3
            for (int t = 0; t < PACK; t++)
                acc[i][t][b] = _mm512_fmadd_ps(a[t], v, acc[i][t][b]);
        }
}

/* One input row, which is row k - i of the kernel for these output rows; x and w are the input's and row k. With one input
 * channel (KW > 0) a single load serves all taps. */
INLINE void pack_row(const int KW, const int parts, const int from, const int to, const conv_shape *s, const float *x,
                     const float *w, const __m512i *at, size_t step, pack_sums acc)
{
    const size_t above = (size_t)s->R * step;
    __m512 row[PACK], a[PACK];
    if (KW) {
        row[0] = _mm512_loadu_ps(x);
#pragma GCC unroll 5
        for (int r = 0; r < KW; r++) {
#pragma GCC unroll 3
            for (int t = 0; t < PACK; t++)
                a[t] = _mm512_permutexvar_ps(at[t * KW + r], row[0]);
            pack_tap(parts, from, to, a, w + r * step, above, acc);
        }
        return;
    }
    for (int r = 0; r < s->kw; r++, x += s->C) {
#pragma GCC unroll 3
        for (int t = 0; t < PACK; t++)
            row[t] = _mm512_loadu_ps(x + (size_t)(t * s->packed * s->C));
        __m512i which = at[0];
        for (int c = 0; c < s->C; c++, w += step, which = _mm512_add_epi32(which, _mm512_set1_epi32(1))) {
#pragma GCC unroll 3
            for (int t = 0; t < PACK; t++)
                a[t] = _mm512_permutexvar_ps(which, row[t]);
            pack_tap(parts, from, to, a, w, above, acc);
        }
    }
}

INLINE void pack(const int KW, const int parts, const int ROWS, const conv_shape *s, const float *x, const float *spread,
                 const int32_t *lane, float *y)
{
    const __m512i first = _mm512_loadu_si512(lane);
    const size_t step = (size_t)parts * VW;
    const float *bias = spread + (size_t)s->K * s->R * step;
    const size_t row = (size_t)s->W * s->C, above = (size_t)s->R * step;
    __m512i at[PACK * 5] = {first};
#pragma GCC unroll 15
    for (int n = 0; n < PACK * KW; n++)
        at[n] = _mm512_add_epi32(first, _mm512_set1_epi32(n / KW * s->packed + n % KW));
    pack_sums acc;
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 3
        for (int t = 0; t < PACK; t++)
#pragma GCC unroll 2
            for (int b = 0; b < parts; b++)
                acc[i][t][b] = _mm512_loadu_ps(bias + b * VW);
    if (ROWS > 1)
        pack_row(KW, parts, 0, 1, s, x, spread, at, step, acc);
    if (ROWS > 2)
        pack_row(KW, parts, 0, 2, s, x + row, spread + above, at, step, acc);
    if (ROWS > 3)
        pack_row(KW, parts, 0, 3, s, x + 2 * row, spread + 2 * above, at, step, acc);
    x += (ROWS - 1) * row;
    spread += (ROWS - 1) * above;
    for (int k = ROWS - 1; k < s->kh; k++, x += row, spread += above)
        pack_row(KW, parts, 0, ROWS, s, x, spread, at, step, acc);
    if (ROWS > 1)
        pack_row(KW, parts, 1, ROWS, s, x, spread, at, step, acc);
    if (ROWS > 2)
        pack_row(KW, parts, 2, ROWS, s, x + row, spread + above, at, step, acc);
    if (ROWS > 3)
        pack_row(KW, parts, 3, ROWS, s, x + 2 * row, spread + 2 * above, at, step, acc);
    const int G = s->packed;
    const int last = G * s->O - (parts - 1) * VW; /* lanes of a group's last vector */
    const __mmask16 lanes = (__mmask16)(0xffffu >> (16 - last));
    const __m512i low = _mm512_loadu_si512(lane + VW), high = _mm512_loadu_si512(lane + 2 * VW);
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 3
        for (int t = 0; t < PACK; t++) {
            float *to = y + ((size_t)i * s->OW + (size_t)t * G) * s->O;
            __m512 *const v = acc[i][t];
            if (parts == 2) {
                const __m512 whole = _mm512_permutex2var_ps(v[0], low, v[1]);
                v[1] = _mm512_permutex2var_ps(v[0], high, v[1]);
                _mm512_storeu_ps(to, whole);
                to += VW;
            }
            if (t < PACK - 1) /* what spills over is written again */
                _mm512_storeu_ps(to, v[parts - 1]);
            else
                _mm512_mask_storeu_ps(to, lanes, v[parts - 1]);
        }
}

typedef void pack_fn(const conv_shape *s, const float *x, const float *spread, const int32_t *lane, float *y);
#define PACK_TILE(W, B, R)                                                                                                  \
    KERNEL void pack_##W##_##B##_##R(const conv_shape *s, const float *x, const float *spread, const int32_t *lane,         \
                                     float *y)                                                                              \
    {                                                                                                                       \
        pack(W, B, R, s, x, spread, lane, y);                                                                               \
    }
#define PACK_TILES(W)                                                                                                       \
    PACK_TILE(W, 1, 1)                                                                                                      \
    PACK_TILE(W, 1, 2)                                                                                                      \
    PACK_TILE(W, 1, 3)                                                                                                      \
    PACK_TILE(W, 1, 4)                                                                                                      \
    PACK_TILE(W, 2, 1)                                                                                                      \
    PACK_TILE(W, 2, 2)                                                                                                      \
    PACK_TILE(W, 2, 3)
PACK_TILES(0)
PACK_TILES(3)
PACK_TILES(4)
PACK_TILES(5)
#define PACK_TABLE(W)                                                                                                       \
    {                                                                                                                       \
        {0}, {0, pack_##W##_1_1, pack_##W##_1_2, pack_##W##_1_3, pack_##W##_1_4},                                           \
        {                                                                                                                   \
            0, pack_##W##_2_1, pack_##W##_2_2, pack_##W##_2_3                                                               \
        }                                                                                                                   \
    }
static pack_fn *const pack_tile[4][3][PACK_ROWS + 1] = {PACK_TABLE(0), PACK_TABLE(3), PACK_TABLE(4), PACK_TABLE(5)};

/* The weights and biases as the vectors of pack() want them, one copy per pixel: for every row of the block all parts. And
 * lanes: lane[l] is where the input of pixel l / part lies, lane[VW + f] in which lane of the parts the f-th output. */
KERNEL void conv2d_spread(const conv_shape *s, const conv_scratch *t, const float *w)
{
    const int parts = s->O / s->part, end = s->packed * s->part;
    for (int l = 0, pixel = 0, first = 0; l < VW; l++) { /* counted: divisions would take longer than the rest */
        if (l == first + s->part)
            pixel++, first = l;
        t->channel[l] = l - first;
        t->lane[l] = l < end ? pixel * s->C : 0;
    }
    for (int f = 0; f < 2 * VW; f++)
        t->lane[VW + f] = 0;
    for (int pixel = 0, f = VW; pixel < s->packed; pixel++)
        for (int b = 0; b < parts; b++)
            for (int o = 0; o < s->part; o++)
                t->lane[f++] = b * VW + pixel * s->part + o;
    const __m512i first = _mm512_loadu_si512(t->channel), second = _mm512_add_epi32(first, _mm512_set1_epi32(s->part));
    float *to = t->spread;
    for (int k = 0; k <= s->K * s->R; k++, w += s->o_pad) {
        const __m512 all = _mm512_loadu_ps(w);
        _mm512_storeu_ps(to, _mm512_permutexvar_ps(first, all));
        to += VW;
        if (parts == 2) {
            _mm512_storeu_ps(to, _mm512_permutexvar_ps(second, all));
            to += VW;
        }
    }
}

KERNEL void conv2d_packed_forward(const conv_shape *s, const conv_scratch *t, const float *x, float *y)
{
    const int parts = s->O / s->part, wide = PACK * s->packed, most = parts == 1 ? PACK_ROWS : PACK_ROWS - 1;
    /* all pixels and taps of a row within one vector */
    const int alone = s->C == 1 && s->kw >= 3 && s->kw <= 5 && wide + s->kw <= VW + 1 ? s->kw - 2 : 0;
    for (int i = 0; i < s->OH;) {
        const int rows = even_block(s->OH - i, most < s->kh ? most : s->kh);
        for (int j = 0;; j = j + 2 * wide <= s->OW ? j + wide : s->OW - wide) { /* the last overlaps the one before */
            pack_tile[alone][parts][rows](s, x + patch_at(s, i, j), t->spread, t->lane, y + ((size_t)i * s->OW + j) * s->O);
            if (j + wide == s->OW)
                break;
        }
        i += rows;
    }
}
#endif

/* All pixels in reading order, `most` at a time, for one block of output channels. */
INLINE void tile_pixels(const conv_shape *s, const conv_scratch *t, multiply_fn *const *tile, int most, const float *x,
                        const float *w, const float *bias, float *y, int tail)
{
    const int pixels = s->OH * s->OW;
    for (int p = 0, i = 0, j = 0; p < pixels;) {
        const int rows = even_block(pixels - p, most); /* a tile of few rows would wait for its sums */
        ptrdiff_t at[MAX_P];
        for (int n = 0; n < rows; n++) {
            at[n] = patch_at(s, i, j);
            if (++j == s->OW)
                j = 0, i++;
        }
        tile[rows](x, at, s->K, t->run, s->R, w, s->o_pad, bias, y + (size_t)p * s->y_step, (size_t)s->y_step, tail);
        p += rows;
    }
}

/* One group: vectors over output channels. */
KERNEL void conv2d_tile_forward(const conv_shape *s, const conv_scratch *t, const float *x, const float *w,
                                const float *bias, float *y)
{
    int o = 0, left = (s->O + VW - 1) / VW;
#if VW == 16
    const int rest = s->O % VW;
    if (rest && rest <= VW / 2) {
        const int at = s->O - rest;
        tile_pixels(s, t, multiply_half_tile, MAX_P, x, w + at, bias + at, y + at, rest);
        left--;
    }
#endif
    while (left > 0) {
        const int v = even_block(left, MAX_V), lanes = s->O - o - (v - 1) * VW;
        tile_pixels(s, t, multiply_tile[v], tile_rows[v], x, w + o, bias + o, y + o, lanes < VW ? lanes : VW);
        o += v * VW;
        left -= v;
    }
}
