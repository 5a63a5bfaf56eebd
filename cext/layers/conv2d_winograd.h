/* Convolutions by Winograd's minimal filtering F(m x m, k x k) (Winograd 1980; Lavin and Gray 2016,
 * arXiv 1509.09308): m x m outputs take (m + k - 1)^2 multiplications per pair of channels instead of (m k)^2. Square kernels
 * at stride 1. Included by conv2d.c only.
 *
 * T = m + k - 1 is 6 or 8. Tiles of T x T input pixels, one every m, and the weights are taken to T^2 "frequencies"; for each,
 * the sum over input channels is a matrix product; the sums are taken back to m x m outputs. With V, U, A the matrices below,
 * in one dimension: y = A ((U g) . (V d)). Every step is a linear map with values at the points 0, +-1, +-2, (+-1/2,)
 * infinity, so what is asked of V depends on T alone and U, A are powers of the points.
 *
 * The data gradient is the same with kernels turned round and channels exchanged, of dy in a frame of zeros. In the weight
 * gradient m x m tiles of dy take the place of the kernels, the k x k kernel that of the outputs: for each frequency the sum
 * over tiles is the product of two matrices, and the sums are taken back once.
 *
 * Costs accuracy: outputs are off by some 2e-6 of their spread (root of the mean square), 4 to 10 times as much as direct sums.
 * See winograd_tile() for where it is used; CHAOS_WINOGRAD=0 never uses it. */

/* Where the two points +-a of a pair are, and their share of U. */
INLINE float winograd_point(int pair) { return pair == 0 ? 1.f : pair == 1 ? 2.f : 0.5f; }
INLINE float winograd_factor(const int T, int pair)
{
    if (T == 6)
        return pair == 0 ? -1.f / 6 : 1.f / 24;
    return pair == 0 ? -2.f / 9 : pair == 1 ? 1.f / 90 : 32.f / 45;
}
INLINE float winograd_power(float a, int k)
{
    float p = 1;
    for (int i = 0; i < k; i++)
        p *= a;
    return p;
}

/* V: T values of the input. The value at 0 is scaled by 4 (T = 6), which U takes back. */
INLINE void winograd_input(const int T, const vec *d, vec *v)
{
    if (T == 6) {
        const vec a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
        v[0] = 4 * d[0] + (d[4] - 5 * d[2]);
        v[1] = a + b, v[2] = a - b;
        v[3] = c + e, v[4] = c - e;
        v[5] = 4 * d[1] + (d[5] - 5 * d[3]);
    } else {
        const vec a = d[2] + d[6] - 4.25f * d[4], b = d[1] + d[5] - 4.25f * d[3];
        const vec c = d[6] + 0.25f * d[2] - 1.25f * d[4], e = 0.5f * d[1] - 2.5f * d[3] + 2 * d[5];
        const vec f = d[6] + 4 * d[2] - 5 * d[4], h = 2 * d[1] - 2.5f * d[3] + 0.5f * d[5];
        v[0] = d[0] - d[6] + 5.25f * (d[4] - d[2]);
        v[1] = a + b, v[2] = a - b;
        v[3] = c + e, v[4] = c - e;
        v[5] = f + h, v[6] = f - h;
        v[7] = d[7] - d[1] + 5.25f * (d[3] - d[5]);
    }
}

/* U: k weights to T values. */
INLINE void winograd_weights(const int T, const int k, const vec *g, vec *u)
{
    u[0] = (T == 6 ? 0.25f : 1.f) * g[0];
#pragma GCC unroll 3
    for (int p = 0; p < T / 2 - 1; p++) {
        const float a = winograd_point(p), n = winograd_factor(T, p);
        vec even = n * g[0], odd = n * a * g[1];
#pragma GCC unroll 3
        for (int i = 2; i < k; i += 2)
            even += n * winograd_power(a, i) * g[i];
#pragma GCC unroll 3
        for (int i = 3; i < k; i += 2)
            odd += n * winograd_power(a, i) * g[i];
        u[2 * p + 1] = even + odd, u[2 * p + 2] = even - odd;
    }
    u[T - 1] = g[k - 1];
}

/* A: T sums to m outputs. */
INLINE void winograd_output(const int T, const int m, const vec *s, vec *y)
{
    vec sum[3], difference[3];
#pragma GCC unroll 3
    for (int p = 0; p < T / 2 - 1; p++)
        sum[p] = s[2 * p + 1] + s[2 * p + 2], difference[p] = s[2 * p + 1] - s[2 * p + 2];
#pragma GCC unroll 6
    for (int i = 0; i < m; i++) {
        const vec *from = i % 2 ? difference : sum;
        vec all = from[0];
        if (i == 0 || i == m - 1)
            all += s[i == 0 ? 0 : T - 1];
#pragma GCC unroll 2
        for (int p = 1; p < T / 2 - 1; p++)
            all += winograd_power(winograd_point(p), i) * from[p];
        y[i] = all;
    }
}

