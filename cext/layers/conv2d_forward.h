/* Forward pass of a convolution. Included by conv2d.c only. */

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

#if VW == 16
/* The same with few output channels: a vector holds G = 16 / O neighbouring pixels of all O channels (5 channels: 15 of 16
 * lanes at work instead of 5). Lane l is pixel l / O; its input is fetched by a permutation of 16 floats of the image row. */
enum { STRIPS = 5, MAX_TAPS = 64 };
INLINE void dense_strip(const int KW, const conv_shape *s, const float *x, const float *w, const float *bias, float *y)
{
    const int G = VW / s->O, wide = STRIPS * G;
    int32_t pixel[VW], channel[VW];
    for (int l = 0; l < VW; l++) {
        pixel[l] = l / s->O < G ? l / s->O : 0;
        channel[l] = l % s->O;
    }
    const __m512i which = _mm512_loadu_si512(channel), first = _mm512_loadu_si512(pixel);
    const __m512 base = _mm512_permutexvar_ps(which, _mm512_loadu_ps(bias));
    __m512 spread[MAX_TAPS]; /* weights, one copy per pixel */
    for (int k = 0; k < s->kh * KW; k++)
        spread[k] = _mm512_permutexvar_ps(which, _mm512_loadu_ps(w + (size_t)k * s->o_pad));
    const __mmask16 lanes = (__mmask16)(0xffffu >> (16 - G * s->O));
    for (int i = 0; i < s->OH; i++)
        for (int j = 0;; j = j + 2 * wide <= s->OW ? j + wide : s->OW - wide) {
            __m512 acc[STRIPS];
#pragma GCC unroll 5
            for (int t = 0; t < STRIPS; t++)
                acc[t] = base;
            const float *row = x + (size_t)i * s->sh * s->W + j;
            for (int k = 0; k < s->kh; k++, row += s->dh * s->W) {
                __m512 a[STRIPS];
#pragma GCC unroll 5
                for (int t = 0; t < STRIPS; t++)
                    a[t] = _mm512_loadu_ps(row + t * G);
#pragma GCC unroll 5
                for (int r = 0; r < KW; r++) {
                    const __m512i at = _mm512_add_epi32(first, _mm512_set1_epi32(r));
#pragma GCC unroll 5
                    for (int t = 0; t < STRIPS; t++)
                        acc[t] = _mm512_fmadd_ps(_mm512_permutexvar_ps(at, a[t]), spread[k * KW + r], acc[t]);
                }
            }
            float *to = y + ((size_t)i * s->OW + j) * s->O;
#pragma GCC unroll 5
            for (int t = 0; t < STRIPS; t++)
                _mm512_mask_storeu_ps(to + (size_t)t * G * s->O, lanes, acc[t]);
            if (j + wide == s->OW)
                break;
        }
}
#endif

/* Whether the strips are for this shape: one channel, so that a run is a row of pixels. */
INLINE int takes_strips(const conv_shape *s)
{
    return s->x_step == 1 && s->sw == 1 && s->dw == 1 && s->kw >= 3 && s->kw <= 5 && s->OW >= 13;
}

INLINE int takes_dense_strips(const conv_shape *s)
{
#if VW == 16
    return takes_strips(s) && s->O <= VW / 2 && s->kh * s->kw <= MAX_TAPS && s->OW >= STRIPS * (VW / s->O) &&
           VW / s->O + s->kw <= VW + 1;
#else
    return 0;
#endif
}

KERNEL void conv2d_strip_forward(const conv_shape *s, const float *x, const float *w, const float *bias, float *y)
{
    enum { P1 = VW == 16 ? 13 : 8, P2 = VW == 16 ? 9 : 5 };
#if VW == 16
    if (takes_dense_strips(s)) {
        switch (s->kw) {
        case 3: dense_strip(3, s, x, w, bias, y); break;
        case 4: dense_strip(4, s, x, w, bias, y); break;
        default: dense_strip(5, s, x, w, bias, y); break;
        }
        return;
    }
#endif
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
}

/* All pixels in reading order, `most` at a time, for one block of output channels. */
INLINE void tile_pixels(const conv_shape *s, const conv_scratch *t, multiply_fn *const *tile, int most, const float *x,
                        const float *w, const float *bias, float *y, int tail)
{
    const int pixels = s->OH * s->OW;
    for (int p = 0, i = 0, j = 0; p < pixels;) {
        const int rows = pixels - p < most ? pixels - p : most;
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
KERNEL void conv2d_tile_forward(const conv_shape *s, const conv_scratch *t, const float *x, const float *w, const float *bias,
                                float *y)
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

KERNEL void depthwise_forward(const conv_shape *s, const conv_scratch *t, const float *x, const float *w, float *y)
{
    const size_t C = (size_t)s->groups, pad = round_up(C, LANES);
    for (int i = 0; i < s->OH; i++)
        for (int j = 0; j < s->OW; j++, y += C) {
            const float *from = x + patch_at(s, i, j);
            for (size_t c = 0; c < C; c += VW) { /* stores ascend: what spills over the last channel is written again */
                vec sum = vload(w + (size_t)s->K * pad + c);
                for (int k = 0; k < s->K; k++)
                    sum += vload(from + t->run[k] + c) * vload(w + (size_t)k * pad + c);
                vstore(y + c, sum);
            }
        }
}
