/* Convolutions with a group per channel: vectors over channels. Included by conv2d.c only.
 *
 * Some pixels of a row at a time: for 9 taps, those of a 3x3 kernel, the weights (in the weight gradient the sums) of a vector
 * of channels stay in registers while the row passes. A pixel's taps are the same all along the row but near its ends, where
 * those beside the image are left out, so no frame is needed around it. In the data gradient the pixels of a phase have the
 * same taps, see conv2d_phases.h. Measured (AVX2, 32 channels, 32x32, 3x3, with L2's data): 3 to 9 times the speed of loops
 * that visit pixel by pixel. */

enum { DEPTHWISE_PIXELS = 6, DEPTHWISE_TAPS = 9, DEPTHWISE_BAND = 64 * 1024 /* floats of input and dy */ };

/* A sum over taps: floats from a pixel's first input to that of each tap, and from the weights of the first tap to its own. */
typedef struct {
    int n;
    const ptrdiff_t *run;
    const int32_t *weight;
} tap_list;

/* y[j * y_step] = bias + sum over taps of x[j * x_step + run] * w[weight], pixels j < n, all channels of a vector or the first
 * `lanes`. TAPS = 0: any number. */
typedef void depthwise_fn(int n, tap_list t, const float *x, ptrdiff_t x_step, const float *w, const float *bias, float *y,
                          ptrdiff_t y_step, int lanes);

INLINE void depthwise_pixels(const int TAPS, const int WHOLE, int n, tap_list t, const float *x, ptrdiff_t x_step,
                             const float *w, const float *bias, float *y, ptrdiff_t y_step, int lanes)
{
    enum { P = DEPTHWISE_PIXELS };
    const int taps = TAPS ? TAPS : t.n;
    const vec b = bias ? vload(bias) : vset(0);
    vec weight[DEPTHWISE_TAPS];
#pragma GCC unroll 9
    for (int k = 0; k < TAPS; k++)
        weight[k] = vload(w + t.weight[k]);
    for (int left = n; left >= P;) {
        vec sum[P];
#pragma GCC unroll 6
        for (int p = 0; p < P; p++)
            sum[p] = b;
#pragma GCC unroll 9
        for (int k = 0; k < taps; k++) {
            const vec one = TAPS ? weight[k] : vload(w + t.weight[k]);
            const float *from = x + t.run[k];
#pragma GCC unroll 6
            for (int p = 0; p < P; p++)
                sum[p] += vload(from + p * x_step) * one;
        }
#pragma GCC unroll 6
        for (int p = 0; p < P; p++)
            if (WHOLE)
                vstore(y + p * y_step, sum[p]);
            else
                vstore_n(y + p * y_step, sum[p], lanes);
        left -= P;
        if (!left)
            return;
        const int on = left < P ? left : P; /* the last overlap those before, which are written again */
        x += on * x_step, y += on * y_step;
        left = left < P ? P : left;
    }
    for (int j = 0; j < n; j++, x += x_step, y += y_step) {
        vec sum = b;
        for (int k = 0; k < t.n; k++)
            sum += vload(x + t.run[k]) * vload(w + t.weight[k]);
        if (WHOLE)
            vstore(y, sum);
        else
            vstore_n(y, sum, lanes);
    }
}

#define DEPTHWISE(name, TAPS, WHOLE)                                                                                        \
    KERNEL void name(int n, tap_list t, const float *x, ptrdiff_t x_step, const float *w, const float *bias, float *y,      \
                     ptrdiff_t y_step, int lanes)                                                                           \
    {                                                                                                                       \
        depthwise_pixels(TAPS, WHOLE, n, t, x, x_step, w, bias, y, y_step, lanes);                                          \
    }
DEPTHWISE(depthwise_nine, DEPTHWISE_TAPS, 1)
DEPTHWISE(depthwise_any, 0, 1)
DEPTHWISE(depthwise_few, 0, 0)
#undef DEPTHWISE

/* n pixels of a row, all channels: C of them, the last vector once more in part, as none may spill over. */
INLINE void depthwise_row(int n, tap_list t, int C, const float *x, ptrdiff_t x_step, const float *w, const float *bias,
                          float *y, ptrdiff_t y_step)
{
    depthwise_fn *const run = C < VW ? depthwise_few : t.n == DEPTHWISE_TAPS ? depthwise_nine : depthwise_any;
    for (int left = C; left > 0; left -= VW) {
        const int c = C < VW ? 0 : left < VW ? C - VW : C - left;
        run(n, t, x + c, x_step, w + c, bias ? bias + c : NULL, y + c, y_step, C);
    }
}