/* The weights of `lanes` output channels: u[frequency][input channel][output channel]. w[y * step[0] + x * step[1] + c *
 * step[2] ...] are those of row y, column x, input channel c. */
INLINE void winograd_all_weights(const int T, const int k, const conv_shape *s, const float *w, const ptrdiff_t step[3],
                                 size_t lanes, float *u)
{
    for (int c = 0; c < s->C; c++)
        for (size_t o = 0; o < lanes; o += VW) {
            vec half[8][6], g[8], all[8];
#pragma GCC unroll 6
            for (int x = 0; x < k; x++) {
#pragma GCC unroll 6
                for (int y = 0; y < k; y++)
                    g[y] = vload(w + y * step[0] + x * step[1] + c * step[2] + (ptrdiff_t)o);
                winograd_weights(T, k, g, all);
#pragma GCC unroll 8
                for (int y = 0; y < T; y++)
                    half[y][x] = all[y];
            }
            float *to = u + c * lanes + o;
#pragma GCC unroll 8
            for (int y = 0; y < T; y++) {
                winograd_weights(T, k, half[y], all);
#pragma GCC unroll 8
                for (int x = 0; x < T; x++, to += s->u_step)
                    vstore(to, all[x]);
            }
        }
}

/* The tile of the input at x: v[frequency][channel]. */
INLINE void winograd_in(const int T, const conv_shape *s, const float *x, float *v)
{
    const size_t row = (size_t)s->W * s->C;
    for (int c = 0; c < s->C; c += VW) {
        vec half[8][8], d[8], all[8];
#pragma GCC unroll 8
        for (int j = 0; j < T; j++) {
#pragma GCC unroll 8
            for (int i = 0; i < T; i++)
                d[i] = vload(x + i * row + (size_t)j * s->C + c);
            winograd_input(T, d, all);
#pragma GCC unroll 8
            for (int i = 0; i < T; i++)
                half[i][j] = all[i];
        }
        float *to = v + c;
#pragma GCC unroll 8
        for (int i = 0; i < T; i++) {
            winograd_input(T, half[i], all);
#pragma GCC unroll 8
            for (int j = 0; j < T; j++, to += s->v_step)
                vstore(to, all[j]);
        }
    }
}

/* The m x m outputs of a tile from its sums[frequency][output channel], `outputs` of them. */
INLINE void winograd_out(const int T, const int m, const conv_shape *s, const float *sums, int outputs, const float *bias,
                         float *y)
{
    const size_t row = (size_t)s->OW * s->O;
    for (int o = 0; o < outputs; o += VW) {
        vec half[6][8], d[8], all[6];
#pragma GCC unroll 8
        for (int j = 0; j < T; j++) {
#pragma GCC unroll 8
            for (int i = 0; i < T; i++)
                d[i] = vload(sums + (size_t)(i * T + j) * s->m_step + o);
            winograd_output(T, m, d, all);
#pragma GCC unroll 6
            for (int i = 0; i < m; i++)
                half[i][j] = all[i];
        }
        const vec b = vload(bias + o);
        const int lanes = outputs - o < VW ? outputs - o : VW;
#pragma GCC unroll 6
        for (int i = 0; i < m; i++) {
            winograd_output(T, m, half[i], all);
#pragma GCC unroll 6
            for (int j = 0; j < m; j++)
                vstore_n(y + i * row + (size_t)j * s->O + o, all[j] + b, lanes);
        }
    }
}

/* A tile of dy without its first `top` rows and `left` columns: to[frequency][output channel], zeros past the last one. */
INLINE void winograd_dy(const int T, const int m, const conv_shape *s, const float *dy, int top, int left, int outputs,
                        float *to)
{
    for (int o = 0; o < outputs; o += VW, to += VW) {
        vec half[8][6], g[8], all[8];
        const int lanes = outputs - o < VW ? outputs - o : VW;
#pragma GCC unroll 6
        for (int x = 0; x < m; x++) {
#pragma GCC unroll 6
            for (int y = 0; y < m; y++)
                if (y < top || x < left)
                    g[y] = vset(0);
                else
                    g[y] = vload_n(dy + (size_t)(y * s->OW + x) * s->O + o, lanes);
            winograd_weights(T, m, g, all);
#pragma GCC unroll 8
            for (int y = 0; y < T; y++)
                half[y][x] = all[y];
        }
#pragma GCC unroll 8
        for (int y = 0; y < T; y++) {
            winograd_weights(T, m, half[y], all);
#pragma GCC unroll 8
            for (int x = 0; x < T; x++)
                vstore(to + (size_t)(y * T + x) * s->m_step, all[x]);
        }
    }
}

