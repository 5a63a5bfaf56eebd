/* Inputs one behind the other along an axis. Body: included by cext/isa/ only. */

enum { CONCAT_AXIS }; /* 0: channels, 1: rows, 2: columns */

KERNEL const char *concat_set_up(geometry *g)
{
    const int axis = g->whole[CONCAT_AXIS];
    if (axis < 0 || axis > 2)
        return "the axis must be 0, 1 or 2";
    int64_t sum = 0;
    for (int k = 0; k < g->n_inputs; k++) {
        const shape a = g->in[k], b = g->in[0];
        if ((axis != 0 && a.c != b.c) || (axis != 1 && a.h != b.h) || (axis != 2 && a.w != b.w))
            return "the inputs must have equal shapes but for the axis";
        sum += axis == 0 ? a.c : axis == 1 ? a.h : a.w;
    }
    if (sum > INT32_MAX)
        return "the output is too large: more than 2^31 - 1 numbers";
    g->out = g->in[0];
    *(axis == 0 ? &g->out.c : axis == 1 ? &g->out.h : &g->out.w) = (int)sum;
    return NULL;
}

/* How many pieces of input k there are, and how long each is: contiguous there and in the output. */
INLINE size_t concat_pieces(const geometry *g)
{
    const int axis = g->whole[CONCAT_AXIS];
    return axis == 0 ? (size_t)g->out.h * (size_t)g->out.w : axis == 1 ? 1 : (size_t)g->out.h;
}

KERNEL void concat_forward(const geometry *g, const call *c)
{
    const size_t pieces = concat_pieces(g), whole = shape_size(g->out) / pieces;
    for (int n = 0; n < c->n; n++)
        for (size_t i = 0; i < pieces; i++) {
            float *y = c->y.p + (size_t)n * c->y.stride + i * whole;
            for (int k = 0; k < g->n_inputs; k++) {
                const size_t length = shape_size(g->in[k]) / pieces;
                const float *x = c->x[k].p + (size_t)n * c->x[k].stride + i * length;
                for (size_t j = 0; j < length; j += VW) /* what spills over is written again, or lies in the slack */
                    vstore(y + j, vload(x + j));
                y += length;
            }
        }
}

KERNEL void concat_backward(const geometry *g, const call *c)
{
    const size_t pieces = concat_pieces(g), whole = shape_size(g->out) / pieces;
    size_t at = 0;
    for (int k = 0; k < g->n_inputs; k++) {
        const size_t length = shape_size(g->in[k]) / pieces;
        for (int n = 0; c->dx[k].p && n < c->n; n++)
            for (size_t i = 0; i < pieces; i++) {
                const float *dy = c->dy.p + (size_t)n * c->dy.stride + i * whole + at;
                float *dx = c->dx[k].p + (size_t)n * c->dx[k].stride + i * length;
                for (size_t j = 0; j < length; j += VW)
                    vstore(dx + j, vload(dy + j));
            }
        at += length;
    }
}

static const layer_kind layer_concat = {.name = "concat",
                                        .set_up = concat_set_up,
                                        .forward = concat_forward,
                                        .backward = concat_backward,
                                        .forgets = FORGETS_X | FORGETS_Y};