/* Pixels [*from, *to) of a row of `size`, every `stride` of the input from -first on, see all taps. */
INLINE void depthwise_inside(const panel_axis *a, int size, int *from, int *to)
{
    const int last = a->size - 1 - (a->taps - 1) * a->dilation + a->first;
    *from = (a->first + a->stride - 1) / a->stride;
    *to = last < 0 ? 0 : last / a->stride + 1;
    *from = *from < size ? *from : size;
    *to = *to < *from ? *from : *to < size ? *to : size;
}

/* Where tap k of output i lies in the image; beside it: -1. */
INLINE int depthwise_input(const panel_axis *a, int i, int k)
{
    const int at = i * a->stride + k * a->dilation - a->first;
    return at < a->size ? at : -1;
}

/* x is the image, of rows->size x columns->size pixels. */
KERNEL void depthwise_forward(const conv_shape *s, const conv_scratch *t, const panel_axis *rows, const panel_axis *columns,
                              const float *x, const float *w, float *y)
{
    const int C = s->groups, pad = (int)round_up((size_t)C, LANES);
    int from, to;
    depthwise_inside(columns, s->OW, &from, &to);
    for (int i = 0; i < s->OH; i++)
        for (int j = 0, n; j < s->OW; j += n, y += (ptrdiff_t)n * C) {
            n = j == from && to > from ? to - from : 1;
            tap_list list = {0, t->back_run, t->back_tap};
            for (int ky = 0; ky < s->kh; ky++)
                for (int kx = 0; kx < s->kw; kx++) {
                    const int a = depthwise_input(rows, i, ky), b = depthwise_input(columns, j, kx);
                    if (a < 0 || b < 0)
                        continue;
                    t->back_run[list.n] = ((ptrdiff_t)a * columns->size + b) * C;
                    t->back_tap[list.n++] = (ky * s->kw + kx) * pad;
                }
            depthwise_row(n, list, C, x, (ptrdiff_t)columns->stride * C, w, w + (size_t)s->K * pad, y, C);
        }
}

/* ---- gradients ---- */

/* Pixels [q, q + n) of a phase in row i; `down`, `across`: taps of the phases. */
INLINE void depthwise_segment(const conv_shape *s, const conv_scratch *t, const panel_axis *rows, const panel_axis *columns,
                              const panel_phase *down, const panel_phase *across, int i, int q, int n, const float *dy,
                              const float *w, float *dx)
{
    const int C = s->groups, pad = (int)round_up((size_t)C, LANES), pixel = across->start + q * columns->stride;
    tap_list list = {0, t->back_run, t->back_tap};
    for (int a = 0; a < down->taps; a++) {
        const int ky = down->last - a * down->step;
        const ptrdiff_t y = panel_tap_at(rows, i, ky) - rows->lead;
        for (int b = 0; b < across->taps && y >= 0 && y < s->OH; b++) {
            const int kx = across->last - b * across->step;
            const ptrdiff_t x = panel_tap_at(columns, pixel, kx) - columns->lead;
            if (x < 0 || x >= s->OW)
                continue;
            t->back_run[list.n] = (y * s->OW + x) * C;
            t->back_tap[list.n++] = (ky * s->kw + kx) * pad;
        }
    }
    depthwise_row(n, list, C, dy, C, w, NULL, dx + (ptrdiff_t)pixel * C, (ptrdiff_t)C * columns->stride);
}

/* dx of one sample, or of one with its padding. */
KERNEL void depthwise_data_gradient(const conv_shape *s, const conv_scratch *t, const panel_axis *rows,
                                    const panel_axis *columns, const float *dy, const float *w, float *dx)
{
    for (int i = 0; i < rows->size; i++, dx += (ptrdiff_t)columns->size * s->groups) {
        const panel_phase down = panel_phase_at(rows, i);
        for (int j = 0; j < columns->stride && j < columns->size; j++) {
            const panel_phase across = panel_phase_at(columns, j);
            int from = 0, to = across.size; /* what sees all taps */
            if (across.taps) {
                const int first = across.last - (across.taps - 1) * across.step;
                const ptrdiff_t least = panel_tap_at(columns, j, across.last) - columns->lead;
                const ptrdiff_t most = s->OW - (panel_tap_at(columns, j, first) - columns->lead);
                from = least >= 0 ? 0 : -least < across.size ? (int)-least : across.size;
                to = most < from ? from : most < across.size ? (int)most : across.size;
            }
            for (int q = 0, n; q < across.size; q += n) {
                n = q == from && to > from ? to - from : 1;
                depthwise_segment(s, t, rows, columns, &down, &across, i, q, n, dy, w, dx);
            }
        }
    }
}