/* dw (first ? = : +=) what its sums[frequency][input channel][output channel] make. */
INLINE void winograd_dw(const int T, const int k, const conv_shape *s, const float *sums, size_t lanes, int outputs,
                        int first, float *dw)
{
    for (int c = 0; c < s->C; c++)
        for (int o = 0; o < outputs; o += VW) {
            vec half[6][8], d[8], all[6];
            const float *from = sums + c * lanes + o;
            const int some = outputs - o < VW ? outputs - o : VW;
#pragma GCC unroll 8
            for (int j = 0; j < T; j++) {
#pragma GCC unroll 8
                for (int i = 0; i < T; i++)
                    d[i] = vload(from + (size_t)(i * T + j) * s->u_step);
                winograd_output(T, k, d, all);
#pragma GCC unroll 6
                for (int i = 0; i < k; i++)
                    half[i][j] = all[i];
            }
#pragma GCC unroll 6
            for (int y = 0; y < k; y++) {
                winograd_output(T, k, half[y], all);
#pragma GCC unroll 6
                for (int x = 0; x < k; x++) {
                    float *to = dw + (size_t)(y * s->R + x * s->C + c) * s->o_pad + o;
                    if (!first)
                        all[x] += vload(to);
                    vstore_n(to, all[x], some);
                }
            }
        }
}

typedef struct {
    void (*weights)(const conv_shape *s, const float *w, const ptrdiff_t step[3], size_t lanes, float *u);
    void (*in)(const conv_shape *s, const float *x, float *v);
    void (*out)(const conv_shape *s, const float *sums, int outputs, const float *bias, float *y);
    void (*dy)(const conv_shape *s, const float *dy, int top, int left, int outputs, float *to);
    void (*dw)(const conv_shape *s, const float *sums, size_t lanes, int outputs, int first, float *dw);
} winograd_kind;
#define WINOGRAD_IN(T)                                                                                                      \
    KERNEL void winograd_in_##T(const conv_shape *s, const float *x, float *v) { winograd_in(T, s, x, v); }
#define WINOGRAD(T, k)                                                                                                      \
    KERNEL void winograd_weights_##T##_##k(const conv_shape *s, const float *w, const ptrdiff_t step[3], size_t lanes,      \
                                           float *u)                                                                        \
    {                                                                                                                       \
        winograd_all_weights(T, k, s, w, step, lanes, u);                                                                   \
    }                                                                                                                       \
    KERNEL void winograd_out_##T##_##k(const conv_shape *s, const float *sums, int outputs, const float *bias, float *y)    \
    {                                                                                                                       \
        winograd_out(T, T + 1 - k, s, sums, outputs, bias, y);                                                              \
    }                                                                                                                       \
    KERNEL void winograd_dy_##T##_##k(const conv_shape *s, const float *dy, int top, int left, int outputs, float *to)      \
    {                                                                                                                       \
        winograd_dy(T, T + 1 - k, s, dy, top, left, outputs, to);                                                           \
    }                                                                                                                       \
    KERNEL void winograd_dw_##T##_##k(const conv_shape *s, const float *sums, size_t lanes, int outputs, int first,         \
                                      float *dw)                                                                            \
    {                                                                                                                       \
        winograd_dw(T, k, s, sums, lanes, outputs, first, dw);                                                              \
    }                                                                                                                       \
    static const winograd_kind winograd_##T##_##k = {winograd_weights_##T##_##k, winograd_in_##T, winograd_out_##T##_##k,   \
                                                     winograd_dy_##T##_##k, winograd_dw_##T##_##k};
WINOGRAD_IN(6)
WINOGRAD(6, 3)
WINOGRAD(6, 4)
WINOGRAD(6, 5)
WINOGRAD_IN(8)
WINOGRAD(8, 3)
WINOGRAD(8, 4)
WINOGRAD(8, 5)
WINOGRAD(8, 6)
static const winograd_kind *const winograd_kinds[2][4] = {{&winograd_6_3, &winograd_6_4, &winograd_6_5},
                                                          {&winograd_8_3, &winograd_8_4, &winograd_8_5, &winograd_8_6}};

