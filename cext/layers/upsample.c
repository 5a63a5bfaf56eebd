/* An image at other sizes: output i of an axis sees the input at i * scale + shift, in single precision as PyTorch computes
 * it: the entry below or above that place, or both, weighted by how near they are. Body: included by cext/isa/ only. */
#include <math.h>

enum { UP_H, UP_W, UP_MODE };
enum { UP_FLOOR, UP_CEIL, UP_LINEAR };
enum { UP_SCALE_H, UP_SHIFT_H, UP_SCALE_W, UP_SHIFT_W };

KERNEL const char *upsample_set_up(geometry *g)
{
    const int *o = g->whole;
    if (o[UP_H] < 1 || o[UP_W] < 1)
        return "the output would be empty";
    if (o[UP_MODE] < UP_FLOOR || o[UP_MODE] > UP_LINEAR)
        return "no such mode";
    g->out = (shape){g->in[0].c, o[UP_H], o[UP_W]};
    return NULL;
}

typedef struct {
    int low, high;
    float part; /* of the entry `high` */
} place;

INLINE place upsample_place(const geometry *g, int axis, int i)
{
    const int last = (axis ? g->in[0].w : g->in[0].h) - 1, mode = g->whole[UP_MODE];
    const float exact = (float)i * g->real[2 * axis] + g->real[2 * axis + 1];
    const float at = fminf(fmaxf(exact, 0), (float)last);
    int low = (int)(mode == UP_CEIL ? ceilf(at) : at);
    low = low > last ? last : low;
    return (place){low, mode == UP_LINEAR && low < last ? low + 1 : low, mode == UP_LINEAR ? at - (float)low : 0};
}

KERNEL void upsample_forward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->in[0].c, row = (size_t)g->in[0].w * C;
    const int mixed = g->whole[UP_MODE] == UP_LINEAR;
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        for (int i = 0; i < g->out.h; i++) {
            const place v = upsample_place(g, 0, i);
            const float *above = x + (size_t)v.low * row, *below = x + (size_t)v.high * row;
            for (int j = 0; j < g->out.w; j++, y += C) {
                const place h = upsample_place(g, 1, j);
                const size_t a = (size_t)h.low * C, b = (size_t)h.high * C;
                for (size_t k = 0; k < C; k += VW) {
                    vec value = vload(above + a + k);
                    if (mixed) {
                        value = (1 - h.part) * value + h.part * vload(above + b + k);
                        const vec under = (1 - h.part) * vload(below + a + k) + h.part * vload(below + b + k);
                        value = (1 - v.part) * value + v.part * under;
                    }
                    vstore(y + k, value);
                }
            }
        }
    }
}

INLINE void upsample_give(size_t C, float part, const float *dy, float *dx)
{
    size_t k = 0;
    for (; k + VW <= C; k += VW)
        vstore(dx + k, vload(dx + k) + part * vload(dy + k));
    for (; k < C; k++)
        dx[k] += part * dy[k];
}

KERNEL void upsample_backward(const geometry *g, const call *c)
{
    const size_t C = (size_t)g->in[0].c, row = (size_t)g->in[0].w * C;
    const int mixed = g->whole[UP_MODE] == UP_LINEAR;
    for (int n = 0; n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        memset(dx, 0, shape_size(g->in[0]) * sizeof(float));
        for (int i = 0; i < g->out.h; i++) {
            const place v = upsample_place(g, 0, i);
            float *above = dx + (size_t)v.low * row, *below = dx + (size_t)v.high * row;
            for (int j = 0; j < g->out.w; j++, dy += C) {
                const place h = upsample_place(g, 1, j);
                upsample_give(C, (1 - v.part) * (1 - h.part), dy, above + (size_t)h.low * C);
                if (!mixed)
                    continue;
                upsample_give(C, (1 - v.part) * h.part, dy, above + (size_t)h.high * C);
                upsample_give(C, v.part * (1 - h.part), dy, below + (size_t)h.low * C);
                upsample_give(C, v.part * h.part, dy, below + (size_t)h.high * C);
            }
        }
    }
}

static const layer_kind layer_upsample = {
    .name = "upsample", .set_up = upsample_set_up, .forward = upsample_forward, .backward = upsample_backward};