/* sum[k] += x[run[k]] * dy over n pixels of a row. */
INLINE void depthwise_sums(int n, const ptrdiff_t *run, const float *x, ptrdiff_t x_step, const float *dy, ptrdiff_t y_step,
                           vec sum[DEPTHWISE_TAPS])
{
    enum { P = DEPTHWISE_PIXELS };
    int j = 0;
    for (; j + P <= n; j += P, x += P * x_step, dy += P * y_step) {
        vec d[P];
#pragma GCC unroll 6
        for (int p = 0; p < P; p++)
            d[p] = vload(dy + p * y_step);
#pragma GCC unroll 9
        for (int k = 0; k < DEPTHWISE_TAPS; k++) {
            const float *from = x + run[k];
#pragma GCC unroll 6
            for (int p = 0; p < P; p++)
                sum[k] += vload(from + p * x_step) * d[p];
        }
    }
    for (; j < n; j++, x += x_step, dy += y_step) {
        const vec d = vload(dy);
#pragma GCC unroll 9
        for (int k = 0; k < DEPTHWISE_TAPS; k++)
            sum[k] += vload(x + run[k]) * d;
    }
}

/* dw of `taps` taps from number k on, at most 9, and one vector of channels, from rows [top, bottom) of one sample. */
KERNEL void depthwise_taps(const conv_shape *s, const panel_axis *rows, const panel_axis *columns, int k, int taps, int top,
                           int bottom, const float *x, const float *dy, int first, float *dw, int lanes)
{
    static const float none[VW];
    const ptrdiff_t C = s->groups, pad = (ptrdiff_t)round_up((size_t)C, LANES), x_step = columns->stride * C;
    int from, to;
    depthwise_inside(columns, s->OW, &from, &to);
    vec sum[DEPTHWISE_TAPS];
#pragma GCC unroll 9
    for (int t = 0; t < DEPTHWISE_TAPS; t++)
        sum[t] = vset(0);
    for (int i = top; i < bottom; i++)
        for (int j = 0, n; j < s->OW; j += n) {
            n = j == from && to > from ? to - from : 1;
            const float *at = dy + ((ptrdiff_t)i * s->OW + j) * C;
            ptrdiff_t run[DEPTHWISE_TAPS]; /* of taps that are not there: of one that is; not stored */
            int beside[DEPTHWISE_TAPS], whole = 1;
            for (int t = 0; t < DEPTHWISE_TAPS; t++) {
                const int tap = k + (t < taps ? t : 0);
                const int a = depthwise_input(rows, i, tap / s->kw), b = depthwise_input(columns, j, tap % s->kw);
                beside[t] = a < 0 || b < 0;
                run[t] = beside[t] ? 0 : ((ptrdiff_t)a * columns->size + b) * C;
                whole &= !beside[t];
            }
            if (whole)
                depthwise_sums(n, run, x, x_step, at, C, sum);
            else
                for (int p = 0; p < n; p++, at += C) {
                    const vec d = vload(at);
#pragma GCC unroll 9
                    for (int t = 0; t < DEPTHWISE_TAPS; t++)
                        sum[t] += vload(beside[t] ? none : x + run[t] + p * x_step) * d;
                }
        }
#pragma GCC unroll 9
    for (int t = 0; t < DEPTHWISE_TAPS; t++)
        if (t < taps) {
            float *sums = dw + (k + t) * pad;
            if (!first)
                sum[t] += vload(sums);
            vstore_n(sums, sum[t], lanes);
        }
}

KERNEL void depthwise_weight_gradient(const conv_shape *s, const panel_axis *rows, const panel_axis *columns, const call *c,
                                      source x)
{
    const int C = s->groups;
    const double line = (double)s->OW * C * (1 + s->sh * s->sw);
    const int fit = line < DEPTHWISE_BAND ? (int)(DEPTHWISE_BAND / line) : 1;
    for (int n = 0; n < c->n; n++)
        for (int i = 0, some; i < s->OH; i += some) {
            some = even_block(s->OH - i, fit);
            for (int ch = 0; ch < C; ch += VW)
                for (int k = 0; k < s->K; k += DEPTHWISE_TAPS)
                    depthwise_taps(s, rows, columns, k, s->K - k < DEPTHWISE_TAPS ? s->K - k : DEPTHWISE_TAPS, i, i + some,
                                   x.p + (size_t)n * x.stride + ch, c->dy.p + (size_t)n * c->dy.stride + ch,
                                   c->first && !n && !i, c->dw + ch, C - ch < VW ? C - ch : VW);
        }
}