INLINE const winograd_kind *winograd_kind_of(const conv_shape *s) { return winograd_kinds[s->wino / 2 - 3][s->kh - 3]; }

/* Where tile number k begins: one every m outputs, the last of a row or column moved back so that it ends with them. */
typedef struct {
    int i, j, top, left; /* top, left: its first outputs that are in the tile before, too */
} winograd_place;

INLINE winograd_place winograd_at(const conv_shape *s, int k)
{
    const int m = s->wino + 1 - s->kh, wide = (s->OW + m - 1) / m, a = k / wide * m, b = k % wide * m;
    const int i = a < s->OH - m ? a : s->OH - m, j = b < s->OW - m ? b : s->OW - m;
    return (winograd_place){i, j, a - i, b - j};
}

INLINE int winograd_count(const conv_shape *s)
{
    const int m = s->wino + 1 - s->kh;
    return (s->OW + m - 1) / m * ((s->OH + m - 1) / m);
}

/* sums[frequency][tile][output channel] of n tiles, for `outputs` channels, `lanes` with padding. */
KERNEL void winograd_multiply(const conv_shape *s, const conv_scratch *t, int n, int outputs, int lanes)
{
    const ptrdiff_t whole = 0;
    ptrdiff_t at[MAX_P];
    for (int p = 0; p < MAX_P; p++)
        at[p] = p * (ptrdiff_t)s->v_pad;
    for (int f = 0; f < s->wino * s->wino; f++) {
        const float *u = t->wino_weights + f * s->u_step, *v = t->wino_input + f * s->v_step;
        float *sums = t->wino_sums + f * s->m_step;
        int o = 0, left = lanes / VW;
#if VW == 16
        const int rest = outputs % VW;
        if (rest && rest <= VW / 2) {
            const int last = lanes - VW;
            for (int p = 0, rows; p < n; p += rows) {
                rows = even_block(n - p, MAX_P);
                multiply_half_tile[rows](v + p * s->v_pad, at, 1, &whole, s->C, u + last, (size_t)lanes, t->wino_zeros,
                                         sums + (size_t)p * lanes + last, (size_t)lanes, VW / 2);
            }
            left--;
        }
#endif
        while (left > 0) {
            const int block = even_block(left, MAX_V);
            for (int p = 0, rows; p < n; p += rows) {
                rows = even_block(n - p, tile_rows[block]);
                multiply_tile[block][rows](v + p * s->v_pad, at, 1, &whole, s->C, u + o, (size_t)lanes, t->wino_zeros,
                                           sums + (size_t)p * lanes + o, (size_t)lanes, VW);
            }
            o += block * VW;
            left -= block;
        }
    }
}

/* `images` of them, `outputs` channels. Tiles of several small images are under way together. */
KERNEL void winograd_images(const conv_shape *s, const conv_scratch *t, int images, source x, int outputs, const float *bias,
                            sink y)
{
    const winograd_kind *kind = winograd_kind_of(s);
    const int each = winograd_count(s), tiles = each * images, lanes = (int)round_up((size_t)outputs, LANES);
    for (int from = 0, n; from < tiles; from += n) {
        n = even_block(tiles - from, s->wino_tiles);
        for (int k = 0; k < n; k++) {
            const int image = (from + k) / each;
            const winograd_place at = winograd_at(s, (from + k) % each);
            kind->in(s, x.p + (size_t)image * x.stride + patch_at(s, at.i, at.j), t->wino_input + k * s->v_pad);
        }
        winograd_multiply(s, t, n, outputs, lanes);
        for (int k = 0; k < n; k++) {
            const int image = (from + k) / each;
            const winograd_place at = winograd_at(s, (from + k) % each);
            kind->out(s, t->wino_sums + (size_t)k * lanes, outputs, bias,
                      y.p + (size_t)image * y.stride + ((size_t)at.i * s->OW + at.j) * s->O);
        }
    }
}

/* All samples of a call, for as many output channels at a time as have their weights in the second-level cache. */
KERNEL void conv2d_winograd_forward(const conv_shape *s, const conv_scratch *t, const call *c, source x)
{
    const float *bias = c->w + s->block - s->o_pad;
    const ptrdiff_t column = (ptrdiff_t)(s->C * s->o_pad), step[3] = {s->kw * column, column, (ptrdiff_t)s->o_pad};
    memset(t->wino_zeros, 0, s->wino_lanes * sizeof(float));
    for (int o = 0, outputs; o < s->O; o += outputs) {
        outputs = s->O - o < s->wino_lanes ? s->O - o : s->wino_lanes;
        winograd_kind_of(s)->weights(s, c->w + o, step, round_up((size_t)outputs, LANES), t->wino_weights);
        winograd_images(s, t, c->n, x, outputs, bias + o, (sink){c->y.p + o, c->y.stride});
    }
}

