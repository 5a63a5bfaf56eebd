/* While it trains, one entry of each window, drawn with probabilities in proportion to what is above 0, by the number of the output
 * as it lies in memory; the mean of the window with these probabilities otherwise. Keeps the number of the entry, as pool_windows.h does; -1, and 0, where none is above 0.
 * Body: included by cext/isa/ only. */
#include "pool_windows.h"
#include "uniform.h"

enum { DRAW_KH, DRAW_KW, DRAW_SH, DRAW_SW };

INLINE pool_side stochastic_side(const geometry *g, int side)
{
    const int *o = g->whole;
    return (pool_side){side ? g->in[0].w : g->in[0].h, o[DRAW_KH + side], o[DRAW_SH + side], 0, 1, 0, 0};
}

KERNEL const char *stochastic_pool2d_set_up(geometry *g)
{
    const int *o = g->whole;
    const pool_side rows = stochastic_side(g, 0), columns = stochastic_side(g, 1);
    if (o[DRAW_KH] < 1 || o[DRAW_KW] < 1 || o[DRAW_SH] < 1 || o[DRAW_SW] < 1)
        return "kernel and stride must be positive";
    g->out = (shape){g->in[0].c, pool_count(rows), pool_count(columns)};
    if (!g->out.h || !g->out.w)
        return "the window is larger than the input";
    g->properties = RANDOM;
    g->keep_size = round_up(shape_size(g->out), LANES) + SLACK;
    g->scratch_size = pool_axis_room(rows.size, g->out.h) + pool_axis_room(columns.size, g->out.w);
    return NULL;
}

/* The mean of VW channels of a window: sum of x^2 / sum of x, of what is above 0. */
INLINE vec stochastic_mean(const geometry *g, const float *x, size_t row)
{
    const int kh = g->whole[DRAW_KH], kw = g->whole[DRAW_KW];
    vec sum = vset(0), squares = vset(0);
    for (int a = 0; a < kh; a++)
        for (int b = 0; b < kw; b++) {
            const vec v = vmax(vset(0), vload(x + (size_t)a * row + (size_t)b * (size_t)g->in[0].c)); /* NaN stays NaN */
            sum += v;
            squares += v * v;
        }
    return vselect(sum == 0.f, vset(0), squares / sum);
}

/* The entry that the random numbers u choose: the first up to which more than u of the sum has come. */
INLINE vec stochastic_draw(const geometry *g, const float *x, size_t row, vec u, ivec *which)
{
    const int kh = g->whole[DRAW_KH], kw = g->whole[DRAW_KW];
    const size_t C = (size_t)g->in[0].c;
    vec sum = vset(0), up_to = vset(0);
    for (int a = 0; a < kh; a++)
        for (int b = 0; b < kw; b++)
            sum += vmax(vset(0), vload(x + (size_t)a * row + (size_t)b * C));
    const vec wanted = u * sum;
    vec found = sum * 0.f; /* NaN where it is infinite or NaN */
    *which = iset(-1);
    for (int a = 0; a < kh; a++)
        for (int b = 0; b < kw; b++) {
            const vec v = vload(x + (size_t)a * row + (size_t)b * C);
            up_to += vmax(vset(0), v);
            const ivec here = (up_to > wanted) & (*which < 0);
            found = vselect(here, v, found);
            *which = (iset(a * kw + b) & here) | (*which & ~here);
        }
    return found;
}

KERNEL void stochastic_pool2d_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->in[0].c, row = (size_t)g->in[0].w * C, P = (size_t)g->out.h * (size_t)g->out.w;
    const size_t down = (size_t)g->whole[DRAW_SH] * row, right = (size_t)g->whole[DRAW_SW] * C;
    for (int n = 0; n < c->n; n++) {
        float *y = c->y.p + (size_t)n * c->y.stride;
        int32_t *won = (int32_t *)(c->keep.p + (size_t)n * c->keep.stride);
        for (size_t i = 0; i < P; i++, y += C, won += C) {
            const size_t at = i / (size_t)g->out.w * down + i % (size_t)g->out.w * right;
            const float *x = c->x[0].p + (size_t)n * c->x[0].stride + at;
            for (size_t k = 0; k < C; k += VW) {
                if (!c->training) {
                    vstore(y + k, stochastic_mean(g, x + k, row));
                    continue;
                }
                ivec which;
                const vec u = uniform_vector(c->key[n], uniform_numbers((uint32_t)(i * C + k)));
                vstore(y + k, stochastic_draw(g, x + k, row, u, &which));
                istore(won + k, which);
            }
        }
    }
}

KERNEL void stochastic_pool2d_backward(const geometry *g, const call *c)
{
    float *scratch = c->scratch;
    const pool_axis rows = pool_axis_of(stochastic_side(g, 0), &scratch);
    const pool_axis columns = pool_axis_of(stochastic_side(g, 1), &scratch);
    for (int n = 0; c->dx[0].p && n < c->n; n++)
        pool_winners_backward(0, &rows, &columns, g->whole[DRAW_KW], (size_t)g->in[0].c, c->dy.p + (size_t)n * c->dy.stride,
                              (const int32_t *)(c->keep.p + (size_t)n * c->keep.stride),
                              c->dx[0].p + (size_t)n * c->dx[0].stride);
}

static const layer_kind layer_stochastic_pool2d = {.name = "stochastic_pool2d",
                                                   .set_up = stochastic_pool2d_set_up,
                                                   .forward = stochastic_pool2d_forward,
                                                   .backward = stochastic_pool2d_backward,
                                                   .forgets = FORGETS_X | FORGETS_Y};
