/* Gradients of small convolutions behind pooling, whose winners are taken straight from the windows: no lists of them are
 * made. Included by conv2d.c only. */

#if VW == 16
/* ---- weight gradient of one-channel images: a kernel is 16 neighbours of a woven image ---- */

/* Pixel p of the woven image is pixels p, p + W, p + 2W and p + 3W of the image (fewer where the kernel has fewer rows), so
 * that a patch is 16 neighbours: number 4 * kx + ky. Two vectors per winner instead of one per row, and one transposition in
 * all. */
KERNEL void weave(const conv_shape *s, const float *x, float *to)
{
    const int W = s->W, pixels = (s->H - s->kh + 1) * W;
    const int second = s->kh > 1 ? W : 0, third = s->kh > 2 ? 2 * W : second, fourth = s->kh > 3 ? 3 * W : third;
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    const __m512i low2 = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), high2 = _mm512_add_epi64(low2, _mm512_set1_epi64(4));
    for (int p = 0; p < pixels; p += VW, to += 4 * VW) {
        const __m512 a = _mm512_loadu_ps(x + p), b = _mm512_loadu_ps(x + p + second);
        const __m512 c = _mm512_loadu_ps(x + p + third), d = _mm512_loadu_ps(x + p + fourth);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const __m512d ab = _mm512_castps_pd(_mm512_permutex2var_ps(a, half ? high : low, b));
            const __m512d cd = _mm512_castps_pd(_mm512_permutex2var_ps(c, half ? high : low, d));
            _mm512_storeu_pd(to + 2 * half * VW, _mm512_permutex2var_pd(ab, low2, cd));
            _mm512_storeu_pd(to + (2 * half + 1) * VW, _mm512_permutex2var_pd(ab, high2, cd));
        }
    }
}

/* Sums over all windows, for N channels: to[n * VW ...] = the kernel of channel n. */
typedef void woven_fn(const conv_shape *s, const geometry *pool, const float *dy, const int32_t *won, const float *x,
                      const int32_t *window, float *to);
enum { WOVEN = 6 };

INLINE void woven(const int N, const conv_shape *s, const geometry *pool, const float *dy, const int32_t *won,
                  const float *x, const int32_t *window, float *to)
{
    narrow_8 sum[WOVEN][2]; /* of halves fewer cross a cache line */
#pragma GCC unroll 6
    for (int n = 0; n < N; n++)
        sum[n][0] = sum[n][1] = (narrow_8){0};
    for (int i = 0; i < pool->out.h; i++) {
        const float *row = x + 4 * patch_at(s, i * pool->window.sh, 0);
        for (int j = 0; j < pool->out.w; j++, row += 4 * pool->window.sw * s->sw, dy += s->y_step, won += s->y_step)
#pragma GCC unroll 6
            for (int n = 0; n < N; n++) {
                const float *from = row + window[won[n]];
                const narrow_8 v = dy[n] - (narrow_8){0};
                sum[n][0] += v * *(const narrow_8_u *)from;
                sum[n][1] += v * *(const narrow_8_u *)(from + SHORT);
            }
    }
#pragma GCC unroll 6
    for (int n = 0; n < N; n++) {
        *(narrow_8_u *)(to + n * VW) = sum[n][0];
        *(narrow_8_u *)(to + n * VW + SHORT) = sum[n][1];
    }
}

#define WOVEN_SUM(N)                                                                                                        \
    KERNEL void woven_##N(const conv_shape *s, const geometry *pool, const float *dy, const int32_t *won, const float *x,   \
                          const int32_t *window, float *to)                                                                 \
    {                                                                                                                       \
        woven(N, s, pool, dy, won, x, window, to);                                                                          \
    }
WOVEN_SUM(1)
WOVEN_SUM(2)
WOVEN_SUM(3)
WOVEN_SUM(4)
WOVEN_SUM(5)
WOVEN_SUM(6)
static woven_fn *const woven_sum[WOVEN + 1] = {0, woven_1, woven_2, woven_3, woven_4, woven_5, woven_6};