/* dx of all samples; `a` is the adjoint of s. */
KERNEL void conv2d_winograd_data_gradient(const conv_shape *s, const conv_shape *a, const conv_scratch *t, const call *c)
{
    const size_t run = s->o_pad * s->r_pad;
    const ptrdiff_t last = s->kh - 1, step[3] = {-(ptrdiff_t)run, -s->C, (ptrdiff_t)s->r_pad};
    const int top = s->kh - 1 - s->top, left = s->kw - 1 - s->left;
    for (int k = 0; k < s->K; k++)
        transpose(c->w + (size_t)k * s->R * s->o_pad, s->o_pad, s->R, s->O, t->weights + k * run, (int)s->r_pad, s->r_pad);
    memset(t->wino_zeros, 0, a->wino_lanes * sizeof(float));
    const size_t frame = conv_frame(a);
    const int together = even_block(c->n, panel_images(frame));
    memset(t->back_frame, 0, (size_t)together * frame * sizeof(float));
    for (int o = 0, outputs; o < a->O; o += outputs) {
        outputs = a->O - o < a->wino_lanes ? a->O - o : a->wino_lanes;
        winograd_kind_of(a)->weights(a, t->weights + last * (ptrdiff_t)run + last * s->C + o, step,
                                     round_up((size_t)outputs, LANES), t->wino_weights);
        for (int n = 0, images; n < c->n; n += images) {
            images = even_block(c->n - n, together);
            for (int k = 0; k < images; k++) {
                const float *dy = c->dy.p + (size_t)(n + k) * c->dy.stride;
                float *to = t->back_frame + k * frame + ((size_t)top * a->W + left) * a->C;
                for (int i = 0; i < s->OH; i++)
                    memcpy(to + (size_t)i * a->W * a->C, dy + (size_t)i * s->OW * s->O,
                           (size_t)s->OW * s->O * sizeof(float));
            }
            winograd_images(a, t, images, (source){t->back_frame, frame}, outputs, t->wino_zeros,
                            (sink){c->dx[0].p + (size_t)n * c->dx[0].stride + o, c->dx[0].stride});
        }
    }
}

/* Adds one block of tiles to the sums of each frequency. */
KERNEL void winograd_outer(const conv_shape *s, const conv_scratch *t, int n, int lanes, int first)
{
    for (int f = 0; f < s->wino * s->wino; f++) {
        const pixel_walk walk = {
            1, 1, n, {t->wino_input + f * s->v_step, 0}, {t->wino_sums + f * s->m_step, 0}, 0, (ptrdiff_t)s->v_pad, lanes};
        float *sums = t->wino_weights + f * s->u_step;
        for (int o = 0, left = lanes / VW, v; left > 0; o += v * VW, left -= v) {
            v = even_block(left, MAX_V);
            for (int c = 0, rows; c < s->C; c += rows) {
                rows = even_block(s->C - c, tile_rows[v]);
                outer_tile[v][rows](&walk, c, o, sums + (size_t)c * lanes + o, (size_t)lanes, first, VW);
            }
        }
    }
}

KERNEL void conv2d_winograd_weight_gradient(const conv_shape *s, const conv_scratch *t, const call *c, source x)
{
    const winograd_kind *kind = winograd_kind_of(s);
    const int each = winograd_count(s), tiles = each * c->n;
    for (int o = 0, outputs; o < s->O; o += outputs) {
        outputs = s->O - o < s->wino_lanes ? s->O - o : s->wino_lanes;
        const size_t lanes = round_up((size_t)outputs, LANES);
        for (int from = 0, n; from < tiles; from += n) {
            n = even_block(tiles - from, s->wino_tiles);
            for (int k = 0; k < n; k++) {
                const int image = (from + k) / each;
                const winograd_place p = winograd_at(s, (from + k) % each);
                kind->in(s, x.p + (size_t)image * x.stride + patch_at(s, p.i, p.j), t->wino_input + k * s->v_pad);
                kind->dy(s, c->dy.p + (size_t)image * c->dy.stride + o + ((size_t)p.i * s->OW + p.j) * s->O, p.top, p.left,
                         outputs, t->wino_sums + k * lanes);
            }
            winograd_outer(s, t, n, (int)lanes, !from);
        }
        kind->dw(s, t->wino_weights, lanes, outputs, c->first, c->dw + o);
    }
}
