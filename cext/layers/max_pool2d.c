/* Max-pooling. Body: included by cext/isa/ only.
 * Keeps, per output, the number of the winning window entry (first of equals); vectors run over channels. Windows that all lie
 * inside the image, plain ones, have loops of their own; for all others see pool_windows.h. */
#include "pool_windows.h"

enum { POOL_KH, POOL_KW, POOL_SH, POOL_SW, POOL_PH, POOL_PW, POOL_DH, POOL_DW, POOL_CEIL, POOL_ROWS, POOL_COLUMNS };

/* Options POOL_ROWS, POOL_COLUMNS: so many windows over all, or 0. */
INLINE void max_pool2d_sides(const geometry *g, pool_side *rows, pool_side *columns)
{
    const int *o = g->whole;
    *rows = (pool_side){g->in[0].h, o[POOL_KH], o[POOL_SH], o[POOL_PH], o[POOL_DH], o[POOL_CEIL], o[POOL_ROWS]};
    *columns = (pool_side){g->in[0].w, o[POOL_KW], o[POOL_SW], o[POOL_PW], o[POOL_DW], o[POOL_CEIL], o[POOL_COLUMNS]};
}

INLINE int max_pool2d_is_plain(const geometry *g)
{
    const int *o = g->whole;
    return !o[POOL_PH] && !o[POOL_PW] && o[POOL_DH] == 1 && o[POOL_DW] == 1 && !o[POOL_CEIL] && !o[POOL_ROWS];
}

/* Of the numbers of winners. */
INLINE int max_pool2d_span(const geometry *g) { return max_pool2d_is_plain(g) ? g->window.kw : g->in[0].w; }

KERNEL const char *max_pool2d_set_up(geometry *g)
{
    const int *o = g->whole;
    pool_side rows, columns;
    max_pool2d_sides(g, &rows, &columns);
    if (o[POOL_KH] < 1 || o[POOL_KW] < 1 || o[POOL_SH] < 1 || o[POOL_SW] < 1 || o[POOL_DH] < 1 || o[POOL_DW] < 1)
        return "kernel, stride and dilation must be positive";
    if (o[POOL_PH] < 0 || o[POOL_PW] < 0 || o[POOL_ROWS] < 0 || o[POOL_COLUMNS] < 0 || !o[POOL_ROWS] != !o[POOL_COLUMNS])
        return "padding and numbers of windows must not be negative";
    g->out = (shape){g->in[0].c, pool_count(rows), pool_count(columns)};
    if (!g->out.h || !g->out.w)
        return "the window is larger than the input";
    if (!pool_side_is_full(rows) || !pool_side_is_full(columns))
        return "a window would hold nothing but padding";
    g->properties = SELECTS;
    g->window = (window){o[POOL_KH], o[POOL_KW], o[POOL_SH], o[POOL_SW]};
    if (g->out.h == 1) /* a stride of no effect, which may be large */
        g->window.sh = g->window.kh;
    if (g->out.w == 1)
        g->window.sw = g->window.kw;
    g->keep_size = round_up(shape_size(g->out), LANES) + SLACK;
    g->scratch_size = pool_axis_room(rows.size, g->out.h) + pool_axis_room(columns.size, g->out.w);
    return NULL;
}

#if VW == 16
/* 2x2 windows of few channels: as many windows side by side as fill a vector. Those past the end of a row are written again
 * with the next one, or lie in the slack. */
KERNEL void pool_2x2_packed(const geometry *g, const call *c)
{
    const int C = g->in[0].c, G = VW / C, high = g->out.h, wide = g->out.w; /* locals: stores might change what g leads to */
    const size_t row = (size_t)g->in[0].w * C, down = (size_t)g->window.sh * row;
    int32_t lane[VW];
    for (int l = 0; l < VW; l++)
        lane[l] = l / C < G ? l / C * 2 * C + l % C : 0;
    const __m512i left = _mm512_loadu_si512(lane), right = _mm512_add_epi32(left, _mm512_set1_epi32(C));
    for (int n = 0; n < c->n; n++) {
        const float *image = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        int32_t *won = (int32_t *)(c->keep.p + (size_t)n * c->keep.stride);
        for (int i = 0; i < high; i++)
            for (int j = 0; j < wide; j += G) {
                const float *x = image + (size_t)i * down + (size_t)j * 2 * C;
                const size_t at = ((size_t)i * wide + j) * C;
                vec best = vset(0);
                ivec which = iset(0);
#pragma GCC unroll 2
                for (int a = 0; a < 2; a++) {
                    const __m512 low = _mm512_loadu_ps(x + a * row), high = _mm512_loadu_ps(x + a * row + VW);
                    const vec first = (vec)_mm512_permutex2var_ps(low, left, high);
                    if (a == 0)
                        best = first;
                    else
                        keep_larger(first, 2 * a, &best, &which);
                    keep_larger((vec)_mm512_permutex2var_ps(low, right, high), 2 * a + 1, &best, &which);
                }
                vstore(y + at, best);
                istore(won + at, which);
            }
    }
}
#endif