KERNEL void conv2d_woven_weight_gradient(const conv_shape *s, const conv_scratch *t, const geometry *pool, const float *dy,
                                         const int32_t *won, const float *x, int first, float *dw)
{
    int32_t *window = t->place;
    for (int k = 0; k < pool->window.kh * pool->window.kw; k++)
        window[k] = 4 * t->window[k];
    weave(s, x, t->woven);
    for (int o = 0; o < s->O;) {
        const int n = even_block(s->O - o, WOVEN);
        woven_sum[n](s, pool, dy + o, won + o, t->woven, window, t->gradient + o * VW);
        o += n;
    }
    for (int o = 0; o < s->O; o += VW) {
        const int lanes = s->O - o < VW ? s->O - o : VW;
        vec m[VW];
#pragma GCC unroll 4
        for (int l = 0; l < VW; l += 4)
            vcolumns(t->gradient + o * VW + l, VW, VW, m + l);
#pragma GCC unroll 16
        for (int l = 0; l < VW; l++)
            if (l / 4 < s->kw && l % 4 < s->kh) {
                float *to = dw + (size_t)(l % 4 * s->kw + l / 4) * s->o_pad + o;
                if (!first)
                    m[l] += vload(to);
                vstore_n(to, m[l], lanes);
            }
    }
}
#endif

/* ---- weight gradient: all rows of a kernel, for one output channel at a time, in registers ---- */

enum { KERNEL_ROWS = 6, KERNEL_VECTORS = 2 };

INLINE int takes_whole_kernels(const conv_shape *s)
{
    return has_whole_rows(s) && s->K <= KERNEL_ROWS && s->R <= KERNEL_VECTORS * VW;
}

/* to[k * r_pad ...] = row k of one channel: the sum over all windows. */
typedef void whole_fn(const conv_shape *s, const conv_scratch *t, const geometry *pool, const float *dy, const int32_t *won,
                      const float *x, float *to);

INLINE void whole(const int K, const int V, const conv_shape *s, const conv_scratch *t, const geometry *pool,
                  const float *dy, const int32_t *won, const float *x, float *to)
{
    const ptrdiff_t step = (ptrdiff_t)s->dh * s->W * s->x_step;
    vec sum[KERNEL_ROWS][KERNEL_VECTORS];
#pragma GCC unroll 6
    for (int k = 0; k < K; k++)
#pragma GCC unroll 2
        for (int v = 0; v < V; v++)
            sum[k][v] = vset(0);
    for (int i = 0; i < pool->out.h; i++) {
        const float *row = x + patch_at(s, i * pool->window.sh, 0);
        for (int j = 0; j < pool->out.w; j++, dy += s->y_step, won += s->y_step) {
            const float *from = row + patch_at(s, 0, j * pool->window.sw) + t->window[*won];
            const vec a = vset(*dy);
#pragma GCC unroll 6
            for (int k = 0; k < K; k++, from += step)
#pragma GCC unroll 2
                for (int v = 0; v < V; v++)
                    sum[k][v] += a * vload(from + v * VW);
        }
    }
#pragma GCC unroll 6
    for (int k = 0; k < K; k++)
#pragma GCC unroll 2
        for (int v = 0; v < V; v++)
            vstore(to + (size_t)k * s->r_pad + v * VW, sum[k][v]);
}

#define WHOLE(K, V)                                                                                                         \
    KERNEL void whole_##K##_##V(const conv_shape *s, const conv_scratch *t, const geometry *pool, const float *dy,          \
                                const int32_t *won, const float *x, float *to)                                              \
    {                                                                                                                       \
        whole(K, V, s, t, pool, dy, won, x, to);                                                                            \
    }
WHOLE(1, 1)
WHOLE(2, 1)
WHOLE(3, 1)
WHOLE(4, 1)
WHOLE(5, 1)
WHOLE(6, 1)
WHOLE(1, 2)
WHOLE(2, 2)
WHOLE(3, 2)
WHOLE(4, 2)
WHOLE(5, 2)
WHOLE(6, 2)
static whole_fn *const whole_tile[KERNEL_VECTORS + 1][KERNEL_ROWS + 1] = {
    {0},
    {0, whole_1_1, whole_2_1, whole_3_1, whole_4_1, whole_5_1, whole_6_1},
    {0, whole_1_2, whole_2_2, whole_3_2, whole_4_2, whole_5_2, whole_6_2}};

KERNEL void conv2d_whole_weight_gradient(const conv_shape *s, const conv_scratch *t, const geometry *pool, const float *dy,
                                         const int32_t *won, const float *x, int first, float *dw)
{
    const size_t kernel = (size_t)s->K * s->r_pad;
    whole_fn *const sum = whole_tile[(s->R + VW - 1) / VW][s->K];
    for (int o = 0; o < s->O; o++)
        sum(s, t, pool, dy + o, won + o, x, t->gradient + o * kernel);
    for (int k = 0; k < s->K; k++)
        for (int o = 0; o < s->O; o += VW)
            transpose_back(t->gradient + (size_t)k * s->r_pad + o * kernel, kernel, s->R, s->O - o < VW ? s->O - o : VW,
                           first, dw + (size_t)k * s->R * s->o_pad + o, s->o_pad);
}

