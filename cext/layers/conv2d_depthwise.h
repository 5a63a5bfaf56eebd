/* Convolutions with a group per channel: vectors over channels. Included by conv2d.c only.
 *
 * Pixels have the same taps but near a border, where those beside the image are left out, so no frame is needed around it: the
 * output is cut into rectangles with the same taps. Of each, some pixels of a row (or a column, if that is longer) at a time. In
 * the data gradient that holds for the pixels of a phase, see conv2d_phases.h. */

enum { DEPTHWISE_PIXELS = 8 /* so that no sum waits for itself */, DEPTHWISE_RUN = 18, DEPTHWISE_TAPS = 9 };

/* A sum over taps: floats from a pixel's first input to that of each tap, and from the weights of the first tap to its own. */
typedef struct {
    int n;
    const ptrdiff_t *run;
    const int32_t *weight;
} tap_list;

/* y[j * y_step] = bias + sum over taps of x[j * x_step + run] * w[weight] for P pixels, `lanes` channels (VW: all). */
INLINE void depthwise_pixels(const int P, tap_list t, const float *x, ptrdiff_t x_step, const float *w, vec bias, float *y,
                             ptrdiff_t y_step, int lanes)
{
    vec sum[DEPTHWISE_PIXELS];
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
        sum[p] = bias;
    for (int k = 0; k < t.n; k++) {
        const vec one = vload(w + t.weight[k]);
        const float *from = x + t.run[k];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
            sum[p] += vload(from + p * x_step) * one;
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
        if (lanes == VW)
            vstore(y + p * y_step, sum[p]);
        else
            vstore_n(y + p * y_step, sum[p], lanes);
}

/* The same of P pixels for all channels: C of them, the last vector once more in part, as none may spill over. */
INLINE void depthwise_block(const int P, tap_list t, int C, const float *x, ptrdiff_t x_step, const float *w,
                            const float *bias, float *y, ptrdiff_t y_step)
{
    if (C < VW) {
        depthwise_pixels(P, t, x, x_step, w, bias ? vload(bias) : vset(0), y, y_step, C);
        return;
    }
    for (int left = C; left > 0; left -= VW) {
        const int c = left < VW ? C - VW : C - left;
        depthwise_pixels(P, t, x + c, x_step, w + c, bias ? vload(bias + c) : vset(0), y + c, y_step, VW);
    }
}

/* n pixels, some at a time with all their channels, so that what they share of cache lines is used at once. The last of several
 * blocks overlaps the one before, which is written again. */
KERNEL void depthwise_line(int n, tap_list t, int C, const float *x, ptrdiff_t x_step, const float *w, const float *bias,
                           float *y, ptrdiff_t y_step)
{
    enum { P = DEPTHWISE_PIXELS };
    if (n >= P)
        for (int j = 0;; j = j + 2 * P <= n ? j + P : n - P) {
            depthwise_block(P, t, C, x + j * x_step, x_step, w, bias, y + j * y_step, y_step);
            if (j + P == n)
                return;
        }
    if (n >= P / 2)
        for (int j = 0;; j = n - P / 2) {
            depthwise_block(P / 2, t, C, x + j * x_step, x_step, w, bias, y + j * y_step, y_step);
            if (j + P / 2 == n)
                return;
        }
    for (int j = 0; j < n; j++)
        depthwise_block(1, t, C, x + j * x_step, x_step, w, bias, y + j * y_step, y_step);
}

/* One dimension of what is summed: taps number tap, tap + step, ... of the kernel, the first of which is at input pixel `at` for
 * output pixel 0 and `stride` further for the next; `move` input pixels from tap to tap, all that matter in [0, size). */
typedef struct {
    int taps, tap, step;
    ptrdiff_t at;
    int stride, move, size;
} tap_axis;

/* The taps of an output pixel that lie in the image. */
typedef struct {
    int first, n;
    ptrdiff_t at; /* input pixel of the first */
} tap_range;

INLINE tap_range taps_inside(const tap_axis *a, int pixel)
{
    const ptrdiff_t at = a->at + (ptrdiff_t)pixel * a->stride;
    int from = 0, to = a->taps;
    while (from < to && at + (ptrdiff_t)from * a->move < 0)
        from++;
    while (to > from && at + (ptrdiff_t)(to - 1) * a->move >= a->size)
        to--;
    return (tap_range){from, to - from, from < to ? at + (ptrdiff_t)from * a->move : 0};
}

/* How many pixels from number `pixel` on, of `pixels`, have the same taps: all, or else it is one. */
INLINE int taps_alike(const tap_axis *a, const tap_range *r, int pixel, int pixels)
{
    if (r->n < a->taps)
        return 1;
    const ptrdiff_t last = a->size - 1 - (ptrdiff_t)(a->taps - 1) * a->move - a->at;
    return a->taps && last / a->stride + 1 < pixels ? (int)(last / a->stride) + 1 - pixel : pixels - pixel;
}

typedef struct {
    tap_axis down, across;
    int rows, columns, kw, C; /* output pixels, width of the kernel, channels */
    ptrdiff_t line, y_row,
        y_step; /* floats from row to row of the input, from row to row and pixel to pixel of the output */
} depthwise_sum;

INLINE tap_list taps_of(const depthwise_sum *s, const conv_scratch *t, const tap_range *down, const tap_range *across)
{
    const int pad = (int)round_up((size_t)s->C, LANES);
    tap_list list = {0, t->back_run, t->back_tap};
    for (int a = 0; a < down->n; a++)
        for (int b = 0; b < across->n; b++) {
            const int ky = s->down.tap + (down->first + a) * s->down.step;
            const int kx = s->across.tap + (across->first + b) * s->across.step;
            t->back_run[list.n] = (ptrdiff_t)a * s->down.move * s->line + (ptrdiff_t)b * s->across.move * s->C;
            t->back_tap[list.n++] = (ky * s->kw + kx) * pad;
        }
    return list;
}

/* Lines of pixels with the same taps: `lines` of n pixels; floats from line to line and from pixel to pixel. */
typedef struct {
    int lines, n;
    ptrdiff_t x_line, x_step, y_line, y_step;
    tap_list list;
    ptrdiff_t x, y; /* where the first begins */
} tap_lines;

/* The rectangle that begins with pixel (i, q), and its rows and columns. */
INLINE tap_lines taps_from(const depthwise_sum *s, const conv_scratch *t, int i, int q, int *rows, int *columns)
{
    const tap_range down = taps_inside(&s->down, i), across = taps_inside(&s->across, q);
    *rows = taps_alike(&s->down, &down, i, s->rows), *columns = taps_alike(&s->across, &across, q, s->columns);
    const ptrdiff_t x_row = s->down.stride * s->line, x_step = (ptrdiff_t)s->across.stride * s->C;
    const ptrdiff_t x = down.at * s->line + across.at * s->C, y = i * s->y_row + q * s->y_step;
    const tap_list list = taps_of(s, t, &down, &across);
    if (*columns >= *rows || *columns >= DEPTHWISE_PIXELS)
        return (tap_lines){*rows, *columns, x_row, x_step, s->y_row, s->y_step, list, x, y};
    return (tap_lines){*columns, *rows, x_step, x_row, s->y_step, s->y_row, list, x, y};
}

KERNEL void depthwise_run(const depthwise_sum *s, const conv_scratch *t, const float *x, const float *w, const float *bias,
                          float *y)
{
    for (int i = 0, rows = 1; i < s->rows; i += rows)
        for (int q = 0, columns; q < s->columns; q += columns) {
            const tap_lines l = taps_from(s, t, i, q, &rows, &columns);
            for (int m = 0; m < l.lines; m++)
                depthwise_line(l.n, l.list, s->C, x + l.x + m * l.x_line, l.x_step, w, bias, y + l.y + m * l.y_line,
                               l.y_step);
        }
}

/* From the image, of rows->size x columns->size pixels, to the output. */
INLINE depthwise_sum depthwise_forth(const conv_shape *s, const panel_axis *rows, const panel_axis *columns)
{
    const int C = s->groups;
    return (depthwise_sum){{s->kh, 0, 1, -rows->first, s->sh, s->dh, rows->size},
                           {s->kw, 0, 1, -columns->first, s->sw, s->dw, columns->size},
                           s->OH,
                           s->OW,
                           s->kw,
                           C,
                           (ptrdiff_t)columns->size * C,
                           (ptrdiff_t)s->OW * C,
                           C};
}

KERNEL void depthwise_forward(const conv_shape *s, const conv_scratch *t, const panel_axis *rows, const panel_axis *columns,
                              const float *x, const float *w, float *y)
{
    const depthwise_sum sum = depthwise_forth(s, rows, columns);
    depthwise_run(&sum, t, x, w, w + (size_t)s->K * round_up((size_t)s->groups, LANES), y);
}

/* ---- gradients ---- */

/* One dimension of the way back, of one phase. */
INLINE tap_axis depthwise_back(const panel_axis *a, const panel_phase *p)
{
    if (!p->taps)
        return (tap_axis){.stride = 1, .move = 1};
    return (tap_axis){p->taps,  p->last,
                      -p->step, panel_tap_at(a, p->start, p->last) - a->lead,
                      1,        (int)((int64_t)p->step * a->dilation / a->stride),
                      a->dy};
}

/* dx of one sample, or of one with its padding. */
KERNEL void depthwise_data_gradient(const conv_shape *s, const conv_scratch *t, const panel_axis *rows,
                                    const panel_axis *columns, const float *dy, const float *w, float *dx)
{
    const int C = s->groups;
    const ptrdiff_t out_line = (ptrdiff_t)columns->size * C;
    for (int i = 0; i < rows->stride && i < rows->size; i++)
        for (int j = 0; j < columns->stride && j < columns->size; j++) {
            const panel_phase down = panel_phase_at(rows, i), across = panel_phase_at(columns, j);
            const depthwise_sum sum = {depthwise_back(rows, &down),
                                       depthwise_back(columns, &across),
                                       down.size,
                                       across.size,
                                       s->kw,
                                       C,
                                       (ptrdiff_t)s->OW * C,
                                       out_line * rows->stride,
                                       (ptrdiff_t)C * columns->stride};
            depthwise_run(&sum, t, dy, w, NULL, dx + i * out_line + (ptrdiff_t)j * C);
        }
}

/* dw[weight] += sum over n pixels of x[run] * dy, TAPS taps, one vector of channels. */
INLINE void depthwise_taps(const int TAPS, int n, const ptrdiff_t *run, const int32_t *weight, const float *x,
                           ptrdiff_t x_step, const float *dy, ptrdiff_t y_step, float *dw, int lanes)
{
    enum { P = 6 }; /* with the sums of 9 taps in 16 registers */
    vec sum[DEPTHWISE_TAPS];
#pragma GCC unroll 9
    for (int k = 0; k < TAPS; k++)
        sum[k] = vload(dw + weight[k]);
    int j = 0;
    for (; j + P <= n; j += P, x += P * x_step, dy += P * y_step) {
        vec d[P];
#pragma GCC unroll 6
        for (int p = 0; p < P; p++)
            d[p] = vload(dy + p * y_step);
#pragma GCC unroll 9
        for (int k = 0; k < TAPS; k++) {
            const float *from = x + run[k];
#pragma GCC unroll 6
            for (int p = 0; p < P; p++)
                sum[k] += vload(from + p * x_step) * d[p];
        }
    }
    for (; j < n; j++, x += x_step, dy += y_step) {
        const vec d = vload(dy);
#pragma GCC unroll 9
        for (int k = 0; k < TAPS; k++)
            sum[k] += vload(x + run[k]) * d;
    }
#pragma GCC unroll 9
    for (int k = 0; k < TAPS; k++)
        if (lanes == VW)
            vstore(dw + weight[k], sum[k]);
        else
            vstore_n(dw + weight[k], sum[k], lanes);
}

typedef void depthwise_taps_fn(int n, const ptrdiff_t *run, const int32_t *weight, const float *x, ptrdiff_t x_step,
                               const float *dy, ptrdiff_t y_step, float *dw, int lanes);
#define DEPTHWISE(TAPS)                                                                                                     \
    KERNEL void depthwise_taps_##TAPS(int n, const ptrdiff_t *run, const int32_t *weight, const float *x, ptrdiff_t x_step, \
                                      const float *dy, ptrdiff_t y_step, float *dw, int lanes)                              \
    {                                                                                                                       \
        depthwise_taps(TAPS, n, run, weight, x, x_step, dy, y_step, dw, lanes);                                             \
    }
