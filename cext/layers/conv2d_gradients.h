/* Weight and data gradients of a convolution. Included by conv2d.c only. */

KERNEL void conv2d_bias_gradient(const conv_shape *s, const call *c, source from, size_t pixels, int O, float *db)
{
    for (int o = 0; o < O; o += VW) {
        vec sum[4] = {vset(0), vset(0), vset(0), vset(0)}; /* so that no sum waits for itself */
        for (int n = 0; n < c->n; n++) {
            const float *dy = from.p + (size_t)n * from.stride + o;
            size_t p = 0;
            for (; p + 4 <= pixels; p += 4)
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++, dy += s->y_step)
                    sum[k] += vload(dy);
            for (; p < pixels; p++, dy += s->y_step)
                sum[0] += vload(dy);
        }
        vec all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        if (!c->first)
            all += vload(db + o);
        vstore_n(db + o, all, O - o < VW ? O - o : VW);
    }
}

KERNEL void conv2d_dense_weight_gradient(const conv_shape *s, const conv_scratch *t, const call *c, source x, source dy,
                                         float *dw)
{
    const pixel_walk walk = {c->n, s->OH, s->OW, x, dy, patch_at(s, 1, 0), patch_at(s, 0, 1), s->y_step};
    for (int o = 0, left = (s->O + VW - 1) / VW; left > 0;) {
        const int v = even_block(left, MAX_V), most = tile_rows[v], tail = v == left ? s->O - o - (v - 1) * VW : VW;
        for (int k = 0; k < s->K; k++)
            for (int r = 0; r < s->R;) {
                const int rows = even_block(s->R - r, most);
                outer_tile[v][rows](&walk, t->run[k] + r, o, dw + (size_t)(k * s->R + r) * s->o_pad + o, s->o_pad, c->first,
                                    tail);
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
    const size_t size = (size_t)s->OH * s->OW * s->y_step;
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
    for (int p = 0; p < pixels; p++, dy += s->y_step) {
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
            const int32_t from = (int32_t)patch_at(s, i, j);
            for (int q = t->start[p]; q < t->start[p + 1]; q++) {
                const int k = t->count[t->channel[q]]++;
                t->by_channel[k] = t->value[q];
                t->patch[k] = from;
            }
        }
    for (int o = 0; o < s->O; o++)
        t->count[o] -= o * t->room;
}

/* Lists the winners of one sample by pixel: pixel (i, j) is entry (i % step, j % step) of a window, if it is in one. */
KERNEL void conv2d_find_winners(const conv_shape *s, conv_scratch *t, const geometry *pool, const float *dy,
                                const int32_t *won)
{
    const int kh = pool->window.kh, kw = pool->window.kw, sh = pool->window.sh, sw = pool->window.sw;
    int found = 0, p = 0;
    for (int i = 0, wi = 0, a = 0; i < s->OH; i++, wi += a + 1 == sh, a = a + 1 == sh ? 0 : a + 1)
        for (int j = 0, wj = 0, b = 0; j < s->OW; j++, p++, wj += b + 1 == sw, b = b + 1 == sw ? 0 : b + 1) {
            t->start[p] = found;
            if (a >= kh || b >= kw || wi >= pool->out.h || wj >= pool->out.w)
                continue;
            const size_t q = ((size_t)wi * pool->out.w + wj) * s->y_step;
            for (int o = 0; o < s->O; o += VW)
                found += vpack_equal(won + q + o, a * kw + b, dy + q + o, s->O - o < VW ? s->O - o : VW, o, t->value + found,
                                     t->channel + found);
        }
    t->start[p] = found;
}

/* Where the patch of a window's first entry lies in the view. */
INLINE int32_t window_at(const conv_shape *s, const conv_view *v, const geometry *pool, int number)
{
    const int w = pool->out.w;
    return (int32_t)view_patch(s, v, number / w * pool->window.sh, number % w * pool->window.sw);
}

/* The same by channel. */
KERNEL void conv2d_sort_winners(const conv_shape *s, const conv_view *v, conv_scratch *t, const geometry *pool,
                                const float *dy, const int32_t *won)
{
    const int windows = pool->out.h * pool->out.w;
    const int32_t shift = (int32_t)v->shift;
    int q = 0;
    t->room = windows;
    for (int o = 0; o < s->O; o++)
        t->count[o] = windows;
#if VW == 16
    const __m512i offset = _mm512_loadu_si512(t->window);
    for (; q + VW <= windows && pool->window.kh * pool->window.kw <= VW;
         q += VW, dy += VW * s->y_step, won += VW * s->y_step) {
        ivec at;
        for (int i = 0; i < VW; i++)
            at[i] = window_at(s, v, pool, q + i);
        for (int o = 0; o < s->O; o += 4) {
            vec values[4], winners[4];
            vcolumns(dy + o, (size_t)s->y_step, VW, values);
            vcolumns((const float *)(won + o), (size_t)s->y_step, VW, winners);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                if (o + i < s->O) {
                    const ivec from = at + (ivec)_mm512_permutexvar_epi32((__m512i)winners[i], offset);
                    vstore(t->by_channel + (size_t)(o + i) * windows + q, values[i]);
                    istore(t->patch + (size_t)(o + i) * windows + q, from + (from >> 2 & 1) * shift);
                }
        }
    }
#endif
    for (; q < windows; q++, dy += s->y_step, won += s->y_step) {
        const int32_t at = window_at(s, v, pool, q);
        float *value = t->by_channel + q;
        int32_t *patch = t->patch + q;
        for (ptrdiff_t o = 0; o < s->O; o++, value += windows, patch += windows) {
            const int32_t from = at + t->window[won[o]];
            *value = dy[o];
            *patch = from + (from >> 2 & 1) * shift;
        }
    }
}

/* Patch rows of up to SHORT floats are kept in narrow vectors: all rows of a kernel, for some channels at once. */
enum { MAX_SHORT_ROWS = 6, SHORT_SUMS = 12 /* in 16 registers: 512-bit code has no more narrow ones */ };
typedef float narrow_4 __attribute__((vector_size(16), may_alias));
typedef float narrow_4_u __attribute__((vector_size(16), aligned(4), may_alias));

INLINE int takes_short_rows(const conv_shape *s) { return s->R <= SHORT && s->K <= MAX_SHORT_ROWS; }

/* Sums over all windows of a pooling, for N channels with a kernel of K rows: the winners one after the other, without lists
 * of them. to[k * step + n * r_pad ...] = row k of channel n. */
typedef void windows_fn(const conv_shape *s, const conv_scratch *t, const geometry *pool, const float *dy,
                        const int32_t *won, const float *x, float *to, size_t step);
#define WINDOWS(type, K, N)                                                                                                 \
    KERNEL void windows_##type##_##K##_##N(const conv_shape *s, const conv_scratch *t, const geometry *pool,                \
                                           const float *dy, const int32_t *won, const float *x, float *to, size_t step)     \
    {                                                                                                                       \
        type sum[N][K];                                                                                                     \
        ptrdiff_t run[K];                                                                                                   \
        _Pragma("GCC unroll 6") for (int k = 0; k < K; k++) run[k] = t->run[k];                                             \
        _Pragma("GCC unroll 6") for (int n = 0; n < N; n++) _Pragma("GCC unroll 6") for (int k = 0; k < K; k++)             \
            sum[n][k] = (type){0};                                                                                          \
        for (int i = 0; i < pool->out.h; i++) {                                                                             \
            const float *row = x + patch_at(s, i * pool->window.sh, 0);                                                     \
            for (int j = 0; j < pool->out.w;                                                                                \
                 j++, row += pool->window.sw * s->sw * s->x_step, dy += s->y_step, won += s->y_step)                        \
                _Pragma("GCC unroll 6") for (int n = 0; n < N; n++)                                                         \
                {                                                                                                           \
                    const float *from = row + t->window[won[n]];                                                            \
                    const type v = dy[n] - (type){0};                                                                       \
                    _Pragma("GCC unroll 6") for (int k = 0; k < K; k++)                                                     \
                        sum[n][k] += v * *(const type##_u *)(from + run[k]);                                                \
                }                                                                                                           \
        }                                                                                                                   \
        _Pragma("GCC unroll 6") for (int n = 0; n < N; n++) _Pragma("GCC unroll 6") for (int k = 0; k < K; k++) *           \
            (type##_u *)(to + (size_t)k * step + (size_t)n * s->r_pad) = sum[n][k];                                         \
    }
#define ALL_WINDOWS(type)                                                                                                   \
    WINDOWS(type, 1, 1)                                                                                                     \
    WINDOWS(type, 1, 2)                                                                                                     \
    WINDOWS(type, 1, 3)                                                                                                     \
    WINDOWS(type, 2, 1)                                                                                                     \
    WINDOWS(type, 2, 2)                                                                                                     \
    WINDOWS(type, 2, 3)                                                                                                     \
    WINDOWS(type, 3, 1)                                                                                                     \
    WINDOWS(type, 3, 2)                                                                                                     \
    WINDOWS(type, 3, 3)                                                                                                     \
    WINDOWS(type, 4, 1)                                                                                                     \
    WINDOWS(type, 4, 2)                                                                                                     \
    WINDOWS(type, 4, 3)                                                                                                     \
    WINDOWS(type, 5, 1)                                                                                                     \
    WINDOWS(type, 5, 2)                                                                                                     \
    WINDOWS(type, 6, 1)                                                                                                     \
    WINDOWS(type, 6, 2)                                                                                                     \
    static windows_fn *const windows_##type[MAX_SHORT_ROWS + 1][4] = {                                                      \
        {0},                                                                                                                \
        {0, windows_##type##_1_1, windows_##type##_1_2, windows_##type##_1_3},                                              \
        {0, windows_##type##_2_1, windows_##type##_2_2, windows_##type##_2_3},                                              \
        {0, windows_##type##_3_1, windows_##type##_3_2, windows_##type##_3_3},                                              \
        {0, windows_##type##_4_1, windows_##type##_4_2, windows_##type##_4_3},                                              \
        {0, windows_##type##_5_1, windows_##type##_5_2},                                                                    \
        {0, windows_##type##_6_1, windows_##type##_6_2}};
ALL_WINDOWS(narrow_4)
#if VW > 4
ALL_WINDOWS(narrow_8)
#else
#define windows_narrow_8 windows_narrow_4
#endif

/* dw[r][o] (first ? = : +=) from[o][r] for r < rows and up to VW outputs o; other lanes of dw stay as they are. */
KERNEL void transpose_back(const float *from, size_t step, int rows, int outputs, int first, float *dw, size_t o_pad)
{
    for (int r = 0; r < rows; r += 4, from += 4) {
        vec m[4];
        vcolumns(from, step, VW, m);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++, dw += o_pad)
            if (r + i < rows) {
                if (!first)
                    m[i] += vload(dw);
                vstore_n(dw, m[i], outputs);
            }
    }
}

/* w[r][o] for r < rows to `wide` columns of [o][step], padded with zeros. */
KERNEL void transpose(const float *w, size_t o_pad, int rows, int outputs, float *to, int wide, size_t step)
{
    int r = 0;
    for (; r + VW <= rows; r += VW, w += VW * o_pad) {
        float *row = to + r;
        for (int o = 0; o < outputs; o += 4) {
            vec m[4];
            vcolumns(w + o, o_pad, VW, m);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++, row += step)
                vstore(row, m[i]);
        }
    }
    for (; r < wide; r += VW, w += VW * o_pad) {
        const int some = rows - r, lanes = wide - r < VW ? wide - r : VW;
        ivec inside = iset(0);
        for (int i = 0; i < VW && i < some; i++)
            inside[i] = -1;
        float *row = to + r;
        for (int o = 0; o < outputs; o += 4) {
            vec m[4] = {vset(0), vset(0), vset(0), vset(0)};
            if (some > 0)
                vcolumns(w + o, o_pad, some, m);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++, row += step)
                vstore_n(row, (vec)((ivec)m[i] & inside), lanes);
        }
    }
}

/* The tiles for vectors of this width; *most, what the caller wants at most, becomes what there is. */
INLINE gather_fn *const *view_tiles(const conv_view *v, int *most)
{
#if VW == 16
    if (v->lanes < VW) {
        *most = MAX_NARROW;
        return narrow_gather_tile;
    }
#endif
    return gather_tile;
}

enum { FIT = 30 * 1024 }; /* bytes that stay in the first cache, of at least 32 KiB */

/* How many rows of windows to take at a time, for the input under them to stay in the first cache. */
INLINE int rows_together(const conv_shape *s, const conv_view *v, const geometry *pool)
{
    const ptrdiff_t row = v->row * s->sh * pool->window.sh * (v->copies == 2 ? 2 : 1) * (ptrdiff_t)sizeof(float);
    const ptrdiff_t fit = FIT / row;
    return even_block(pool->out.h, fit < 1 ? 1 : fit < pool->out.h ? (int)fit : pool->out.h);
}

/* Of one sample, from the lists by channel: `together` entries of each at a time. If these are all, a few channels wait in the
 * first cache for their transposition; otherwise the input stays there for all channels. */
KERNEL void conv2d_sparse_weight_gradient(const conv_shape *s, const conv_view *v, const conv_scratch *t, const float *x,
                                          int together, int first, float *dw)
{
    const int step = v->pieces * v->step, most_outputs = together < t->room || VW < LANES ? s->O : LANES;
    int most = MAX_LONG;
    gather_fn *const *const tile = view_tiles(v, &most);
    for (int k = 0; k < s->K; k++, dw += (size_t)s->R * s->o_pad) {
        const float *start = x + view_run(s, v, k);
        for (int o = 0; o < s->O; o += most_outputs) {
            const int end = s->O - o < most_outputs ? s->O : o + most_outputs;
            for (int from = 0; from < t->room; from += together) {
                float *to = t->gradient;
                for (int a = o; a < end; a++) {
                    const int rest = t->count[a] - from, n = rest < together ? rest : together;
                    const size_t list = (size_t)a * t->room + from;
                    for (int left = step / v->lanes, r = 0; left > 0;) {
                        const int block = even_block(left, most);
                        tile[block](n, t->by_channel + list, t->patch + list, start + r, 1, to, !from);
                        r += block * v->lanes;
                        to += block * v->lanes;
                        left -= block;
                    }
                }
            }
            for (int i = 0; i < v->pieces; i++)
                for (int a = o; a < end; a += VW)
                    transpose_back(t->gradient + (size_t)(a - o) * step + (size_t)i * v->step, (size_t)step, v->floats,
                                   end - a < VW ? end - a : VW, first, dw + (size_t)i * v->floats * s->o_pad + a, s->o_pad);
        }
    }
}

/* The same behind pooling for short rows, which needs no lists. */
KERNEL void conv2d_windows_weight_gradient(const conv_shape *s, const conv_scratch *t, const geometry *pool, const float *dy,
                                           const int32_t *won, const float *x, int first, float *dw)
{
    const size_t step = s->o_pad * s->r_pad, run = (size_t)s->R * s->o_pad;
    const int most = SHORT_SUMS / s->K < 3 ? SHORT_SUMS / s->K : 3;
    for (int o = 0; o < s->O;) {
        const int n = even_block(s->O - o, most);
        windows_fn *const *const rows = s->R <= 4 ? windows_narrow_4[s->K] : windows_narrow_8[s->K];
        rows[n](s, t, pool, dy + o, won + o, x, t->gradient + (size_t)o * s->r_pad, step);
        o += n;
    }
    for (int k = 0; k < s->K; k++)
        for (int o = 0; o < s->O; o += VW)
            transpose_back(t->gradient + k * step + (size_t)o * s->r_pad, s->r_pad, s->R, s->O - o < VW ? s->O - o : VW,
                           first, dw + k * run + o, s->o_pad);
}

/* Of one sample, from the lists by pixel, added to dx; as many pieces of a run at a time as leave their transposed weights in
 * the first cache, and pixels inside. */
KERNEL void conv2d_data_gradient(const conv_shape *s, const conv_view *v, const conv_scratch *t, const float *w, float *dx)
{
    conv_view d = *v; /* dx is there only once */
    d.row = (ptrdiff_t)s->W * v->pixel;
    const int fit = FIT / (int)sizeof(float) / v->step / s->O;
    int most = MAX_G;
    gather_fn *const *const tiles = view_tiles(v, &most);
    for (int k = 0; k < s->K; k++)
        for (int i = 0; i < v->pieces;) {
            const int pieces = even_block(v->pieces - i, fit < 1 ? 1 : fit), wide = pieces * v->step;
            float *start = dx + view_run(s, &d, k) + (ptrdiff_t)i * v->pixel;
            for (int n = 0; n < pieces; n++, i++, w += (size_t)v->floats * s->o_pad)
                transpose(w, s->o_pad, v->floats, s->O, t->weights + n * v->step, v->step, (size_t)wide);
            for (int left = wide / v->lanes, r = 0; left > 0;) {
                const int block = even_block(left, most);
                gather_fn *const tile = tiles[block];
                for (int y = 0, p = 0; y < s->OH; y++) {
                    float *to = start + view_patch(s, &d, y, 0) + r;
                    for (int x = 0; x < s->OW; x++, p++, to += s->sw * v->pixel) {
                        const int q = t->start[p], n = t->start[p + 1] - q;
                        if (n)
                            tile(n, t->value + q, t->channel + q, t->weights + r, (size_t)wide, to, 0);
                    }
                }
                r += block * v->lanes;
                left -= block;
            }
        }
}