/* ---- data gradient of few winners, each added where it belongs ---- */

/* w as [o][tap][channel padded with zeros], `step` floats per output channel */
INLINE void widen_weights(const conv_shape *s, const float *w, size_t step, float *to)
{
    static const float zeros[LANES];
    for (int o = 0; o < s->O; o += VW) {
        const float *from = w + o, *const end = from + (size_t)s->K * s->R * s->o_pad;
        float *at = to + o * step;
        for (int c = 0; from < end; at += VW) {
            const float *row[VW];
            for (int b = 0; b < VW; b += SHORT) {
                const int n = from < end ? s->C - c : 0;
                for (int i = 0; i < SHORT; i++)
                    row[b + i] = i < n ? from + (size_t)i * s->o_pad : zeros;
                from += (size_t)(n < SHORT ? n : SHORT) * s->o_pad;
                c = n > SHORT ? c + SHORT : 0;
            }
            const int lanes = s->O - o < VW ? s->O - o : VW;
#pragma GCC unroll 4
            for (int q = 0; q < VW; q += 4) {
                const float *part[VW];
                vec m[4];
#pragma GCC unroll 16
                for (int i = 0; i < VW; i++)
                    part[i] = row[i] + q;
                vcolumns_of(part, m);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++)
                    if (q + i < lanes)
                        vstore(at + (size_t)(q + i) * step, m[i]);
            }
        }
    }
}

/* One winner: n vectors in each of K rows. */
INLINE void add_winner(const int n, int K, size_t row, float value, const float *w, float *to)
{
    const narrow_8 v = value - (narrow_8){0};
    for (int k = 0; k < K; k++, w += n * SHORT, to += row)
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            *(narrow_8_u *)(to + i * SHORT) += v * *(const narrow_8_u *)(w + i * SHORT);
}

/* In a frame whose pixels are padded to whole vectors: then a load finds what an earlier store has left in one piece, and need
 * not wait until several stores have reached the cache. */
INLINE void conv2d_scatter_data_gradient(const geometry *g, const conv_shape *s, const conv_scratch *t, const geometry *pool,
                                         const float *dy, const int32_t *won, const float *w, float *dx)
{
    const int kh = pool->window.kh, kw = pool->window.kw, sh = pool->window.sh, sw = pool->window.sw;
    const int C = s->C, O = s->O, K = s->kh, wide = (int)wide_pixel(s), blocks = s->kw * wide / SHORT;
    const size_t step = wide_kernel(s), row = (size_t)s->dh * s->W * wide;
    int32_t *window = t->place;
    for (int a = 0, number = 0; a < kh; a++)
        for (int b = 0; b < kw; b++)
            window[number++] = (a * s->sh * s->W + b * s->sw) * wide;
    widen_weights(s, w, step, t->weights);
    memset(t->frame, 0, (size_t)s->H * s->W * (size_t)wide * sizeof(float));
    /* locals: the stores might change what the pointers lead to */
    const size_t down = (size_t)sh * s->sh * s->W * wide, right = (size_t)sw * s->sw * wide;
    const int high = pool->out.h, broad = pool->out.w;
    float *const frame = t->frame;
    const float *const weights = t->weights;
    for (int i = 0; i < high; i++)
        for (int j = 0; j < broad; j++, dy += O, won += O) {
            float *to = frame + (size_t)i * down + (size_t)j * right;
            const float *kernel = weights;
            for (int o = 0; o < O; o++, kernel += step)
                switch (blocks) {
                case 3: add_winner(3, K, row, dy[o], kernel, to + window[won[o]]); break;
                case 5: add_winner(5, K, row, dy[o], kernel, to + window[won[o]]); break;
                default: add_winner(blocks, K, row, dy[o], kernel, to + window[won[o]]); break;
                }
        }
    /* without the padding of pixels and image; what spills over a pixel is written again, or lies in the slack */
    const int rows = g->in[0].h, columns = g->in[0].w;
    const size_t line = (size_t)s->W * (size_t)wide;
    if (s->mode)
        frame_border(g, s, frame, (ptrdiff_t)line, wide, 1);
    const float *first = frame + ((size_t)s->top * s->W + s->left) * (size_t)wide;
    for (int i = 0; i < rows; i++, first += line) {
        const float *from = first;
        for (int j = 0; j < columns; j++, from += wide, dx += C)
            for (int c = 0; c < C; c += SHORT)
                *(narrow_8_u *)(dx + c) = *(const narrow_8_u *)(from + c);
    }
}
