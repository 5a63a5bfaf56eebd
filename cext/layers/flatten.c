/* (c, h, w) to a vector in PyTorch's order, channel by channel. Body: included by cext/isa/ only. */

KERNEL const char *flatten_set_up(geometry *g)
{
    if (shape_size(g->in[0]) > INT32_MAX)
        return "the input is too large: more than 2^31 - 1 numbers";
    g->out = (shape){(int)shape_size(g->in[0]), 1, 1};
    return NULL;
}

KERNEL void flatten_forward(const geometry *g, const call *c)
{
    const int C = g->in[0].c, P = g->in[0].h * g->in[0].w;
    for (int n = 0; n < c->n; n++) {
        const float *x = c->x[0].p + (size_t)n * c->x[0].stride;
        float *y = c->y.p + (size_t)n * c->y.stride;
        for (int k = 0; k < C; k++)
            for (int p = 0; p < P; p++)
                y[(size_t)k * P + p] = x[(size_t)p * C + k];
    }
}

KERNEL void flatten_backward(const geometry *g, const call *c)
{
    const int C = g->in[0].c, P = g->in[0].h * g->in[0].w;
    for (int n = 0; n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        float *dx = c->dx[0].p + (size_t)n * c->dx[0].stride;
        for (int p = 0; p < P; p++)
            for (int k = 0; k < C; k++)
                dx[(size_t)p * C + k] = dy[(size_t)k * P + p];
    }
}

static const layer_kind layer_flatten = {.name = "flatten",
                                         .set_up = flatten_set_up,
                                         .forward = flatten_forward,
                                         .backward = flatten_backward,
                                         .forgets = FORGETS_X | FORGETS_Y};