INLINE void pool_forward(const int kh, const int kw, const geometry *g, const call *c)
{
    const int sh = g->window.sh, sw = g->window.sw, high = g->out.h, wide = g->out.w;
    const size_t C = (size_t)g->in[0].c, row = (size_t)g->in[0].w * C;
    for (int n = 0; n < c->n; n++) {
        float *y = c->y.p + (size_t)n * c->y.stride;
        int32_t *won = (int32_t *)(c->keep.p + (size_t)n * c->keep.stride);
        for (int i = 0; i < high; i++)
            for (int j = 0; j < wide; j++, y += C, won += C) {
                const float *x = c->x[0].p + (size_t)n * c->x[0].stride + (size_t)i * sh * row + (size_t)j * sw * C;
                for (size_t k = 0; k < C; k += VW) {
                    vec best = vload(x + k);
                    ivec which = iset(0);
#pragma GCC unroll 3
                    for (int a = 0; a < kh; a++)
#pragma GCC unroll 3
                        for (int b = 0; b < kw; b++)
                            if (a + b)
                                keep_larger(vload(x + (size_t)a * row + (size_t)b * C + k), a * kw + b, &best, &which);
                    vstore(y + k, best);
                    istore(won + k, which);
                }
            }
    }
}

/* Every sample by the windows of its rows and columns. */
KERNEL void max_pool2d_forward_any(const geometry *g, const call *c)
{
    float *scratch = c->scratch;
    pool_side side[2];
    max_pool2d_sides(g, &side[0], &side[1]);
    const pool_axis rows = pool_axis_of(side[0], &scratch), columns = pool_axis_of(side[1], &scratch);
    for (int n = 0; n < c->n; n++)
        pool_largest_of_all(&rows, &columns, max_pool2d_span(g), (size_t)g->in[0].c, c->x[0].p + (size_t)n * c->x[0].stride,
                            c->y.p + (size_t)n * c->y.stride, (int32_t *)(c->keep.p + (size_t)n * c->keep.stride));
}

KERNEL void max_pool2d_forward(const geometry *g, const call *c)
{
    const int kh = g->window.kh, kw = g->window.kw;
    if (!max_pool2d_is_plain(g)) {
        max_pool2d_forward_any(g, c);
        return;
    }
#if VW == 16
    if (kh == 2 && kw == 2 && g->window.sw == 2 && g->in[0].c <= VW / 2) {
        pool_2x2_packed(g, c);
        return;
    }
#endif
    if (kh == 2 && kw == 2)
        pool_forward(2, 2, g, c);
    else if (kh == 3 && kw == 3)
        pool_forward(3, 3, g, c);
    else
        pool_forward(kh, kw, g, c);
}

/* Where the windows are plain, and lie side by side over the whole image. */
KERNEL void pool_backward_covered(const geometry *g, const call *c)
{
    const int kh = g->window.kh, kw = g->window.kw;
    const size_t C = (size_t)g->in[0].c, row = (size_t)g->in[0].w * C;
    for (int n = 0; n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        const int32_t *won = (const int32_t *)(c->keep.p + (size_t)n * c->keep.stride);
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        for (int i = 0; i < g->out.h; i++)
            for (int a = 0; a < kh; a++) {
                float *to = dx + (size_t)(i * kh + a) * row;
                for (int j = 0; j < g->out.w; j++)
                    for (int b = 0; b < kw; b++, to += C) {
                        const size_t from = ((size_t)i * g->out.w + j) * C;
                        const ivec number = iset(a * kw + b);
                        for (size_t k = 0; k < C; k += VW)
                            vstore(to + k, (vec)((ivec)vload(dy + from + k) & (iload(won + from + k) == number)));
                    }
            }
    }
}

KERNEL void max_pool2d_backward(const geometry *g, const call *c)
{
    const window *o = &g->window;
    if (max_pool2d_is_plain(g) && o->sh == o->kh && o->sw == o->kw && g->out.w * o->kw == g->in[0].w &&
        g->out.h * o->kh == g->in[0].h) {
        pool_backward_covered(g, c);
        return;
    }
    float *scratch = c->scratch;
    pool_side side[2];
    max_pool2d_sides(g, &side[0], &side[1]);
    const pool_axis rows = pool_axis_of(side[0], &scratch), columns = pool_axis_of(side[1], &scratch);
    for (int n = 0; n < c->n; n++)
        pool_winners_backward(0, &rows, &columns, max_pool2d_span(g), (size_t)g->in[0].c, c->dy.p + (size_t)n * c->dy.stride,
                              (const int32_t *)(c->keep.p + (size_t)n * c->keep.stride),
                              c->dx[0].p + (size_t)n * c->dx[0].stride);
}

/* Windows must be plain, not overlap, and be large enough for the winners to be few. */
KERNEL int max_pool2d_gives_winners(const geometry *g)
{
    const window *o = &g->window;
    return max_pool2d_is_plain(g) && o->sh >= o->kh && o->sw >= o->kw && o->kh * o->kw >= 3;
}

static const layer_kind layer_max_pool2d = {.name = "max_pool2d",
                                            .set_up = max_pool2d_set_up,
                                            .forward = max_pool2d_forward,
                                            .backward = max_pool2d_backward,
                                            .forgets = FORGETS_X | FORGETS_Y,
                                            .gives_winners = max_pool2d_gives_winners};