DEPTHWISE(1)
DEPTHWISE(3)
DEPTHWISE(9)
#undef DEPTHWISE

/* One line. */
INLINE void depthwise_line_gradient(const tap_lines *l, int C, const float *x, const float *dy, float *dw)
{
    for (int j = 0, n; j < l->n; j += n, x += n * l->x_step, dy += n * l->y_step) {
        n = l->n - j < 2 * DEPTHWISE_RUN ? l->n - j : DEPTHWISE_RUN;
        for (int c = 0; c < C; c += VW)
            for (int k = 0, some; k < l->list.n; k += some) {
                some = l->list.n - k >= 9 ? 9 : l->list.n - k >= 3 ? 3 : 1;
                depthwise_taps_fn *const run = some == 9   ? depthwise_taps_9
                                               : some == 3 ? depthwise_taps_3
                                                           : depthwise_taps_1;
                run(n, l->list.run + k, l->list.weight + k, x + c, l->x_step, dy + c, l->y_step, dw + c,
                    C - c < VW ? C - c : VW);
            }
    }
}

/* All samples; x is the image, of rows->size x columns->size pixels. */
KERNEL void depthwise_weight_gradient(const conv_shape *s, const conv_scratch *t, const panel_axis *rows,
                                      const panel_axis *columns, const call *c, source x)
{
    const depthwise_sum sum = depthwise_forth(s, rows, columns);
    const int C = s->groups;
    const size_t pad = round_up((size_t)C, LANES);
    if (c->first)
        memset(c->dw, 0, (size_t)s->K * pad * sizeof(float));
    for (int sample = 0; sample < c->n; sample++)
        for (int i = 0, rows = 1; i < s->OH; i += rows)
            for (int q = 0, columns; q < s->OW; q += columns) {
                const tap_lines l = taps_from(&sum, t, i, q, &rows, &columns);
                for (int m = 0; m < l.lines; m++)
                    depthwise_line_gradient(&l, C, x.p + (size_t)sample * x.stride + l.x + m * l.x_line,
                                            c->dy.p + (size_t)sample * c->dy.stride + l.y + m * l.y_line, c->dw);
            }
}
