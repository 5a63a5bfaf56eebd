/* Negated squared distances to a fixed code per class: y_i = -sum_j (x_j - code_ij)^2. The codes are state that nothing is
 * observed of; a row for each class, padded with zeros to whole vectors. Body: included by cext/isa/ only. */
#include "layer.h"

INLINE size_t rbf_row(const geometry *g) { return round_up((size_t)g->in[0].c, LANES); }

KERNEL const char *rbf_set_up(geometry *g)
{
    if (g->in[0].h != 1 || g->in[0].w != 1)
        return "the input must be a vector";
    g->out = (shape){g->out.c, 1, 1};
    g->state_size = (size_t)g->out.c * rbf_row(g);
    g->state_rate = 0;
    return NULL;
}

KERNEL ptrdiff_t rbf_locate(const geometry *g, int k, ptrdiff_t i)
{
    const ptrdiff_t features = g->in[0].c;
    return i < features * g->out.c ? i / features * (ptrdiff_t)rbf_row(g) + i % features : -1;
}

KERNEL void rbf_forward(const geometry *g, const call *c)
{
    const int features = g->in[0].c;
    for (int n = 0; n < c->n; n++)
        for (int i = 0; i < g->out.c; i++) {
            const float *x = c->x[0].p + (size_t)n * c->x[0].stride, *code = c->state + (size_t)i * rbf_row(g);
            vec sum = vset(0);
            int j = 0;
            for (; j + VW <= features; j += VW) {
                const vec d = vload(x + j) - vload(code + j);
                sum += d * d;
            }
            if (j < features) { /* what lies behind the input is anything */
                const vec d = vload_n(x + j, features - j) - vload(code + j);
                sum += d * d;
            }
            float distance = 0;
            for (int lane = 0; lane < VW; lane++)
                distance += sum[lane];
            c->y.p[(size_t)n * c->y.stride + (size_t)i] = -distance;
        }
}

KERNEL void rbf_backward(const geometry *g, const call *c)
{
    for (int n = 0; c->dx[0].p && n < c->n; n++)
        for (int j = 0; j < g->in[0].c; j += VW) {
            const float *dy = c->dy.p + (size_t)n * c->dy.stride;
            const vec x = vload(c->x[0].p + (size_t)n * c->x[0].stride + j);
            vec sum = vset(0);
            for (int i = 0; i < g->out.c; i++)
                sum += dy[i] * (vload(c->state + (size_t)i * rbf_row(g) + j) - x);
            vstore(c->dx[0].p + (size_t)n * c->dx[0].stride + j, 2.f * sum);
        }
    if (c->first)
        memset(c->dstate, 0, g->state_size * sizeof(float));
}

static const part rbf_parts[] = {{"codes", 1}};
static const layer_kind layer_rbf = {.name = "rbf",
                                     .n_parts = 1,
                                     .parts = rbf_parts,
                                     .set_up = rbf_set_up,
                                     .locate = rbf_locate,
                                     .forward = rbf_forward,
                                     .backward = rbf_backward,
                                     .forgets = FORGETS_Y};
