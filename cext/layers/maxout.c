/* The largest of each group of `pieces` neighbouring channels. With channels innermost groups are neighbours across pixels
 * too, so that a sample is one row of them. Keeps which one won. Body: included by cext/isa/ only. */
#include "layer.h"

enum { MAXOUT_PIECES };

KERNEL const char *maxout_set_up(geometry *g)
{
    const int pieces = g->whole[MAXOUT_PIECES];
    if (pieces < 1 || g->in[0].c % pieces)
        return "the channels must be a multiple of the pieces";
    g->out = (shape){g->in[0].c / pieces, g->in[0].h, g->in[0].w};
    g->keep_size = round_up(shape_size(g->out), LANES) + SLACK;
    return NULL;
}

KERNEL void maxout_forward(const geometry *g, const call *c)
{
    const int pieces = g->whole[MAXOUT_PIECES];
    const size_t size = shape_size(g->out);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        int32_t *won = (int32_t *)(c->keep.p + (size_t)n * c->keep.stride);
        for (size_t q = 0; q < size; q += VW, x += (size_t)VW * (size_t)pieces) {
            const int rows = size - q < VW ? (int)(size - q) : VW;
            vec best = vset(0), m[4];
            ivec which = iset(0);
            for (int p = 0; p < pieces; p += 4) {
                vcolumns(x + p, (size_t)pieces, rows, m);
                for (int i = 0; i < 4 && p + i < pieces; i++) {
                    /* the first of equals; a NaN wins, and no number wins over it */
                    const ivec better = (m[i] > best) | ((m[i] != m[i]) & (best == best)) | iset(p + i ? 0 : -1);
                    best = vselect(better, m[i], best);
                    which = (iset(p + i) & better) | (which & ~better);
                }
            }
            vstore(y + q, best);
            istore(won + q, which);
        }
    }
}

KERNEL void maxout_backward(const geometry *g, const call *c)
{
    const size_t pieces = (size_t)g->whole[MAXOUT_PIECES], size = shape_size(g->out);
    for (int n = 0; c->dx[0].p && n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        const int32_t *won = (const int32_t *)(c->keep.p + (size_t)n * c->keep.stride);
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        memset(dx, 0, shape_size(g->in[0]) * sizeof(float));
        for (size_t q = 0; q < size; q++)
            dx[q * pieces + (size_t)won[q]] = dy[q];
    }
}

static const layer_kind layer_maxout = {.name = "maxout",
                                        .set_up = maxout_set_up,
                                        .forward = maxout_forward,
                                        .backward = maxout_backward,
                                        .forgets = FORGETS_X | FORGETS_Y};
