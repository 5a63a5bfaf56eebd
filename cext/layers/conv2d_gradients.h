/* Weight and data gradients of a convolution. Included by conv2d.c only. */

KERNEL void conv2d_bias_gradient(const conv_shape *s, const call *c, source from, size_t pixels, float *db)
{
    for (int o = 0; o < s->O; o += VW) {
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
        vstore_n(db + o, all, s->O - o < VW ? s->O - o : VW);
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
KERNEL void conv2d_find_winners(const conv_shape *s, conv_scratch *t, const geometry *pool, const float *dy, const int32_t *won)
{
    const int kh = pool->option[0], kw = pool->option[1], sh = pool->option[2], sw = pool->option[3];
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

/* The same by channel. */
KERNEL void conv2d_sort_winners(const conv_shape *s, conv_scratch *t, const geometry *pool, const float *dy, const int32_t *won)
{
    const int windows = pool->out.h * pool->out.w;
    t->room = windows;
    for (int o = 0; o < s->O; o++)
        t->count[o] = windows;
    for (int i = 0, q = 0; i < pool->out.h; i++)
        for (int j = 0; j < pool->out.w; j++, q++, dy += s->y_step, won += s->y_step) {
            const int32_t at = (int32_t)patch_at(s, i * pool->option[2], j * pool->option[3]);
            float *value = t->by_channel + q;
            int32_t *patch = t->patch + q;
            for (ptrdiff_t o = 0; o < s->O; o++, value += windows, patch += windows) {
                *value = dy[o];
                *patch = at + t->window[won[o]];
            }
        }
}

/* Patch rows of up to SHORT floats are kept in narrow vectors: all rows of a kernel, for some channels at once. */
enum { MAX_SHORT_ROWS = 6, SHORT_SUMS = 12 /* in 16 registers: 512-bit code has no more narrow ones */ };
typedef float narrow_4 __attribute__((vector_size(16), may_alias));
typedef float narrow_4_u __attribute__((vector_size(16), aligned(4), may_alias));
typedef float narrow_8 __attribute__((vector_size(4 * SHORT), may_alias));
typedef float narrow_8_u __attribute__((vector_size(4 * SHORT), aligned(4), may_alias));

INLINE int takes_short_rows(const conv_shape *s) { return s->R <= SHORT && s->K <= MAX_SHORT_ROWS; }

/* Sums over all windows of a pooling, for N channels with a kernel of K rows: the winners one after the other, without lists
 * of them. to[k * step + n * r_pad ...] = row k of channel n. */
typedef void windows_fn(const conv_shape *s, const conv_scratch *t, const geometry *pool, const float *dy, const int32_t *won,
                        const float *x, float *to, size_t step);
#define WINDOWS(type, K, N)                                                                                               \
    KERNEL void windows_##type##_##K##_##N(const conv_shape *s, const conv_scratch *t, const geometry *pool, const float *dy,   \
                                           const int32_t *won, const float *x, float *to, size_t step)                    \
    {                                                                                                                     \
        type sum[N][K];                                                                                                   \
        ptrdiff_t run[K];                                                                                                 \
        _Pragma("GCC unroll 6") for (int k = 0; k < K; k++) run[k] = t->run[k];                                           \
        _Pragma("GCC unroll 6") for (int n = 0; n < N; n++)                                                               \
            _Pragma("GCC unroll 6") for (int k = 0; k < K; k++) sum[n][k] = (type){0};                                    \
        for (int i = 0; i < pool->out.h; i++) {                                                                           \
            const float *row = x + patch_at(s, i * pool->option[2], 0);                                                   \
            for (int j = 0; j < pool->out.w; j++, row += pool->option[3] * s->sw * s->x_step, dy += s->y_step, won += s->y_step) \
                _Pragma("GCC unroll 6") for (int n = 0; n < N; n++)                                                       \
                {                                                                                                         \
                    const float *from = row + t->window[won[n]];                                                          \
                    const type v = dy[n] - (type){0};                                                                     \
                    _Pragma("GCC unroll 6") for (int k = 0; k < K; k++) sum[n][k] += v * *(const type##_u *)(from + run[k]);   \
                }                                                                                                         \
        }                                                                                                                 \
        _Pragma("GCC unroll 6") for (int n = 0; n < N; n++)                                                               \
            _Pragma("GCC unroll 6") for (int k = 0; k < K; k++)                                                           \
                *(type##_u *)(to + (size_t)k * step + (size_t)n * s->r_pad) = sum[n][k];                                  \
    }
#define ALL_WINDOWS(type)                                                                                                 \
    WINDOWS(type, 1, 1) WINDOWS(type, 1, 2) WINDOWS(type, 1, 3) WINDOWS(type, 2, 1) WINDOWS(type, 2, 2) WINDOWS(type, 2, 3)      \
    WINDOWS(type, 3, 1) WINDOWS(type, 3, 2) WINDOWS(type, 3, 3) WINDOWS(type, 4, 1) WINDOWS(type, 4, 2) WINDOWS(type, 4, 3)      \
    WINDOWS(type, 5, 1) WINDOWS(type, 5, 2) WINDOWS(type, 6, 1) WINDOWS(type, 6, 2)                                       \
    static windows_fn *const windows_##type[MAX_SHORT_ROWS + 1][4] = {                                                    \
        {0},                                                                                                              \
        {0, windows_##type##_1_1, windows_##type##_1_2, windows_##type##_1_3},                                            \
        {0, windows_##type##_2_1, windows_##type##_2_2, windows_##type##_2_3},                                            \
        {0, windows_##type##_3_1, windows_##type##_3_2, windows_##type##_3_3},                                            \
        {0, windows_##type##_4_1, windows_##type##_4_2, windows_##type##_4_3},                                            \
        {0, windows_##type##_5_1, windows_##type##_5_2},                                                                  \
        {0, windows_##type##_6_1, windows_##type##_6_2}};
ALL_WINDOWS(narrow_4)
#if VW > 4
ALL_WINDOWS(narrow_8)
#else
#define windows_narrow_8 windows_narrow_4
#endif

/* dw[r][o] (first ? = : +=) from[o][r] for one run; lanes past the last output channel stay as they are. */
KERNEL void transpose_back(const conv_shape *s, const float *from, int first, float *dw)
{
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

/* w[r][o] of one run to [o][r padded with zeros] */
KERNEL void transpose(const conv_shape *s, const float *w, float *to)
{
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

/* Of one sample, from the lists by channel. Run by run, so that what waits for its transposition stays in the caches. */
KERNEL void conv2d_sparse_weight_gradient(const conv_shape *s, const conv_scratch *t, const float *x, int first, float *dw)
{
    const size_t run = (size_t)s->R * s->o_pad;
    for (int k = 0; k < s->K; k++) {
        for (int o = 0; o < s->O; o++)
            for (int left = (s->R + VW - 1) / VW, r = 0; left > 0;) {
                const int block = even_block(left, MAX_G);
                gather_tile[block](t->count[o], t->by_channel + (size_t)o * t->room, t->patch + (size_t)o * t->room,
                                   x + t->run[k] + r, 1, t->gradient + (size_t)o * s->r_pad + r, 1);
                r += block * VW;
                left -= block;
            }
        transpose_back(s, t->gradient, first, dw + k * run);
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
        transpose_back(s, t->gradient + k * step, first, dw + k * run);
}

/* Of one sample, from the lists by pixel, added to dx; run by run for the same reason. */
KERNEL void conv2d_data_gradient(const conv_shape *s, const conv_scratch *t, const float *w, float *dx)
{
    for (int k = 0; k < s->K; k++) {
        transpose(s, w + (size_t)k * s->R * s->o_pad, t->weights);
        for (int left = (s->R + VW - 1) / VW, r = 0; left > 0;) { /* pixels inside: the weights stay in the first cache */
            const int block = even_block(left, MAX_G);
            gather_fn *const tile = gather_tile[block];
            for (int i = 0, p = 0; i < s->OH; i++) {
                float *to = dx + patch_at(s, i, 0) + t->run[k] + r;
                for (int j = 0; j < s->OW; j++, p++, to += s->sw * s->x_step) {
                    const int q = t->start[p], n = t->start[p + 1] - q;
                    if (n)
                        tile(n, t->value + q, t->channel + q, t->weights + r, s->r_pad, to, 0);
                }
            }
            r += block * VW;
            left -= block;
        }
    }
}

KERNEL void depthwise_weight_gradient(const conv_shape *s, const conv_scratch *t, const call *c, source x, int rows)
{
    const size_t C = (size_t)s->groups, pad = round_up(C, LANES);
    for (int k = 0; k < rows; k++) /* row K is the bias */
        for (size_t ch = 0; ch < C; ch += VW) {
            vec sum = vset(0);
            for (int n = 0; n < c->n; n++) {
                const float *dy = c->dy.p + (size_t)n * c->dy.stride + ch;
                const float *from = x.p + (size_t)n * x.stride + ch + (k < s->K ? t->run[k] : 0);
                for (int i = 0; i < s->OH; i++)
                    for (int j = 0; j < s->OW; j++, dy += C) {
                        vec d = vload(dy);
                        if (k < s->K)
                            d *= vload(from + patch_at(s, i, j));
                        sum += d;
                    }
            }
            float *to = c->dw + (size_t)k * pad + ch;
            if (!c->first)
                sum += vload(to);
            vstore_n(to, sum, C - ch < VW ? (int)(C - ch) : VW);
        }
}

KERNEL void depthwise_data_gradient(const conv_shape *s, const conv_scratch *t, const float *dy, const float *w, float *dx)
{
    const size_t C = (size_t)s->groups, pad = round_up(C, LANES);
    for (int i = 0; i < s->OH; i++)
        for (int j = 0; j < s->OW; j++, dy += C)
            for (size_t ch = 0; ch < C; ch += VW) {
                /* what lies past the last channel need not be finite, so zero weights would not do */
                const vec d = vload_n(dy + ch, C - ch < VW ? (int)(C - ch) : VW);
                for (int k = 0; k < s->K; k++) {
                    float *to = dx + patch_at(s, i, j) + t->run[k] + ch;
                    vstore(to, vload(to) + d * vload(w + (size_t)k * pad + ch));
                }
            }
}
