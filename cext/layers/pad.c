/* Borders around an image: a constant, its mirror image, its edge, or its other side. Negative widths, with a constant, cut
 * away. Body: included by cext/isa/ only. */
#include "borders.h"

enum { BORDER_TOP, BORDER_BOTTOM, BORDER_LEFT, BORDER_RIGHT, BORDER_MODE };

KERNEL const char *pad_set_up(geometry *g)
{
    const int *o = g->whole, mode = o[BORDER_MODE];
    const int64_t size[2] = {g->in[0].h, g->in[0].w};
    int64_t out[2];
    for (int a = 0; a < 2; a++) {
        const int before = o[2 * a], behind = o[2 * a + 1];
        const int64_t most = border_most(mode, (int)size[a]);
        if (mode != BORDER_CONSTANT && (before < 0 || behind < 0))
            return "only a constant border can be negative";
        if (before > most || behind > most)
            return "the border is wider than the image";
        out[a] = size[a] + before + behind;
        if (out[a] < 1 || out[a] > INT32_MAX)
            return "the border leaves nothing, or too much";
    }
    if (mode < 0 || mode > BORDER_CIRCULAR)
        return "no such mode";
    g->out = (shape){g->in[0].c, (int)out[0], (int)out[1]};
    return NULL;
}

KERNEL void pad_forward(const geometry *g, const call *c)
{
    const int *o = g->whole, mode = o[BORDER_MODE], H = g->in[0].h, W = g->in[0].w;
    const size_t C = (size_t)g->in[0].c, row = (size_t)W * C, wide = (size_t)g->out.w * C;
    const int cut = o[BORDER_LEFT] < 0 ? -o[BORDER_LEFT] : 0; /* the first column that is seen, and how many are */
    const int seen = W - cut - (o[BORDER_RIGHT] < 0 ? -o[BORDER_RIGHT] : 0);
    const vec value = vset(g->real[0]);
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        for (int i = 0; i < g->out.h; i++) {
            float *y = c->y.p + (size_t)n * c->y.stride + (size_t)i * wide;
            const int from = border_source(mode, H, i - o[BORDER_TOP]);
            if (from < 0) {
                for (size_t k = 0; k < wide; k += VW)
                    vstore(y + k, value);
                continue;
            }
            const float *line = x + (size_t)from * row;
            for (int j = 0; j < g->out.w;) { /* ascending: what spills over is written again, or lies in the slack */
                const int column = j - o[BORDER_LEFT], there = border_source(mode, W, column);
                const int inside = column == cut && seen > 0 ? seen : 1;
                const float *source = line + (size_t)(there < 0 ? 0 : there) * C;
                for (size_t k = 0; k < (size_t)inside * C; k += VW)
                    vstore(y + k, there < 0 ? value : vload(source + k));
                y += (size_t)inside * C, j += inside;
            }
        }
    }
}

KERNEL void pad_backward(const geometry *g, const call *c)
{
    const int *o = g->whole, mode = o[BORDER_MODE], H = g->in[0].h, W = g->in[0].w;
    const size_t C = (size_t)g->in[0].c, row = (size_t)W * C;
    for (int n = 0; n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        memset(dx, 0, shape_size(g->in[0]) * sizeof(float));
        for (int i = 0; i < g->out.h; i++)
            for (int j = 0, to = border_source(mode, H, i - o[BORDER_TOP]); j < g->out.w; j++, dy += C) {
                const int there = border_source(mode, W, j - o[BORDER_LEFT]);
                if (to < 0 || there < 0)
                    continue;
                float *sum = dx + (size_t)to * row + (size_t)there * C;
                size_t k = 0;
                for (; k + VW <= C; k += VW)
                    vstore(sum + k, vload(sum + k) + vload(dy + k));
                for (; k < C; k++)
                    sum[k] += dy[k];
            }
    }
}

static const layer_kind layer_pad = {
    .name = "pad", .set_up = pad_set_up, .forward = pad_forward, .backward = pad_backward, .forgets = FORGETS_X | FORGETS_Y};
